//! Cancellation of a task: it ends what runs, begins nothing more, and loses nothing.

use super::*;
use SubtaskStatus::{Canceling, Failed, Pending, Ready, Successful};

/// Two chains of two, side by side: 0 -> 2, 1 -> 3.
fn two_chains() -> TaskState {
    let node = |upstreams: &[u32]| Node {
        upstreams: upstreams.iter().copied().map(NodeIndex).collect(),
        prohibit_rollback: false,
    };
    TaskState::new(Graph::new(vec![node(&[]), node(&[]), node(&[0]), node(&[1])]).unwrap())
}

fn begin_all(state: &mut TaskState) -> Vec<Dispatch> {
    let planned = plan(state, usize::MAX);
    for dispatch in &planned {
        state.apply(&dispatched(*dispatch)).unwrap();
    }
    planned
}

fn end(state: &mut TaskState, dispatch: Dispatch, succeeds: bool) {
    state.apply(&ending(dispatch, succeeds)).unwrap();
}

#[test]
fn a_canceled_task_ends_what_runs_and_begins_nothing() {
    let mut state = two_chains();
    let begun = begin_all(&mut state);
    order(&mut state, Command::Cancel).unwrap();
    assert_eq!(statuses(&state), [Canceling, Canceling, Pending, Pending]);
    assert_eq!((state.operation(), state.status()), (Operation::Cancel, TaskStatus::Running));
    end(&mut state, begun[0], false);
    end(&mut state, begun[1], true);
    assert_eq!(statuses(&state), [Failed, Successful, Pending, Ready]);
    assert_eq!(state.subtask(NodeIndex(0)).unwrap().operation, Operation::Cancel);
    assert_eq!(state.status(), TaskStatus::Failed);
    assert_eq!(plan(&state, usize::MAX), []);
    let next = Dispatch { node: NodeIndex(3), attempt: 1, direction: Direction::Execute };
    assert!(state.apply(&dispatched(next)).is_err(), "I13");
}

#[test]
fn a_canceled_task_in_which_nothing_failed_goes_on_when_it_is_retried() {
    let mut state = two_chains();
    let begun = begin_all(&mut state);
    order(&mut state, Command::Cancel).unwrap();
    begun.into_iter().for_each(|dispatch| end(&mut state, dispatch, true));
    assert_eq!(statuses(&state), [Successful, Successful, Ready, Ready]);
    assert_eq!(state.status(), TaskStatus::Failed);
    order(&mut state, Command::Retry).unwrap();
    assert_eq!(state.status(), TaskStatus::Running);
    run_all(&mut state, None);
    assert_eq!(state.status(), TaskStatus::Successful);
    assert!(state.subtasks().all(|(_, s)| s.attempt == 1), "nothing was done again");
}

#[test]
fn a_task_that_was_done_before_its_cancel_could_end_it_is_successful() {
    let mut state = TaskState::new(Graph::chain(1).unwrap());
    let begun = begin_next(&mut state);
    order(&mut state, Command::Cancel).unwrap();
    end(&mut state, begun, true);
    assert_eq!(state.status(), TaskStatus::Successful);
}

#[test]
fn a_task_is_canceled_before_anything_of_it_began() {
    let mut state = two_chains();
    order(&mut state, Command::Cancel).unwrap();
    assert_eq!(state.status(), TaskStatus::Failed);
    order(&mut state, Command::Rollback).unwrap();
    assert_eq!(state.status(), TaskStatus::Successful);
    assert_eq!(statuses(&state), [Pending; 4]);
}

#[test]
fn what_waits_to_be_retried_can_be_decided_upon_after_a_cancel() {
    let mut state = two_chains();
    let begun = begin_all(&mut state);
    begun.into_iter().for_each(|dispatch| end(&mut state, dispatch, false));
    order(&mut state, Command::Retry).unwrap();
    // One of the two is handed out, and the other waits for its turn.
    let undo = begin_next(&mut state);
    order(&mut state, Command::Cancel).unwrap();
    assert_eq!(statuses(&state), [Canceling, Failed, Pending, Pending]);
    end(&mut state, undo, true);
    assert_eq!(state.status(), TaskStatus::Failed);
    assert!(state.subtask(NodeIndex(1)).unwrap().touched, "I9: its first attempt is still to be taken back");
    order(&mut state, Command::SkipSubtask(NodeIndex(0))).unwrap();
    order(&mut state, Command::RetrySubtask(NodeIndex(1))).unwrap();
    assert_eq!(plan(&state, 1), [Dispatch { node: NodeIndex(1), attempt: 3, direction: Direction::Undo }]);
    run_all(&mut state, None);
    assert_eq!(state.status(), TaskStatus::Successful);
}

#[test]
fn a_retry_that_is_canceled_between_undo_and_execution_executes_when_it_is_retried_again() {
    let mut state = TaskState::new(Graph::chain(1).unwrap());
    run_all(&mut state, Some(NodeIndex(0)));
    order(&mut state, Command::Retry).unwrap();
    let undo = begin_next(&mut state);
    end(&mut state, undo, true);
    for command in [Command::Cancel, Command::CancelSubtask(NodeIndex(0))] {
        let mut state = state.clone();
        order(&mut state, command).unwrap();
        assert_eq!((state.status(), statuses(&state)), (TaskStatus::Failed, vec![Failed]));
        order(&mut state, Command::RetrySubtask(NodeIndex(0))).unwrap();
        let next = Dispatch { node: NodeIndex(0), attempt: 3, direction: Direction::Execute };
        assert_eq!(plan(&state, 1), [next]);
    }
}

#[test]
fn a_canceled_rollback_stays_a_rollback_and_repeats_no_undo() {
    let mut state = two_chains();
    run_all(&mut state, Some(NodeIndex(3)));
    order(&mut state, Command::Rollback).unwrap();
    let first = begin_next(&mut state);
    order(&mut state, Command::Cancel).unwrap();
    end(&mut state, first, true);
    assert_eq!((state.operation(), state.status()), (Operation::Rollback, TaskStatus::Failed));
    assert!(matches!(order(&mut state, Command::Retry), Err(Refusal::RetryState { .. })));
    order(&mut state, Command::Rollback).unwrap();
    assert!(plan(&state, usize::MAX).iter().all(|next| (next.node, next.attempt) != (first.node, first.attempt)), "I6");
    run_all(&mut state, None);
    assert_eq!((state.status(), statuses(&state)), (TaskStatus::Successful, vec![Pending; 4]));
    assert!(state.subtasks().all(|(_, s)| !s.touched), "I15");
}

#[test]
fn an_undo_that_a_cancel_ended_is_repeated_or_passed_over() {
    let mut state = TaskState::new(Graph::chain(2).unwrap());
    run_all(&mut state, Some(NodeIndex(1)));
    order(&mut state, Command::Rollback).unwrap();
    let undo = begin_next(&mut state);
    order(&mut state, Command::Cancel).unwrap();
    end(&mut state, undo, false);
    assert_eq!((state.operation(), state.status()), (Operation::Rollback, TaskStatus::Failed));
    for command in [Command::Rollback, Command::SkipSubtask(NodeIndex(1))] {
        let mut state = state.clone();
        order(&mut state, command).unwrap();
        assert_eq!(state.status(), TaskStatus::Running);
        run_all(&mut state, None);
        assert_eq!((state.status(), statuses(&state)), (TaskStatus::Successful, vec![Pending; 2]));
    }
}

#[test]
fn nothing_is_decided_while_what_a_cancel_ends_still_runs() {
    let mut state = two_chains();
    let begun = begin_all(&mut state);
    end(&mut state, begun[0], false);
    order(&mut state, Command::Cancel).unwrap();
    let commands = [
        Command::Cancel,
        Command::Retry,
        Command::Rollback,
        Command::RetrySubtask(NodeIndex(0)),
        Command::SkipSubtask(NodeIndex(0)),
        Command::CancelSubtask(NodeIndex(1)),
    ];
    for command in commands {
        assert!(order(&mut state, command).is_err(), "{command:?}");
    }
    end(&mut state, begun[1], false);
    order(&mut state, Command::SkipSubtask(NodeIndex(0))).unwrap();
    assert_eq!(state.status(), TaskStatus::Failed, "the other is still FAILED");
    order(&mut state, Command::RetrySubtask(NodeIndex(1))).unwrap();
    run_all(&mut state, None);
    assert_eq!(state.status(), TaskStatus::Successful);
}

/// Only a failure that somebody else has to decide upon tells it from a subtask that was never begun.
#[test]
fn what_was_undone_before_a_cancel_is_retried_alone_beside_another_failure() {
    let mut state = two_chains();
    let begun = begin_all(&mut state);
    begun.into_iter().for_each(|dispatch| end(&mut state, dispatch, false));
    let retried = NodeIndex(0);
    order(&mut state, Command::RetrySubtask(retried)).unwrap();
    let undo = begin_next(&mut state);
    order(&mut state, Command::Cancel).unwrap();
    end(&mut state, undo, true);
    assert_eq!(statuses(&state), [Failed, Failed, Pending, Pending]);
    assert!(!state.subtask(retried).unwrap().touched, "I9: it was undone");
    order(&mut state, Command::RetrySubtask(retried)).unwrap();
    let attempt = state.subtask(retried).unwrap().attempt;
    assert_eq!(plan(&state, usize::MAX), [Dispatch { node: retried, attempt, direction: Direction::Execute }]);
    run_all(&mut state, None);
    assert_eq!(statuses(&state), [Successful, Failed, Ready, Pending]);
}
