//! What a crash leaves of an agent's journal.
//!
//! A program that dies closes nothing: the write-ahead log of its journal stays, and what was committed is in it. Here
//! the program lives in a thread of the test, so SQLite does close the journal, writes the log into the database and
//! takes it away. So the files are kept before that, and put back before the next life of the agent.

use super::{perils::Defect, world::World};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const DATABASE: &str = "journal.db";
const WAL: &str = "journal.db-wal";
const FILES: [&str; 3] = [DATABASE, WAL, "journal.db-shm"];
/// In real time.
const CLOSING: Duration = Duration::from_secs(60);
/// Of a write-ahead log and of each of its frames: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.
const WAL_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const PAGE_SIZE_AT: std::ops::Range<usize> = 8..12;

/// Files by their names.
pub(super) type Files = Vec<(PathBuf, Vec<u8>)>;

/// Keeps the files of a journal whose agent is about to crash, if the crash leaves them as they are.
pub(super) fn keep(world: &World, host: &str, state_dir: &Path) {
    if !state_dir.join(WAL).exists() || !world.happens(|odds| odds.wal_stays) {
        return;
    }
    let read = |name| {
        let path = state_dir.join(name);
        let content = fs::read(&path).unwrap();
        (path, content)
    };
    let mut files: Files = FILES.map(read).into();
    let is_torn = world.chance(0.5);
    if is_torn {
        tear(world, &mut files[1].1);
    }
    world.note(host, if is_torn { "its journal stays, with half a commit" } else { "its journal stays" });
    world.keep_journal(host, files);
}

/// Adds a part of a commit that the crash interrupted.
fn tear(world: &World, wal: &mut Vec<u8>) {
    let Some(page_size) = wal.get(PAGE_SIZE_AT) else { return };
    let frame = FRAME_HEADER + u32::from_be_bytes(page_size.try_into().unwrap()) as usize;
    if wal.len() >= WAL_HEADER + frame {
        // Its page and its salts are right, and its checksum is not, because it does not follow from the frames before.
        let last = wal.len() - frame;
        wal.extend_from_within(last..last + 1 + world.below(frame));
    }
}

/// SQLite closes a journal in a thread of its own, and the last to close takes the write-ahead log away.
pub(super) fn wait_until_closed(state_dir: &Path) {
    let begun = Instant::now();
    while state_dir.join(WAL).exists() {
        assert!(begun.elapsed() < CLOSING, "the journal of a crashed agent is not closed");
        std::thread::yield_now();
    }
}

/// What the agent finds at its begin.
pub(super) fn find(world: &World, host: &str, state_dir: &Path) {
    put_back(world, host);
    let wal = state_dir.join(WAL);
    if world.has(Defect::WalIgnored) && wal.exists() {
        fs::remove_file(wal).unwrap();
    }
}

/// As other files of the same names, because SQLite may not have let go of the old ones yet.
pub(super) fn put_back(world: &World, host: &str) {
    for (path, content) in world.take_journal(host).into_iter().flatten() {
        let other = path.with_extension("put-back");
        fs::write(&other, content).unwrap();
        fs::rename(other, path).unwrap();
    }
}
