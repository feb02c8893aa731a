//! The processes of a control group, read without asking anybody.

use crate::agent::host::process::identity::ProcessId;
use std::{fs, io, path::Path};

/// Where the hierarchy that systemd keeps its units in is mounted: the only one, the new one beside old ones, an old one.
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// Every living process of the group, the one that has run for longest first.
pub(in crate::agent::host) fn processes(control_group: &str) -> Vec<ProcessId> {
    let Some(inside) = control_group.strip_prefix('/') else { return Vec::new() };
    let listed = HIERARCHIES
        .iter()
        .find_map(|hierarchy| fs::read_to_string(Path::new(hierarchy).join(inside).join("cgroup.procs")).ok());
    let listed = listed.unwrap_or_default();
    let processes = listed.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?).ok());
    let mut processes: Vec<ProcessId> = processes.filter(ProcessId::is_alive).collect();
    processes.sort_by_key(|process| (process.start_ticks, process.pid));
    processes
}

/// The group in which systemd keeps this very process.
pub(in crate::agent::host) fn own() -> io::Result<String> {
    // Each line is "number:controllers:path"; systemd's own hierarchy has the number 0 or the name "name=systemd".
    let listed = fs::read_to_string("/proc/self/cgroup")?;
    let group = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (number, name, path) = (parts.next()?, parts.next()?, parts.next()?);
        (name == "name=systemd" || (number == "0" && name.is_empty())).then(|| path.to_owned())
    };
    // Beside old hierarchies the new one may be there and hold nothing.
    let groups: Vec<String> = listed.lines().filter_map(group).collect();
    groups.into_iter().max_by_key(String::len).ok_or_else(|| io::Error::other("this process is in no control group"))
}
