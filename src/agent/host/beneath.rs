//! Directories that the run user may change at any moment, held by descriptor.
//!
//! Below the run path, the home of the run user and the data directories any name can become a link, a fifo or a device
//! between two looks. So the way there is walked name by name: a link is followed only where nobody but root could have
//! put it, and everything behind is done on what was opened, never on a path. Works on every kernel, without openat2.

use rustix::{
    fs::{AtFlags, Dir as Listing, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
};

/// Deeper is nothing that a database makes; removal keeps a descriptor open for each level.
const DEEPEST: usize = 64;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

fn about(path: &Path, error: Errno) -> io::Error {
    let kind = io::Error::from(error).kind();
    match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{} is no directory (a link there is not followed)", path.display()),
        ),
        error => io::Error::new(kind, format!("{}: {error}", path.display())),
    }
}

impl Directory {
    /// Opens an absolute path.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::walk(path, None)
    }

    /// The same; none if there is nothing of that name.
    pub(super) fn find(path: &Path) -> io::Result<Option<Self>> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Opens an absolute path and makes what is missing of it with this mode, whatever the umask.
    pub(super) fn make(path: &Path, mode: u32) -> io::Result<Self> {
        Self::walk(path, Some(mode))
    }

    fn walk(path: &Path, make: Option<u32>) -> io::Result<Self> {
        let root = rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let mut at = Self { fd: root?, path: "/".into() };
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => {
                    let name = Path::new(name);
                    at = match (at.enter(name), make) {
                        (Err(error), Some(mode)) if error.kind() == io::ErrorKind::NotFound => {
                            at.child(name, mode, None)?
                        }
                        (entered, _) => entered?,
                    };
                }
                Component::Prefix(_) | Component::CurDir | Component::ParentDir => {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute and plain"));
                }
            }
        }
        Ok(at)
    }

    /// Nobody but root, or the user of this program, can change what is in it.
    fn is_trusted(&self) -> io::Result<bool> {
        let stat = rustix::fs::fstat(&self.fd)?;
        let others = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
        Ok(!others && (stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw()))
    }

    fn enter(&self, name: &Path) -> io::Result<Self> {
        let links = if self.is_trusted()? { OFlags::empty() } else { OFlags::NOFOLLOW };
        self.open_directory(name, links)
    }

    fn open_directory(&self, name: &Path, links: OFlags) -> io::Result<Self> {
        let path = self.path.join(name);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | links;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(error) => Err(about(&path, error)),
        }
    }

    /// The directory of this name, made if it is missing, with this owner and this mode. A link is refused.
    pub(super) fn child(&self, name: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::mkdirat(&self.fd, name, mode) {
            Ok(()) => self.sync()?,
            Err(error) if error != Errno::EXIST => return Err(about(&self.path.join(name), error)),
            Err(_) => {}
        }
        let child = self.open_directory(name, OFlags::NOFOLLOW)?;
        if let Some((uid, gid)) = owner {
            use rustix::process::{Gid, Uid};
            rustix::fs::fchown(&child.fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        // After the owner, who might have opened the directory wider than he shall.
        rustix::fs::fchmod(&child.fd, mode)?;
        Ok(child)
    }

    /// An existing directory of this name; a link is refused.
    pub(super) fn existing(&self, name: &str) -> io::Result<Self> {
        self.open_directory(Path::new(name), OFlags::NOFOLLOW)
    }

    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))?)
    }

    /// A regular file, opened without following a link and without waiting for the other end of a fifo.
    pub(super) fn file(&self, name: &str) -> io::Result<File> {
        self.open_file(name, OFlags::RDONLY)
    }

    /// A regular file that can be changed, if it is of the owner of this directory and has no other name: a hard link could
    /// lead to any file of the host.
    pub(super) fn own_file(&self, name: &str) -> io::Result<File> {
        let file = self.open_file(name, OFlags::RDWR)?;
        let metadata = file.metadata()?;
        if metadata.nlink() == 1 && metadata.uid() == rustix::fs::fstat(&self.fd)?.st_uid {
            Ok(file)
        } else {
            let path = self.path.join(name);
            let why = format!("{} has other names or another owner, it is left alone", path.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
        }
    }

    fn open_file(&self, name: &str, access: OFlags) -> io::Result<File> {
        let path = self.path.join(name);
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file =
            File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|error| about(&path, error))?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no regular file", path.display())))
        }
    }

    /// What stands in a file from `offset` on, at most its last `limit` bytes. A file that became shorter was begun anew.
    pub(super) fn read_end(&self, name: &str, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        let mut file = self.file(name)?;
        let length = file.metadata()?.len();
        let offset = if length < offset { 0 } else { offset };
        file.seek(SeekFrom::Start(offset.max(length.saturating_sub(limit))))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Names of what is in it and whether that is a directory, without `.` and `..`.
    pub(super) fn entries(&self) -> io::Result<Vec<(PathBuf, bool)>> {
        let mut found = Vec::new();
        for entry in Listing::read_from(&self.fd)? {
            let entry = entry?;
            let name = PathBuf::from(OsStr::from_bytes(entry.file_name().to_bytes()));
            if name == Path::new(".") || name == Path::new("..") {
                continue;
            }
            let is_directory = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                }
                _ => false,
            };
            found.push((name, is_directory));
        }
        Ok(found)
    }

    /// Removes everything in it.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.clear_level(0)
    }

    /// Removes everything in it but what has this name.
    pub(super) fn clear_but(&self, kept: &Path) -> io::Result<()> {
        let mut names = self.entries()?;
        names.retain(|(name, _)| name != kept);
        names.iter().try_for_each(|(name, _)| self.remove(name))?;
        self.sync()
    }

    /// Gives what is in it another name, for good. What has that name already stays, and the call fails.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
            Err(error) => Err(about(&self.path.join(to), error)),
            Ok(()) => self.sync(),
        }
    }

    fn clear_level(&self, level: usize) -> io::Result<()> {
        if level > DEEPEST {
            let path = self.path.display();
            return Err(io::Error::other(format!("{path} is nested too deep to be of a database: remove it by hand")));
        }
        for (name, is_directory) in self.entries()? {
            let flags = if is_directory {
                self.open_directory(&name, OFlags::NOFOLLOW)?.clear_level(level + 1)?;
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            match rustix::fs::unlinkat(&self.fd, &name, flags) {
                Err(error) if error != Errno::NOENT => return Err(about(&self.path.join(&name), error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What was made and removed in it outlives a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Removes the directory of this name with everything in it, for good; a link in its place is removed itself.
    pub(super) fn remove(&self, name: &Path) -> io::Result<()> {
        match self.open_directory(name, OFlags::NOFOLLOW) {
            Ok(child) => child.clear()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?);
            }
            Err(error) => return Err(error),
        }
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Err(error) if error != Errno::NOENT => Err(about(&self.path.join(name), error)),
            _ => self.sync(),
        }
    }
}

/// Bytes that a process may still write below an absolute path, which need not exist yet. A link of the run user is not
/// followed: it would be asked of a file system that he chose, which may never answer.
pub(super) fn available_bytes(path: &Path) -> io::Result<u64> {
    for path in path.ancestors() {
        if let Some(directory) = Directory::find(path)? {
            let space = rustix::fs::fstatvfs(&directory.fd)?;
            return Ok(space.f_bavail.saturating_mul(space.f_frsize));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    /// A directory that everybody may write to, as the run user's is for him.
    fn open_to_all() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        dir
    }

    #[test]
    fn a_link_is_followed_only_where_root_alone_could_have_put_it() {
        let (trusted, open, victim) = (tempfile::tempdir().unwrap(), open_to_all(), tempfile::tempdir().unwrap());
        for dir in [trusted.path(), open.path()] {
            symlink(victim.path(), dir.join("way")).unwrap();
        }
        fs::create_dir(victim.path().join("inside")).unwrap();
        Directory::open(&trusted.path().join("way/inside")).unwrap();
        let error = Directory::open(&open.path().join("way/inside")).unwrap_err();
        assert!(error.to_string().contains("is not followed"), "{error}");
        let parent = Directory::open(open.path()).unwrap();
        assert!(parent.child(Path::new("way"), 0o750, None).is_err());
        assert!(Directory::make(&open.path().join("way/new"), 0o755).is_err());
        assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_regular_file_is_neither_waited_for_nor_read() {
        let dir = open_to_all();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", dir.path().join("zeros")).unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        fs::write(dir.path().join("file"), "0123456789").unwrap();
        let open = Directory::open(dir.path()).unwrap();
        for name in ["fifo", "zeros", "directory", "missing"] {
            assert!(open.read_end(name, 0, 10).is_err(), "{name}");
        }
        assert_eq!(open.read_end("file", 4, 100).unwrap(), b"456789");
        assert_eq!(open.read_end("file", 0, 3).unwrap(), b"789");
        assert_eq!(open.read_end("file", 400, 100).unwrap(), b"0123456789");
    }

    #[test]
    fn the_room_behind_a_link_of_the_run_user_is_not_asked_for() {
        let dir = open_to_all();
        symlink("/proc", dir.path().join("proxies")).unwrap();
        assert!(available_bytes(&dir.path().join("proxies/2883")).is_err());
        assert!(available_bytes(&dir.path().join("missing/2883")).unwrap() > 0);
    }

    #[test]
    fn a_file_with_another_name_is_not_changed() {
        let (dir, victim) = (open_to_all(), tempfile::tempdir().unwrap());
        fs::write(victim.path().join("precious"), "").unwrap();
        fs::hard_link(victim.path().join("precious"), dir.path().join("hard")).unwrap();
        symlink(victim.path().join("precious"), dir.path().join("soft")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(dir.path().join("plain"), "").unwrap();
        let open = Directory::open(dir.path()).unwrap();
        for name in ["hard", "soft", "fifo", "missing"] {
            assert!(open.own_file(name).is_err(), "{name}");
        }
        open.own_file("plain").unwrap();
    }

    #[test]
    fn removal_takes_links_and_never_what_they_lead_to() {
        let (dir, victim) = (open_to_all(), tempfile::tempdir().unwrap());
        fs::write(victim.path().join("precious"), "").unwrap();
        fs::create_dir_all(dir.path().join("tree/a/b")).unwrap();
        fs::write(dir.path().join("tree/a/file"), "").unwrap();
        symlink(victim.path(), dir.path().join("tree/a/link")).unwrap();
        symlink(victim.path(), dir.path().join("link")).unwrap();
        let open = Directory::open(dir.path()).unwrap();
        for name in ["tree", "link", "missing"] {
            open.remove(Path::new(name)).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(victim.path().join("precious").exists());
    }

    #[test]
    fn a_swapper_gets_at_nothing_of_root() {
        let (dir, victim) = (open_to_all(), tempfile::tempdir().unwrap());
        let precious = victim.path().join("etc");
        fs::create_dir(&precious).unwrap();
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(precious.join("shadow"), "").unwrap();
        let (place, lure) = (dir.path().join("2883"), dir.path().join("lure"));
        symlink(victim.path(), &lure).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = fs::rename(&place, dir.path().join("aside"));
                    let _ = fs::rename(&lure, &place);
                    thread::yield_now();
                    let _ = fs::rename(&place, &lure);
                    let _ = fs::rename(dir.path().join("aside"), &place);
                }
            });
            for _ in 0..2000 {
                let parent = Directory::open(dir.path()).unwrap();
                if let Ok(made) = parent.child(Path::new("2883"), 0o750, None) {
                    let _ = made.child(Path::new("etc"), 0o750, None);
                    let _ = made.clear();
                }
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(precious.join("shadow").exists());
        assert_eq!(fs::metadata(&precious).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
