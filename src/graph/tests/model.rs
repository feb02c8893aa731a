//! A world in which a task runs: what the steps did to it, who decided what, and the invariants after every event.

use super::{dispatched, ending, flights};
use crate::graph::*;
use std::{collections::HashSet, sync::Arc};

/// What happens next; numbers choose among what is possible.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Dispatch {
        limit: usize,
    },
    /// Ends `count` flights from the `first` on, of which at most one fails.
    End {
        first: usize,
        count: usize,
        failing: Option<usize>,
    },
    Order {
        kind: usize,
        node: usize,
    },
    /// The program dies and replays the journal.
    Restart,
}

pub(super) struct World {
    graph: Arc<Graph>,
    pub(super) state: TaskState,
    pub(super) journal: Vec<Event>,
    /// Begun and not taken back, so there may be an effect.
    standing: Vec<bool>,
    passed_over: HashSet<NodeIndex>,
    /// The key under which the store takes each event of a run once.
    runs: HashSet<(NodeIndex, u32, &'static str)>,
    /// The live state after so many events.
    snapshots: Vec<(usize, TaskState)>,
    snapshot_stride: usize,
}

impl World {
    pub(super) fn new(graph: Graph) -> Self {
        let graph = Arc::new(graph);
        // A copy costs a word per subtask, so that a big world keeps fewer.
        let snapshot_stride = graph.len().div_ceil(64);
        Self {
            state: TaskState::new(Arc::clone(&graph)),
            journal: Vec::new(),
            standing: vec![false; graph.len()],
            passed_over: HashSet::new(),
            runs: HashSet::new(),
            snapshots: Vec::new(),
            snapshot_stride,
            graph,
        }
    }

    pub(super) fn act(&mut self, action: &Action) {
        match action {
            Action::Dispatch { limit } => {
                let running = flights(&self.state).len();
                let planned = plan(&self.state, *limit);
                assert!(planned.is_empty() || running + planned.len() <= *limit, "I11: more than the limit");
                planned.into_iter().for_each(|dispatch| self.begin(dispatch));
            }
            Action::End { first, count, failing } => {
                let open = flights(&self.state);
                let chosen = open.iter().cycle().skip(first % open.len().max(1)).take((*count).min(open.len()));
                for (position, dispatch) in chosen.enumerate() {
                    self.write(ending(*dispatch, *failing != Some(position)));
                }
            }
            Action::Order { kind, node } => {
                let node = NodeIndex((node % self.graph.len()) as u32);
                let commands = [
                    Command::Retry,
                    Command::Rollback,
                    Command::Cancel,
                    Command::RetrySubtask(node),
                    Command::SkipSubtask(node),
                    Command::CancelSubtask(node),
                ];
                self.order(commands[kind % commands.len()]);
            }
            Action::Restart => self.restart(),
        }
    }

    fn begin(&mut self, dispatch: Dispatch) {
        let Dispatch { node, direction, .. } = dispatch;
        let status = |index: &NodeIndex| self.state.subtask(*index).unwrap().status;
        let upstreams = &self.graph.node(node).unwrap().upstreams;
        let rolling_back = self.state.operation() == Operation::Rollback;
        assert!(!self.state.is_halted(), "I13: begun in a canceled task");
        match direction {
            Direction::Execute => {
                assert!(!rolling_back, "I5: executed in a rollback");
                assert!(upstreams.iter().all(|u| status(u) == SubtaskStatus::Successful), "I4: executed too early");
                assert!(!self.standing[node.at()], "I8: executed on top of an effect");
            }
            Direction::Undo => {
                assert!(self.standing[node.at()], "I9: undone without having been begun");
                let mut downstreams = self.graph.downstreams(node).iter();
                assert!(downstreams.all(|d| status(d) == SubtaskStatus::Pending), "I5: undone too early");
            }
        }
        let failed = self.state.any(|s| s.status == SubtaskStatus::Failed);
        let asked_for = rolling_back || self.state.subtask(node).unwrap().operation == Operation::Retry;
        assert!(!failed || asked_for, "I14: begun after a failure without having been asked for");
        self.write(dispatched(dispatch));
    }

    /// OCP's preconditions, told apart from how the graph decides them.
    fn allows(&self, command: Command) -> bool {
        let (status, operation) = (self.state.status(), self.state.operation());
        let rolling_back = operation == Operation::Rollback;
        let ending = self.state.is_halted() && !flights(&self.state).is_empty();
        let is = |node: NodeIndex, wanted| self.state.subtask(node).is_some_and(|s| s.status == wanted);
        let prohibits = |(index, node): (NodeIndex, &Node)| node.prohibit_rollback && self.standing[index.at()];
        match command {
            Command::Retry => status == TaskStatus::Failed && !rolling_back,
            Command::Rollback => status == TaskStatus::Failed && !self.graph.nodes().any(prohibits),
            Command::Cancel => status == TaskStatus::Running && !self.state.is_halted(),
            Command::RetrySubtask(node) => is(node, SubtaskStatus::Failed) && !rolling_back && !ending,
            Command::SkipSubtask(node) => {
                let undo_failed = self.state.subtask(node).is_some_and(|s| s.undo_failed);
                is(node, SubtaskStatus::Failed) && !ending && (!rolling_back || undo_failed)
            }
            Command::CancelSubtask(node) => is(node, SubtaskStatus::Running),
        }
    }

    fn order(&mut self, command: Command) {
        let by = || "operator".to_owned();
        let wanted = match command {
            Command::Retry => Event::RetryRequested { by: by() },
            Command::Rollback => Event::RollbackRequested { by: by() },
            Command::Cancel => Event::TaskCancelRequested { by: by() },
            Command::RetrySubtask(node) => Event::SubtaskRetryRequested { node, by: by() },
            Command::SkipSubtask(node) => Event::SkipRequested { node, by: by() },
            Command::CancelSubtask(node) => Event::CancelRequested { node, by: by() },
        };
        let decision = self.state.decide(command, "operator");
        assert_eq!(decision.is_ok(), self.allows(command), "I3: {command:?} is decided as {decision:?}");
        match decision {
            Ok(event) => {
                assert_eq!(event, wanted);
                self.write(event);
            }
            Err(_) => self.refuse(&wanted),
        }
    }

    fn refuse(&mut self, event: &Event) {
        let before = self.state.clone();
        assert!(self.state.apply(event).is_err(), "I3: refused, but possible: {event:?}");
        assert_eq!(self.state, before, "I2: an impossible event changed the state");
    }

    pub(super) fn write(&mut self, event: Event) {
        let before = self.state.clone();
        self.state.apply(&event).unwrap();
        if let Some((node, attempt)) = event.run() {
            assert!(self.runs.insert((node, attempt, event.kind())), "I6: twice: {event:?}");
        }
        match &event {
            Event::Dispatched { node, .. } => self.standing[node.at()] = true,
            Event::Undone { node, .. } => self.standing[node.at()] = false,
            Event::SkipRequested { node, .. } if self.state.operation() == Operation::Rollback => {
                // The operator says that there is nothing left to take back.
                self.standing[node.at()] = false;
            }
            Event::SkipRequested { node, .. } => {
                self.passed_over.insert(*node);
            }
            _ => {}
        }
        if event.run().is_some() {
            self.refuse(&event);
        }
        self.journal.push(event);
        self.check(&before);
        if self.journal.len().is_multiple_of(self.snapshot_stride) {
            self.snapshots.push((self.journal.len(), self.state.clone()));
        }
    }

    fn check(&self, before: &TaskState) {
        for ((node, subtask), earlier) in self.state.subtasks().zip(&before.subtasks) {
            // What is shared with the state before has been checked.
            if std::ptr::eq(subtask, Arc::as_ptr(earlier)) {
                continue;
            }
            assert!(subtask.attempt >= earlier.attempt, "I7: the attempt of node {node} went back");
            assert_eq!(subtask.touched, self.standing[node.at()], "I9: node {node} is touched or is not");
            let between = subtask.operation == Operation::Retry && !subtask.touched && !self.state.is_halted();
            match (subtask.status, subtask.flight) {
                (SubtaskStatus::Running | SubtaskStatus::Canceling, Some(_)) => {}
                (SubtaskStatus::Running, None) => assert!(between, "I10: node {node} is RUNNING, and nothing runs"),
                (status, flight) => assert_eq!(flight, None, "I10: node {node} is {status} with work under way"),
            }
            if subtask.status == SubtaskStatus::Failed {
                assert!(subtask.failure.is_some(), "I16: node {node} is FAILED and does not say why");
            }
        }
        let idle = flights(&self.state).is_empty();
        match self.state.status() {
            TaskStatus::Running => {
                assert!(!idle || !plan(&self.state, 1).is_empty(), "I12: RUNNING with nothing to wait for");
            }
            TaskStatus::Failed => {
                assert!(idle && plan(&self.state, 1).is_empty(), "I12: at rest with work to do");
            }
            TaskStatus::Successful => {
                assert!(idle && plan(&self.state, 1).is_empty(), "I12: at rest with work to do");
                self.check_end();
            }
        }
    }

    pub(super) fn check_end(&self) {
        let rolled_back = self.state.operation() == Operation::Rollback;
        for (node, subtask) in self.state.subtasks() {
            let standing = self.standing[node.at()];
            if rolled_back {
                assert_eq!(subtask.status, SubtaskStatus::Pending, "I15: node {node} is not back at PENDING");
                assert!(!standing, "I15: an effect of node {node} is left behind");
            } else {
                assert_eq!(subtask.status, SubtaskStatus::Successful, "I15: node {node} is not SUCCESSFUL");
                assert!(standing || self.passed_over.contains(&node), "I15: node {node} was not carried out");
            }
        }
    }

    /// The journal as it is stored, and the state that it gives.
    fn restart(&mut self) {
        let text = serde_json::to_string(&self.journal).unwrap();
        let mut replayed = TaskState::new(Arc::clone(&self.graph));
        let mut snapshots = self.snapshots.iter().peekable();
        for (length, event) in (1..).zip(serde_json::from_str::<Vec<Event>>(&text).unwrap()) {
            replayed.apply(&event).unwrap();
            if let Some((_, live)) = snapshots.next_if(|(at, _)| *at == length) {
                assert_eq!(&replayed, live, "I1: {length} events give another state than the live one was");
            }
        }
        assert_eq!(replayed, self.state, "I1: the journal gives another state than the live one");
        self.state = replayed;
    }

    /// Everything succeeds from here on, and the operator repeats what failed.
    pub(super) fn retry_until_rest(&mut self) {
        // Each decision begins what is left anew, and each turn ends something.
        for _ in 0..(4 * self.graph.len() + 4) {
            match (self.state.status(), self.state.operation()) {
                (TaskStatus::Successful, _) => return self.restart(),
                (TaskStatus::Failed, Operation::Rollback) => self.order(Command::Rollback),
                (TaskStatus::Failed, _) => self.order(Command::Retry),
                (TaskStatus::Running, _) => {
                    self.act(&Action::Dispatch { limit: usize::MAX });
                    self.act(&Action::End { first: 0, count: usize::MAX, failing: None });
                }
            }
        }
        panic!("I15: {} {} for ever", self.state.operation(), self.state.status());
    }
}
