//! What is asked of the coordinator about tasks and subtasks.

use serde_json::Value;
use std::fmt;

use super::{args::SubtaskId, model::Task};
use crate::cli::{console::error::CliError, frame::context::Context};

pub(crate) const TASKS: &str = "api/v2/tasks/instances";

impl SubtaskId {
    pub(crate) fn path(self) -> String {
        format!("{TASKS}/{}/subtasks/{}", self.task, self.subtask)
    }
}

impl fmt::Display for SubtaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subtask {} of task {}", self.subtask, self.task)
    }
}

pub(crate) async fn get(context: &Context<'_>, id: u64) -> Result<(Value, Task), CliError> {
    let doing = format!("show task {id}");
    let data = context.client.get(&doing, &format!("{TASKS}/{id}")).await?;
    let task = Task::read(&doing, &data)?;
    Ok((data, task))
}

pub(crate) async fn log(context: &Context<'_>, of: SubtaskId) -> Result<Value, CliError> {
    context.client.get(&format!("read the log of {of}"), &format!("{}/log", of.path())).await
}

pub(crate) fn log_text(data: &Value) -> String {
    match data.get("log").and_then(Value::as_str) {
        Some(log) if log.is_empty() || log.ends_with('\n') => log.to_owned(),
        Some(log) => format!("{log}\n"),
        None => String::new(),
    }
}
