//! What a run came to, in the words of the journal.

use crate::{
    agent::{
        operation::Outcome,
        step::{Done, StepError, StepLog},
    },
    graph::{Effect, Failure},
    telemetry::{causes, chain},
};
use std::{any::Any, time::Duration};

/// The end of a step, or its panic.
pub(super) type Work = Result<Result<Done, StepError>, Box<dyn Any + Send>>;

/// Why a step was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Canceled,
    TimedOut,
}

/// Lines of the log that go with a failure.
const TAIL_LINES: usize = 20;

pub(super) fn outcome(work: Work, stop: Option<Stop>, timeout: Option<Duration>, log: &dyn StepLog) -> Outcome {
    let error = match work {
        // It got there before it heard that it should stop.
        Ok(Ok(Done { effect, output })) => return Outcome::Succeeded { effect, output },
        Ok(Err(error)) => error,
        Err(panic) => panicked(panic.as_ref()),
    };
    match stop {
        None => Outcome::Failed(failure(error, log)),
        Some(Stop::Canceled) => {
            let mut canceled = StepError::canceled("the step").leaving(error.effect);
            (canceled.exit_code, canceled.signal) = (error.exit_code, error.signal);
            Outcome::Canceled(failure(with_cause(canceled, error), log))
        }
        Some(Stop::TimedOut) => {
            let limit = timeout.unwrap_or_default().as_secs();
            let mut late = StepError::new(
                "TIMEOUT",
                format!("the step did not end in time and was stopped (limit: {limit} s)"),
                "read the log for what it waited for, then retry",
            )
            .leaving(error.effect);
            (late.exit_code, late.signal) = (error.exit_code, error.signal);
            Outcome::Failed(failure(with_cause(late, error), log))
        }
    }
}

/// What the step said on its way out, unless it only said that it was stopped.
fn with_cause(outer: StepError, error: StepError) -> StepError {
    if error.reason == "CANCELED" { outer } else { outer.because(chain(&error)) }
}

fn panicked(panic: &(dyn Any + Send)) -> StepError {
    let message = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into());
    StepError::new(
        "PANIC",
        "internal error of the agent in this step",
        "report this as a bug of oblet; look at the host",
    )
    .because(message)
    .leaving(Effect::Unknown)
}

fn failure(error: StepError, log: &dyn StepLog) -> Failure {
    Failure {
        reason: error.reason.into(),
        causes: causes(&error),
        message: error.message,
        next_move: error.next_move,
        exit_code: error.exit_code,
        signal: error.signal,
        log_tail: log.tail(TAIL_LINES),
        effect: error.effect,
    }
}
