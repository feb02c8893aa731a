//! Tasks and their subtasks: what shows, follows and decides on them.

pub(super) mod args;
pub(super) mod follow;
pub(super) mod log_follow;
pub(super) mod model;
pub(super) mod progress;
pub(super) mod requests;
pub(super) mod subtask;
pub(super) mod tables;

use serde_json::{Value, json};

use super::{
    console::{
        error::CliError,
        output::{Shape, entries},
        table::{Column, column},
    },
    frame::{
        args::{Consent, Run, Trial, dry_run_query},
        context::Context,
    },
};
use args::{SubtaskId, Task as Command};
use model::Task;
use requests::{TASKS, get};
use tables::{DRY_RUN_NOTE, print_task, print_task_state, print_tasks};

const OBJECTS: &[Column] = &[column("OBJECT", "/object")];

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::List { status, limit } => list(context, status, *limit).await,
        Command::Show { id } => show(context, *id).await,
        Command::Watch { ids } => follow::watch(context, ids, ids.len() == 1).await,
        Command::Log { id, subtask: Some(subtask), follow } => {
            let of = SubtaskId { task: *id, subtask: *subtask };
            if *follow { log_follow::follow(context, of).await } else { subtask::print_log(context, of).await }
        }
        Command::Log { id, subtask: None, follow: true } => log_follow::follow_task(context, *id).await,
        Command::Log { id, subtask: None, follow: false } => logs(context, *id).await,
        Command::Retry { id, run } => change(context, *id, run, "retry", "retry").await,
        Command::Rollback(decision) => {
            confirm(context, decision.id, decision.consent, &decision.run, "roll back")?;
            change(context, decision.id, &decision.run, "rollback", "roll back").await
        }
        Command::Cancel(decision) => {
            confirm(context, decision.id, decision.consent, &decision.run, "cancel")?;
            cancel(context, decision.id, &decision.run).await
        }
        Command::Unlock { id, consent, trial } => unlock(context, *id, *consent, *trial).await,
    }
}

fn confirm(context: &Context<'_>, id: u64, consent: Consent, run: &Run, verb: &str) -> Result<(), CliError> {
    context.confirm(consent, Trial { dry_run: run.dry_run }, id, &format!("{verb} task {id}"))
}

/// `call` is the API's name for what an operator calls `verb`.
async fn change(context: &Context<'_>, id: u64, run: &Run, call: &str, verb: &str) -> Result<(), CliError> {
    let doing = format!("{verb} task {id}");
    let Some(answer) = decide(context, id, run, &doing, call).await? else { return Ok(()) };
    follow::follow_answer(context, run.detach, &doing, &answer).await
}

/// Sends a decision; a dry run is told at once and leaves nothing to follow.
async fn decide(context: &Context<'_>, id: u64, run: &Run, doing: &str, call: &str) -> Result<Option<Value>, CliError> {
    let answer = context.client.post(doing, &format!("{TASKS}/{id}/{call}"), dry_run_query(run.dry_run), None).await?;
    if !run.dry_run {
        return Ok(Some(answer));
    }
    print_task_state(context, &answer, &Task::read(doing, &answer)?)?;
    context.output.remark(DRY_RUN_NOTE);
    Ok(None)
}

/// A canceled task ends as FAILED, which is what was asked for.
async fn cancel(context: &Context<'_>, id: u64, run: &Run) -> Result<(), CliError> {
    let doing = format!("cancel task {id}");
    let Some(answer) = decide(context, id, run, &doing, "cancel").await? else { return Ok(()) };
    if run.detach {
        return follow::print_ids(context, &answer, &[id]);
    }
    let ends = follow::rest(context, &[id], true).await?;
    if ends.iter().any(|task| task.problem.is_some()) {
        return Err(CliError::Tasks(ends.iter().map(Task::failure).collect()));
    }
    context.output.note(&match ends.iter().any(Task::has_failed) {
        true => format!("Canceled. To continue: oblet task retry {id}. To undo it: oblet task rollback {id}"),
        false => format!("Task {id} finished before it could be canceled."),
    });
    Ok(())
}

async fn unlock(context: &Context<'_>, id: u64, consent: Consent, trial: Trial) -> Result<(), CliError> {
    let doing = format!("release what task {id} has reserved");
    context.confirm(consent, trial, id, &doing)?;
    let query = dry_run_query(trial.dry_run);
    let data = context.client.post(&doing, &format!("{TASKS}/{id}/releaseLocks"), query, None).await?;
    context.output.list(&data, OBJECTS, "/object")?;
    if trial.dry_run {
        context.output.remark("Nothing was changed; this is what would be released.");
    }
    Ok(())
}

async fn list(context: &Context<'_>, status: &[String], limit: u64) -> Result<(), CliError> {
    let doing = "list the tasks";
    let mut filter = vec![("sort", "id,desc".to_owned())];
    filter.extend(status.iter().map(|status| ("status", status.clone())));
    let data = context.client.page(doing, TASKS, &filter, 1, limit).await?;
    let tasks = entries(&data).iter().map(|task| Task::read(doing, task)).collect::<Result<Vec<_>, _>>()?;
    print_tasks(context, &data, &tasks)
}

async fn show(context: &Context<'_>, id: u64) -> Result<(), CliError> {
    let (data, task) = get(context, id).await?;
    print_task(context, &data, &task)
}

/// The logs of all subtasks that have started, each under a heading.
async fn logs(context: &Context<'_>, id: u64) -> Result<(), CliError> {
    let output = &context.output;
    let (_, task) = get(context, id).await?;
    let mut logs = Vec::new();
    for subtask in task.subtasks().iter().filter(|subtask| subtask.has_started()) {
        let data = requests::log(context, SubtaskId { task: id, subtask: subtask.id }).await?;
        match output.shape() {
            Shape::Data => logs.push(json!({"id": subtask.id, "name": subtask.name, "log": data.get("log")})),
            Shape::Table | Shape::Name => {
                output.log(&format!("{}{}", subtask.log_heading(), requests::log_text(&data)))?;
            }
        }
    }
    match output.shape() {
        Shape::Data => output.data(&json!({"contents": logs})),
        Shape::Table | Shape::Name => Ok(()),
    }
}
