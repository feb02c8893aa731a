//! One run of one operation, from its order to its outcome.

use super::{Run, Runner, Submitted, outcome};
use crate::{
    agent::{
        journal::{Journal, JournalError, Resume},
        logs::{self, MemoryLog},
        operation::{Order, Phase, Record, now_us},
        step::{Done, IdentityStore, StepContext, StepError, StepLog, Undoes},
    },
    blocking,
    graph::{Direction, Effect},
    rpc::Refused,
    steps::Policy,
    telemetry::chain,
};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use outcome::{Stop, Work};
use std::{
    io,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long to wait before a full disk is tried again.
const DISK_FULL_PAUSE: Duration = Duration::from_secs(1);

impl Runner {
    pub(super) async fn carry_out(&self, resume: Resume, deadline: Option<Instant>, run: &Run) {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let Resume { position, order, identity, deadline_us: _, phase: _ } = resume;
        let run_id = order.key.run_id();
        let log: Arc<dyn StepLog> = match self.logs.open(&run_id) {
            Ok(log) => Arc::new(log),
            Err(error) => {
                tracing::warn!(run = run_id, %error, "the operation runs without a log on disk");
                Arc::new(MemoryLog::default())
            }
        };
        let identities =
            Arc::new(JournalIdentity { journal: self.journal.clone(), position, chosen: identity.is_some().into() });
        let context = StepContext {
            run_id,
            log: Arc::clone(&log),
            cancel: CancellationToken::new(),
            secrets: order.secrets.clone(),
            timeout,
            identity,
            identities: Arc::clone(&identities) as Arc<dyn IdentityStore>,
        };
        let work = supervise(self.perform(&order, &context), timeout, &run.cancel, &context.cancel);
        let (work, stop) = logs::bounded(log.path(), work).await;
        // Nothing but a look at what was begun, or its end, can tell that it has left nothing.
        let begun = identities.chosen.load(Ordering::Relaxed);
        let work =
            if begun { work.map(|done| done.map_err(|error| error.else_leaving(Effect::Unknown))) } else { work };
        let outcome = outcome::outcome(work, stop, order.timeout, log.as_ref());
        if let Some(path) = log.path() {
            let closed = blocking::run(move || logs::close(&path)).await;
            if let Err(error) = closed.flatten() {
                tracing::warn!(operation = %order.key, %error, "the log of an operation could not be synced");
            }
        }
        loop {
            match self.journal.finish(position, &outcome).await {
                Ok(_) => return,
                Err(JournalError::DiskFull) => tokio::time::sleep(DISK_FULL_PAUSE).await,
                Err(error @ (JournalError::Stopped | JournalError::Encode(_) | JournalError::Read(_))) => {
                    tracing::error!(operation = %order.key, error = chain(&error), "the outcome is left to recovery");
                    return;
                }
            }
        }
    }

    async fn perform(&self, order: &Order, context: &StepContext) -> Result<Done, StepError> {
        // A probing step tells by itself when its effect begins; of the others RUNNING is all there is to know.
        if order.direction() == Direction::Undo || order.step.info().policy != Policy::Probe {
            context.confirm_identity().await?;
        }
        let Some(target) = order.undoes else {
            return self.carrier.execute(&order.step, context).await;
        };
        let undoes = tokio::select! {
            biased;
            undoes = self.undoes(target.operation_id) => undoes.map_err(|error| {
                StepError::new("JOURNAL", "the record of the operation to undo cannot be read", "retry the subtask").because(error)
            })?,
            () = context.cancel.cancelled() => return Err(StepError::new(
                "STILL_RUNNING",
                format!("operation {} did not end, so it cannot be undone", target.operation_id),
                "find out on the host what it waits for, then retry",
            )),
        };
        // Where the journal knows nothing, the word of the coordinator counts.
        let undoes = undoes.unwrap_or_else(|| vec![Undoes { identity: None, effect: target.effect }]);
        self.carrier.undo(&order.step, context, &undoes).await
    }

    /// Ends every attempt of an operation and answers what they left, without what an earlier undo took back: what is
    /// there again since then may be somebody else's. None if there never was an attempt.
    async fn undoes(&self, operation_id: uuid::Uuid) -> Result<Option<Vec<Undoes>>, JournalError> {
        for attempt in self.journal.attempts(operation_id).await?.iter().filter(|attempt| !attempt.is_over) {
            self.stop(attempt.key).await?;
        }
        let attempts = self.journal.attempts(operation_id).await?;
        let known = !attempts.is_empty();
        let left = attempts.into_iter().filter(|attempt| !attempt.is_undone).map(|attempt| attempt.undoes);
        Ok(known.then(|| left.collect()))
    }

    /// Carries out a step that touches nothing; it ends with the caller that waits for it.
    pub(super) async fn check(&self, order: Order) -> Result<Submitted, Refused> {
        if let Some(highest) = self.journal.hear(order.epoch) {
            return Err(Refused::StaleEpoch { given: order.epoch, highest });
        }
        let accept_us = now_us();
        let log = Arc::new(MemoryLog::default());
        let context = StepContext {
            run_id: order.key.run_id(),
            log: Arc::clone(&log) as Arc<dyn StepLog>,
            cancel: CancellationToken::new(),
            secrets: order.secrets.clone(),
            timeout: order.timeout,
            identity: None,
            identities: Arc::new(NoIdentity),
        };
        let work = async {
            match order.undoes {
                None => self.carrier.execute(&order.step, &context).await,
                Some(target) => {
                    let undoes = [Undoes { identity: None, effect: target.effect }];
                    self.carrier.undo(&order.step, &context, &undoes).await
                }
            }
        };
        let (work, stop) = supervise(work, order.timeout, &CancellationToken::new(), &context.cancel).await;
        let record = Record {
            position: 0,
            key: order.key,
            epoch: order.epoch,
            step_kind: order.step.kind().into(),
            direction: order.direction(),
            phase: Phase::Finished,
            sequence: 1,
            accept_us,
            finish_us: Some(now_us()),
            outcome: Some(outcome::outcome(work, stop, order.timeout, log.as_ref())),
        };
        Ok(Submitted { record, log: log.bytes() })
    }
}

/// What is left of the time that the order granted; none without a limit.
pub(super) fn remaining(resume: &Resume) -> Option<Duration> {
    let left = Duration::from_micros(resume.deadline_us?.saturating_sub(now_us()).max(0).unsigned_abs());
    // A clock that was set back must not grant more time than the order did.
    Some(resume.order.timeout.map_or(left, |whole| left.min(whole)))
}

/// Waits for the work, and tells it to stop when the operator or the clock says so.
async fn supervise(
    work: impl Future<Output = Result<Done, StepError>>,
    timeout: Option<Duration>,
    operator: &CancellationToken,
    cancel: &CancellationToken,
) -> (Work, Option<Stop>) {
    // A panic costs its operation; nothing the step borrowed is looked at afterwards but its log.
    let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
    let clock = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let stop = tokio::select! {
        biased;
        done = &mut work => return (done, None),
        () = operator.cancelled() => Stop::Canceled,
        () = clock => Stop::TimedOut,
    };
    cancel.cancel();
    // Without a limit: the lock of the operation must not pass on while anything of it may still touch the host.
    (work.await, Some(stop))
}

struct JournalIdentity {
    journal: Journal,
    position: i64,
    /// An identity is on disk, so that something may have begun under it.
    chosen: AtomicBool,
}

impl JournalIdentity {
    async fn advance(&self, phase: Phase, identity: Option<String>) -> io::Result<()> {
        match self.journal.advance(self.position, phase, identity).await? {
            true => Ok(()),
            false => Err(io::Error::other("the operation is over")),
        }
    }
}

impl IdentityStore for JournalIdentity {
    fn choose(&self, identity: String) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            self.advance(Phase::Starting, Some(identity)).await?;
            self.chosen.store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    fn confirm(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.advance(Phase::Running, None))
    }
}

/// A check creates nothing, so it has nothing to name.
struct NoIdentity;

impl IdentityStore for NoIdentity {
    fn choose(&self, _identity: String) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::Error::other("a check has no identity")) })
    }

    fn confirm(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::Error::other("a check has no identity")) })
    }
}
