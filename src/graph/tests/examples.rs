use super::*;

#[test]
fn a_fresh_task_has_its_root_ready_and_the_rest_pending() {
    let state = TaskState::new(Graph::chain(3).unwrap());
    let statuses: Vec<_> = state.subtasks().map(|(_, s)| s.status).collect();
    assert_eq!(statuses, [SubtaskStatus::Ready, SubtaskStatus::Pending, SubtaskStatus::Pending]);
    assert_eq!(state.status(), TaskStatus::Running);
}

#[test]
fn a_retry_undoes_what_failed_and_goes_on() {
    let mut state = TaskState::new(Graph::chain(3).unwrap());
    run_all(&mut state, Some(NodeIndex(1)));
    assert_eq!(state.status(), TaskStatus::Failed);
    let retry = state.decide(Command::Retry, "admin").unwrap();
    state.apply(&retry).unwrap();
    assert_eq!(plan(&state, 9), [Dispatch { node: NodeIndex(1), attempt: 2, direction: Direction::Undo }]);
    run_all(&mut state, None);
    assert_eq!(state.status(), TaskStatus::Successful);
}

#[test]
fn a_rollback_walks_back_to_pending_and_may_be_resumed() {
    let mut state = TaskState::new(Graph::chain(3).unwrap());
    run_all(&mut state, Some(NodeIndex(2)));
    let rollback = state.decide(Command::Rollback, "admin").unwrap();
    state.apply(&rollback).unwrap();
    let Dispatch { node, attempt, direction } = plan(&state, 1)[0];
    assert_eq!((node, direction), (NodeIndex(2), Direction::Undo));
    state.apply(&Event::Dispatched { node, attempt, direction }).unwrap();
    state.apply(&Event::UndoFailed { node, attempt, failure: Failure::example(Effect::Unknown) }).unwrap();
    assert_eq!(state.status(), TaskStatus::Failed);
    assert!(matches!(state.decide(Command::Retry, "admin"), Err(Refusal::RetryState { .. })));
    let again = state.decide(Command::Rollback, "admin").unwrap();
    state.apply(&again).unwrap();
    run_all(&mut state, None);
    assert_eq!(state.status(), TaskStatus::Successful);
    assert!(state.subtasks().all(|(_, s)| s.status == SubtaskStatus::Pending));
}

#[test]
fn wrong_graphs_are_refused() {
    let node = |upstreams: &[u32]| Node {
        upstreams: upstreams.iter().copied().map(NodeIndex).collect(),
        prohibit_rollback: false,
    };
    assert_eq!(Graph::new(Vec::new()), Err(GraphError::Empty));
    assert!(matches!(Graph::new(vec![node(&[1]), node(&[0])]), Err(GraphError::Cycle { .. })));
    assert!(matches!(Graph::new(vec![node(&[0])]), Err(GraphError::Cycle { .. })));
    assert!(matches!(Graph::new(vec![node(&[7])]), Err(GraphError::UnknownUpstream { .. })));
    assert!(matches!(Graph::new(vec![node(&[]), node(&[0, 0])]), Err(GraphError::RepeatedUpstream { .. })));
}

#[test]
fn nothing_is_rolled_back_over_a_step_that_prohibits_it() {
    let mut nodes: Vec<Node> = Graph::chain(2).unwrap().into();
    nodes[0].prohibit_rollback = true;
    let mut state = TaskState::new(Graph::new(nodes).unwrap());
    run_all(&mut state, Some(NodeIndex(1)));
    assert_eq!(state.decide(Command::Rollback, "admin"), Err(Refusal::RollbackProhibited));
}
