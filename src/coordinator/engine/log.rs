use super::journal::{Closed, Journal, LogText};
use crate::{
    coordinator::store::tasks::{AppendError, LogPosition, TaskId},
    graph::{NodeIndex, Operation},
};
use jiff::{Zoned, fmt::strtime};

/// Writes the log of one attempt.
pub(super) struct AttemptLog {
    journal: Journal,
    task: TaskId,
    node: NodeIndex,
    attempt: u32,
    position: LogPosition,
}

impl AttemptLog {
    pub(super) fn new(journal: Journal, task: TaskId, node: NodeIndex, attempt: u32, position: LogPosition) -> Self {
        Self { journal, task, node, attempt, position }
    }

    /// Bytes of the agent's log that are in.
    pub(super) fn agent_offset(&self) -> u64 {
        u64::try_from(self.position.agent_offset).unwrap_or(0)
    }

    /// OCP begins each run with such a line.
    pub(super) async fn header(&mut self, operation: Operation) -> Result<(), Closed> {
        if self.position.next_part > 0 {
            return Ok(());
        }
        let time = strtime::format("%Y-%m-%dT%H:%M:%S%.3f%:z", &Zoned::now()).unwrap_or_default();
        self.write(format!("############{{{operation}}}{{{time}}}############\n")).await
    }

    /// A line of the coordinator's own.
    pub(super) async fn line(&mut self, text: &str) -> Result<(), Closed> {
        tracing::debug!(task = %self.task, node = %self.node, "{text}");
        self.write(format!("{text}\n")).await
    }

    /// Bytes of the agent's log that begin at `offset`. What is in already is left out.
    pub(super) async fn agent_bytes(&mut self, offset: u64, data: &[u8]) -> Result<(), Closed> {
        let known = usize::try_from(self.agent_offset().saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(fresh) = data.get(known..).filter(|fresh| !fresh.is_empty()) else { return Ok(()) };
        let end = offset.saturating_add(data.len() as u64);
        self.position.agent_offset = i64::try_from(end).unwrap_or(i64::MAX);
        // A store keeps text; NUL would end it in some dialects.
        self.write(String::from_utf8_lossy(fresh).replace('\0', "\u{fffd}")).await
    }

    /// A log that does not fit on the disk must not change the outcome of a step, so only the end of the program counts.
    async fn write(&mut self, text: String) -> Result<(), Closed> {
        let position = self.position;
        let after = position.after(&text);
        let request = LogText { task: self.task, node: self.node, attempt: self.attempt, position, text };
        match self.journal.log(request).await? {
            Ok(()) => self.position = after,
            Err(AppendError::Fenced(_) | AppendError::Store(_)) => {}
        }
        Ok(())
    }
}
