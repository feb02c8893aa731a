use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Context,
    args::{Task as Command, TaskChange},
    error::CliError,
    follow,
    output::{Format, entries, text},
    task_model::{Creator, Subtask, Task},
};

pub(crate) const TASKS: &str = "api/v2/tasks/instances";

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::List { status, limit } => list(context, status, *limit).await,
        Command::Show { id } => show(context, *id).await,
        Command::Watch { ids } => follow::watch(context, ids, ids.len() == 1).await,
        Command::Log { id, subtask } => log(context, *id, *subtask).await,
        Command::Retry(change) => change_task(context, change, "retry").await,
        Command::Rollback(change) => change_task(context, change, "rollback").await,
        Command::Skip { id, subtask } => change_subtask(context, *id, *subtask, "skip").await,
        Command::Cancel { id, subtask } => change_subtask(context, *id, *subtask, "cancel").await,
    }
}

async fn change_task(context: &Context<'_>, change: &TaskChange, verb: &str) -> Result<(), CliError> {
    let doing = format!("{verb} task {}", change.id);
    let answer = context.client.post(&doing, &format!("{TASKS}/{}/{verb}", change.id), &[], None).await?;
    follow::follow_answer(context, change.detach, &doing, &answer).await
}

/// The API answers without data; the rest of the task goes on by itself.
async fn change_subtask(context: &Context<'_>, id: u64, subtask: u64, verb: &str) -> Result<(), CliError> {
    let doing = format!("{verb} subtask {subtask} of task {id}");
    context.client.post(&doing, &format!("{TASKS}/{id}/subtasks/{subtask}/{verb}"), &[], None).await?;
    context.output.note(&format!("Done: {doing}. Follow with: oblet task watch {id}"));
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
    let output = &context.output;
    match output.format {
        Format::Json => return output.json(&data),
        Format::Name => return output.names([id.to_string()]),
        Format::Table => {}
    }
    output.fields([
        ("Task", task.id.to_string()),
        ("Name", task.name.clone()),
        ("Status", task.status.to_string()),
        ("Operation", or_dash(task.operation.clone())),
        ("Host", or_dash(task.host_id.map(|host| host.to_string()))),
        ("Creator", or_dash(task.creator.as_ref().map(|creator| creator.name().to_owned()))),
        ("Started", or_dash(task.start_time.clone())),
        ("Finished", or_dash(task.finish_time.clone())),
    ])?;
    output.text("\n")?;
    output.table(&["ID", "STEP", "STATUS", "OPERATION", "ATTEMPT", "TOOK"], task.subtasks().iter().map(subtask_row))?;
    if task.has_failed() {
        output.text(&format!("\n{}", task.failure_report()))?;
    }
    Ok(())
}

fn subtask_row(subtask: &Subtask) -> Vec<String> {
    vec![
        subtask.id.to_string(),
        subtask.name.clone(),
        subtask.status.to_string(),
        or_dash(subtask.operation.clone()),
        or_dash(subtask.run_time.map(|attempt| attempt.to_string())),
        took(subtask.start_time.as_deref(), subtask.finish_time.as_deref()),
    ]
}

/// Without a subtask: the logs of all that have started, each under a heading.
async fn log(context: &Context<'_>, id: u64, subtask: Option<u64>) -> Result<(), CliError> {
    let output = &context.output;
    if let Some(subtask) = subtask {
        let data = subtask_log(context, id, subtask).await?;
        return match output.format {
            Format::Json => output.json(&data),
            Format::Table | Format::Name => output.text(&log_text(&data)),
        };
    }
    let (_, task) = get(context, id).await?;
    let mut logs = Vec::new();
    for subtask in task.subtasks().iter().filter(|subtask| subtask.has_started()) {
        let data = subtask_log(context, id, subtask.id).await?;
        match output.format {
            Format::Json => logs.push(json!({"id": subtask.id, "name": subtask.name, "log": data.get("log")})),
            Format::Table | Format::Name => {
                output.text(&format!("==> {} ({}) <==\n{}", subtask.name, subtask.id, log_text(&data)))?;
            }
        }
    }
    match output.format {
        Format::Json => output.json(&json!({"contents": logs})),
        Format::Table | Format::Name => Ok(()),
    }
}

async fn subtask_log(context: &Context<'_>, id: u64, subtask: u64) -> Result<Value, CliError> {
    let doing = format!("read the log of subtask {subtask} of task {id}");
    context.client.get(&doing, &format!("{TASKS}/{id}/subtasks/{subtask}/log")).await
}

fn log_text(data: &Value) -> String {
    match data.get("log").and_then(Value::as_str) {
        Some(log) if log.is_empty() || log.ends_with('\n') => log.to_owned(),
        Some(log) => format!("{log}\n"),
        None => String::new(),
    }
}

async fn get(context: &Context<'_>, id: u64) -> Result<(Value, Task), CliError> {
    let doing = format!("show task {id}");
    let data = context.client.get(&doing, &format!("{TASKS}/{id}")).await?;
    let task = Task::read(&doing, &data)?;
    Ok((data, task))
}

pub(crate) fn print_tasks(context: &Context<'_>, data: &Value, tasks: &[Task]) -> Result<(), CliError> {
    match context.output.format {
        Format::Json => context.output.json(data),
        Format::Name => context.output.names(tasks.iter().map(|task| task.id.to_string())),
        Format::Table => {
            let headings = ["ID", "NAME", "HOST", "STATUS", "STEPS", "CREATOR", "STARTED", "TOOK"];
            context.output.table(&headings, tasks.iter().map(task_row))
        }
    }
}

fn task_row(task: &Task) -> Vec<String> {
    vec![
        task.id.to_string(),
        task.name.clone(),
        or_dash(task.host_id.map(|host| host.to_string())),
        task.status.to_string(),
        format!("{}/{}", task.finished_subtasks(), task.subtasks().len()),
        or_dash(task.creator.as_ref().map(Creator::name).map(Into::into)),
        or_dash(task.start_time.clone()),
        took(task.start_time.as_deref(), task.finish_time.as_deref()),
    ]
}

/// Prints the steps of tasks that are only planned.
pub(crate) fn print_plan(context: &Context<'_>, data: &Value, tasks: &[Task]) -> Result<(), CliError> {
    if context.output.format == Format::Json {
        return context.output.json(data);
    }
    let rows = tasks.iter().flat_map(|task| {
        task.subtasks().iter().map(|subtask| {
            let timeout = subtask.timeout_seconds.filter(|seconds| *seconds > 0);
            vec![task.title(), subtask.name.clone(), or_dash(timeout.map(|seconds| format!("{seconds}s")))]
        })
    });
    context.output.table(&["TASK", "STEP", "TIMEOUT"], rows)
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| text(None))
}

/// The whole seconds between two points in time, such as "1m 5s".
fn took(start: Option<&str>, finish: Option<&str>) -> String {
    let point = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(start), Some(finish)) = (point(start), point(finish)) else { return text(None) };
    match finish.duration_since(start).as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        seconds => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}
