//! Operations to and from the contract.

use super::operation::{Key, Order, Outcome, Phase, PhaseEvent, Record, UndoTarget};
use crate::{
    graph::{Direction, Effect, Failure},
    rpc::{Refused, v1},
    steps::{AgentStep, FieldViolation, fingerprint},
};
use prost_types::Timestamp;
use std::time::Duration;
use uuid::Uuid;
use zeroize::Zeroizing;

/// A longer one would outlive the patience of callers and keep a draining agent from its end.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Operations beside the first that one call acknowledges.
const MOST_MORE: usize = 255;

/// Collects everything that is wrong with a request, so that the caller hears it at once.
#[derive(Default)]
struct Violations(Vec<FieldViolation>);

impl Violations {
    fn add(&mut self, field: &str, problem: impl ToString) {
        self.0.push(FieldViolation { field: field.into(), problem: problem.to_string() });
    }

    fn check<T>(&mut self, field: &str, result: Result<T, impl ToString>) -> Option<T> {
        result.map_err(|problem| self.add(field, problem.to_string())).ok()
    }
}

pub(super) fn bad_request(field: &str, problem: impl ToString) -> Refused {
    Refused::BadRequest(vec![FieldViolation { field: field.into(), problem: problem.to_string() }])
}

pub(super) fn key(key: Option<v1::OperationKey>) -> Result<Key, Refused> {
    let mut violations = Violations::default();
    parse_key(key, &mut violations).ok_or(Refused::BadRequest(violations.0))
}

fn parse_key(key: Option<v1::OperationKey>, violations: &mut Violations) -> Option<Key> {
    let Some(key) = key else {
        violations.add("key", "is missing");
        return None;
    };
    if key.attempt == 0 {
        violations.add("key.attempt", "is 0: attempts are counted from 1");
    }
    let operation_id = violations.check("key.operation_id", key.operation_id.parse::<Uuid>().map_err(not_a_uuid))?;
    (key.attempt > 0).then_some(Key { operation_id, attempt: key.attempt })
}

fn not_a_uuid(error: uuid::Error) -> String {
    format!("is not a UUID: {error}")
}

pub(super) fn epoch(epoch: u64) -> Result<u64, Refused> {
    // SQLite's integers are signed.
    if i64::try_from(epoch).is_ok() { Ok(epoch) } else { Err(bad_request("epoch", "is above 2^63 - 1")) }
}

/// How long the answer to a Submit may be held back.
pub(super) fn wait(request: &v1::SubmitRequest) -> Result<Duration, Refused> {
    let Some(wait) = request.wait else { return Ok(Duration::ZERO) };
    let wait = Duration::try_from(wait).map_err(|_negative| bad_request("wait", "is below zero"))?;
    Ok(wait.min(LONGEST_WAIT))
}

/// Operations whose outcomes are safe.
pub(super) fn acknowledged(request: v1::AcknowledgeRequest) -> Result<Vec<Key>, Refused> {
    if request.more.len() > MOST_MORE {
        return Err(bad_request(
            "more",
            format!("has {} operations, at most {MOST_MORE} are taken", request.more.len()),
        ));
    }
    std::iter::once(request.key).chain(request.more.into_iter().map(Some)).map(key).collect()
}

pub(super) fn order(request: v1::SubmitRequest) -> Result<Order, Refused> {
    let mut violations = Violations::default();
    let key = parse_key(request.key, &mut violations);
    if epoch(request.epoch).is_err() {
        violations.add("epoch", "is above 2^63 - 1");
    }
    let direction = match v1::Direction::try_from(request.direction) {
        Ok(v1::Direction::Execute) => Some(Direction::Execute),
        Ok(v1::Direction::Undo) => Some(Direction::Undo),
        Ok(v1::Direction::Unspecified) | Err(_) => {
            violations.add("direction", "is neither DIRECTION_EXECUTE nor DIRECTION_UNDO");
            None
        }
    };
    let step = match AgentStep::try_from(request.step.unwrap_or_default()) {
        Ok(step) => Some(step),
        Err(violation) => {
            violations.0.push(violation);
            None
        }
    };
    let undoes = match direction {
        Some(Direction::Undo) => violations
            .check("undoes_operation_id", request.undoes_operation_id.parse::<Uuid>().map_err(not_a_uuid))
            .map(|operation_id| UndoTarget { operation_id, effect: effect_from_wire(request.undoes_effect) }),
        Some(Direction::Execute) if !request.undoes_operation_id.is_empty() => {
            violations.add("undoes_operation_id", "belongs to DIRECTION_UNDO only");
            None
        }
        Some(Direction::Execute) | None => None,
    };
    if let (Some(step), Some(direction)) = (&step, direction) {
        if request.fingerprint != fingerprint(step, direction) {
            violations.add("fingerprint", "does not belong to this step and direction");
        }
        for name in step.secrets(direction) {
            if !request.secrets.iter().any(|secret| secret.name == *name) {
                violations.add("secrets", format!("lack {name}"));
            }
        }
    }
    let mut secrets = Vec::new();
    for secret in request.secrets {
        match String::from_utf8(secret.value) {
            Ok(value) => secrets.push((secret.name, Zeroizing::new(value))),
            Err(error) => {
                drop(Zeroizing::new(error.into_bytes()));
                violations.add("secrets", format!("{:?} is not UTF-8", secret.name));
            }
        }
    }
    let timeout = request.timeout.and_then(|timeout| {
        let timeout = Duration::try_from(timeout).ok().filter(|timeout| !timeout.is_zero());
        if timeout.is_none() {
            violations.add("timeout", "is not above zero");
        }
        timeout
    });
    match (key, step) {
        (Some(key), Some(step)) if violations.0.is_empty() => Ok(Order {
            key,
            epoch: request.epoch,
            fingerprint: request.fingerprint,
            step,
            undoes,
            secrets: secrets.into_iter().collect(),
            timeout,
        }),
        _ => Err(Refused::BadRequest(violations.0)),
    }
}

pub(super) fn operation(record: &Record, log_bytes: u64) -> v1::Operation {
    v1::Operation {
        key: Some(v1::OperationKey { operation_id: record.key.operation_id.to_string(), attempt: record.key.attempt }),
        epoch: record.epoch,
        step_kind: record.step_kind.clone(),
        direction: match record.direction {
            Direction::Execute => v1::Direction::Execute,
            Direction::Undo => v1::Direction::Undo,
        }
        .into(),
        phase: phase(record.phase).into(),
        sequence: record.sequence,
        accept_time: Some(timestamp(record.accept_us)),
        finish_time: record.finish_us.map(timestamp),
        outcome: record.outcome.as_ref().map(outcome),
        log_bytes,
    }
}

/// `outcome` goes with the event of the phase FINISHED only.
pub(super) fn event(event: &PhaseEvent, record: &Record) -> v1::Event {
    v1::Event {
        sequence: event.sequence,
        phase: phase(event.phase).into(),
        time: Some(timestamp(event.time_us)),
        outcome: record.outcome.as_ref().filter(|_| event.phase == Phase::Finished).map(outcome),
    }
}

fn outcome(outcome: &Outcome) -> v1::Outcome {
    let (result, output, told) = match outcome {
        Outcome::Succeeded { output, .. } => (v1::Result::Succeeded, output.as_slice(), None),
        Outcome::Failed(told) => (v1::Result::Failed, [].as_slice(), Some(told)),
        Outcome::Canceled(told) => (v1::Result::Canceled, [].as_slice(), Some(told)),
        Outcome::Interrupted(told) => (v1::Result::Interrupted, [].as_slice(), Some(told)),
    };
    v1::Outcome {
        result: result.into(),
        effect: effect(outcome.effect()).into(),
        output: output.iter().map(|(name, value)| v1::NameValue { name: name.clone(), value: value.clone() }).collect(),
        failure: told.map(failure),
    }
}

fn failure(failure: &Failure) -> v1::Failure {
    v1::Failure {
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        causes: failure.causes.clone(),
        next_move: failure.next_move.clone(),
        exit_code: failure.exit_code,
        signal: failure.signal,
        log_tail: failure.log_tail.clone(),
    }
}

fn effect(effect: Effect) -> v1::Effect {
    match effect {
        Effect::None => v1::Effect::None,
        Effect::Done => v1::Effect::Done,
        Effect::Unknown => v1::Effect::Unknown,
    }
}

fn effect_from_wire(number: i32) -> Effect {
    match v1::Effect::try_from(number) {
        Ok(v1::Effect::None) => Effect::None,
        Ok(v1::Effect::Done) => Effect::Done,
        Ok(v1::Effect::Unknown | v1::Effect::Unspecified) | Err(_) => Effect::Unknown,
    }
}

fn phase(phase: Phase) -> v1::Phase {
    match phase {
        Phase::Accepted => v1::Phase::Accepted,
        Phase::Starting => v1::Phase::Starting,
        Phase::Running => v1::Phase::Running,
        Phase::Finished => v1::Phase::Finished,
        Phase::Acknowledged => v1::Phase::Acknowledged,
    }
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    let seconds = micros.div_euclid(1_000_000);
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
    Timestamp { seconds, nanos }
}
