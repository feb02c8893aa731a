//! Runs of one operation: where they lie and how their end is awaited.

use super::{
    shim::OUTCOME,
    supervisor::{Launch, RunOutcome, RunState, Supervisor, failed},
};
use crate::{
    agent::{
        host::settings::HostSettings,
        step::{StepContext, StepError},
    },
    blocking,
};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A short run is noticed at once, a long one costs next to nothing.
const FIRST_POLL: Duration = Duration::from_millis(1);
const LAST_POLL: Duration = Duration::from_millis(50);

pub(in crate::agent::host) fn dir(settings: &HostSettings, run: &str) -> PathBuf {
    all(settings).join(run)
}

fn all(settings: &HostSettings) -> PathBuf {
    settings.state_dir.join("runs")
}

/// Every run that has left files.
pub(in crate::agent::host) fn names(settings: &HostSettings) -> Vec<String> {
    // Before the first run there is no directory.
    let entries = std::fs::read_dir(all(settings)).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// A name that no run of this operation has used: a run that recovery gave up never starts again.
pub(in crate::agent::host) fn fresh(settings: &HostSettings, run_id: &str) -> String {
    let mut run = run_id.to_owned();
    let mut number = 2_u32;
    while dir(settings, &run).exists() {
        run = format!("{run_id}-{number}");
        number = number.saturating_add(1);
    }
    run
}

/// When the step has to be over; steps without a limit get a day.
pub(in crate::agent::host) fn deadline(context: &StepContext) -> Instant {
    Instant::now() + context.timeout.unwrap_or(Duration::from_secs(86_400))
}

/// Waits for the answer to a question, unless the step is told to stop.
pub(in crate::agent::host) async fn ask<T>(
    context: &StepContext,
    what: &str,
    question: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    tokio::select! {
        biased;
        answer = question => answer,
        () = context.cancel.cancelled() => Err(StepError::canceled(what)),
    }
}

/// Starts a run. On cancel it returns once nothing of it lives, however far the start had come.
pub(in crate::agent::host) async fn start(
    supervisor: &dyn Supervisor,
    run_dir: &Path,
    launch: &Launch,
    grace: Duration,
    context: &StepContext,
    what: &str,
) -> Result<(), StepError> {
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => {}
        started = supervisor.start(run_dir, launch) => return started.map_err(failed(what)),
    }
    // The program may run already, although nobody has said so yet.
    supervisor.stop(run_dir, grace).await.map_err(failed(what))?;
    Err(StepError::canceled(what))
}

/// Waits until the run ends. On cancel or timeout it is stopped first.
pub(in crate::agent::host) async fn wait(
    supervisor: &dyn Supervisor,
    run_dir: &Path,
    grace: Duration,
    context: &StepContext,
    what: &str,
) -> Result<RunOutcome, StepError> {
    let (begun, end) = (Instant::now(), deadline(context));
    let written = run_dir.join(OUTCOME);
    let mut poll = FIRST_POLL;
    loop {
        match supervisor.find(run_dir).await.map_err(failed(what))? {
            RunState::Ended(outcome) => return Ok(outcome),
            RunState::Nothing => return Ok(RunOutcome::NotStarted("it was given up before it began".into())),
            RunState::Running(_) | RunState::Between => {}
        }
        let late = Instant::now() >= end;
        if late || context.cancel.is_cancelled() {
            supervisor.stop(run_dir, grace).await.map_err(failed(what))?;
            return Err(if late { timed_out(what) } else { StepError::canceled(what) });
        }
        let next_look = Instant::now() + poll;
        poll = LAST_POLL.min(poll.mul_f32(1.5));
        // To look whether a file is there costs next to nothing, so the end is noticed within a few thousandths of the run.
        while Instant::now() < next_look && !context.cancel.is_cancelled() && !written.exists() {
            tokio::select! {
                () = context.cancel.cancelled() => {}
                () = sleep((begun.elapsed() / 400).clamp(FIRST_POLL, LAST_POLL)) => {}
            }
        }
    }
}

pub(in crate::agent::host) fn timed_out(what: &str) -> StepError {
    StepError::new(
        "TIMEOUT",
        format!("{what} did not end in time and was stopped"),
        "read the log for what it waited for, then retry the subtask",
    )
}

/// Forgets the files of a run that has ended.
pub(in crate::agent::host) fn forget(settings: &HostSettings, run: &str) -> io::Result<()> {
    match std::fs::remove_dir_all(dir(settings, run)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Forgets the files of a run that nobody asks for any more, unless it still runs: a proxy is found by them.
pub(in crate::agent::host) async fn collect(supervisor: &dyn Supervisor, settings: &HostSettings, run: &str) {
    match supervisor.find(&dir(settings, run)).await {
        Ok(RunState::Running(_) | RunState::Between) => {}
        Ok(RunState::Ended(_) | RunState::Nothing) => {
            let (settings, name) = (settings.clone(), run.to_owned());
            let forgotten = blocking::run(move || forget(&settings, &name)).await;
            if let Err(error) = forgotten.and_then(|forgotten| forgotten) {
                tracing::warn!(run, %error, "the files of a run could not be removed");
            }
        }
        Err(error) => tracing::warn!(run, %error, "what became of a run cannot be read, so its files stay"),
    }
}
