//! A process by (boot id, pid, start time): a pid alone may mean another process tomorrow.

use procfs::{FromRead as _, process::Stat};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    sync::OnceLock,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub boot_id: String,
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
    pub start_ticks: u64,
}

/// Changes with every boot of the machine.
///
/// As PID 1 sees it: in a container each boot has an id that is mounted over the kernel's, and the sandbox of a unit
/// (`ProtectKernelTunables=`) hides that mount, so the agent and the shims would not agree on which boot this is.
pub(crate) fn boot_id() -> io::Result<String> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id.clone());
    }
    let seen = match fs::read_to_string(format!("/proc/1/root{BOOT_ID}")) {
        // Only root may look through the eyes of PID 1.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => fs::read_to_string(BOOT_ID),
        seen => seen,
    };
    let id = seen?.trim().to_owned();
    Ok(ID.get_or_init(|| id).clone())
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// With three system calls, where procfs needs ten: while a run is stopped, this is asked of every process of the host again and
/// again.
fn stat(pid: i32) -> Option<Stat> {
    let mut buffer = [0; MOST_STAT_BYTES];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut buffer).ok()?;
    Stat::from_read(buffer.get(..length)?).ok()
}

/// A name of at most 64 bytes and 51 numbers of at most 20 each; the kernel gives them all at once.
const MOST_STAT_BYTES: usize = 2048;

/// Of every process of the host, at about the same time.
pub(in crate::agent::host) fn all_pids() -> io::Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// A zombie has ended; only its parent has not looked yet.
fn has_ended(stat: &Stat) -> bool {
    matches!(stat.state, 'Z' | 'X' | 'x')
}

impl ProcessId {
    pub(in crate::agent::host) fn of(pid: i32) -> io::Result<Self> {
        let stat = stat(pid).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Self { boot_id: boot_id()?, pid, start_ticks: stat.starttime })
    }

    pub fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot_id)
            && stat(self.pid).is_some_and(|stat| stat.starttime == self.start_ticks && !has_ended(&stat))
    }

    /// Sends a signal to this very process. `false`: it is gone.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // The handle is held while the start time is compared, so the pid cannot pass to another process in between.
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Every living process of the session that this process led, whether or not the leader still lives.
    pub(super) fn session(&self) -> Vec<ProcessId> {
        if !boot_id().is_ok_and(|boot| boot == self.boot_id) {
            return Vec::new();
        }
        // The kernel gives a pid to nobody while it names a session, so another holder means the session is over.
        if stat(self.pid).is_some_and(|stat| stat.starttime != self.start_ticks) {
            return Vec::new();
        }
        let Ok(pids) = all_pids() else { return Vec::new() };
        pids.into_iter()
            .filter_map(stat)
            .filter(|stat| stat.session == self.pid && !has_ended(stat))
            .map(|stat| Self { boot_id: self.boot_id.clone(), pid: stat.pid, start_ticks: stat.starttime })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_signal_reaches_only_the_process_that_was_meant() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = ProcessId::of(child.id().try_into().unwrap()).unwrap();
        let namesake = ProcessId { start_ticks: process.start_ticks + 1, ..process.clone() };
        let last_boot = ProcessId { boot_id: "another".into(), ..process.clone() };
        assert!(!namesake.is_alive() && !namesake.signal(Signal::KILL).unwrap());
        assert!(!last_boot.is_alive() && !last_boot.signal(Signal::KILL).unwrap());
        assert!(process.is_alive() && process.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!process.is_alive() && !process.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn a_session_of_another_process_with_the_same_pid_is_not_taken_for_that_of_the_first() {
        let mut child = std::process::Command::new("setsid").args(["sleep", "600"]).spawn().unwrap();
        let leader = ProcessId::of(child.id().try_into().unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while leader.session().is_empty() {
            assert!(Instant::now() < deadline, "the child does not lead a session");
            std::thread::sleep(Duration::from_millis(5));
        }
        let predecessor = ProcessId { start_ticks: leader.start_ticks - 1, ..leader.clone() };
        let last_boot = ProcessId { boot_id: "another".into(), ..leader.clone() };
        let sessions = [predecessor, last_boot, leader.clone()].map(|process| process.session());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(sessions, [vec![], vec![], vec![leader]]);
    }
}
