use reqwest::Response;
use std::{collections::VecDeque, time::Duration};

use super::sse::{Event, Parser};
use crate::cli::console::error::CliError;

/// A coordinator sends something each 15 s. After three times as long nobody is at the other end.
const LONGEST_SILENCE: Duration = Duration::from_secs(45);

/// The events of an answer.
pub(crate) struct EventStream {
    response: Response,
    url: String,
    parser: Parser,
    ready: VecDeque<Event>,
}

impl EventStream {
    pub(crate) fn new(response: Response, url: String) -> Self {
        Self { response, url, parser: Parser::default(), ready: VecDeque::new() }
    }

    /// The next event; None once the other end has closed the stream.
    pub(crate) async fn next(&mut self, doing: &str) -> Result<Option<Event>, CliError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = match tokio::time::timeout(LONGEST_SILENCE, self.response.chunk()).await {
                Err(_elapsed) => {
                    return Err(CliError::TimedOut { doing: doing.into(), seconds: LONGEST_SILENCE.as_secs() });
                }
                Ok(chunk) => chunk.map_err(|source| CliError::Unreachable {
                    doing: doing.into(),
                    url: self.url.clone(),
                    source: source.without_url(),
                })?,
            };
            let Some(bytes) = chunk else { return Ok(None) };
            self.ready
                .extend(self.parser.feed(&bytes).map_err(|error| CliError::unreadable(doing, &error.to_string()))?);
        }
    }
}
