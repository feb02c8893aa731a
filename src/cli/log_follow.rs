use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

use super::{
    Context, args::SubtaskId, client::unreadable, error::CliError, event_stream::EventStream, follow::PATIENCE,
    output::Format, sse::Event,
};
use crate::graph::SubtaskStatus;

const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Prints the log of a subtask as it is written, until the subtask is at rest. Ctrl-C ends the reading, never the work.
pub(crate) async fn follow(context: &Context<'_>, of: SubtaskId) -> Result<(), CliError> {
    let mut reader = Reader {
        context,
        of,
        doing: format!("follow the log of {of}"),
        path: format!("{}/log/events", of.path()),
        seen: None,
        in_line: false,
    };
    tokio::select! {
        biased;
        result = reader.read() => result,
        Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted { next: way_back(of) }),
    }
}

fn way_back(of: SubtaskId) -> String {
    format!("the work goes on; come back with: oblet subtask log {} {} --follow", of.task, of.subtask)
}

struct Reader<'a> {
    context: &'a Context<'a>,
    of: SubtaskId,
    doing: String,
    path: String,
    /// The id of the last event that was printed: where to go on.
    seen: Option<String>,
    /// What was printed last did not end its line.
    in_line: bool,
}

/// How a connection ended. `moved`: something was read over it.
enum Ended {
    AtRest,
    Lost { moved: bool },
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct End {
    status: SubtaskStatus,
}

impl Reader<'_> {
    async fn read(&mut self) -> Result<(), CliError> {
        let mut pause = SHORTEST_PAUSE;
        // A coordinator that has never answered is more likely misnamed than away.
        let mut last_answer: Option<Instant> = None;
        let mut away = false;
        loop {
            match self.context.client.events(&self.doing, &self.path, self.seen.as_deref()).await {
                Ok(None) => return self.end(None),
                Ok(Some(mut events)) => {
                    if away {
                        self.context.output.remark("The coordinator answers again; the log goes on.");
                        away = false;
                    }
                    match self.tell_all(&mut events).await? {
                        Ended::AtRest => return Ok(()),
                        Ended::Lost { moved: true } => pause = SHORTEST_PAUSE,
                        Ended::Lost { moved: false } => {}
                    }
                    last_answer = Some(Instant::now());
                }
                Err(error) if error.is_temporary() && last_answer.is_some_and(|at| at.elapsed() < PATIENCE) => {}
                Err(error) => {
                    if last_answer.is_some() {
                        self.context.output.note(&format!("As far as known, {}", way_back(self.of)));
                    }
                    return Err(error);
                }
            }
            if !away {
                self.context.output.remark("The connection was lost; trying to go on where it was.");
                away = true;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    async fn tell_all(&mut self, events: &mut EventStream) -> Result<Ended, CliError> {
        let mut moved = false;
        loop {
            match events.next(&self.doing).await {
                Ok(Some(event)) => {
                    moved = true;
                    if self.tell(event)? {
                        return Ok(Ended::AtRest);
                    }
                }
                Ok(None) => return Ok(Ended::Lost { moved }),
                Err(error) if error.is_temporary() => return Ok(Ended::Lost { moved }),
                Err(error) => return Err(error),
            }
        }
    }

    /// Prints an event; true if it is the last.
    fn tell(&mut self, event: Event) -> Result<bool, CliError> {
        let json = self.context.output.format == Format::Json;
        let wrong = |error: serde_json::Error| unreadable(&self.doing, &error.to_string());
        match event.name.as_str() {
            "log" => {
                let Text { text } = serde_json::from_str(&event.data).map_err(wrong)?;
                if json {
                    self.json(&event.data)?;
                } else {
                    self.context.output.log(&text)?;
                    self.in_line = !text.is_empty() && !text.ends_with('\n');
                }
                self.seen = Some(event.id).filter(|id| !id.is_empty()).or(self.seen.take());
                Ok(false)
            }
            "end" => {
                let End { status } = serde_json::from_str(&event.data).map_err(wrong)?;
                if json {
                    self.json(&event.data)?;
                }
                self.end(Some(status))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Each event is a line of its own, so that a script can read them one by one.
    fn json(&self, data: &str) -> Result<(), CliError> {
        let value: Value = serde_json::from_str(data).map_err(|error| unreadable(&self.doing, &error.to_string()))?;
        self.context.output.text(&format!("{value}\n"))
    }

    fn end(&self, status: Option<SubtaskStatus>) -> Result<(), CliError> {
        if self.in_line {
            self.context.output.text("\n")?;
        }
        match status {
            Some(status) => self.context.output.remark(&format!("The subtask is {status}.")),
            None => self.context.output.remark("The subtask is at rest; there is nothing more to read."),
        }
        Ok(())
    }
}
