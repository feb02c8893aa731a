use super::{Direction, NodeIndex, Operation, SubtaskStatus, TaskState};

/// Work that can be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatch {
    pub node: NodeIndex,
    pub attempt: u32,
    pub direction: Direction,
}

/// What to hand out, at most so many that `max_running` subtasks run at a time, in the order of the nodes.
///
/// After a failure nothing new begins, except what an operator asked to be retried; in a canceled task nothing at all.
pub fn plan(state: &TaskState, max_running: usize) -> Vec<Dispatch> {
    if state.is_halted() {
        return Vec::new();
    }
    let running = state.subtasks().filter(|(_, s)| s.flight.is_some()).count();
    let failed = state.any(|s| s.status == SubtaskStatus::Failed);
    let startable = state.subtasks().filter_map(|(node, s)| {
        let direction = match (s.status, s.operation) {
            (SubtaskStatus::Ready, Operation::Rollback) => Direction::Undo,
            (SubtaskStatus::Ready, Operation::Retry) if s.touched => Direction::Undo,
            (SubtaskStatus::Ready, Operation::Retry) => Direction::Execute,
            (SubtaskStatus::Ready, _) if !failed => Direction::Execute,
            // Undone in a retry; its execution comes next.
            (SubtaskStatus::Running, Operation::Retry) if s.flight.is_none() => Direction::Execute,
            _ => return None,
        };
        Some(Dispatch { node, attempt: s.attempt, direction })
    });
    startable.take(max_running.saturating_sub(running)).collect()
}
