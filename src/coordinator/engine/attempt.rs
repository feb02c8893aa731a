//! One attempt of an agent step, from the coordinator's side.
//!
//!  1. The attempt was committed as Dispatched before this begins; beginning again after a crash uses the same key, so
//!     the agent answers what became of it instead of doing it twice.
//!  2. No answer means "unknown": the same call is made again until the deadline.
//!  3. Past the deadline nothing is begun any more, but the agent is asked for what it began before: a coordinator that
//!     was away for long may have missed a success.
//!  4. What is still under way then is canceled on the agent. If the agent cannot be reached either, the attempt failed
//!     with an unknown effect, and its undo is what finds out.

use super::{log::AttemptLog, waits::WaitPlace};
use crate::{
    coordinator::{
        agents::{Agent, CallError, PutError},
        connection::Distrust,
        store::now_micros,
    },
    graph::{Direction, Effect, Failure},
    rpc::v1,
    steps::{AgentStep, fingerprint, values::Sha256},
};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How long an agent may hold back its answer to a Submit for the outcome, which spares a stream for steps that are quick.
const HELD_BACK: Duration = Duration::from_millis(250);

/// What an attempt came to.
#[derive(Debug)]
pub enum Outcome {
    Succeeded {
        effect: Effect,
        output: Vec<(String, String)>,
    },
    Failed(Failure),
    /// This coordinator is going down: nothing may be written.
    Abandoned,
}

/// A package that the step needs, where the coordinator keeps it.
pub(super) struct PackageFile {
    pub(super) name: String,
    pub(super) sha256: Sha256,
    pub(super) path: PathBuf,
}

/// Everything that an attempt needs.
pub(super) struct AgentAttempt {
    pub(super) agent: Agent,
    /// Turns on the host; one is taken while the agent is asked.
    pub(super) permits: Arc<Semaphore>,
    pub(super) step: AgentStep,
    pub(super) direction: Direction,
    pub(super) key: v1::OperationKey,
    pub(super) epoch: u64,
    /// With [`Direction::Undo`]: the operation that is taken back, and its effect as far as it is known.
    pub(super) undoes: Option<(String, Effect)>,
    pub(super) secrets: Vec<(&'static str, Zeroizing<String>)>,
    pub(super) packages: Vec<PackageFile>,
    pub(super) deadline: Instant,
    pub(super) cancel: CancellationToken,
    pub(super) place: WaitPlace,
    /// The agent may have begun: it was asked before, and has not said how it ended.
    pub(super) submitted: AtomicBool,
}

/// The agent stops a step by itself at its timeout; the coordinator waits this much longer for its word.
const GRACE: Duration = Duration::from_secs(10);
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);
/// The agent gives rpm a minute to end between two files, and then kills it.
const CANCEL_LIMIT: Duration = Duration::from_secs(90);

enum Progress {
    Over(Outcome),
    /// Ask again; the text says what is waited for.
    Again(String),
}

impl AgentAttempt {
    pub(super) async fn run(self, log: &mut AttemptLog) -> Outcome {
        let limit = self.deadline + GRACE;
        let ended = tokio::select! {
            biased;
            outcome = self.pursue_in_turn(log) => Some(outcome),
            () = self.cancel.cancelled() => None,
            () = tokio::time::sleep_until(limit) => None,
        };
        let outcome = match ended {
            Some(outcome) => outcome,
            None => self.stop().await,
        };
        if let Outcome::Failed(failure) = &outcome {
            let _ = log.line(&format!("failed: {} ({})", failure.message, failure.reason)).await;
        }
        outcome
    }

    async fn pursue_in_turn(&self, log: &mut AttemptLog) -> Outcome {
        if self.permits.available_permits() == 0 {
            self.place.waits_for(format!("its turn on host {}", self.agent.address.0.ip()));
        }
        // Never closed; and without a permit nothing may run.
        match self.permits.acquire().await {
            Ok(_permit) => {
                self.place.goes_on();
                self.pursue(log).await
            }
            Err(_) => Outcome::Abandoned,
        }
    }

    /// Asks until the agent says how it ended.
    async fn pursue(&self, log: &mut AttemptLog) -> Outcome {
        let mut backoff = backoff();
        let mut told = String::new();
        loop {
            let reason = match self.try_once(log).await {
                Progress::Over(outcome) => return outcome,
                Progress::Again(reason) => reason,
            };
            self.place.is_silent();
            self.place.waits_for(format!("the next try, because {reason}"));
            // The same reason is told once, not at every attempt.
            if reason != told {
                if log.line(&format!("waiting: {reason}")).await.is_err() {
                    return Outcome::Abandoned;
                }
                told = reason;
                backoff = self::backoff();
            }
            tokio::time::sleep(backoff.next().unwrap_or(MAX_DELAY)).await;
        }
    }

    async fn try_once(&self, log: &mut AttemptLog) -> Progress {
        if self.is_late() {
            let never_begun = || Progress::Over(Outcome::Failed(self.given_up(Effect::None, Vec::new())));
            return if self.is_pure() { never_begun() } else { self.follow(log).await };
        }
        for package in &self.packages {
            if let Some(progress) = self.bring_package(package, log).await {
                return progress;
            }
        }
        self.place.waits_for(format!("an answer of agent {}", self.agent.address));
        let response = match self.agent.submit(self.request()).await {
            Ok(response) => {
                self.submitted.store(true, Ordering::Relaxed);
                response
            }
            Err(error) => {
                let progress = self.judge(&error);
                if matches!(error, CallError::Unknown { .. }) {
                    self.submitted.store(true, Ordering::Relaxed);
                }
                return progress;
            }
        };
        if log.agent_bytes(0, &response.log).await.is_err() {
            return Progress::Over(Outcome::Abandoned);
        }
        if !self.is_pure() {
            // The log has to be here as a whole before the outcome counts.
            let ended = response.operation.filter(|operation| operation.log_bytes == log.agent_offset());
            return match ended.and_then(|operation| operation.outcome) {
                Some(outcome) => Progress::Over(translate(outcome)),
                None => self.follow(log).await,
            };
        }
        match response.operation.and_then(|operation| operation.outcome) {
            Some(outcome) => Progress::Over(translate(outcome)),
            None => Progress::Over(missing_outcome(&self.agent)),
        }
    }

    fn is_late(&self) -> bool {
        self.deadline <= Instant::now()
    }

    fn is_pure(&self) -> bool {
        self.step.info().policy == crate::steps::Policy::Pure
    }

    async fn bring_package(&self, package: &PackageFile, log: &mut AttemptLog) -> Option<Progress> {
        let PackageFile { name, sha256, path } = package;
        let mut sent = None;
        let put = self.agent.put_package(path, name, sha256.as_str(), |there, size| {
            sent.get_or_insert((there, size));
        });
        match put.await {
            Ok(()) => match sent {
                Some((there, size)) if there < size => {
                    let line = format!("package {name} sent to {} ({} bytes)", self.agent.address, size - there);
                    log.line(&line).await.err().map(|_| Progress::Over(Outcome::Abandoned))
                }
                _ => None,
            },
            // Agents that do not know the step take no package of Debian either.
            Err(PutError::Call(CallError::Refused { agent, reason, .. }))
                if reason == "BAD_REQUEST" && matches!(self.step, AgentStep::UpgradeAgent(_)) =>
            {
                Some(self.judge(&CallError::UnknownStep { agent }))
            }
            Err(PutError::Call(error)) => Some(self.judge(&error)),
            Err(PutError::File(error)) => Some(Progress::Over(Outcome::Failed(Failure {
                reason: "PACKAGE_UNREADABLE".into(),
                message: format!("the coordinator's copy of {name} cannot be read"),
                causes: vec![error.to_string()],
                next_move: "upload the package again, then retry the subtask".into(),
                exit_code: None,
                signal: None,
                log_tail: Vec::new(),
                effect: self.left(),
            }))),
        }
    }

    /// What there is on the host, if the agent refuses to be asked: nothing, unless it may have begun before.
    fn left(&self) -> Effect {
        if self.is_pure() || !self.submitted.load(Ordering::Relaxed) { Effect::None } else { Effect::Unknown }
    }

    fn request(&self) -> v1::SubmitRequest {
        let secret = |(name, value): &(&str, Zeroizing<String>)| v1::Secret {
            name: (*name).into(),
            value: value.as_bytes().to_vec(),
        };
        // The contract knows no timeout of zero.
        let least = Duration::from_millis(1);
        let remaining = self.deadline.saturating_duration_since(Instant::now()).max(least);
        v1::SubmitRequest {
            key: Some(self.key.clone()),
            epoch: self.epoch,
            fingerprint: fingerprint(&self.step, self.direction),
            direction: match self.direction {
                Direction::Execute => v1::Direction::Execute.into(),
                Direction::Undo => v1::Direction::Undo.into(),
            },
            step: Some(v1::Step::from(&self.step)),
            undoes_operation_id: self.undoes.as_ref().map(|(id, _)| id.clone()).unwrap_or_default(),
            undoes_effect: self.undoes.as_ref().map_or(v1::Effect::Unspecified, |(_, effect)| (*effect).into()).into(),
            secrets: self.secrets.iter().map(secret).collect(),
            timeout: remaining.try_into().ok(),
            wait: (!self.is_pure()).then(|| HELD_BACK.try_into().ok()).flatten(),
        }
    }

    /// Watches until the outcome, from where the log stands.
    async fn follow(&self, log: &mut AttemptLog) -> Progress {
        let request =
            v1::WatchRequest { key: Some(self.key.clone()), after_sequence: 0, log_offset: log.agent_offset() };
        let mut stream = match self.agent.watch(request).await {
            Ok(stream) => stream,
            Err(error) => return self.judge(&error),
        };
        self.place.goes_on();
        let lost = |why: &str| Progress::Again(format!("agent {} {why}", self.agent.address));
        loop {
            let item = match tokio::time::timeout(HEARTBEAT_LIMIT, stream.message()).await {
                Ok(Ok(Some(message))) => message.item,
                Ok(Ok(None)) => return lost("ended its stream before the outcome"),
                Ok(Err(_)) => return lost("was lost"),
                Err(_) => return lost("fell silent"),
            };
            use v1::watch_response::Item;
            match item {
                Some(Item::Log(chunk)) => {
                    if log.agent_bytes(chunk.offset, &chunk.data).await.is_err() {
                        return Progress::Over(Outcome::Abandoned);
                    }
                }
                Some(Item::Event(v1::Event { outcome: Some(outcome), .. })) => {
                    return Progress::Over(translate(outcome));
                }
                Some(Item::Event(_) | Item::Heartbeat(_)) | None => {}
            }
        }
    }

    fn judge(&self, error: &CallError) -> Progress {
        match error {
            CallError::NotFound { .. } if self.is_late() => {
                Progress::Over(Outcome::Failed(self.given_up(Effect::None, Vec::new())))
            }
            CallError::Unknown { .. } | CallError::Busy { .. } | CallError::NotFound { .. } => {
                Progress::Again(error.to_string())
            }
            CallError::Fenced { .. } => Progress::Over(Outcome::Failed(fenced(error))),
            CallError::Distrusted { source, .. } => {
                let effect = if self.is_pure() { Effect::None } else { Effect::Unknown };
                Progress::Over(Outcome::Failed(distrusted(source, effect)))
            }
            CallError::UnknownStep { .. } => Progress::Over(Outcome::Failed(Failure {
                reason: "AGENT_TOO_OLD".into(),
                message: error.to_string(),
                causes: Vec::new(),
                next_move: "install the newer package of oblet-agent on the host with its own package manager, then \
                            retry the subtask"
                    .into(),
                exit_code: None,
                signal: None,
                log_tail: Vec::new(),
                effect: self.left(),
            })),
            CallError::Refused { reason, .. } => Progress::Over(Outcome::Failed(Failure {
                reason: reason.clone(),
                message: error.to_string(),
                causes: Vec::new(),
                next_move: "fix what the agent names, then retry the subtask".into(),
                exit_code: None,
                signal: None,
                log_tail: Vec::new(),
                effect: self.left(),
            })),
        }
    }

    /// Canceled or out of time: the operation is stopped on the agent, and the attempt is over only when it is dead.
    async fn stop(&self) -> Outcome {
        let until = now_micros().saturating_add(i64::try_from(CANCEL_LIMIT.as_micros()).unwrap_or(i64::MAX));
        self.place.waits_until(until, format!("agent {} to end the step", self.agent.address));
        let mut effect = Effect::Unknown;
        let mut causes = Vec::new();
        if self.is_pure() {
            effect = Effect::None;
        } else {
            let answer = tokio::time::timeout(CANCEL_LIMIT, self.cancel_until_answered()).await;
            match answer {
                Ok(Ok(Some(outcome))) => {
                    let translated = translate(outcome);
                    match translated {
                        Outcome::Failed(failure) if failure.reason != "CANCELED" => return Outcome::Failed(failure),
                        Outcome::Failed(failure) => effect = failure.effect,
                        // It was faster than the cancellation.
                        Outcome::Succeeded { .. } | Outcome::Abandoned => return translated,
                    }
                }
                // The agent has never heard of it, so there is nothing to stop.
                Ok(Err(CallError::NotFound { .. })) => effect = Effect::None,
                Ok(Err(error @ CallError::Fenced { .. })) => return Outcome::Failed(fenced(&error)),
                Ok(Err(error)) => causes.push(error.to_string()),
                Ok(Ok(None)) | Err(_) => {
                    causes.push(format!("agent {} did not say that it stopped", self.agent.address));
                }
            }
        }
        Outcome::Failed(self.given_up(effect, causes))
    }

    /// Canceled, if the operator asked for it; else out of time.
    fn given_up(&self, effect: Effect, causes: Vec<String>) -> Failure {
        let canceled = self.cancel.is_cancelled();
        let (reason, what) = if canceled { ("CANCELED", "was canceled") } else { ("TIMEOUT", "ran out of time") };
        Failure {
            reason: reason.into(),
            message: format!("{} on {} {what}", self.step.info().name, self.agent.address.0.ip()),
            causes,
            next_move: "see the log of the subtask for what it was waiting for, then retry it or roll the task back"
                .into(),
            exit_code: None,
            signal: None,
            log_tail: Vec::new(),
            effect,
        }
    }

    async fn cancel_until_answered(&self) -> Result<Option<v1::Outcome>, CallError> {
        for delay in backoff() {
            match self.agent.cancel(self.key.clone(), self.epoch).await {
                Ok(response) => return Ok(response.operation.and_then(|operation| operation.outcome)),
                Err(CallError::Unknown { .. } | CallError::Busy { .. }) => tokio::time::sleep(delay).await,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

const MAX_DELAY: Duration = Duration::from_secs(5);

/// With jitter, so that a thousand attempts that lost one switch do not come back in one instant.
pub(super) fn backoff() -> backon::ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_DELAY)
        .without_max_times()
        .build()
}

/// If a newer coordinator has the task as well, the store refuses this outcome; if not, an operator has to know.
fn fenced(error: &CallError) -> Failure {
    Failure {
        reason: "STALE_EPOCH".into(),
        message: error.to_string(),
        causes: Vec::new(),
        next_move:
            "stop the other coordinator of this host, or restore this one's newest state, then retry the subtask; if the \
             clock of a coordinator was ahead, use: oblet host reset-epoch"
                .into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect: Effect::Unknown,
    }
}

/// Waiting would not help, and nothing that the host says would be believed.
fn distrusted(distrust: &Distrust, effect: Effect) -> Failure {
    Failure {
        reason: "HOST_NOT_TRUSTED".into(),
        message: distrust.to_string(),
        causes: Vec::new(),
        next_move: "enrol the host again with a fresh token (oblet host add --token), then retry the subtask".into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect,
    }
}

fn missing_outcome(agent: &Agent) -> Outcome {
    Outcome::Failed(Failure {
        reason: "NO_OUTCOME".into(),
        message: format!("agent {} answered a check without its outcome", agent.address),
        causes: Vec::new(),
        next_move: "compare the versions of agent and coordinator".into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect: Effect::None,
    })
}

fn translate(outcome: v1::Outcome) -> Outcome {
    let effect = outcome.effect().into();
    if outcome.result() == v1::Result::Succeeded {
        let output = outcome.output.into_iter().map(|item| (item.name, item.value)).collect();
        return Outcome::Succeeded { effect, output };
    }
    let result = outcome.result();
    let failure = outcome.failure.unwrap_or_default();
    let reason = match result {
        v1::Result::Canceled => "CANCELED".into(),
        v1::Result::Interrupted if failure.reason.is_empty() => "INTERRUPTED".into(),
        _ => failure.reason,
    };
    Outcome::Failed(Failure {
        reason,
        message: failure.message,
        causes: failure.causes,
        next_move: failure.next_move,
        exit_code: failure.exit_code,
        signal: failure.signal,
        log_tail: failure.log_tail,
        effect,
    })
}

impl From<v1::Effect> for Effect {
    fn from(effect: v1::Effect) -> Self {
        match effect {
            v1::Effect::None => Self::None,
            v1::Effect::Done => Self::Done,
            v1::Effect::Unknown | v1::Effect::Unspecified => Self::Unknown,
        }
    }
}

impl From<Effect> for v1::Effect {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::None => Self::None,
            Effect::Done => Self::Done,
            Effect::Unknown => Self::Unknown,
        }
    }
}
