//! The numbers I1, I2, ... are those of the invariants in `docs/durability.md`.

mod cancel;
mod examples;
mod histories;
mod model;

use super::*;

impl Failure {
    /// One like any other, for tests.
    pub(crate) fn example(effect: Effect) -> Self {
        Self {
            reason: "TEST".into(),
            message: "it failed".into(),
            causes: Vec::new(),
            next_move: "retry".into(),
            exit_code: None,
            signal: None,
            log_tail: Vec::new(),
            effect,
        }
    }
}

/// How work ends.
fn ending(dispatch: Dispatch, succeeds: bool) -> Event {
    let Dispatch { node, attempt, direction } = dispatch;
    match (direction, succeeds) {
        (Direction::Execute, true) => Event::Succeeded { node, attempt, effect: Effect::Done, output: Vec::new() },
        (Direction::Execute, false) => Event::Failed { node, attempt, failure: Failure::example(Effect::Unknown) },
        (Direction::Undo, true) => Event::Undone { node, attempt },
        (Direction::Undo, false) => Event::UndoFailed { node, attempt, failure: Failure::example(Effect::Unknown) },
    }
}

fn dispatched(dispatch: Dispatch) -> Event {
    Event::Dispatched { node: dispatch.node, attempt: dispatch.attempt, direction: dispatch.direction }
}

/// What was handed out and has not ended.
fn flights(state: &TaskState) -> Vec<Dispatch> {
    let open = |(node, s): (NodeIndex, &SubtaskState)| {
        s.flight.map(|direction| Dispatch { node, attempt: s.attempt, direction })
    };
    state.subtasks().filter_map(open).collect()
}

fn order(state: &mut TaskState, command: Command) -> Result<(), Refusal> {
    let event = state.decide(command, "admin")?;
    state.apply(&event).unwrap();
    Ok(())
}

/// Hands out the one thing that can be, and answers it.
fn begin_next(state: &mut TaskState) -> Dispatch {
    let next = plan(state, 1)[0];
    state.apply(&dispatched(next)).unwrap();
    next
}

fn run_all(state: &mut TaskState, fail_at: Option<NodeIndex>) {
    while !plan(state, 1).is_empty() {
        let next = begin_next(state);
        let succeeds = next.direction == Direction::Undo || fail_at != Some(next.node);
        state.apply(&ending(next, succeeds)).unwrap();
    }
}

fn statuses(state: &TaskState) -> Vec<SubtaskStatus> {
    state.subtasks().map(|(_, subtask)| subtask.status).collect()
}
