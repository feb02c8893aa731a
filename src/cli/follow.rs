use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

use super::{
    Context,
    args::Run,
    error::CliError,
    output::Format,
    progress::View,
    task::{print_plan, print_tasks},
    task_model::Task,
};

const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a coordinator may be away, as it is while it is restarted or upgraded: its tasks survive that.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends a request that starts tasks, and follows them unless the operator wants otherwise.
pub(crate) async fn start(
    context: &Context<'_>,
    run: &Run,
    doing: &str,
    path: &str,
    body: &Value,
) -> Result<(), CliError> {
    let query: &[_] = if run.dry_run { &[("dryRun", "true")] } else { &[] };
    let answer = context.client.post(doing, path, query, body).await?;
    let tasks = Task::read_started(doing, &answer)?;
    if run.dry_run {
        return print_plan(context, &answer, &tasks);
    }
    let ids: Vec<u64> = tasks.iter().map(|task| task.id).collect();
    if run.detach {
        context.output.note(&format!("Follow with: {}", watch_command(&ids)));
        return match context.output.format {
            Format::Json => context.output.json(&answer),
            Format::Table | Format::Name => context.output.names(ids.iter().map(u64::to_string)),
        };
    }
    let mut ends = follow(context, &ids).await?;
    let data = match (answer.get("contents"), ends.pop()) {
        (None, Some(end)) => end,
        (_, last) => json!({"contents": ends.into_iter().chain(last).collect::<Vec<_>>()}),
    };
    conclude(context, doing, &data)
}

/// Prints how the tasks ended; an error if one of them failed.
pub(crate) fn conclude(context: &Context<'_>, doing: &str, data: &Value) -> Result<(), CliError> {
    let tasks = Task::read_started(doing, data)?;
    print_tasks(context, data, &tasks)?;
    let failed: Vec<_> = tasks.into_iter().filter(Task::has_failed).collect();
    if failed.is_empty() { Ok(()) } else { Err(CliError::Tasks(failed)) }
}

/// Draws the progress of tasks until the last of them has ended, and returns what the API then says of each.
/// Ctrl-C ends the watching, never the work.
pub(crate) async fn follow(context: &Context<'_>, ids: &[u64]) -> Result<Vec<Value>, CliError> {
    tokio::select! {
        biased;
        ends = poll(context, ids) => ends,
        Ok(()) = tokio::signal::ctrl_c() => {
            Err(CliError::Interrupted { next: format!("the work goes on; come back with: {}", watch_command(ids)) })
        }
    }
}

async fn poll(context: &Context<'_>, ids: &[u64]) -> Result<Vec<Value>, CliError> {
    let mut view = View::new(context.output.progress);
    let mut ends: Vec<Option<Value>> = vec![None; ids.len()];
    let mut pause = SHORTEST_PAUSE;
    let mut last_answer = Instant::now();
    let mut away = false;
    loop {
        let mut changed = false;
        for (id, end) in ids.iter().zip(&mut ends).filter(|(_, end)| end.is_none()) {
            let doing = format!("watch task {id}");
            let answer = context.client.get(&doing, &format!("api/v2/tasks/instances/{id}")).await;
            let data = match answer {
                Err(error) if error.is_temporary() && last_answer.elapsed() < PATIENCE => {
                    if !away {
                        view.remark("The coordinator does not answer; its tasks are safe, still trying.");
                    }
                    away = true;
                    // The others would have to wait for the same silence.
                    break;
                }
                answer => answer?,
            };
            last_answer = Instant::now();
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
