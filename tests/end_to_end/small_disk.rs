//! A file system that a filler takes to its last byte.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// A tmpfs in the place of a directory, as long as the test lasts.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Takes the directory's content along. None where mounting is not permitted.
    pub(crate) fn under(directory: &Path, mebibytes: u32) -> Option<Self> {
        let aside = directory.with_extension("aside");
        if directory.exists() {
            fs::rename(directory, &aside).unwrap();
        }
        fs::create_dir(directory).unwrap();
        let size = format!("size={mebibytes}m,mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "oblet-test"]).arg(directory);
        if !mount.output().is_ok_and(|output| output.status.success()) {
            crate::skip::skip("mounting a tmpfs is not permitted here");
            return None;
        }
        let disk = Self(directory.to_owned());
        if aside.exists() {
            let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(directory).status();
            assert!(copied.unwrap().success());
        }
        Some(disk)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes what room is left.
    pub(crate) fn fill(&self) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 1] {
            let block = vec![b'x'; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the programs that hold files open end after this.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
