//! Logs of operations: one file per run, shared with the children of the step.

use super::step::StepLog;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// A log is cut at this size.
pub const MAX_LOG_BYTES: u64 = 16 << 20;
/// A check has less to say.
const MAX_MEMORY_BYTES: usize = 1 << 20;
const TAIL_BYTES: u64 = 64 << 10;
const TRUNCATED: &[u8] = b"\n[truncated: the log reached its limit]\n";

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

    /// Bytes written so far.
    pub fn len(&self, run_id: &str) -> u64 {
        fs::metadata(self.path(run_id)).map_or(0, |metadata| metadata.len())
    }

    /// At most `limit` bytes from `offset` on; empty at the end and when there is no log.
    pub fn read(&self, run_id: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        match File::open(self.path(run_id)) {
            Ok(file) => read_at(file, offset, limit),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    pub fn remove(&self, run_id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(run_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
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
        if file.metadata()?.len() < MAX_LOG_BYTES {
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

/// Makes the log of a run that is over safe: cut to its limit and synced.
pub fn close(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    if file.metadata()?.len() > MAX_LOG_BYTES {
        file.set_len(MAX_LOG_BYTES)?;
        file.write_all(TRUNCATED)?;
    }
    file.sync_all()
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
    fn a_log_that_children_filled_is_cut_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = LogStore::new(directory.path().into());
        let log = store.open("run").unwrap();
        log.file.lock().unwrap().set_len(MAX_LOG_BYTES + 5).unwrap();
        log.line("is left out");
        close(&log.path).unwrap();
        assert_eq!(store.len("run"), MAX_LOG_BYTES + TRUNCATED.len() as u64);
        assert!(log.tail(1)[0].contains("truncated"));
    }
}
