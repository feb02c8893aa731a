use super::model::{Creator, Subtask, Task};
use crate::{
    cli::{
        console::{
            error::CliError,
            output::Shape,
            table::{Column, column, local_time, text},
        },
        frame::context::Context,
    },
    graph::SubtaskStatus,
};
use jiff::Timestamp;
use serde_json::Value;

// The cells are computed, so the columns only have headings.
pub(crate) const TASK_COLUMNS: &[Column] = &[
    column("ID", ""),
    column("NAME", "").free(),
    column("HOST", ""),
    column("STATUS", ""),
    column("STEPS", ""),
    column("CREATOR", ""),
    column("STARTED", ""),
    column("TOOK", ""),
    column("OPERATION", "").wide(),
    column("FINISHED", "").wide(),
];

const SUBTASK_COLUMNS: &[Column] = &[
    column("ID", ""),
    column("STEP", "").free(),
    column("STATUS", ""),
    column("OPERATION", ""),
    column("ATTEMPT", ""),
    column("TOOK", ""),
    column("STARTED", "").wide(),
    column("FINISHED", "").wide(),
];

const WAITING_COLUMNS: &[Column] = &[column("ID", ""), column("WAITS UNTIL", ""), column("FOR", "").free()];
const STATE_COLUMNS: &[Column] =
    &[column("ID", ""), column("STEP", "").free(), column("STATUS", ""), column("OPERATION", "")];
const PLAN_COLUMNS: &[Column] = &[column("TASK", ""), column("STEP", "").free(), column("TIMEOUT", "")];

pub(crate) fn print_tasks(context: &Context<'_>, data: &Value, tasks: &[Task]) -> Result<(), CliError> {
    match context.output.shape() {
        Shape::Data => context.output.data(data),
        Shape::Name => context.output.names(tasks.iter().map(|task| task.id.to_string())),
        Shape::Table => context.output.table(TASK_COLUMNS, tasks.iter().map(task_row)),
    }
}

pub(crate) fn task_row(task: &Task) -> Vec<String> {
    vec![
        task.id.to_string(),
        task.name.clone(),
        or_dash(task.host_id.map(|host| host.to_string())),
        task.state().to_owned(),
        task.steps(),
        or_dash(task.creator.as_ref().map(Creator::name).map(Into::into)),
        time(task.start_time.as_deref()),
        took(task.start_time.as_deref(), task.finish_time.as_deref()),
        or_dash(task.operation.clone()),
        time(task.finish_time.as_deref()),
    ]
}

/// Prints a task with all that is known of its subtasks.
pub(crate) fn print_task(context: &Context<'_>, data: &Value, task: &Task) -> Result<(), CliError> {
    let output = &context.output;
    match output.shape() {
        Shape::Data => return output.data(data),
        Shape::Name => return output.names([task.id.to_string()]),
        Shape::Table => {}
    }
    let mut fields =
        vec![("Task", task.id.to_string()), ("Name", task.name.clone()), ("Status", task.state().to_owned())];
    fields.extend(task.problem.iter().map(|problem| ("Problem", text(Some(&Value::from(problem.as_str()))))));
    fields.extend([
        ("Operation", or_dash(task.operation.clone())),
        ("Host", or_dash(task.host_id.map(|host| host.to_string()))),
        ("Creator", or_dash(task.creator.as_ref().map(|creator| creator.name().to_owned()))),
        ("Started", time(task.start_time.as_deref())),
        ("Finished", time(task.finish_time.as_deref())),
    ]);
    output.fields(fields)?;
    output.text("\n")?;
    output.table(SUBTASK_COLUMNS, task.subtasks().iter().map(subtask_row))?;
    let waiting: Vec<_> = task.subtasks().iter().filter_map(waiting_row).collect();
    if !waiting.is_empty() {
        output.text("\n")?;
        output.table(WAITING_COLUMNS, waiting)?;
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
        time(subtask.start_time.as_deref()),
        time(subtask.finish_time.as_deref()),
    ]
}

pub(crate) fn print_subtasks(context: &Context<'_>, data: &Value, task: &Task) -> Result<(), CliError> {
    match context.output.shape() {
        Shape::Data => context.output.data(data),
        Shape::Name => context.output.names(task.subtasks().iter().map(|subtask| subtask.id.to_string())),
        Shape::Table => context.output.table(SUBTASK_COLUMNS, task.subtasks().iter().map(subtask_row)),
    }
}

/// Prints a subtask with what it waits for, or why it failed.
pub(crate) fn print_subtask(context: &Context<'_>, data: &Value, task: u64, subtask: &Subtask) -> Result<(), CliError> {
    let output = &context.output;
    match output.shape() {
        Shape::Data => return output.data(data),
        Shape::Name => return output.names([subtask.id.to_string()]),
        Shape::Table => {}
    }
    let timeout = subtask.timeout_seconds.filter(|seconds| *seconds > 0);
    let mut fields = vec![
        ("Subtask", subtask.id.to_string()),
        ("Task", task.to_string()),
        ("Step", subtask.name.clone()),
        ("Status", subtask.status.to_string()),
        ("Operation", or_dash(subtask.operation.clone())),
        ("Attempt", or_dash(subtask.run_time.map(|attempt| attempt.to_string()))),
        ("Timeout", or_dash(timeout.map(|seconds| format!("{seconds}s")))),
        ("Started", time(subtask.start_time.as_deref())),
        ("Finished", time(subtask.finish_time.as_deref())),
        ("Took", took(subtask.start_time.as_deref(), subtask.finish_time.as_deref())),
    ];
    fields.extend(subtask.waiting.iter().map(|waiting| ("Waits for", text(Some(&Value::from(waiting.what.as_str()))))));
    fields.extend(subtask.waiting.iter().map(|waiting| ("Waits until", time(waiting.until.as_deref()))));
    output.fields(fields)?;
    if subtask.status == SubtaskStatus::Failed {
        output.text(&format!("\n{}", subtask.failure_report(task)))?;
    }
    Ok(())
}

/// The longest comes last, so that it pushes nothing aside. That a PENDING one waits for those before it is seen above.
fn waiting_row(subtask: &Subtask) -> Option<Vec<String>> {
    if subtask.status == SubtaskStatus::Pending {
        return None;
    }
    let waiting = subtask.waiting.as_ref()?;
    let what = text(Some(&Value::from(waiting.what.as_str())));
    Some(vec![subtask.id.to_string(), time(waiting.until.as_deref()), what])
}

pub(crate) const DRY_RUN_NOTE: &str = "Nothing was changed; this is the state that the change would lead to.";

/// Prints the task and its subtasks as a decision would leave them.
pub(crate) fn print_task_state(context: &Context<'_>, data: &Value, task: &Task) -> Result<(), CliError> {
    let output = &context.output;
    match output.shape() {
        Shape::Data => return output.data(data),
        Shape::Name => return output.names([task.id.to_string()]),
        Shape::Table => {}
    }
    output.fields([
        ("Task", task.id.to_string()),
        ("Name", task.name.clone()),
        ("Status", task.state().to_owned()),
        ("Operation", or_dash(task.operation.clone())),
    ])?;
    output.text("\n")?;
    let rows = task.subtasks().iter().map(|subtask| {
        let operation = or_dash(subtask.operation.clone());
        vec![subtask.id.to_string(), subtask.name.clone(), subtask.status.to_string(), operation]
    });
    output.table(STATE_COLUMNS, rows)
}

/// Prints the steps of tasks that are only planned.
pub(crate) fn print_plan(context: &Context<'_>, data: &Value, tasks: &[Task]) -> Result<(), CliError> {
    if context.output.shape() == Shape::Data {
        return context.output.data(data);
    }
    let rows = tasks.iter().flat_map(|task| {
        task.subtasks().iter().map(|subtask| {
            let timeout = subtask.timeout_seconds.filter(|seconds| *seconds > 0);
            vec![task.title(), subtask.name.clone(), or_dash(timeout.map(|seconds| format!("{seconds}s")))]
        })
    });
    context.output.table(PLAN_COLUMNS, rows)
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| text(None))
}

fn time(value: Option<&str>) -> String {
    value.map_or_else(|| text(None), local_time)
}

/// The time between two points, such as "0.7s" or "1m 5s".
fn took(start: Option<&str>, finish: Option<&str>) -> String {
    let point = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(start), Some(finish)) = (point(start), point(finish)) else { return text(None) };
    let took = finish.duration_since(start);
    match took.as_secs() {
        ..1 if took.as_millis() < 100 => "<0.1s".into(),
        ..1 => format!("0.{}s", took.as_millis() / 100),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        seconds => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_exact_as_people_need_them() {
        for (finish, expected) in [
            ("2021-09-03T16:25:08.004+08:00", "<0.1s"),
            ("2021-09-03T16:25:08.704+08:00", "0.7s"),
            ("2021-09-03T16:25:09.999+08:00", "1s"),
            ("2021-09-03T16:26:13.004+08:00", "1m 5s"),
            ("2021-09-03T18:26:13.004+08:00", "2h 1m"),
            ("soon", "-"),
        ] {
            assert_eq!(took(Some("2021-09-03T16:25:08.000+08:00"), Some(finish)), expected);
        }
    }
}
