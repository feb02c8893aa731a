use crate::graph::SubtaskStatus;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Context,
    error::CliError,
    output::{Format, text},
    task_model::{Creator, Subtask, Task},
};

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

/// Prints a task with all that is known of its subtasks.
pub(crate) fn print_task(context: &Context<'_>, data: &Value, task: &Task) -> Result<(), CliError> {
    let output = &context.output;
    match output.format {
        Format::Json => return output.json(data),
        Format::Name => return output.names([task.id.to_string()]),
        Format::Table => {}
    }
    let mut fields =
        vec![("Task", task.id.to_string()), ("Name", task.name.clone()), ("Status", task.status.to_string())];
    fields.extend(task.problem.iter().map(|problem| ("Problem", text(Some(&Value::from(problem.as_str()))))));
    fields.extend([
        ("Operation", or_dash(task.operation.clone())),
        ("Host", or_dash(task.host_id.map(|host| host.to_string()))),
        ("Creator", or_dash(task.creator.as_ref().map(|creator| creator.name().to_owned()))),
        ("Started", or_dash(task.start_time.clone())),
        ("Finished", or_dash(task.finish_time.clone())),
    ]);
    output.fields(fields)?;
    output.text("\n")?;
    output.table(&["ID", "STEP", "STATUS", "OPERATION", "ATTEMPT", "TOOK"], task.subtasks().iter().map(subtask_row))?;
    let waiting: Vec<_> = task.subtasks().iter().filter_map(waiting_row).collect();
    if !waiting.is_empty() {
        output.text("\n")?;
        output.table(&["ID", "WAITS UNTIL", "FOR"], waiting)?;
    }
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

/// The longest comes last, so that it pushes nothing aside. That a PENDING one waits for those before it is seen above.
fn waiting_row(subtask: &Subtask) -> Option<Vec<String>> {
    if subtask.status == SubtaskStatus::Pending {
        return None;
    }
    let waiting = subtask.waiting.as_ref()?;
    let what = text(Some(&Value::from(waiting.what.as_str())));
    Some(vec![subtask.id.to_string(), or_dash(waiting.until.clone()), what])
}

/// Prints the task and its subtasks as a decision would leave them.
pub(crate) fn print_task_state(context: &Context<'_>, data: &Value, task: &Task) -> Result<(), CliError> {
    let output = &context.output;
    match output.format {
        Format::Json => return output.json(data),
        Format::Name => return output.names([task.id.to_string()]),
        Format::Table => {}
    }
    output.fields([
        ("Task", task.id.to_string()),
        ("Name", task.name.clone()),
        ("Status", task.status.to_string()),
        ("Operation", or_dash(task.operation.clone())),
    ])?;
    output.text("\n")?;
    let rows = task.subtasks().iter().map(|subtask| {
        let operation = or_dash(subtask.operation.clone());
        vec![subtask.id.to_string(), subtask.name.clone(), subtask.status.to_string(), operation]
    });
    output.table(&["ID", "STEP", "STATUS", "OPERATION"], rows)
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
