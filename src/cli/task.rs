use serde_json::{Value, json};

use super::{
    Context,
    args::{SubtaskId, Task as Command, TaskChange},
    error::CliError,
    follow,
    output::{Column, Format, entries},
    subtask,
    task_model::Task,
    task_tables::{print_task, print_task_state, print_tasks},
};

pub(crate) const TASKS: &str = "api/v2/tasks/instances";
pub(crate) const DRY_RUN_NOTE: &str = "Nothing was changed; this is how it would stand right after.";

const OBJECTS: &[Column] = &[("OBJECT", "/object")];

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::List { status, limit } => list(context, status, *limit).await,
        Command::Show { id } => show(context, *id).await,
        Command::Watch { ids } => follow::watch(context, ids, ids.len() == 1).await,
        Command::Log { id, subtask: Some(subtask) } => {
            subtask::print_log(context, SubtaskId { task: *id, subtask: *subtask }).await
        }
        Command::Log { id, subtask: None } => logs(context, *id).await,
        Command::Retry(decision) => change(context, decision, "retry").await,
        Command::Rollback(decision) => change(context, decision, "rollback").await,
        Command::Cancel(decision) => cancel(context, decision).await,
        Command::Unlock { id, yes, dry_run } => unlock(context, *id, *yes, *dry_run).await,
    }
}

pub(crate) fn dry_run_query(dry_run: bool) -> &'static [(&'static str, &'static str)] {
    if dry_run { &[("dryRun", "true")] } else { &[] }
}

async fn change(context: &Context<'_>, decision: &TaskChange, verb: &str) -> Result<(), CliError> {
    let doing = format!("{verb} task {}", decision.id);
    let Some(answer) = decide(context, decision, &doing, verb).await? else { return Ok(()) };
    follow::follow_answer(context, decision.run.detach, &doing, &answer).await
}

/// Sends a decision; a dry run is told at once and leaves nothing to follow.
async fn decide(
    context: &Context<'_>,
    TaskChange { id, run }: &TaskChange,
    doing: &str,
    verb: &str,
) -> Result<Option<Value>, CliError> {
    let answer = context.client.post(doing, &format!("{TASKS}/{id}/{verb}"), dry_run_query(run.dry_run), None).await?;
    if !run.dry_run {
        return Ok(Some(answer));
    }
    print_task_state(context, &answer, &Task::read(doing, &answer)?)?;
    context.output.remark(DRY_RUN_NOTE);
    Ok(None)
}

/// A task that was canceled ends as FAILED, which is what was asked for.
async fn cancel(context: &Context<'_>, decision: &TaskChange) -> Result<(), CliError> {
    let id = decision.id;
    let doing = format!("cancel task {id}");
    let Some(answer) = decide(context, decision, &doing, "cancel").await? else { return Ok(()) };
    if decision.run.detach {
        return follow::print_ids(context, &answer, &[id]);
    }
    let ends = follow::rest(context, &[id], true).await?;
    if ends.iter().any(|task| task.problem.is_some()) {
        return Err(CliError::Tasks(ends));
    }
    context.output.note(&match ends.iter().any(Task::has_failed) {
        true => format!("Canceled. Go on with: oblet task retry {id}; or undo it with: oblet task rollback {id}"),
        false => format!("Task {id} was over before it could be canceled."),
    });
    Ok(())
}

async fn unlock(context: &Context<'_>, id: u64, yes: bool, dry_run: bool) -> Result<(), CliError> {
    let doing = format!("release what task {id} has reserved");
    // Nothing has to be confirmed where nothing is changed.
    context.confirm(yes || dry_run, id, &doing)?;
    let data = context.client.post(&doing, &format!("{TASKS}/{id}/releaseLocks"), dry_run_query(dry_run), None).await?;
    context.output.list(&data, OBJECTS, "/object")?;
    if dry_run {
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
        let data = subtask::log(context, SubtaskId { task: id, subtask: subtask.id }).await?;
        match output.format {
            Format::Json => logs.push(json!({"id": subtask.id, "name": subtask.name, "log": data.get("log")})),
            Format::Table | Format::Name => {
                output.log(&format!("==> {} ({}) <==\n{}", subtask.name, subtask.id, subtask::log_text(&data)))?;
            }
        }
    }
    match output.format {
        Format::Json => output.json(&json!({"contents": logs})),
        Format::Table | Format::Name => Ok(()),
    }
}

async fn get(context: &Context<'_>, id: u64) -> Result<(Value, Task), CliError> {
    let doing = format!("show task {id}");
    let data = context.client.get(&doing, &format!("{TASKS}/{id}")).await?;
    let task = Task::read(&doing, &data)?;
    Ok((data, task))
}
