use super::{
    journal::{Closed, Journal},
    store::LogText,
};
use crate::{
    coordinator::store::task::{AppendError, LogPosition, TaskId},
    graph::{NodeIndex, Operation},
};
use jiff::{Zoned, fmt::strtime};
use std::collections::VecDeque;

/// Writes the log of one attempt.
pub struct AttemptLog {
    journal: Journal,
    task: TaskId,
    /// Under which the task was claimed.
    epoch: i64,
    node: NodeIndex,
    attempt: u32,
    position: LogPosition,
    /// Begin of a character whose end is still on the way.
    unfinished: Vec<u8>,
    /// Bytes that could not be kept, and of which the log does not tell yet.
    lost_bytes: usize,
    /// The last lines, for an outcome that comes without.
    tail: VecDeque<String>,
}

/// As many as an agent sends with its failures.
const TAIL_LINES: usize = 20;

impl AttemptLog {
    pub(super) fn new(
        journal: Journal,
        (task, epoch): (TaskId, i64),
        node: NodeIndex,
        attempt: u32,
        position: LogPosition,
    ) -> Self {
        Self {
            journal,
            task,
            epoch,
            node,
            attempt,
            position,
            unfinished: Vec::new(),
            lost_bytes: 0,
            tail: VecDeque::new(),
        }
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
    pub async fn line(&mut self, text: &str) -> Result<(), Closed> {
        tracing::debug!(task = %self.task, node = %self.node, "{text}");
        self.write(format!("{text}\n")).await
    }

    /// Bytes of the agent's log that begin at `offset`. What is in already is left out; a character that was cut in two
    /// waits for its rest.
    pub(super) async fn agent_bytes(&mut self, offset: u64, data: &[u8]) -> Result<(), Closed> {
        let taken = self.agent_offset().saturating_add(self.unfinished.len() as u64);
        let known = usize::try_from(taken.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(fresh) = data.get(known..).filter(|fresh| !fresh.is_empty()) else { return Ok(()) };
        self.unfinished.extend_from_slice(fresh);
        let whole = self.unfinished.len() - unfinished_character(&self.unfinished);
        if whole == 0 {
            return Ok(());
        }
        let rest = self.unfinished.split_off(whole);
        let whole = std::mem::replace(&mut self.unfinished, rest);
        let end = offset.saturating_add(data.len() as u64).saturating_sub(self.unfinished.len() as u64);
        self.position.agent_offset = i64::try_from(end).unwrap_or(i64::MAX);
        // A store keeps text; NUL would end it in some dialects.
        self.write(String::from_utf8_lossy(&whole).replace('\0', "\u{fffd}")).await
    }

    /// The last lines, at most twenty.
    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    pub(in crate::coordinator) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// On whose behalf rows are changed.
    pub(in crate::coordinator) fn claim(&self) -> (TaskId, i64) {
        (self.task, self.epoch)
    }

    /// A log that does not fit on the disk must not change the outcome of a step, so only the end of the program counts.
    /// The log says where something is missing, as soon as there is room.
    async fn write(&mut self, text: String) -> Result<(), Closed> {
        for line in text.lines() {
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(line.to_owned());
        }
        let position = self.position;
        let length = text.len();
        let text = match self.lost_bytes {
            0 => text,
            lost => format!("[{lost} bytes are missing here: the coordinator's store could not take them]\n{text}"),
        };
        let after = position.after(&text);
        let request = LogText { task: self.task, node: self.node, attempt: self.attempt, position, text };
        match self.journal.log(request).await? {
            Ok(()) => {
                self.position = after;
                self.lost_bytes = 0;
            }
            Err(AppendError::Store(error)) => {
                if self.lost_bytes == 0 {
                    let error = crate::telemetry::chain(&error);
                    tracing::warn!(task = %self.task, node = %self.node, error, "a part of a log is not kept");
                }
                self.lost_bytes = self.lost_bytes.saturating_add(length);
            }
            // Nobody reads on in this one.
            Err(AppendError::Fenced(_) | AppendError::Reserved(_)) => {}
        }
        Ok(())
    }
}

/// Length of the begin of a UTF-8 character at the end of `bytes`, if there is one.
fn unfinished_character(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.len() - error.valid_up_to(),
        // An invalid sequence further in hides the end; the last four bytes are enough to see it.
        Err(_) => {
            let tail = bytes.len().saturating_sub(3);
            let begins = |start: &usize| {
                let end = bytes.get(*start..).unwrap_or_default();
                matches!(std::str::from_utf8(end), Err(error) if error.valid_up_to() == 0 && error.error_len().is_none())
            };
            (tail..bytes.len()).find(begins).map_or(0, |start| bytes.len() - start)
        }
        Ok(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::unfinished_character;

    #[test]
    fn a_character_that_is_cut_in_two_is_seen_also_behind_rubbish() {
        let text = "a\u{e9}\u{4e2d}\u{1f600}".as_bytes();
        for end in 0..=text.len() {
            let cut = &text[..end];
            let whole = cut.len() - unfinished_character(cut);
            assert!(std::str::from_utf8(&cut[..whole]).is_ok(), "{cut:?}");
            assert!(cut.len() - whole < 4);
            let rubbish = [&[0xff, b'x'][..], cut].concat();
            assert_eq!(unfinished_character(&rubbish), unfinished_character(cut), "{cut:?}");
        }
        assert_eq!(unfinished_character(&[0xff]), 0);
    }
}
