use serde_json::Value;
use std::time::Duration;

use super::context::Context;
use crate::cli::console::error::CliError;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// With the pauses between them, as long as a coordinator needs to start again: about 6 s.
const TRIES: u32 = 6;

/// Sends a request that makes tasks, and sends it again if the connection breaks before an answer comes: the key lets the
/// coordinator carry it out once. Without a key of the operator's it gets one of its own.
pub(crate) async fn post(
    context: &Context<'_>,
    doing: &str,
    path: &str,
    body: &Value,
    key: Option<&str>,
) -> Result<Value, CliError> {
    let key = key.map_or_else(|| uuid::Uuid::now_v7().to_string(), ToOwned::to_owned);
    let mut pause = FIRST_PAUSE;
    let mut tries = 1;
    loop {
        let error = match context.client.post_once(doing, path, body, &key).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // What was never reached is more likely misnamed than away.
        let reached = tries > 1 || !error.is_refused_connection();
        if !reached || !error.is_unreachable() || tries == TRIES {
            return Err(match reached && error.is_temporary() {
                true => CliError::Unanswered { key, error: Box::new(error) },
                false => error,
            });
        }
        context
            .output
            .remark("The connection broke before an answer came; sending the request again with the same key.");
        tokio::time::sleep(pause).await;
        pause *= 2;
        tries += 1;
    }
}
