//! Random graphs, random outcomes and random operators, with the invariants checked after every event.

use super::*;
use proptest::prelude::*;

fn failure(effect: Effect) -> Failure {
    Failure {
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

/// What the world does next; numbers choose among what is possible.
#[derive(Debug, Clone)]
enum Action {
    Dispatch,
    End { which: usize, succeeds: bool },
    Order { kind: usize, which: usize },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Dispatch),
        6 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, succeeds)| Action::End { which, succeeds }),
        2 => (0..6_usize, any::<usize>()).prop_map(|(kind, which)| Action::Order { kind, which }),
    ]
}

/// Any graph whose edges point backwards, so without cycles.
fn graph() -> impl Strategy<Value = Graph> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..24).prop_map(|choices| {
        let nodes = (0_u32..).zip(choices).map(|(index, upstreams)| {
            let mut upstreams: Vec<NodeIndex> = upstreams
                .into_iter()
                .filter(|_| index > 0)
                .map(|choice| NodeIndex(choice.index(index as usize) as u32))
                .collect();
            upstreams.sort();
            upstreams.dedup();
            Node { upstreams, prohibit_rollback: false }
        });
        Graph::new(nodes.collect()).unwrap()
    })
}

struct World {
    state: TaskState,
    journal: Vec<Event>,
    /// Effects in the world per node: executions that were not undone.
    standing: Vec<u32>,
}

impl World {
    fn new(graph: Graph) -> Self {
        let standing = vec![0; graph.len()];
        Self { state: TaskState::new(graph), journal: Vec::new(), standing }
    }

    fn write(&mut self, event: Event) {
        self.state.apply(&event).unwrap();
        self.journal.push(event);
        self.check();
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Dispatch => {
                for Dispatch { node, attempt, direction } in plan(&self.state, 4) {
                    let upstreams = self.state.graph().node(node).unwrap().upstreams.clone();
                    let status = |index: &NodeIndex| self.state.subtask(*index).unwrap().status;
                    match direction {
                        Direction::Execute => {
                            assert!(upstreams.iter().all(|u| status(u) == SubtaskStatus::Successful), "too early");
                            assert_eq!(self.standing[node.at()], 0, "executed on top of an effect");
                            self.standing[node.at()] = 1;
                        }
                        Direction::Undo if self.state.operation() == Operation::Rollback => {
                            let downstreams = self.state.graph().downstreams(node);
                            assert!(
                                downstreams.iter().all(|d| status(d) == SubtaskStatus::Pending),
                                "undone too early"
                            );
                        }
                        Direction::Undo => {}
                    }
                    self.write(Event::Dispatched { node, attempt, direction });
                }
            }
            Action::End { which, succeeds } => {
                let flights: Vec<_> = self
                    .state
                    .subtasks()
                    .filter_map(|(node, s)| s.flight.map(|direction| (node, s.attempt, direction)))
                    .collect();
                let Some((node, attempt, direction)) = flights.get(which % flights.len().max(1)).copied() else {
                    return;
                };
                let event = match (direction, succeeds) {
                    (Direction::Execute, true) => {
                        Event::Succeeded { node, attempt, effect: Effect::Done, output: Vec::new() }
                    }
                    (Direction::Execute, false) => Event::Failed { node, attempt, failure: failure(Effect::Unknown) },
                    (Direction::Undo, true) => {
                        self.standing[node.at()] = 0;
                        Event::Undone { node, attempt }
                    }
                    (Direction::Undo, false) => Event::UndoFailed { node, attempt, failure: failure(Effect::Unknown) },
                };
                self.write(event);
            }
            Action::Order { kind, which } => {
                let node = NodeIndex((which % self.state.graph().len()) as u32);
                let command = match kind {
                    0 => Command::Retry,
                    1 => Command::Rollback,
                    2 => Command::RetrySubtask(node),
                    3 => Command::SkipSubtask(node),
                    4 => Command::Cancel,
                    _ => Command::CancelSubtask(node),
                };
                if let Ok(event) = self.state.decide(command, "operator") {
                    if matches!(event, Event::SkipRequested { .. }) && self.state.operation() == Operation::Rollback {
                        // The operator says that there is nothing left to take back.
                        self.standing[node.at()] = 0;
                    }
                    self.write(event);
                }
            }
        }
    }

    fn check(&self) {
        for (node, subtask) in self.state.subtasks() {
            if self.standing[node.at()] > 0 {
                assert!(subtask.touched, "an effect of node {node} is forgotten");
            }
            if subtask.flight.is_some() {
                assert!(matches!(subtask.status, SubtaskStatus::Running | SubtaskStatus::Canceling));
            }
        }
        if self.state.status() == TaskStatus::Successful && self.state.operation() == Operation::Rollback {
            assert!(self.standing.iter().all(|count| *count == 0), "a rollback left something behind");
        }
        if self.state.status() != TaskStatus::Running {
            assert!(self.state.subtasks().all(|(_, s)| s.flight.is_none()), "at rest with work under way");
            assert!(plan(&self.state, 4).is_empty(), "at rest with work to hand out");
        }
    }
}

proptest! {
    #[test]
    fn no_history_breaks_an_invariant(graph in graph(), actions in prop::collection::vec(action(), 0..160)) {
        let mut world = World::new(graph.clone());
        for action in &actions {
            world.act(action);
        }
        // Whatever prefix of the journal is replayed gives the state that was live then.
        let mut replayed = TaskState::new(graph);
        for event in &world.journal {
            replayed.apply(event).unwrap();
        }
        prop_assert_eq!(&replayed, &world.state);
        let text = serde_json::to_string(&world.journal).unwrap();
        prop_assert_eq!(serde_json::from_str::<Vec<Event>>(&text).unwrap(), world.journal);
    }

    #[test]
    fn left_alone_a_task_always_comes_to_rest(graph in graph(), actions in prop::collection::vec(action(), 0..80)) {
        let mut world = World::new(graph);
        for action in &actions {
            world.act(action);
        }
        for _ in 0..2000 {
            if world.state.status() != TaskStatus::Running {
                return Ok(());
            }
            world.act(&Action::Dispatch);
            world.act(&Action::End { which: 0, succeeds: true });
        }
        prop_assert!(false, "still running");
    }

    #[test]
    fn an_impossible_event_changes_nothing(graph in graph(), node in 0..30_u32, attempt in 0..3_u32) {
        let mut state = TaskState::new(graph);
        let before = state.clone();
        let event = Event::Succeeded { node: NodeIndex(node), attempt, effect: Effect::Done, output: Vec::new() };
        prop_assert!(state.apply(&event).is_err());
        prop_assert_eq!(state, before);
    }
}

fn run_all(state: &mut TaskState, fail_at: Option<NodeIndex>) {
    while let Some(Dispatch { node, attempt, direction }) = plan(state, 1).first().copied() {
        state.apply(&Event::Dispatched { node, attempt, direction }).unwrap();
        let event = match direction {
            Direction::Undo => Event::Undone { node, attempt },
            Direction::Execute if fail_at == Some(node) => {
                Event::Failed { node, attempt, failure: failure(Effect::Unknown) }
            }
            Direction::Execute => Event::Succeeded { node, attempt, effect: Effect::Done, output: Vec::new() },
        };
        state.apply(&event).unwrap();
    }
}

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
    state.apply(&Event::UndoFailed { node, attempt, failure: failure(Effect::Unknown) }).unwrap();
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
