use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::HashMap, pin::pin, time::Duration};
use tokio::time::Instant;

use super::{
    args::SubtaskId,
    follow::PATIENCE,
    model::{Subtask, Task},
    requests,
};
use crate::{
    cli::{
        console::{error::CliError, output::Shape},
        frame::context::Context,
        rest::{event_stream::EventStream, sse::Event},
    },
    graph::SubtaskStatus,
};

const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often is asked whether a subtask is undone.
const UNDONE_PAUSE: Duration = Duration::from_secs(1);

/// Prints the log of a subtask as it is written, until the subtask is at rest. Ctrl-C ends the reading, never the work.
pub(crate) async fn follow(context: &Context<'_>, of: SubtaskId) -> Result<(), CliError> {
    let way_back = format!("oblet subtask log {} {} --follow", of.task, of.subtask);
    let mut reader = Reader::new(context, of, way_back.clone(), None, None);
    interruptible(reader.read(), &way_back).await
}

/// Prints the logs of a task's subtasks, one after the other, until the task is at rest.
pub(crate) async fn follow_task(context: &Context<'_>, id: u64) -> Result<(), CliError> {
    let way_back = format!("oblet task log {id} --follow");
    interruptible(read_task(context, id, &way_back), &way_back).await
}

async fn interruptible(work: impl Future<Output = Result<(), CliError>>, way_back: &str) -> Result<(), CliError> {
    tokio::select! {
        biased;
        result = work => result,
        Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted { next: goes_on(way_back) }),
    }
}

fn goes_on(way_back: &str) -> String {
    format!("the task goes on; follow the log again with: {way_back}")
}

/// What was read of a subtask: its run and operation, and the last event.
type Read = ((Option<u32>, Option<String>), Option<String>);

async fn read_task(context: &Context<'_>, id: u64, way_back: &str) -> Result<(), CliError> {
    let mut read: HashMap<u64, Read> = HashMap::new();
    let mut pause = SHORTEST_PAUSE;
    let mut last_answer = None;
    loop {
        let task = ask(context, id, &mut last_answer).await?;
        let run = |subtask: &Subtask| (subtask.run_time, subtask.operation.clone());
        let is_new = |subtask: &&Subtask| {
            let has_begun = if task.is_running() { !is_waiting(subtask) } else { subtask.has_started() };
            has_begun && read.get(&subtask.id).is_none_or(|(before, _)| *before != run(subtask))
        };
        let Some(subtask) = task.subtasks().iter().find(is_new) else {
            if !task.is_running() {
                context.output.remark(&format!("The task is {}.", task.state()));
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            continue;
        };
        pause = SHORTEST_PAUSE;
        let of = SubtaskId { task: id, subtask: subtask.id };
        let seen = read.get(&subtask.id).and_then(|(_, seen)| seen.clone());
        let mut reader = Reader::new(context, of, way_back.to_owned(), Some(subtask.log_heading()), seen);
        if task.operation.as_deref() == Some("ROLLBACK") && task.is_running() {
            read_undone(&mut reader).await?;
        } else {
            reader.read().await?;
        }
        read.insert(subtask.id, (run(subtask), reader.seen));
    }
}

/// A coordinator that has answered before may be away for a moment.
async fn ask(context: &Context<'_>, id: u64, last_answer: &mut Option<Instant>) -> Result<Task, CliError> {
    loop {
        match requests::get(context, id).await {
            Err(error) if error.is_temporary() && last_answer.is_some_and(|at| at.elapsed() < PATIENCE) => {
                tokio::time::sleep(UNDONE_PAUSE).await;
            }
            answer => {
                *last_answer = Some(Instant::now());
                return answer.map(|(_, task)| task);
            }
        }
    }
}

/// To the coordinator an undone subtask waits for its turn again, so its log only ends with the task.
async fn read_undone(reader: &mut Reader<'_>) -> Result<(), CliError> {
    let (context, of) = (reader.context, reader.of);
    {
        let mut reading = pin!(reader.read());
        tokio::select! {
            result = &mut reading => return result,
            result = undone(context, of) => result?,
        }
        // What it wrote last is on its way.
        if let Ok(result) = tokio::time::timeout(UNDONE_PAUSE, reading).await {
            return result;
        }
    }
    reader.end_line()
}

async fn undone(context: &Context<'_>, of: SubtaskId) -> Result<(), CliError> {
    let mut last_answer = Some(Instant::now());
    loop {
        let task = ask(context, of.task, &mut last_answer).await?;
        let is_undone =
            |task: &Task| task.subtasks().iter().any(|subtask| subtask.id == of.subtask && is_waiting(subtask));
        if is_undone(&task) || !task.is_running() {
            return Ok(());
        }
        tokio::time::sleep(UNDONE_PAUSE).await;
    }
}

fn is_waiting(subtask: &Subtask) -> bool {
    matches!(subtask.status, SubtaskStatus::Pending | SubtaskStatus::Ready)
}

struct Reader<'a> {
    context: &'a Context<'a>,
    of: SubtaskId,
    doing: String,
    path: String,
    way_back: String,
    /// Printed above the first text, where the logs of several subtasks follow each other.
    heading: Option<String>,
    one_of_several: bool,
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

impl<'a> Reader<'a> {
    fn new(
        context: &'a Context<'a>,
        of: SubtaskId,
        way_back: String,
        heading: Option<String>,
        seen: Option<String>,
    ) -> Self {
        Self {
            context,
            of,
            doing: format!("follow the log of {of}"),
            path: format!("{}/log/events", of.path()),
            way_back,
            one_of_several: heading.is_some(),
            heading,
            seen,
            in_line: false,
        }
    }

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
                        self.context.output.remark("Connected again; the log continues.");
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
                        self.context.output.note(&format!(
                            "The task may still be running. Follow the log again with: {}",
                            self.way_back
                        ));
                    }
                    return Err(error);
                }
            }
            if !away {
                self.context.output.remark("The connection was lost; reconnecting.");
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
        let is_data = self.context.output.shape() == Shape::Data;
        let wrong = |error: serde_json::Error| CliError::unreadable(&self.doing, &error.to_string());
        match event.name.as_str() {
            "log" => {
                let Text { text } = serde_json::from_str(&event.data).map_err(wrong)?;
                if is_data {
                    self.piece(&event.data)?;
                } else {
                    let heading = self.heading.take().unwrap_or_default();
                    self.context.output.log(&format!("{heading}{text}"))?;
                    self.in_line = !text.is_empty() && !text.ends_with('\n');
                }
                self.seen = Some(event.id).filter(|id| !id.is_empty()).or(self.seen.take());
                Ok(false)
            }
            "end" => {
                let End { status } = serde_json::from_str(&event.data).map_err(wrong)?;
                if is_data {
                    self.piece(&event.data)?;
                }
                self.end(Some(status))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Each event is printed for itself, so that a script can read them one by one.
    fn piece(&self, data: &str) -> Result<(), CliError> {
        let mut value: Value =
            serde_json::from_str(data).map_err(|error| CliError::unreadable(&self.doing, &error.to_string()))?;
        if let (true, Some(members)) = (self.one_of_several, value.as_object_mut()) {
            members.insert("subtaskId".into(), json!(self.of.subtask));
        }
        self.context.output.piece(&value)
    }

    fn end_line(&self) -> Result<(), CliError> {
        if self.in_line { self.context.output.text("\n") } else { Ok(()) }
    }

    fn end(&self, status: Option<SubtaskStatus>) -> Result<(), CliError> {
        self.end_line()?;
        match status {
            _ if self.one_of_several => {}
            Some(status) => self.context.output.remark(&format!("The subtask is {status}.")),
            None => self.context.output.remark("The subtask has finished; its log is complete."),
        }
        Ok(())
    }
}
