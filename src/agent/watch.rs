//! The stream of one operation: events from the journal, log bytes from the file.
//!
//! Everything is read from disk at the position that the reader has reached, so a stream can be taken up after a
//! restart of either side, and a slow reader costs nothing but its place in a bounded channel.

use super::{
    journal::Commits,
    operation::{Key, Phase, Record},
    runner::Runner,
    wire,
};
use crate::{
    blocking,
    rpc::{Refused, v1},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;
use v1::watch_response::Item;

pub(super) type Stream = mpsc::Receiver<Result<v1::WatchResponse, Status>>;

const CHUNK_BYTES: u64 = 64 << 10;
const CHANNEL: usize = 16;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Children write to the log file by themselves, so growth is seen by looking.
const LOOK: Duration = Duration::from_millis(250);

pub(super) fn watch(runner: Arc<Runner>, record: Record, after_sequence: u64, log_offset: u64) -> Stream {
    let (items, stream) = mpsc::channel(CHANNEL);
    tokio::spawn(async move {
        let reader = items.clone();
        let mut watcher =
            Watcher { runner, record, sequence: after_sequence, log_offset, items, last_sent: Instant::now() };
        let ended = tokio::select! {
            biased;
            ended = watcher.run() => ended,
            () = reader.closed() => Ok(()),
        };
        if let Err(refused) = ended {
            // A reader that is gone needs no reason.
            let _ = reader.send(Err(refused.into())).await;
        }
    });
    stream
}

/// What there is of a log from an offset on, at most 64 KiB.
pub(super) async fn log(runner: &Arc<Runner>, key: &Key, offset: u64) -> Result<Vec<u8>, Refused> {
    let run_id = key.run_id();
    if runner.logs().len(&run_id) <= offset {
        return Ok(Vec::new());
    }
    let runner = Arc::clone(runner);
    blocking::run(move || runner.logs().read(&run_id, offset, CHUNK_BYTES))
        .await
        .flatten()
        .map_err(|error| Refused::Internal(format!("the log cannot be read: {error}")))
}

struct Watcher {
    runner: Arc<Runner>,
    record: Record,
    sequence: u64,
    log_offset: u64,
    items: mpsc::Sender<Result<v1::WatchResponse, Status>>,
    last_sent: Instant,
}

impl Watcher {
    async fn run(&mut self) -> Result<(), Refused> {
        let mut commits = self.runner.journal().commits();
        loop {
            commits.update();
            self.record = self.runner.get(self.record.key).await?;
            let events = self.runner.journal().events(self.record.position, self.sequence).await;
            let events = events.map_err(super::runner::refused)?;
            let (before, after): (Vec<_>, Vec<_>) = events.iter().partition(|event| event.phase < Phase::Finished);
            for event in before {
                self.event(event).await;
            }
            // The log was synced before FINISHED was committed: what is there now is all.
            self.log().await?;
            if self.record.phase.is_over() {
                if let Some(finished) = after.iter().find(|event| event.phase == Phase::Finished) {
                    self.event(finished).await;
                }
                return Ok(());
            }
            if self.last_sent.elapsed() >= HEARTBEAT {
                self.send(Item::Heartbeat(v1::Heartbeat {})).await;
            }
            self.wait(&mut commits).await?;
        }
    }

    /// Until something was committed, the log grew, or it is time for a heartbeat.
    async fn wait(&self, commits: &mut Commits) -> Result<(), Refused> {
        let heartbeat = self.last_sent + HEARTBEAT;
        let run_id = self.record.key.run_id();
        let growth = async {
            while Instant::now() < heartbeat && self.runner.logs().len(&run_id) <= self.log_offset {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            changed = commits.changed() => {
                changed.map_err(super::runner::refused)
            }
            () = self.runner.draining().cancelled() => Err(Refused::Draining),
            () = growth => Ok(()),
        }
    }

    async fn log(&mut self) -> Result<(), Refused> {
        loop {
            let (offset, data) = (self.log_offset, log(&self.runner, &self.record.key, self.log_offset).await?);
            if data.is_empty() {
                break;
            }
            self.log_offset += data.len() as u64;
            self.send(Item::Log(v1::LogChunk { offset, data })).await;
        }
        Ok(())
    }

    async fn event(&mut self, event: &super::operation::PhaseEvent) {
        self.sequence = event.sequence;
        self.send(Item::Event(wire::event(event, &self.record))).await;
    }

    async fn send(&mut self, item: Item) {
        // The watcher is ended from outside when its reader is gone.
        let _ = self.items.send(Ok(v1::WatchResponse { item: Some(item) })).await;
        self.last_sent = Instant::now();
    }
}
