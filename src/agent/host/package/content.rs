//! Digests of a package file.
//!
//! What the agent has received was read whole once, before it was published. It is not read again to be installed, as long
//! as the file is the very one that was read: the directory is private to the agent, and whatever is written to the file
//! changes its stamp. After a restart it is read again.

use ring::digest::{Context, SHA256};
use rpm::PackageMetadata;
use std::{
    collections::VecDeque,
    fs::{File, Metadata},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// More than a host gets in a day.
const KEPT: usize = 64;
const BUFFER_BYTES: usize = 256 << 10;

/// SHA-256, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Digests {
    pub(in crate::agent) whole: String,
    /// Of what follows the headers of an rpm.
    pub(in crate::agent) payload: Option<String>,
}

/// What tells one state of a file from every other.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

static KNOWN: Mutex<VecDeque<(Stamp, Digests)>> = Mutex::new(VecDeque::new());

/// To be called by whoever has read a file of the agent's own and moved it to its place.
pub(in crate::agent) fn remember(path: &Path, digests: Digests) -> io::Result<()> {
    let stamp = Stamp::from(&path.metadata()?);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|(kept, _)| (kept.device, kept.inode) != (stamp.device, stamp.inode));
    known.truncate(KEPT - 1);
    known.push_front((stamp, digests));
    Ok(())
}

fn known(metadata: &Metadata) -> Option<Digests> {
    let stamp = Stamp::from(metadata);
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.iter().find(|(kept, _)| *kept == stamp).map(|(_, digests)| digests.clone())
}

/// Digests of a file, remembered or read; none if `is_stopped` said so meanwhile.
pub(super) fn digests(path: &Path, is_stopped: impl Fn() -> bool) -> io::Result<Option<Digests>> {
    match known(&path.metadata()?) {
        Some(digests) => Ok(Some(digests)),
        None => read(path, is_stopped),
    }
}

/// One pass over the file for both digests; none if `is_stopped` said so meanwhile.
pub(in crate::agent) fn read(path: &Path, is_stopped: impl Fn() -> bool) -> io::Result<Option<Digests>> {
    // What is no rpm has no payload.
    let offset = PackageMetadata::open(path).ok().map(|metadata| metadata.get_package_segment_offsets().payload);
    let mut file = File::open(path)?;
    let (mut whole, mut payload) = (Context::new(&SHA256), Context::new(&SHA256));
    let mut head = (&mut file).take(offset.unwrap_or(0));
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let in_head = head.limit() > 0;
        let count = if in_head { head.read(&mut buffer) } else { head.get_mut().read(&mut buffer) }?;
        if count == 0 {
            break;
        }
        if is_stopped() {
            return Ok(None);
        }
        let chunk = buffer.get(..count).unwrap_or_default();
        whole.update(chunk);
        if !in_head && offset.is_some() {
            payload.update(chunk);
        }
    }
    let finish = |context: Context| hex(context.finish().as_ref());
    Ok(Some(Digests { whole: finish(whole), payload: offset.map(|_| finish(payload)) }))
}

pub(in crate::agent::host) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_read_is_known_until_the_file_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("package");
        fs::write(&path, "content").unwrap();
        let digests = read(&path, || false).unwrap().unwrap();
        assert_eq!(digests.payload, None);
        // Not the digests of the content, so that it is seen where they come from.
        let marked = Digests { whole: "remembered".into(), payload: None };
        remember(&path, marked.clone()).unwrap();
        assert_eq!(super::digests(&path, || false).unwrap(), Some(marked.clone()));

        let moved = directory.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        fs::write(&path, "content").unwrap();
        assert_eq!(super::digests(&path, || false).unwrap(), Some(digests.clone()), "another file of that name");
        remember(&moved, marked).unwrap();
        File::open(&moved).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(super::digests(&moved, || false).unwrap(), Some(digests), "it was touched");
    }

    #[test]
    fn a_reading_can_be_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("package");
        fs::write(&path, "content").unwrap();
        assert_eq!(read(&path, || true).unwrap(), None);
    }
}
