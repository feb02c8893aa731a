//! Packages that the coordinator sends, chunk by chunk, into `<directory>/<sha256>/<file>`.
//!
//!  1. A file is visible under its name only when it is whole and its digest matches; until then it is `<file>.part`.
//!  2. The length of the part is how much was received, so an upload goes on where it stopped, whatever died. A power cut
//!     may leave that length without its bytes: an upload that ends with another digest begins anew, once.
//!  3. What nobody has asked for in a long time and no unfinished operation names is removed.
//!  4. Chunks are stored one after the other, so that two senders of one file cannot mix.

use super::{
    host::{content, durable::make_directory},
    wire::bad_request,
};
#[cfg(test)]
use crate::simulation;
use crate::{
    blocking,
    rpc::{MAX_CHUNK_BYTES, Refused, v1},
    steps::values::{PackageRef, Sha256},
};
use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// Room that a package must leave to the journal and to logs.
const RESERVE_BYTES: u64 = 64 << 20;

#[derive(Clone)]
pub(super) struct PackageStore {
    directory: PathBuf,
    /// One chunk at a time. Packages whose first byte came to this process, so that no power cut was in between.
    writing: Arc<Mutex<HashSet<Sha256>>>,
}

/// A chunk whose fields are checked.
struct Chunk {
    package: PackageRef,
    sha256: Sha256,
    size: u64,
    offset: u64,
    data: Vec<u8>,
}

impl TryFrom<v1::PutPackageRequest> for Chunk {
    type Error = Refused;

    fn try_from(request: v1::PutPackageRequest) -> Result<Self, Refused> {
        let package: PackageRef =
            request.file_name.parse().map_err(|error| bad_request("file_name", format!("{error}")))?;
        if package.file_name() != request.file_name {
            return Err(bad_request("file_name", "does not end in .rpm or .deb"));
        }
        let sha256 = Sha256::try_from(request.sha256).map_err(|error| bad_request("sha256", error))?;
        if request.size_bytes == 0 {
            return Err(bad_request("size_bytes", "is 0"));
        }
        if request.data.len() > MAX_CHUNK_BYTES {
            return Err(bad_request("data", format!("is longer than {MAX_CHUNK_BYTES} bytes")));
        }
        let end = request.offset.checked_add(request.data.len() as u64);
        if end.is_none_or(|end| end > request.size_bytes) {
            return Err(bad_request("data", "goes beyond size_bytes"));
        }
        Ok(Self { package, sha256, size: request.size_bytes, offset: request.offset, data: request.data })
    }
}

impl PackageStore {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, writing: Arc::default() }
    }

    pub(super) async fn put(&self, request: v1::PutPackageRequest) -> Result<v1::PutPackageResponse, Refused> {
        let chunk = Chunk::try_from(request)?;
        let store = self.clone();
        let stored = blocking::run(move || {
            let mut begun = store.writing.lock().unwrap_or_else(PoisonError::into_inner);
            store.store(&chunk, &mut begun)
        });
        let answer = stored.await.map_err(|error| Refused::Internal(error.to_string()))?;
        #[cfg(test)]
        simulation::received(&answer).await;
        answer
    }

    fn store(&self, chunk: &Chunk, begun: &mut HashSet<Sha256>) -> Result<v1::PutPackageResponse, Refused> {
        let directory = self.directory.join(chunk.sha256.as_str());
        let whole = directory.join(chunk.package.file_name());
        let part = directory.join(format!("{}.part", chunk.package.file_name()));
        if length(&whole).is_some() {
            // It counts as new from here on, so that it is still there when the step comes that needs it.
            // The file itself stays as it was read.
            let touched = File::open(&directory).and_then(|directory| directory.set_modified(SystemTime::now()));
            touched.map_err(|error| failed(&whole, &error))?;
            return Ok(v1::PutPackageResponse { next_offset: chunk.size, complete: true });
        }
        let mut received = length(&part).unwrap_or(0);
        if received > chunk.size {
            fs::remove_file(&part).map_err(|error| failed(&part, &error))?;
            received = 0;
        }
        if chunk.offset == received && !chunk.data.is_empty() {
            make_directory(&directory).map_err(|error| failed(&directory, &error))?;
            self.check_room(chunk.size - received)?;
            append(&part, &chunk.data).map_err(|error| failed(&part, &error))?;
            if received == 0 {
                begun.insert(chunk.sha256.clone());
            }
            received += chunk.data.len() as u64;
        }
        // Also after a crash between the last chunk and the check.
        let complete = received == chunk.size;
        if complete && !publish(chunk, &part, &whole, begun.remove(&chunk.sha256))? {
            return Ok(v1::PutPackageResponse { next_offset: 0, complete: false });
        }
        Ok(v1::PutPackageResponse { next_offset: received, complete })
    }

    /// Removes packages that were last asked for longer than `retention` ago, except those whose digest is `needed`.
    pub(super) async fn collect(&self, retention: Duration, needed: HashSet<Sha256>) -> io::Result<usize> {
        let store = self.clone();
        blocking::run(move || {
            let _one_at_a_time = store.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let mut count = 0;
            for entry in fs::read_dir(&store.directory)? {
                let entry = entry?;
                let is_needed = needed.iter().any(|digest| entry.file_name() == digest.as_str());
                if !is_needed && entry.file_type()?.is_dir() && is_older(&entry.path(), retention)? {
                    fs::remove_dir_all(entry.path())?;
                    count += 1;
                }
            }
            Ok(count)
        })
        .await
        .flatten()
    }

    fn check_room(&self, missing: u64) -> Result<(), Refused> {
        let space = nix::sys::statvfs::statvfs(&self.directory)
            .map_err(|error| failed(&self.directory, &io::Error::from(error)))?;
        let available = space.blocks_available() * space.fragment_size();
        if available < missing.saturating_add(RESERVE_BYTES) {
            return Err(Refused::DiskFull(format!(
                "{} has {available} bytes left; the package needs {missing} and {RESERVE_BYTES} stay reserved",
                self.directory.display()
            )));
        }
        Ok(())
    }
}

/// Answers whether the part was whole; one that is not is an error only if it was received `at_once`.
fn publish(chunk: &Chunk, part: &Path, whole: &Path, at_once: bool) -> Result<bool, Refused> {
    let digests = content::read(part, || false).map_err(|error| failed(part, &error))?;
    // Nobody stops it.
    let Some(digests) = digests else { return Err(Refused::Internal("the package was not read".into())) };
    let is_whole = digests.whole == chunk.sha256.as_str();
    #[cfg(test)]
    let is_whole = is_whole || simulation::takes_any_digest();
    if !is_whole {
        fs::remove_file(part).map_err(|error| failed(part, &error))?;
        if !at_once {
            return Ok(false);
        }
        return Err(Refused::Precondition {
            reason: "DIGEST_MISMATCH",
            subject: chunk.package.file_name(),
            problem: format!("has SHA-256 {}, expected {}; what was received is dropped", digests.whole, chunk.sha256),
        });
    }
    let rename = || -> io::Result<()> {
        File::open(part)?.sync_all()?;
        fs::rename(part, whole)?;
        whole.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    rename().and_then(|()| content::remember(whole, digests)).map_err(|error| failed(whole, &error))?;
    Ok(true)
}

/// Nothing in the directory was changed since; a time in the future is no age.
fn is_older(directory: &Path, age: Duration) -> io::Result<bool> {
    let old = |metadata: fs::Metadata| Ok(metadata.modified()?.elapsed().is_ok_and(|elapsed| elapsed >= age));
    for entry in fs::read_dir(directory)? {
        if !old(entry?.metadata()?)? {
            return Ok(false);
        }
    }
    old(fs::metadata(directory)?)
}

fn length(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
}

fn append(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let before = file.metadata()?.len();
    // Half a chunk would be taken for received.
    file.write_all(data).inspect_err(|_| drop(file.set_len(before)))
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    content::read(path, || false)?.map(|digests| digests.whole).ok_or_else(|| io::Error::other("it was not read"))
}

fn failed(path: &Path, error: &io::Error) -> Refused {
    let told = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refused::DiskFull(told),
        _ => Refused::Internal(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Digest as _;

    const NAME: &str = "obproxy-1.9.1.1-1919579.el7.x86_64.rpm";

    fn chunk(content: &[u8], offset: usize, data: &[u8]) -> v1::PutPackageRequest {
        let sha256 = sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        v1::PutPackageRequest {
            file_name: NAME.into(),
            sha256,
            size_bytes: content.len() as u64,
            offset: offset as u64,
            data: data.to_vec(),
        }
    }

    #[tokio::test]
    async fn an_upload_goes_on_where_it_stopped_and_is_visible_when_whole() {
        let directory = tempfile::tempdir().unwrap();
        let content = b"0123456789";
        let store = || PackageStore::new(directory.path().into());
        let answer = store().put(chunk(content, 0, b"0123")).await.unwrap();
        assert_eq!((answer.next_offset, answer.complete), (4, false));
        // Another process asks, sends a chunk again, and goes on.
        assert_eq!(store().put(chunk(content, 0, b"")).await.unwrap().next_offset, 4);
        assert_eq!(store().put(chunk(content, 0, b"0123")).await.unwrap().next_offset, 4);
        assert_eq!(store().put(chunk(content, 7, b"789")).await.unwrap().next_offset, 4);
        let answer = store().put(chunk(content, 4, b"456789")).await.unwrap();
        assert_eq!((answer.next_offset, answer.complete), (10, true));
        let path = directory.path().join(chunk(content, 0, b"").sha256).join(NAME);
        assert_eq!(fs::read(&path).unwrap(), content);
        assert!(!path.with_extension("rpm.part").exists());
        assert!(store().put(chunk(content, 0, b"")).await.unwrap().complete);
    }

    #[tokio::test]
    async fn old_packages_go_unless_somebody_needs_or_asked_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = PackageStore::new(directory.path().into());
        let contents: [&[u8]; 4] = [b"needed", b"asked for again", b"old", b"half"];
        let day = Duration::from_secs(86_400);
        let place = |content: &[u8]| directory.path().join(chunk(content, 0, b"").sha256);
        for content in contents {
            let end = if content == b"half" { 2 } else { content.len() };
            store.put(chunk(content, 0, &content[..end])).await.unwrap();
            let files = fs::read_dir(place(content)).unwrap().map(|entry| entry.unwrap().path());
            for path in files.chain([place(content)]) {
                File::open(path).unwrap().set_modified(SystemTime::now() - 2 * day).unwrap();
            }
        }
        store.put(chunk(contents[1], 0, b"")).await.unwrap();
        let needed = HashSet::from([chunk(contents[0], 0, b"").sha256.parse().unwrap()]);
        assert_eq!(store.collect(day, needed).await.unwrap(), 2);
        assert_eq!(contents.map(|content| place(content).exists()), [true, true, false, false]);
    }

    #[tokio::test]
    async fn a_wrong_digest_drops_the_part_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let store = PackageStore::new(directory.path().into());
        let refused = store.put(chunk(b"0123", 0, b"xxxx")).await.unwrap_err();
        assert!(matches!(refused, Refused::Precondition { reason: "DIGEST_MISMATCH", .. }), "{refused}");
        assert_eq!(store.put(chunk(b"0123", 0, b"")).await.unwrap().next_offset, 0);
        assert!(store.put(chunk(b"0123", 0, b"0123")).await.unwrap().complete);
    }

    #[tokio::test]
    async fn a_part_that_lost_bytes_with_the_power_is_sent_anew() {
        let directory = tempfile::tempdir().unwrap();
        let store = || PackageStore::new(directory.path().into());
        store().put(chunk(b"0123", 0, b"\0\0")).await.unwrap();
        let answer = store().put(chunk(b"0123", 2, b"23")).await.unwrap();
        assert_eq!((answer.next_offset, answer.complete), (0, false));
        assert!(store().put(chunk(b"0123", 0, b"0123")).await.unwrap().complete);
    }

    #[tokio::test]
    async fn hostile_requests_are_refused_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let store = PackageStore::new(directory.path().join("packages"));
        let good = chunk(b"0123", 0, b"0123");
        let hostile = [
            v1::PutPackageRequest { file_name: "../../etc/x-1-1.x86_64.rpm".into(), ..good.clone() },
            v1::PutPackageRequest { file_name: "obproxy-1-1.x86_64".into(), ..good.clone() },
            v1::PutPackageRequest { file_name: String::new(), ..good.clone() },
            v1::PutPackageRequest { sha256: "../..".into(), ..good.clone() },
            v1::PutPackageRequest { size_bytes: 3, ..good.clone() },
            v1::PutPackageRequest { size_bytes: 0, ..good.clone() },
            v1::PutPackageRequest { offset: u64::MAX, ..good.clone() },
            v1::PutPackageRequest { size_bytes: 8 << 20, data: vec![0; MAX_CHUNK_BYTES + 1], ..good },
        ];
        for request in hostile {
            let refused = store.put(request.clone()).await.unwrap_err();
            assert!(matches!(refused, Refused::BadRequest(_)), "{} {refused}", request.file_name);
        }
        assert!(!directory.path().join("packages").exists());
    }
}
