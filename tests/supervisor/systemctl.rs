//! What an administrator does and asks.

use crate::place::Place;
use oblet::agent::host::ProcessId;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// One property, as `systemctl show` prints it.
pub(crate) fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, unit]).trim().to_owned()
}

pub(crate) fn unit_file(place: &Place) -> PathBuf {
    Path::new("/etc/systemd/system").join(&place.unit)
}

pub(crate) fn kill(process: &ProcessId) {
    let pid = nix::unistd::Pid::from_raw(process.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The process that the unit follows.
pub(crate) fn main_pid(unit: &str) -> i32 {
    property(unit, "MainPID").parse().unwrap()
}

/// Where systemd looks that process up.
pub(crate) fn pid_file(place: &Place) -> PathBuf {
    helper_file(place, "pid")
}

/// What the agent's helper keeps of the service.
pub(crate) fn helper_file(place: &Place, what: &str) -> PathBuf {
    Path::new("/run/oblet-agent").join(format!("{}.{what}", place.service))
}

pub(crate) fn noted_pid(place: &Place) -> i32 {
    fs::read_to_string(pid_file(place)).unwrap().trim().parse().unwrap()
}
