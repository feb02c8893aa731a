//! Steps that the coordinator carries out itself. Each may run twice: it looks at the rows first, and writes what is
//! missing.

mod agent;
mod error;
mod host;
mod obproxy;
mod skew;
mod work;

use super::{
    agents::AgentPool,
    engine::{AttemptLog, LocalRun, LocalSteps, Outcome},
    store::{Store, StoreError},
};
use crate::{
    graph::{Direction, Effect, Failure},
    steps::{Begin, CoordinatorStep, Finish, Wait},
    telemetry,
};
use error::{LocalError, Stopped};
use futures_util::future::BoxFuture;
use std::{path::PathBuf, sync::Arc, time::Duration};
use work::Work;

const RETRY_DELAY: Duration = Duration::from_secs(1);

type Done = Result<(), Stopped>;

/// How the coordinator carries out a kind of step.
trait Adapter: Sync {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done>;

    /// Takes back what the step made; never asked of kinds that leave nothing to take back.
    fn undo<'a>(&'a self, _work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async { Ok(()) })
    }
}

/// Sends each kind to its adapter.
fn adapter(step: &CoordinatorStep) -> &dyn Adapter {
    match step {
        CoordinatorStep::PrepareObproxyInstall(step) => step,
        CoordinatorStep::UpdateObproxyStatus(step) => step,
        CoordinatorStep::PrepareObproxyOffline(step) => step,
        CoordinatorStep::DeleteObproxyInfo(step) => step,
        CoordinatorStep::FinishClusterOffline(step) => step,
        CoordinatorStep::Begin(step) => step,
        CoordinatorStep::Finish(step) => step,
        CoordinatorStep::PrepareHost(step) => step,
        CoordinatorStep::UpdateHostStatus(step) => step,
        CoordinatorStep::UnreserveHosts(step) => step,
        CoordinatorStep::PrepareAgentOperation(step) => step,
        CoordinatorStep::FinishAgentOperation(step) => step,
        CoordinatorStep::PrepareAgentUpgrade(step) => step,
        CoordinatorStep::FinishAgentUpgrade(step) => step,
        CoordinatorStep::Wait(step) => step,
    }
}

/// The begin of a task needs nothing.
impl Adapter for Begin {
    fn execute<'a>(&'a self, _work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async { Ok(()) })
    }
}

/// The end of a task needs nothing.
impl Adapter for Finish {
    fn execute<'a>(&'a self, _work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async { Ok(()) })
    }
}

/// The graph has waited.
impl Adapter for Wait {
    fn execute<'a>(&'a self, _work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async { Ok(()) })
    }
}

/// The real ones: rows of the store, and questions to agents.
pub struct SqlLocalSteps {
    pub store: Store,
    pub agents: Arc<AgentPool>,
    pub packages_dir: PathBuf,
}

impl LocalSteps for SqlLocalSteps {
    fn run<'a>(&'a self, run: LocalRun<'a>, log: &'a mut AttemptLog) -> BoxFuture<'a, Outcome> {
        Box::pin(carry_out(self, run, log))
    }
}

async fn carry_out(shared: &SqlLocalSteps, run: LocalRun<'_>, log: &mut AttemptLog) -> Outcome {
    let LocalRun { step, direction, deadline, cancel, place } = run;
    let mut work = Work { shared, deadline, place, log };
    let worked = async {
        loop {
            let result = match direction {
                Direction::Execute => adapter(step).execute(&mut work).await,
                Direction::Undo => adapter(step).undo(&mut work).await,
            };
            // As the engine itself: a full disk, or a store that others use, costs time and no step.
            match result {
                Err(Stopped::Failed(LocalError::Store(error @ (StoreError::DiskFull(_) | StoreError::Busy)))) => {
                    tracing::error!(error = telemetry::chain(&error), "waiting for the store");
                    place.waits_for(match error {
                        StoreError::Busy => "its turn in the coordinator's store",
                        _ => "room on the coordinator's disk",
                    });
                }
                result => return result,
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    };
    let result = tokio::select! {
        result = worked => result,
        () = cancel.cancelled(), if step.is_cancelable() => {
            let message = format!("{} was canceled", step.info().name);
            return Outcome::Failed(failure("CANCELED", message, Vec::new(), "retry the subtask when you are ready"));
        }
    };
    match result {
        Ok(()) => Outcome::Succeeded { effect: Effect::Done, output: Vec::new() },
        Err(Stopped::Closed) => Outcome::Abandoned,
        Err(Stopped::Failed(error)) => {
            let (reason, next_move) = error.advice();
            let causes = telemetry::causes(&error);
            let _ = log.line(&format!("failed: {}", telemetry::chain(&error))).await;
            Outcome::Failed(failure(reason, error.to_string(), causes, next_move))
        }
    }
}

fn failure(reason: &str, message: String, causes: Vec<String>, next_move: &str) -> Failure {
    Failure {
        reason: reason.into(),
        message,
        causes,
        next_move: next_move.into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect: Effect::None,
    }
}
