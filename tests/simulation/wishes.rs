//! What coordinators want to write, rightly or not.

use super::differential::{Both, View};
use crate::{
    coordinator::{
        engine::{LogText, RowChange, TaskStore as _, Write},
        store::task::{Append, Draft, LogPosition, TaskId},
    },
    graph::{
        Command,
        Direction::{Execute, Undo},
        Dispatch, Effect, Event, Failure, NodeIndex, TaskState, TaskStatus, plan,
    },
};

impl Both {
    /// What some coordinator wants to write, rightly or not.
    pub(super) fn wish(&mut self) -> Option<Write> {
        let (task, epoch) = (self.task(), self.epoch());
        Some(match self.random.u8(0..16) {
            0 | 1 => Write::Claim { task, epoch },
            2 => Write::Problem { task, epoch, problem: Some("it is odd".into()), status: TaskStatus::Failed },
            3 => Write::Rows { task, epoch, change: RowChange::nothing() },
            4 => {
                let next_sequence =
                    self.views.get(&(task, epoch))?.next_sequence - i64::from(self.random.u8(0..4) == 0);
                Write::Acknowledged { task, next_sequence }
            }
            5 | 6 => {
                let (node, attempt) = (NodeIndex(self.random.u32(0..2)), 1);
                let known = self.outside.block_on(self.sql.log_position(task, node, attempt)).unwrap();
                let position = if self.random.u8(0..4) == 0 { LogPosition::default() } else { known };
                let position = LogPosition { agent_offset: self.random.i64(0..100), ..position };
                let length = if self.random.u8(0..8) == 0 { 700_000 } else { self.random.usize(0..9) };
                Write::Log(LogText { task, epoch, node, attempt, position, text: "\u{e9}".repeat(length) })
            }
            // An answer got lost, or the answer to a claim.
            7 | 8 => Write::Append(Box::new(self.views.get(&(task, epoch))?.last.clone()?)),
            9 => Write::Append(Box::new(self.forged(task, epoch)?)),
            _ => Write::Append(Box::new(self.advance(task, epoch)?)),
        })
    }

    /// What was written before, under another claim or at another place.
    fn forged(&mut self, task: TaskId, epoch: i64) -> Option<Append> {
        let View { last, next_sequence, .. } = self.views.get(&(task, epoch))?;
        let last = last.clone().filter(|last| last.events.iter().any(|event| event.run().is_some()))?;
        Some(match self.random.u8(0..3) {
            0 => Append { epoch: self.epoch(), ..last },
            1 => Append { sequence: *next_sequence, ..last },
            _ => Append { sequence: last.sequence + 1, ..last },
        })
    }

    /// What a driver would append next. Its view goes on only after the store has taken it.
    fn advance(&mut self, task: TaskId, epoch: i64) -> Option<Append> {
        let View { state, next_sequence, .. } = self.views.get(&(task, epoch))?;
        let (mut state, sequence) = (state.clone(), *next_sequence);
        let mut draft = Draft::new(&state);
        if let Some(event) = self.event(&state) {
            draft.apply(&mut state, event).unwrap();
        }
        for Dispatch { node, attempt, direction } in plan(&state, 3) {
            draft.apply(&mut state, Event::Dispatched { node, attempt, direction }).unwrap();
        }
        self.now += 1;
        (!draft.is_empty()).then(|| draft.finish((task, epoch, sequence), &state, self.now))
    }

    fn event(&mut self, state: &TaskState) -> Option<Event> {
        let node = NodeIndex(self.random.u32(0..2));
        let command = match self.random.u8(0..16) {
            0 | 1 => Command::Retry,
            2 => Command::Rollback,
            3 => Command::Cancel,
            4 => Command::SkipSubtask(node),
            5 => Command::CancelSubtask(node),
            _ => {
                let open = state.subtasks().filter_map(|(node, subtask)| {
                    Some(Dispatch { node, attempt: subtask.attempt, direction: subtask.flight? })
                });
                return self.random.choice(open.collect::<Vec<_>>()).map(|dispatch| self.end(dispatch));
            }
        };
        state.decide(command, "operator").ok()
    }

    fn end(&mut self, Dispatch { node, attempt, direction }: Dispatch) -> Event {
        let failure = || Failure {
            reason: "ODD".into(),
            message: format!("of {node}"),
            causes: Vec::new(),
            next_move: String::new(),
            exit_code: None,
            signal: None,
            log_tail: Vec::new(),
            effect: Effect::Unknown,
        };
        match (self.random.u8(0..4) == 0, direction) {
            (true, Execute) => Event::Failed { node, attempt, failure: failure() },
            (false, Execute) => Event::Succeeded { node, attempt, effect: Effect::Done, output: Vec::new() },
            (true, Undo) => Event::UndoFailed { node, attempt, failure: failure() },
            (false, Undo) => Event::Undone { node, attempt },
        }
    }
}
