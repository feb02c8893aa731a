//! One piece of work that was handed out, from its preparation to its outcome.

use super::{
    LocalRun, Shared,
    attempt::{AgentAttempt, Outcome, PackageFile},
    hosts::{Agents, operation_key},
    journal::Closed,
    log::AttemptLog,
    store::PreparationError,
    turns::Flying,
    waits::WaitPlace,
};
use crate::{
    coordinator::store::{
        now_micros,
        task::{LogPosition, TaskId},
    },
    graph::{Direction, Dispatch, Effect, Failure, NodeIndex, Operation},
    operations::{PlannedNode, TaskPlan},
    steps::{AgentStep, Policy, Step},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where OCP sets no limit (it prints 0), for no wait is endless. Such steps take seconds.
const UNLIMITED: Duration = Duration::from_secs(3600);

/// How long to wait before a store that did not answer is asked again.
const STORE_DELAY: Duration = Duration::from_secs(1);

pub(super) struct Flight {
    pub(super) shared: Arc<Shared>,
    pub(super) id: TaskId,
    pub(super) plan: Arc<TaskPlan>,
    pub(super) agents: Arc<Agents>,
    pub(super) dispatch: Dispatch,
    /// It was dispatched before a restart, so the agent may have begun.
    pub(super) resumed: bool,
    /// There may be a log of this attempt already.
    pub(super) has_log: bool,
    pub(super) operation: Operation,
    pub(super) effect: Effect,
    /// Microseconds since 1970.
    pub(super) dispatched_at: i64,
    pub(super) cancel: CancellationToken,
    pub(super) flying: Arc<Flying>,
}

impl Flight {
    pub(super) async fn fly(self) -> Outcome {
        let Some(planned) = self.plan.node(self.dispatch.node).cloned() else { return Outcome::Abandoned };
        let mut log = self.log().await;
        let mut outcome = self.carry_out(&planned, &mut log).await;
        if let Err(Closed) = log.end().await {
            return Outcome::Abandoned;
        }
        if let Outcome::Failed(failure) = &mut outcome
            && failure.log_tail.is_empty()
        {
            failure.log_tail = log.tail();
        }
        outcome
    }

    async fn carry_out(&self, planned: &PlannedNode, log: &mut AttemptLog) -> Outcome {
        // What the request wrote is taken back with the whole task only: a retry still needs it.
        let kept = self.operation == Operation::Retry
            && matches!(&planned.step, Step::Coordinator(step) if step.stands_for_request());
        if self.dispatch.direction == Direction::Undo && (kept || !planned.info().undoable) {
            return match log.line("nothing to take back").await {
                Ok(()) => Outcome::Succeeded { effect: Effect::None, output: Vec::new() },
                Err(Closed) => Outcome::Abandoned,
            };
        }
        let deadline = self.deadline(planned);
        match &planned.step {
            Step::Coordinator(step) => {
                let run = LocalRun {
                    step,
                    direction: self.dispatch.direction,
                    deadline,
                    cancel: &self.cancel,
                    place: &self.wait_place(planned),
                };
                self.shared.local.run(run, log).await
            }
            Step::Agent(step) => match self.agent_attempt(planned, step, deadline).await {
                Ok(attempt) => attempt.run(log).await,
                Err(error) => {
                    let begun = self.resumed && step.info().policy != Policy::Pure;
                    Outcome::Failed(unprepared(&error, if begun { Effect::Unknown } else { Effect::None }))
                }
            },
        }
    }

    async fn log(&self) -> AttemptLog {
        let Dispatch { node, attempt, .. } = self.dispatch;
        let position = match self.has_log {
            true => self.log_position(node, attempt).await,
            false => LogPosition::default(),
        };
        let mut log =
            AttemptLog::new(self.shared.journal.clone(), (self.id, self.shared.epoch), node, attempt, position);
        log.header(self.operation);
        log
    }

    /// Asked for until the store answers: whatever is written at another place than the end is refused.
    async fn log_position(&self, node: NodeIndex, attempt: u32) -> LogPosition {
        loop {
            match self.shared.tasks.log_position(self.id, node, attempt).await {
                Ok(position) => return position,
                Err(error) => {
                    let error = crate::telemetry::chain(&error);
                    tracing::warn!(task = %self.id, %node, error, "waiting for the log of an attempt");
                    tokio::time::sleep(STORE_DELAY).await;
                }
            }
        }
    }

    fn wait_place(&self, planned: &PlannedNode) -> WaitPlace {
        let limit = i64::try_from(limit(planned).as_micros()).unwrap_or(i64::MAX);
        let until = self.dispatched_at.saturating_add(limit);
        WaitPlace::new(Arc::clone(&self.shared.waits), self.id, self.dispatch.node, until, Arc::clone(&self.flying))
    }

    /// Counted from the dispatch, also across a restart.
    fn deadline(&self, planned: &PlannedNode) -> Instant {
        let elapsed = Duration::from_micros(u64::try_from(now_micros() - self.dispatched_at).unwrap_or(0));
        Instant::now() + limit(planned).saturating_sub(elapsed)
    }

    async fn agent_attempt(
        &self,
        planned: &PlannedNode,
        step: &AgentStep,
        deadline: Instant,
    ) -> Result<AgentAttempt, PreparationError> {
        let direction = self.dispatch.direction;
        let agent = self.agents.of(planned.host_id).await?;
        let secrets = match step.secrets(direction) {
            [] => Vec::new(),
            names => self.shared.tasks.secrets(&self.plan, names).await?,
        };
        let packages = self.packages(step, direction).await?;
        let undoes = (direction == Direction::Undo).then(|| (planned.execute_id.to_string(), self.effect));
        Ok(AgentAttempt {
            agent,
            permits: self.shared.hosts.of(planned.host_id.unwrap_or(0)),
            step: step.clone(),
            direction,
            key: operation_key(planned, self.dispatch),
            epoch: self.agents.epoch(),
            undoes,
            secrets,
            packages,
            deadline,
            cancel: self.cancel.clone(),
            place: self.wait_place(planned),
            submitted: self.resumed.into(),
        })
    }

    /// One that was deleted meanwhile may be on the agent already, which says so if it is not.
    async fn packages(&self, step: &AgentStep, direction: Direction) -> Result<Vec<PackageFile>, PreparationError> {
        let mut files = Vec::new();
        for (package, sha256) in step.packages(direction) {
            if let Some(path) = self.shared.tasks.package_path(package).await? {
                files.push(PackageFile { name: package.file_name(), sha256: sha256.clone(), path });
            }
        }
        Ok(files)
    }
}

fn limit(planned: &PlannedNode) -> Duration {
    planned.info().timeout.unwrap_or(UNLIMITED)
}

fn unprepared(error: &PreparationError, effect: Effect) -> Failure {
    Failure {
        reason: "NOT_PREPARED".into(),
        message: error.to_string(),
        causes: crate::telemetry::causes(error),
        next_move: "see the coordinator's log, then retry the subtask".into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect,
    }
}
