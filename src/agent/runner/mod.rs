//! Carries out operations exactly as the journal says, whatever died before.
//!
//! Rules:
//!  1. Acceptance and beginning are not parted by a caller that goes away: both happen in a task of their own.
//!  2. An operation runs at most once at a time: it is begun by the Submit that accepted it, or by recovery.
//!  3. An outcome is told to nobody before it is in the journal, and its log is synced before that.
//!  4. Stopping the agent leaves operations as they are; recovery takes them up by their policy.
//!  5. Of what recovery takes up, at most [`RECOVERED_AT_ONCE`] run at the same time. Who is canceled or out of time
//!     does not wait for a turn: what it left on the host is stopped first.
//!  6. An operation that is told to stop holds its lock until nothing of it runs, however long that takes.

#[cfg(test)]
mod cancel_tests;
mod collection;
#[cfg(test)]
mod collection_tests;
mod execution;
mod outcome;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

use super::{
    journal::{Accepted, Acknowledged, Canceled, GivenUp, Journal, JournalError, Resume, Unfinished},
    logs::LogStore,
    operation::{Key, Order, Outcome, Phase, Record},
    step::{Carrier, StepLog as _},
};
use crate::{rpc::Refused, steps::Policy, telemetry::chain};
use futures_util::future::join_all;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Each may read a package, start programs and hold a log open, and the agent shares the host with the database.
const RECOVERED_AT_ONCE: usize = 32;
/// Shorter than a caller's patience, so that it hears why there is no answer; a killed rpm takes longer.
const CANCEL_LIMIT: Duration = Duration::from_secs(25);

/// A run of this process. That it is here says only whom to wake; what it reached stands in the journal.
#[derive(Clone, Default)]
struct Run {
    cancel: CancellationToken,
    ended: CancellationToken,
}

/// Reply to a Submit: the operation, and the log if it was a check.
#[derive(Debug)]
pub struct Submitted {
    pub record: Record,
    pub log: Vec<u8>,
}

pub struct Runner {
    journal: Journal,
    logs: LogStore,
    carrier: Arc<dyn Carrier>,
    runs: Mutex<HashMap<Key, Run>>,
    turns: Semaphore,
    draining: CancellationToken,
    abandoned: CancellationToken,
}

/// Who begins an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Submit,
    Recovery,
}

/// What to do with an operation that was under way when the agent stopped.
#[derive(Debug, PartialEq, Eq)]
enum AfterRestart {
    CarryOn,
    Interrupt,
}

fn after_restart(policy: Policy, phase: Phase) -> AfterRestart {
    match (policy, phase) {
        (Policy::Once, Phase::Starting | Phase::Running) => AfterRestart::Interrupt,
        // Nothing of it was begun, or beginning again is what the policy allows.
        (Policy::Once, _) | (Policy::Pure | Policy::Rerun | Policy::Probe, _) => AfterRestart::CarryOn,
    }
}

impl Runner {
    pub fn new(journal: Journal, logs: LogStore, carrier: Arc<dyn Carrier>) -> Arc<Self> {
        Arc::new(Self {
            journal,
            logs,
            carrier,
            runs: Mutex::default(),
            turns: Semaphore::new(RECOVERED_AT_ONCE),
            draining: CancellationToken::new(),
            abandoned: CancellationToken::new(),
        })
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    pub fn logs(&self) -> &LogStore {
        &self.logs
    }

    /// Operations that run at the moment or wait for their turn.
    pub fn running(&self) -> usize {
        self.runs().len()
    }

    /// Comes back when the runner takes orders and its journal has caught up. A journal that failed ends the agent by
    /// itself.
    pub async fn beat(&self) {
        drop(self.runs());
        let _ = self.journal.beat().await;
    }

    /// Cancelled once no more operations are taken.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Lets go of everything under way, without stopping anything on the host.
    pub fn abandon(&self) {
        self.draining.cancel();
        self.abandoned.cancel();
    }

    /// Takes up every unfinished operation; answers how many there were. Comes before the first Submit.
    pub async fn recover(self: &Arc<Self>) -> Result<usize, JournalError> {
        let unfinished = self.journal.unfinished().await?;
        let count = unfinished.len();
        let (mut given_up, mut carried_on) = (Vec::new(), Vec::new());
        for operation in unfinished {
            match operation {
                Unfinished::Unreadable { position, is_named, problem } => {
                    tracing::error!(position, problem, "a record of the journal cannot be read; it is given up");
                    let message = format!("the agent cannot read its record of the operation: {problem}");
                    let outcome = Outcome::interrupted("UNREADABLE_RECORD", message);
                    given_up.push(GivenUp { position, outcome, is_named });
                }
                Unfinished::Readable(resume) => match after_restart(resume.order.step.info().policy, resume.phase) {
                    AfterRestart::CarryOn => carried_on.push(*resume),
                    AfterRestart::Interrupt => {
                        let outcome = Outcome::interrupted("AGENT_RESTARTED", "the agent stopped during the step");
                        given_up.push(GivenUp { position: resume.position, outcome, is_named: true });
                    }
                },
            }
        }
        self.journal.give_up(given_up).await?;
        for resume in carried_on {
            self.begin(resume, Origin::Recovery);
        }
        Ok(count)
    }

    /// Carries out a check, or accepts an operation and begins it; answers how it stands.
    pub async fn submit(self: &Arc<Self>, order: Order) -> Result<Submitted, Refused> {
        if self.draining.is_cancelled() {
            return Err(Refused::Draining);
        }
        if order.step.info().policy == Policy::Pure {
            return self.check(order).await;
        }
        let runner = Arc::clone(self);
        let record = tokio::spawn(async move { runner.accept(order).await })
            .await
            .map_err(|error| Refused::Internal(chain(&error)))??;
        Ok(Submitted { record, log: Vec::new() })
    }

    async fn accept(self: Arc<Self>, order: Order) -> Result<Record, Refused> {
        match self.journal.accept(&order).await.map_err(refused)? {
            Accepted::Fresh(record) => {
                let timeout_us = order.timeout.map(|timeout| i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX));
                let fresh = Resume {
                    position: record.position,
                    phase: record.phase,
                    identity: None,
                    deadline_us: timeout_us.map(|timeout| record.accept_us.saturating_add(timeout)),
                    order,
                };
                self.begin(fresh, Origin::Submit);
                Ok(record)
            }
            Accepted::Known(record) => Ok(record),
            Accepted::OtherContent => Err(Refused::OtherContent {
                operation_id: order.key.operation_id.to_string(),
                attempt: order.key.attempt,
            }),
            Accepted::Superseded => Err(Refused::Precondition {
                reason: "SUPERSEDED",
                subject: order.key.to_string(),
                problem: "comes after a later attempt or its own undo".into(),
            }),
            Accepted::StaleEpoch { highest } => Err(Refused::StaleEpoch { given: order.epoch, highest }),
            Accepted::Locked { lock, holder } => Err(Refused::Locked { lock, holder }),
        }
    }

    fn begin(self: &Arc<Self>, resume: Resume, origin: Origin) {
        let key = resume.order.key;
        let run = Run::default();
        self.runs().insert(key, run.clone());
        let runner = Arc::clone(self);
        tokio::spawn(async move {
            let deadline = execution::remaining(&resume).map(|remaining| Instant::now() + remaining);
            let work = async {
                let _turn = match origin {
                    // The coordinator bounds what it submits.
                    Origin::Submit => None,
                    Origin::Recovery => runner.turn(&key, deadline, &run).await,
                };
                runner.carry_out(resume, deadline, &run).await;
            };
            tokio::select! {
                biased;
                () = runner.abandoned.cancelled() => {}
                () = work => {}
            }
            runner.runs().remove(&key);
            run.ended.cancel();
        });
    }

    /// Waits for a turn; none for who must not wait any longer.
    async fn turn(&self, key: &Key, deadline: Option<Instant>, run: &Run) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Some(turn);
        }
        // A log is open only while it is written to: a thousand of those who wait would use up all file descriptors.
        if let Ok(log) = self.logs.open(&key.run_id()) {
            log.line(&format!("waiting: the agent takes up {RECOVERED_AT_ONCE} operations at a time after its start"));
        }
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            turn = self.turns.acquire() => turn.ok(),
            () = run.cancel.cancelled() => None,
            () = late => None,
        }
    }

    pub async fn get(&self, key: Key) -> Result<Record, Refused> {
        self.journal.get(key).await.map_err(refused)?.ok_or_else(|| Refused::NotFound { what: key.to_string() })
    }

    /// Waits until the operation is over, for as long as `wait` at most; answers how it stands then.
    pub async fn over_within(&self, record: Record, wait: Duration) -> Result<Record, Refused> {
        if record.phase.is_over() {
            return Ok(record);
        }
        let run = self.runs().get(&record.key).cloned();
        if let Some(run) = run {
            tokio::select! {
                biased;
                () = run.ended.cancelled() => {}
                () = self.draining.cancelled() => return Ok(record),
                () = tokio::time::sleep(wait) => return Ok(record),
            }
        }
        self.get(record.key).await
    }

    /// Stops an operation and answers it once nothing of it runs; one that has not come yet will never run.
    pub async fn cancel(&self, key: Key, epoch: u64) -> Result<Record, Refused> {
        let known = match self.journal.cancel(key, epoch).await.map_err(refused)? {
            Canceled::StaleEpoch { highest } => return Err(Refused::StaleEpoch { given: epoch, highest }),
            Canceled::BeforeItCame(record) => return Ok(record),
            Canceled::Known(record) => record,
        };
        if known.phase.is_over() {
            return Ok(known);
        }
        match tokio::time::timeout(CANCEL_LIMIT, self.stop(key)).await {
            Ok(stopped) => stopped.map_err(refused)?.ok_or_else(|| Refused::NotFound { what: key.to_string() }),
            Err(_) => Err(Refused::StillStopping { what: key.to_string() }),
        }
    }

    /// Stops a run and waits until its outcome is in the journal.
    async fn stop(&self, key: Key) -> Result<Option<Record>, JournalError> {
        let mut commits = self.journal.commits();
        loop {
            commits.update();
            let record = self.journal.get(key).await?;
            if record.as_ref().is_none_or(|record| record.phase.is_over()) {
                return Ok(record);
            }
            let run = self.runs().get(&key).cloned();
            match run {
                Some(run) => {
                    run.cancel.cancel();
                    run.ended.cancelled().await;
                }
                // Accepted a moment ago and not begun yet, or left to recovery.
                None => {
                    let stopped = tokio::time::timeout(Duration::from_secs(1), commits.changed()).await;
                    if matches!(stopped, Ok(Err(_))) || self.abandoned.is_cancelled() {
                        return Err(JournalError::Stopped);
                    }
                }
            }
        }
    }

    pub async fn acknowledge(&self, key: Key, epoch: u64) -> Result<(), Refused> {
        match self.journal.acknowledge(key, epoch).await.map_err(refused)? {
            Acknowledged::Done => Ok(()),
            Acknowledged::Unknown => Err(Refused::NotFound { what: key.to_string() }),
            Acknowledged::StaleEpoch { highest } => Err(Refused::StaleEpoch { given: epoch, highest }),
            Acknowledged::NotFinished => Err(Refused::Precondition {
                reason: "NOT_FINISHED",
                subject: key.to_string(),
                problem: "is not finished: there is no outcome to acknowledge".into(),
            }),
        }
    }

    /// The same for several, in one commit. Those that the journal does not know are passed over.
    pub async fn acknowledge_all(&self, keys: Vec<Key>, epoch: u64) -> Result<(), Refused> {
        let is_alone = keys.len() == 1;
        let acknowledged = keys.into_iter().map(|key| self.acknowledge(key, epoch));
        for result in join_all(acknowledged).await {
            match result {
                Err(Refused::NotFound { .. }) if !is_alone => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn refused(error: JournalError) -> Refused {
    match &error {
        JournalError::DiskFull => Refused::DiskFull(error.to_string()),
        // Whether the change is on disk is unknown, and that is what UNAVAILABLE tells.
        JournalError::Stopped => Refused::Draining,
        JournalError::Encode(_) | JournalError::Read(_) => Refused::Internal(chain(&error)),
    }
}
