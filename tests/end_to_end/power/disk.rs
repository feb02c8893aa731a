//! What is left on a disk when the power goes: what was synced, and of the rest whatever chance kept.
//!
//!  1. The content of a file is safe as it was at its last sync, and the names in a directory as they were at the
//!     directory's. Nothing else is: no file without its name, no rename before the sync of its directory.
//!  2. Of what was not synced either nothing is kept or some of it. Names are kept together, because a file system with a
//!     journal writes their changes in order; contents block by block, because it writes those in any order.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs::{self, Metadata, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::SystemTime,
};

const BLOCK: usize = 4096;

/// Number and time of birth: the number of a file that is gone is given again.
type Inode = (u64, Option<SystemTime>);

#[derive(Clone)]
enum Name {
    File(Inode),
    Directory(Inode),
    Link(PathBuf),
}

enum Content {
    Bytes(Vec<u8>),
    Names(BTreeMap<OsString, Name>),
}

struct Node {
    mode: u32,
    content: Content,
}

impl Node {
    fn bytes(&self) -> &[u8] {
        match &self.content {
            Content::Bytes(bytes) => bytes,
            Content::Names(_) => &[],
        }
    }
}

type Nodes = HashMap<Inode, Node>;

/// Whether the syncs of a file do nothing, as a planted defect.
pub(super) type Deaf = fn(&Path) -> bool;

/// The directories of a machine that lie on its disk.
pub(super) struct Disk {
    roots: Vec<PathBuf>,
    /// As what its processes see one of them.
    mounted_as: Option<PathBuf>,
    deaf: Deaf,
    synced: Nodes,
    /// Decides what survives although it was not synced; without it nothing does.
    dice: Option<fastrand::Rng>,
}

impl Disk {
    pub(super) fn new(roots: Vec<PathBuf>, deaf: Deaf, seed: Option<u64>) -> Self {
        Self { roots, mounted_as: None, deaf, synced: Nodes::new(), dice: seed.map(fastrand::Rng::with_seed) }
    }

    pub(super) fn mounted_as(self, path: PathBuf) -> Self {
        Self { mounted_as: Some(path), ..self }
    }

    /// What a machine finds when it starts is safe.
    pub(super) fn mount(&mut self) {
        self.synced = self.scan();
    }

    pub(super) fn holds(&self, path: &Path) -> bool {
        self.roots.iter().chain(&self.mounted_as).any(|root| path.starts_with(root))
    }

    /// A process syncs what it has open as `descriptor`, and what was at `path` when it was opened.
    pub(super) fn sync(&mut self, descriptor: &Path, path: &Path) {
        if !(self.deaf)(path) {
            let metadata = fs::metadata(descriptor).unwrap();
            self.synced.insert(inode(&metadata), read(descriptor, &metadata).unwrap());
        }
    }

    /// Takes away what was not synced. Nobody may use the disk meanwhile.
    pub(super) fn lose_power(&mut self) {
        let now = self.scan();
        let mut draw = || self.dice.as_mut().is_some_and(|dice| dice.bool());
        let (some, names) = (draw(), draw());
        let mut survival = Survival {
            synced: &self.synced,
            now: &now,
            names: if some && names { &now } else { &self.synced },
            dice: self.dice.as_mut().filter(|_| some),
        };
        for root in &self.roots {
            let beside = root.with_extension("after-the-cut");
            survival.write_directory(inode(&fs::metadata(root).unwrap()), &beside);
            fs::remove_dir_all(root).unwrap();
            fs::rename(beside, root).unwrap();
        }
    }

    fn scan(&self) -> Nodes {
        let mut nodes = Nodes::new();
        let mut paths = self.roots.clone();
        while let Some(path) = paths.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let node = read(&path, &metadata).unwrap();
            if let Content::Names(names) = &node.content {
                let followed = names.iter().filter(|(_, name)| !matches!(name, Name::Link(_)));
                paths.extend(followed.map(|(name, _)| path.join(name)));
            }
            nodes.insert(inode(&metadata), node);
        }
        nodes
    }
}

fn inode(metadata: &Metadata) -> Inode {
    (metadata.ino(), metadata.created().ok())
}

fn read(path: &Path, metadata: &Metadata) -> io::Result<Node> {
    let content = if metadata.is_dir() { Content::Names(names(path)?) } else { Content::Bytes(fs::read(path)?) };
    Ok(Node { mode: metadata.mode() & 0o7777, content })
}

fn names(directory: &Path) -> io::Result<BTreeMap<OsString, Name>> {
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            // The machine runs on while it syncs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let name = match metadata.file_type() {
            kind if kind.is_dir() => Name::Directory(inode(&metadata)),
            kind if kind.is_file() => Name::File(inode(&metadata)),
            kind if kind.is_symlink() => Name::Link(fs::read_link(entry.path())?),
            // Sockets and the like mean nothing to a later boot.
            _ => continue,
        };
        names.insert(entry.file_name(), name);
    }
    Ok(names)
}

/// How the disk looks after the cut.
struct Survival<'a> {
    synced: &'a Nodes,
    now: &'a Nodes,
    /// One of the two.
    names: &'a Nodes,
    /// There if some blocks survive that were not synced.
    dice: Option<&'a mut fastrand::Rng>,
}

impl Survival<'_> {
    fn write_directory(&mut self, inode: Inode, path: &Path) {
        fs::create_dir(path).unwrap();
        // A directory whose name was synced and which never was itself is empty.
        let Some(Node { mode, content: Content::Names(names) }) = self.names.get(&inode) else { return };
        fs::set_permissions(path, Permissions::from_mode(*mode)).unwrap();
        for (name, kind) in names {
            let path = path.join(name);
            match kind {
                Name::Directory(inode) => self.write_directory(*inode, &path),
                Name::File(inode) => self.write_file(*inode, &path),
                Name::Link(target) => symlink(target, path).unwrap(),
            }
        }
    }

    fn write_file(&mut self, inode: Inode, path: &Path) {
        let (synced, now) = (self.synced.get(&inode), self.now.get(&inode));
        let mut bytes = synced.map_or(Vec::new(), |node| node.bytes().to_vec());
        if let (Some(dice), Some(now)) = (&mut self.dice, now) {
            mix(&mut bytes, now.bytes(), dice);
        }
        fs::write(path, bytes).unwrap();
        let mode = synced.or(now).map_or(0o600, |node| node.mode);
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

fn mix(bytes: &mut Vec<u8>, now: &[u8], dice: &mut fastrand::Rng) {
    if dice.bool() {
        bytes.resize(now.len(), 0);
    }
    for (block, now) in bytes.chunks_mut(BLOCK).zip(now.chunks(BLOCK)) {
        if dice.bool() {
            let length = block.len().min(now.len());
            block[..length].copy_from_slice(&now[..length]);
        }
    }
}
