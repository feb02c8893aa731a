//! Logs of operations: one file per run, shared with the children of the step.
//!
//! How a log stays bounded although children write to it by themselves:
//!  1. Bytes below the limit never change, so a reader may keep its offset across everything.
//!  2. A file that is longer than the limit is read as its first bytes and the mark, whatever lies behind them.
//!  3. While a step runs, what lies behind them is cut away every second: all writers append, so they go on behind the
//!     cut. A limit of the kernel on the size of files would kill rpm in the middle of its transaction instead.
//!  4. So a log takes its limit on disk, and what its children write in one second.

use super::{operation::Key, step::StepLog};
use crate::blocking;
use std::{
    convert::Infallible,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// A log is cut at this size.
pub const MAX_LOG_BYTES: u64 = 16 << 20;
const CUT_EVERY: Duration = Duration::from_secs(1);
/// A check has less to say.
const MAX_MEMORY_BYTES: usize = 1 << 20;
const TAIL_BYTES: u64 = 64 << 10;
const TRUNCATED: &[u8] = b"\n[truncated: the log reached its limit]\n";
/// Length of a log with its mark.
const CUT_BYTES: u64 = MAX_LOG_BYTES + TRUNCATED.len() as u64;

/// A log and the operation it belongs to.
#[derive(Debug, Clone, Copy)]
pub struct LogFile {
    pub key: Key,
    pub bytes: u64,
    pub modified: SystemTime,
}

/// The directory of all logs.
#[derive(Debug, Clone)]
pub struct LogStore {
    directory: PathBuf,
}

impl LogStore {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self, run_id: &str) -> PathBuf {
        self.directory.join(format!("{run_id}.log"))
    }

    /// Opens the log of a run; what is there stays.
    pub fn open(&self, run_id: &str) -> io::Result<FileLog> {
        let path = self.path(run_id);
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        Ok(FileLog { path, file: Mutex::new(file) })
    }

    /// Bytes that can be read.
    pub fn len(&self, run_id: &str) -> u64 {
        readable(fs::metadata(self.path(run_id)).map_or(0, |metadata| metadata.len()))
    }

    /// At most `limit` bytes from `offset` on; empty at the end and when there is no log.
    pub fn read(&self, run_id: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        let file = match File::open(self.path(run_id)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if offset < MAX_LOG_BYTES {
            return read_at(file, offset, limit.min(MAX_LOG_BYTES - offset));
        }
        if file.metadata()?.len() <= MAX_LOG_BYTES {
            return Ok(Vec::new());
        }
        let skipped = usize::try_from(offset - MAX_LOG_BYTES).unwrap_or(usize::MAX);
        let taken = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(TRUNCATED.iter().skip(skipped).take(taken).copied().collect())
    }

    /// Every log that is named after an operation, the longest untouched first.
    pub fn files(&self) -> io::Result<Vec<LogFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(key) = entry.file_name().to_str().and_then(Key::of_run) else { continue };
            match entry.metadata().and_then(|metadata| Ok((metadata.len(), metadata.modified()?))) {
                Ok((bytes, modified)) => files.push(LogFile { key, bytes, modified }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_by_key(|file| file.modified);
        Ok(files)
    }

    pub fn remove(&self, run_id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(run_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn readable(length: u64) -> u64 {
    if length > MAX_LOG_BYTES { CUT_BYTES } else { length }
}

fn read_at(mut file: File, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A log on disk.
pub struct FileLog {
    path: PathBuf,
    file: Mutex<File>,
}

impl FileLog {
    fn append(&self, text: &str) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // The line that goes beyond the limit makes the log one that is cut.
        if file.metadata()?.len() <= MAX_LOG_BYTES {
            // One write per line, so that lines of children do not cut into it.
            file.write_all(format!("{text}\n").as_bytes())?;
        }
        Ok(())
    }
}

impl StepLog for FileLog {
    fn line(&self, text: &str) {
        if let Err(error) = self.append(text) {
            tracing::warn!(path = %self.path.display(), %error, "a line of an operation's log was lost");
        }
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.path.clone())
    }

    fn tail(&self, count: usize) -> Vec<String> {
        let start = fs::metadata(&self.path).map_or(0, |metadata| metadata.len().saturating_sub(TAIL_BYTES));
        let bytes = File::open(&self.path).and_then(|file| read_at(file, start, TAIL_BYTES)).unwrap_or_default();
        last_lines(&bytes, count)
    }
}

/// Cuts a log to its limit and marks it; leaves a shorter one alone.
fn cut(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.len() <= MAX_LOG_BYTES {
        return Ok(());
    }
    // Without O_APPEND, which would put the mark at the end instead.
    let file = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(TRUNCATED, MAX_LOG_BYTES)?;
    file.set_len(CUT_BYTES)
}

/// Keeps the log at `path` within its limit while `work` is done.
pub async fn bounded<T>(path: Option<PathBuf>, work: impl Future<Output = T>) -> T {
    let keep = async {
        let Some(path) = path else { return std::future::pending::<Infallible>().await };
        loop {
            tokio::time::sleep(CUT_EVERY).await;
            if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > CUT_BYTES) {
                let log = path.clone();
                let cut = blocking::run(move || cut(&log)).await;
                if let Err(error) = cut.and_then(|cut| cut) {
                    tracing::warn!(path = %path.display(), %error, "the log of a step could not be cut");
                }
            }
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        never = keep => match never {},
    }
}

/// Makes the log of a run that is over safe: cut to its limit, and synced with its name.
pub fn close(path: &Path) -> io::Result<()> {
    cut(path)?;
    OpenOptions::new().append(true).open(path)?.sync_all()?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// The log of a check.
#[derive(Default)]
pub struct MemoryLog {
    bytes: Mutex<Vec<u8>>,
}

impl MemoryLog {
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl StepLog for MemoryLog {
    fn line(&self, text: &str) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() + text.len() < MAX_MEMORY_BYTES {
            bytes.extend_from_slice(text.as_bytes());
            bytes.push(b'\n');
        }
    }

    fn path(&self) -> Option<PathBuf> {
        None
    }

    fn tail(&self, count: usize) -> Vec<String> {
        last_lines(&self.bytes(), count)
    }
}

fn last_lines(bytes: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<String> = text.lines().rev().take(count).map(ToOwned::to_owned).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_continues_after_it_is_opened_again_and_is_read_from_an_offset() {
        let directory = tempfile::tempdir().unwrap();
        let store = LogStore::new(directory.path().into());
        store.open("run").unwrap().line("one");
        let log = store.open("run").unwrap();
        log.line("two");
        assert_eq!(store.read("run", 4, 2).unwrap(), b"tw");
        assert_eq!(log.tail(1), ["two"]);
        assert_eq!(store.len("run"), 8);
        assert!(store.read("other", 0, 10).unwrap().is_empty());
    }

    #[test]
    fn what_a_reader_gets_is_the_same_before_and_after_the_cut() {
        let directory = tempfile::tempdir().unwrap();
        let store = LogStore::new(directory.path().into());
        let log = store.open("run").unwrap();
        log.file.lock().unwrap().set_len(MAX_LOG_BYTES).unwrap();
        assert_eq!(store.len("run"), MAX_LOG_BYTES);
        assert!(store.read("run", MAX_LOG_BYTES, 10).unwrap().is_empty());
        log.line("goes beyond the limit");
        log.line("is left out");
        let read = || {
            let mut bytes = store.read("run", MAX_LOG_BYTES - 4, 1 << 20).unwrap();
            bytes.extend(store.read("run", MAX_LOG_BYTES, 9).unwrap());
            bytes.extend(store.read("run", MAX_LOG_BYTES + 9, 1 << 20).unwrap());
            (store.len("run"), bytes, store.read("run", CUT_BYTES, 10).unwrap())
        };
        let before = read();
        assert_eq!(before.0, CUT_BYTES);
        assert_eq!(before.1, [&[0; 4], TRUNCATED].concat());
        assert!(before.2.is_empty());
        close(&log.path).unwrap();
        assert_eq!(read(), before);
        assert_eq!(fs::metadata(&log.path).unwrap().len(), CUT_BYTES);
        assert!(log.tail(1)[0].contains("truncated"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_is_cut_while_children_go_on_writing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.log");
        let mut child = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let length = || fs::metadata(&path).unwrap().len();
        let work = async {
            for last in ["first", "second"] {
                child.set_len(MAX_LOG_BYTES + (8 << 20)).unwrap();
                writeln!(child, "{last}").unwrap();
                tokio::time::timeout(CUT_EVERY * 60, async {
                    while length() > CUT_BYTES {
                        tokio::time::sleep(CUT_EVERY).await;
                    }
                })
                .await
                .unwrap();
            }
            writeln!(child, "the last words").unwrap();
            length()
        };
        // A child that appends goes on behind the cut, and does not leave a hole.
        assert_eq!(bounded(Some(path.clone()), work).await, CUT_BYTES + 15);
        let log = LogStore::new(directory.path().into()).open("run").unwrap();
        assert_eq!(log.tail(1), ["the last words"]);
    }
}
