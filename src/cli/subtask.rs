use serde_json::{Value, json};
use std::fmt;

use super::{
    Context,
    args::{Subtask as Command, SubtaskChange, SubtaskId},
    error::CliError,
    log_follow,
    output::{Column, Format},
    task::{DRY_RUN_NOTE, TASKS, dry_run_query},
};

const FIELDS: &[Column] = &[
    ("Subtask", "/id"),
    ("Step", "/name"),
    ("Status", "/status"),
    ("Operation", "/operation"),
    ("Attempt", "/runTime"),
];

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

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Retry(decision) => change(context, decision, "retry").await,
        Command::Cancel(decision) => change(context, decision, "cancel").await,
        Command::Skip { change: decision, yes } => {
            // Nothing has to be confirmed where nothing is changed.
            let doing = format!("take {} for done without running it", decision.of);
            context.confirm(*yes || decision.dry_run, decision.of.subtask, &doing)?;
            change(context, decision, "skip").await
        }
        Command::Log { of, follow: true } => log_follow::follow(context, *of).await,
        Command::Log { of, follow: false } => print_log(context, *of).await,
    }
}

/// The rest of the task goes on by itself.
async fn change(
    context: &Context<'_>,
    SubtaskChange { of, dry_run }: &SubtaskChange,
    verb: &str,
) -> Result<(), CliError> {
    let doing = format!("{verb} {of}");
    let path = format!("{}/{verb}", of.path());
    let data = context.client.post(&doing, &path, dry_run_query(*dry_run), None).await?;
    if *dry_run {
        context.output.entry(&data, FIELDS, "/id")?;
        context.output.remark(DRY_RUN_NOTE);
        return Ok(());
    }
    context.output.note(&format!("Done: {doing}. Follow with: oblet task watch {}", of.task));
    match context.output.format {
        Format::Table => Ok(()),
        // OCP answers no data to most of these.
        Format::Json if data.is_null() => context.output.json(&json!({"id": of.subtask})),
        Format::Json => context.output.json(&data),
        Format::Name => context.output.names([of.subtask.to_string()]),
    }
}

pub(crate) async fn print_log(context: &Context<'_>, of: SubtaskId) -> Result<(), CliError> {
    let data = log(context, of).await?;
    match context.output.format {
        Format::Json => context.output.json(&data),
        Format::Table | Format::Name => context.output.log(&log_text(&data)),
    }
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
