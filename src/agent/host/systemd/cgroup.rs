//! The processes of a control group, read without asking anybody.

use super::super::process::ProcessId;
use std::{fs, path::Path};

/// Where the hierarchy that systemd keeps its units in is mounted: the only one, the new one beside old ones, an old one.
const HIERARCHIES: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// The process of the group that has run for longest.
pub(super) fn oldest(control_group: &str) -> Option<ProcessId> {
    let inside = control_group.strip_prefix('/')?;
    let listed = HIERARCHIES
        .iter()
        .find_map(|hierarchy| fs::read_to_string(Path::new(hierarchy).join(inside).join("cgroup.procs")).ok())?;
    let processes = listed.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?).ok());
    processes.filter(ProcessId::is_alive).min_by_key(|process| (process.start_ticks, process.pid))
}
