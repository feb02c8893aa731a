use serde_json::{Value, json};

use super::{
    args::{Subtask as Command, SubtaskId},
    log_follow, requests,
    tables::{DRY_RUN_NOTE, print_subtask, print_subtasks},
};
use crate::cli::{
    console::{
        error::CliError,
        output::{Shape, entries},
        table::{Column, column},
    },
    frame::{
        args::{Consent, Trial, dry_run_query},
        context::Context,
    },
};

const FIELDS: &[Column] = &[
    column("Subtask", "/id"),
    column("Step", "/name"),
    column("Status", "/status"),
    column("Operation", "/operation"),
    column("Attempt", "/runTime"),
];

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::List { task } => {
            let (data, task) = requests::get(context, *task).await?;
            print_subtasks(context, &json!({"contents": subtasks(&data)}), &task)
        }
        Command::Show { of } => show(context, *of).await,
        Command::Retry { of, trial } => change(context, *of, *trial, "retry").await,
        Command::Skip(decision) => {
            confirm(context, decision.of, decision.consent, decision.trial, "skip")?;
            change(context, decision.of, decision.trial, "skip").await
        }
        Command::Cancel(decision) => {
            confirm(context, decision.of, decision.consent, decision.trial, "cancel")?;
            change(context, decision.of, decision.trial, "cancel").await
        }
        Command::Log { of, follow: true } => log_follow::follow(context, *of).await,
        Command::Log { of, follow: false } => print_log(context, *of).await,
    }
}

fn confirm(context: &Context<'_>, of: SubtaskId, consent: Consent, trial: Trial, verb: &str) -> Result<(), CliError> {
    context.confirm(consent, trial, of.subtask, &format!("{verb} {of}"))
}

/// The API tells subtasks with their task only.
async fn show(context: &Context<'_>, of: SubtaskId) -> Result<(), CliError> {
    let (data, task) = requests::get(context, of.task).await?;
    let subtask = task.subtasks().iter().find(|subtask| subtask.id == of.subtask);
    let entry = subtasks(&data).iter().find(|entry| entry.get("id").and_then(Value::as_u64) == Some(of.subtask));
    match (subtask, entry) {
        (Some(subtask), Some(entry)) => print_subtask(context, entry, of.task, subtask),
        _ => Err(CliError::NotFound {
            doing: format!("show {of}"),
            cause: format!("task {} has no subtask {}", of.task, of.subtask),
            next: format!("see its subtasks with: oblet subtask list {}", of.task),
        }),
    }
}

/// The subtasks of a task, in either shape of OCP.
fn subtasks(task: &Value) -> &[Value] {
    let list = |name: &str| task.get(name).map(entries).filter(|list| !list.is_empty());
    list("subtasks").or_else(|| list("tasks")).unwrap_or_default()
}

/// The rest of the task goes on without further commands.
async fn change(context: &Context<'_>, of: SubtaskId, trial: Trial, verb: &str) -> Result<(), CliError> {
    let doing = format!("{verb} {of}");
    let path = format!("{}/{verb}", of.path());
    let data = context.client.post(&doing, &path, dry_run_query(trial.dry_run), None).await?;
    if trial.dry_run {
        context.output.entry(&data, FIELDS, "/id")?;
        context.output.remark(DRY_RUN_NOTE);
        return Ok(());
    }
    context.output.note(&format!("Done: {doing}. Follow with: oblet task watch {}", of.task));
    // OCP answers no data to most of these.
    let data = if data.is_null() { json!({"id": of.subtask}) } else { data };
    context.output.changed(&data, of.subtask)
}

pub(crate) async fn print_log(context: &Context<'_>, of: SubtaskId) -> Result<(), CliError> {
    let data = requests::log(context, of).await?;
    match context.output.shape() {
        Shape::Data => context.output.data(&data),
        Shape::Table | Shape::Name => context.output.log(&requests::log_text(&data)),
    }
}
