//! The logs of a proxy as they were before its first start. What is written while passwords are told is taken away again:
//! nobody knows what of the statements it holds.

use super::super::beneath::Directory;
use std::{collections::BTreeMap, io, os::unix::fs::MetadataExt as _, path::Path};

/// How long each file was, by device and inode: a file may be put aside meanwhile.
#[derive(Debug, Default)]
pub(super) struct EarlierLogs(BTreeMap<(u64, u64), u64>);

impl EarlierLogs {
    /// `dir` is the directory of the proxy.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        let mut lengths = BTreeMap::new();
        if let Some(log) = find(dir)? {
            for (name, _) in log.entries()?.into_iter().filter(|(_, is_directory)| !is_directory) {
                let Some(name) = name.to_str() else { continue };
                // What is no regular file keeps nothing.
                if let Ok(metadata) = log.file(name).and_then(|file| file.metadata()) {
                    lengths.insert((metadata.dev(), metadata.ino()), metadata.len());
                }
            }
        }
        Ok(Self(lengths))
    }

    /// Cuts the files to their former lengths and removes all others; obproxy makes no directories there.
    pub(super) fn restore(&self, dir: &Path) -> io::Result<()> {
        let Some(log) = find(dir)? else { return Ok(()) };
        for (name, is_directory) in log.entries()? {
            if is_directory {
                continue;
            }
            let file = name.to_str().map(|name| log.file(name).and_then(|file| file.metadata()));
            let known = match &file {
                Some(Ok(metadata)) => self.0.get(&(metadata.dev(), metadata.ino())).map(|length| (metadata, *length)),
                _ => None,
            };
            match (name.to_str(), known) {
                (Some(name), Some((metadata, length))) if metadata.len() > length => {
                    log.own_file(name)?.set_len(length)?;
                }
                (_, Some(_)) => {}
                (_, None) => log.remove(&name)?,
            }
        }
        Ok(())
    }
}

fn find(dir: &Path) -> io::Result<Option<Directory>> {
    let Some(dir) = Directory::find(dir)? else { return Ok(None) };
    match dir.existing("log") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        log => log.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write as _};

    #[test]
    fn files_get_their_lengths_back_and_new_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        EarlierLogs::of(dir.path()).unwrap().restore(dir.path()).unwrap();
        let log = dir.path().join("log");
        fs::create_dir_all(log.join("kept")).unwrap();
        fs::write(log.join("obproxy.log"), "before").unwrap();
        fs::write(log.join("obproxy_stat.log"), "same").unwrap();
        let before = EarlierLogs::of(dir.path()).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(log.join("obproxy.log")).unwrap();
        file.write_all(b" after").unwrap();
        fs::rename(log.join("obproxy.log"), log.join("obproxy.log.1")).unwrap();
        fs::write(log.join("obproxy.log"), "new").unwrap();
        before.restore(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(log.join("obproxy.log.1")).unwrap(), "before");
        assert_eq!(fs::read_to_string(log.join("obproxy_stat.log")).unwrap(), "same");
        assert!(!log.join("obproxy.log").exists() && log.join("kept").exists());
    }
}
