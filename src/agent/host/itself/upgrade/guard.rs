//! A unit that finishes the exchange of the agent after a power cut.
//!
//!  1. It is on disk and enabled before the exchange begins, and it is removed once the verdict is on disk.
//!  2. systemd starts it at boot, beside the agent and not after it, because the installed program may never get ready.
//!     It carries the plan out again with the saved program and writes the verdict.
//!  3. An agent that serves meanwhile waits for that verdict: two package managers would be in each other's way.

use crate::agent::host::{
    durable,
    process::systemd::unit_file::{self, TARGET},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

pub(super) const UNIT: &str = "oblet-agent-guard.service";

/// The unit in a directory of systemd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guard {
    directory: PathBuf,
}

impl Guard {
    pub(super) fn below(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn file(&self) -> PathBuf {
        self.directory.join(UNIT)
    }

    fn wants(&self) -> PathBuf {
        self.directory.join(format!("{TARGET}.wants"))
    }

    /// Has `program` carry out `plan` at every boot from now on. A guard of an earlier exchange is replaced.
    pub(super) fn set(&self, program: &Path, plan: &Path) -> io::Result<()> {
        durable::write_text(&self.file(), &text(program, plan)?, 0o644)?;
        let wants = self.wants();
        fs::create_dir_all(&wants)?;
        match symlink(Path::new("..").join(UNIT), wants.join(UNIT)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        File::open(wants)?.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }

    /// Whether the unit on disk carries out `plan`.
    pub(super) fn is_set_for(&self, plan: &Path) -> io::Result<bool> {
        let plan = unit_file::quoted(unit_file::text(plan)?);
        Ok(durable::read_text(&self.file())?.is_some_and(|unit| unit.contains(&plan)))
    }

    /// systemd starts it no more; what runs of it goes on.
    pub(super) fn remove(&self) -> io::Result<()> {
        durable::remove(&self.wants().join(UNIT))?;
        durable::remove(&self.file())?;
        File::open(&self.directory)?.sync_all()
    }
}

fn text(program: &Path, plan: &Path) -> io::Result<String> {
    let (program, plan) = (unit_file::text(program)?, unit_file::text(plan)?);
    Ok(format!(
        "# Written by oblet-agent, which removes it.\n\
         [Unit]\n\
         Description=oblet: finish the exchange of the agent that a power cut interrupted\n\
         ConditionPathExists={condition}\n\n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart={command} replace-self {argument}\n\
         TimeoutStartSec=1800\n\n\
         [Install]\n\
         WantedBy={TARGET}\n",
        condition = unit_file::plain(program)?,
        command = unit_file::quoted(program),
        argument = unit_file::quoted(plan),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_enabled_for_one_plan_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let guard = Guard::below(directory.path());
        let (program, plan) = (Path::new("/state/runs/a/oblet-agent"), Path::new("/state/runs/a/replacement"));
        guard.remove().unwrap();
        assert!(!guard.is_set_for(plan).unwrap());
        for _ in 0..2 {
            guard.set(program, plan).unwrap();
            assert!(guard.is_set_for(plan).unwrap());
        }
        guard.set(program, Path::new("/state/runs/b/replacement")).unwrap();
        assert!(!guard.is_set_for(plan).unwrap(), "another exchange has replaced it");
        let enabled = fs::read_to_string(directory.path().join("multi-user.target.wants").join(UNIT)).unwrap();
        insta::assert_snapshot!(enabled);
        guard.remove().unwrap();
        assert!(!directory.path().join(UNIT).exists());
        assert_eq!(fs::read_dir(directory.path().join("multi-user.target.wants")).unwrap().count(), 0);
    }

    #[test]
    fn a_path_is_one_word_of_the_command_whatever_is_in_it() {
        let unit = text(Path::new("/a b/%i"), Path::new("/x\"y")).unwrap();
        assert!(unit.contains("\nExecStart=\"/a b/%%i\" replace-self \"/x\\\"y\"\n"), "{unit}");
        assert!(text(Path::new("/a\nb"), Path::new("/x")).is_err());
    }
}
