//! The log of one attempt, on its way into the store.
//!
//!  1. A part that was handed over is not waited for until the next one. The journal writes in the order in which it is
//!     asked, so the log of an attempt is on disk no later than its outcome.
//!  2. The line with which a run begins comes with its first words, or with its end.
//!  3. Whoever writes may be given up wherever it waits, as an attempt is at its deadline: nothing changes before the last
//!     wait.

use super::{
    journal::{Closed, Journal, Room},
    store::{LogText, Written},
};
use crate::{
    coordinator::store::task::{AppendError, LogPosition, TaskId},
    graph::{NodeIndex, Operation},
};
use jiff::{Zoned, fmt::strtime};
use std::collections::VecDeque;
use tokio::sync::oneshot;

/// A part that the journal was asked to write.
struct HandedOver {
    written: oneshot::Receiver<Written>,
    /// Where the log stands once it is written.
    after: LogPosition,
    length: usize,
}

/// Writes the log of one attempt.
pub struct AttemptLog {
    journal: Journal,
    task: TaskId,
    /// Under which the task was claimed.
    epoch: i64,
    node: NodeIndex,
    attempt: u32,
    /// Without what was handed over.
    position: LogPosition,
    handed_over: Option<HandedOver>,
    /// Not written yet.
    header: String,
    /// Bytes of the agent's log that are in, or handed over.
    agent_offset: i64,
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
            handed_over: None,
            header: String::new(),
            agent_offset: position.agent_offset,
            unfinished: Vec::new(),
            lost_bytes: 0,
            tail: VecDeque::new(),
        }
    }

    /// Bytes of the agent's log that are in.
    pub(super) fn agent_offset(&self) -> u64 {
        u64::try_from(self.agent_offset).unwrap_or(0)
    }

    /// OCP begins each run with such a line.
    pub(super) fn header(&mut self, operation: Operation) {
        if self.position.next_part == 0 {
            let time = strtime::format("%Y-%m-%dT%H:%M:%S%.3f%:z", &Zoned::now()).unwrap_or_default();
            self.header = format!("############{{{operation}}}{{{time}}}############\n");
        }
    }

    /// Nothing more comes: a run that had nothing to say has its first line at least.
    pub(super) async fn end(&mut self) -> Result<(), Closed> {
        if self.header.is_empty() { Ok(()) } else { self.write(String::new()).await }
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
        let room = self.room().await?;
        self.unfinished.extend_from_slice(fresh);
        let whole = self.unfinished.len() - unfinished_character(&self.unfinished);
        if whole == 0 {
            return Ok(());
        }
        let rest = self.unfinished.split_off(whole);
        let whole = std::mem::replace(&mut self.unfinished, rest);
        let end = offset.saturating_add(data.len() as u64).saturating_sub(self.unfinished.len() as u64);
        self.agent_offset = i64::try_from(end).unwrap_or(i64::MAX);
        // A store keeps text; NUL would end it in some dialects.
        self.hand_over(room, String::from_utf8_lossy(&whole).replace('\0', "\u{fffd}"));
        Ok(())
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

    async fn write(&mut self, text: String) -> Result<(), Closed> {
        let room = self.room().await?;
        self.hand_over(room, text);
        Ok(())
    }

    /// Waits until the next part has its number and its place before whatever the journal is asked later.
    async fn room(&mut self) -> Result<Room, Closed> {
        self.settle().await?;
        self.journal.room().await
    }

    /// A log that does not fit on the disk must not change the outcome of a step, so only the end of the program counts.
    /// The log says where something is missing, as soon as there is room.
    fn hand_over(&mut self, room: Room, text: String) {
        let text = match std::mem::take(&mut self.header) {
            header if header.is_empty() => text,
            header => header + &text,
        };
        for line in text.lines() {
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(line.to_owned());
        }
        let length = text.len();
        let text = match self.lost_bytes {
            0 => text,
            lost => format!("[{lost} bytes are missing here: the coordinator's store could not take them]\n{text}"),
        };
        let position = LogPosition { agent_offset: self.agent_offset, ..self.position };
        let after = position.after(&text);
        let (task, epoch) = self.claim();
        let request = LogText { task, epoch, node: self.node, attempt: self.attempt, position, text };
        let written = room.log(request);
        self.handed_over = Some(HandedOver { written, after, length });
    }

    /// Waits for the part that was handed over.
    async fn settle(&mut self) -> Result<(), Closed> {
        let Some(handed_over) = &mut self.handed_over else { return Ok(()) };
        let written = (&mut handed_over.written).await;
        let Some(HandedOver { after, length, .. }) = self.handed_over.take() else { return Ok(()) };
        match written.map_err(|_| Closed)? {
            Ok(()) => {
                self.position = after;
                self.lost_bytes = 0;
            }
            Err(AppendError::Store(_)) => self.lost_bytes = self.lost_bytes.saturating_add(length),
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
