use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

use super::{
    model::Task,
    progress::View,
    requests::TASKS,
    tables::{print_plan, print_tasks},
};
use crate::cli::{
    console::{error::CliError, output::Shape},
    frame::{args::Creation, context::Context, once},
};

const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a coordinator may be away, as it is while it is restarted or upgraded: its tasks survive that.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Sends a request that makes tasks, and follows them unless the operator wants otherwise.
pub(crate) async fn start(
    context: &Context<'_>,
    creation: &Creation,
    doing: &str,
    path: &str,
    body: &Value,
) -> Result<(), CliError> {
    if creation.run.dry_run {
        let plan = context.client.post(doing, path, &[("dryRun", "true")], Some(body)).await?;
        return show_plan(context, doing, &plan);
    }
    let answer = once::post(context, doing, path, body, creation.idempotency_key.as_deref()).await?;
    follow_answer(context, creation.run.detach, doing, &answer).await
}

/// Shows the tasks that a dry run would have made.
pub(crate) fn show_plan(context: &Context<'_>, doing: &str, plan: &Value) -> Result<(), CliError> {
    print_plan(context, plan, &Task::read_all(doing, plan)?)
}

/// Follows the tasks that an answer tells of.
pub(crate) async fn follow_answer(
    context: &Context<'_>,
    detach: bool,
    doing: &str,
    answer: &Value,
) -> Result<(), CliError> {
    let ids: Vec<u64> = Task::read_all(doing, answer)?.iter().map(|task| task.id).collect();
    if !detach {
        return watch(context, &ids, answer.get("contents").is_none()).await;
    }
    print_ids(context, answer, &ids)
}

/// Prints the ids of tasks that nobody waits for.
pub(crate) fn print_ids(context: &Context<'_>, answer: &Value, ids: &[u64]) -> Result<(), CliError> {
    context.output.note(&format!("Follow with: {}", watch_command(ids)));
    match context.output.shape() {
        Shape::Data => context.output.data(answer),
        Shape::Table | Shape::Name => context.output.names(ids.iter().map(u64::to_string)),
    }
}

/// Draws the progress of tasks to their end and prints how they ended; an error if one of them failed.
/// `bare`: the data is the one task itself, not a list. Ctrl-C ends the watching, never the work.
pub(crate) async fn watch(context: &Context<'_>, ids: &[u64], bare: bool) -> Result<(), CliError> {
    let tasks = rest(context, ids, bare).await?;
    let failures: Vec<_> = tasks.iter().filter(|task| task.has_failed()).map(Task::failure).collect();
    if failures.is_empty() { Ok(()) } else { Err(CliError::Tasks(failures)) }
}

/// The same, and answers how the tasks ended.
pub(crate) async fn rest(context: &Context<'_>, ids: &[u64], bare: bool) -> Result<Vec<Task>, CliError> {
    let way_back = format!("the task goes on; follow it again with: {}", watch_command(ids));
    let polled = tokio::select! {
        biased;
        ends = poll(context, ids) => ends,
        Ok(()) = tokio::signal::ctrl_c() => return Err(CliError::Interrupted { next: way_back }),
    };
    let mut ends = polled.inspect_err(|error| {
        if error.is_temporary() {
            let command = watch_command(ids);
            context.output.note(&format!("The task may still be running. Follow it again with: {command}"));
        }
    })?;
    let data = if bare { ends.pop().unwrap_or_default() } else { json!({"contents": ends}) };
    let tasks = Task::read_all("watch the tasks", &data)?;
    print_tasks(context, &data, &tasks)?;
    Ok(tasks)
}

async fn poll(context: &Context<'_>, ids: &[u64]) -> Result<Vec<Value>, CliError> {
    let mut view = View::new(context.output.progress);
    let mut ends: Vec<Option<Value>> = vec![None; ids.len()];
    let mut pause = SHORTEST_PAUSE;
    // A coordinator that has never answered is more likely misnamed than away.
    let mut last_answer: Option<Instant> = None;
    let mut away = false;
    loop {
        let mut changed = false;
        for (id, end) in ids.iter().zip(&mut ends).filter(|(_, end)| end.is_none()) {
            let doing = format!("watch task {id}");
            let answer = context.client.get(&doing, &format!("{TASKS}/{id}")).await;
            let data = match answer {
                Err(error) if error.is_temporary() && last_answer.is_some_and(|at| at.elapsed() < PATIENCE) => {
                    if !away {
                        view.remark("The coordinator does not answer; trying again. Its tasks survive a restart.");
                    }
                    away = true;
                    // The others would have to wait for the same silence.
                    break;
                }
                answer => answer?,
            };
            last_answer = Some(Instant::now());
            if away {
                view.remark("The coordinator answers again.");
            }
            away = false;
            let task = Task::read(&doing, &data)?;
            changed |= view.show(&task);
            if !task.is_running() {
                *end = Some(data);
            }
        }
        if ends.iter().all(Option::is_some) {
            return Ok(ends.into_iter().flatten().collect());
        }
        pause = if changed { SHORTEST_PAUSE } else { (pause * 3 / 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

fn watch_command(ids: &[u64]) -> String {
    let ids: Vec<_> = ids.iter().map(u64::to_string).collect();
    format!("oblet task watch {}", ids.join(" "))
}
