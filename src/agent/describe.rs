//! What the host is.

use super::{operation::now_us, wire};
use crate::rpc::v1;
use std::{fs, path::PathBuf};
use sysinfo::{MemoryRefreshKind, System};

/// The part of a host's description that comes from the instances it manages.
pub trait HostView: Send + Sync {
    /// Database processes that this agent looks after. May read `/proc`.
    fn instances(&self) -> Vec<v1::ManagedInstance>;
    /// Generation of the configuration that was pushed to the agent.
    fn config_generation(&self) -> u64;
    /// The agent itself, as far as the system tells.
    fn agent_process(&self) -> Option<v1::AgentProcess> {
        None
    }
}

/// Everything but what the journal and the listener know. Reads files, so it belongs on a blocking thread.
pub(super) fn describe(disks: &[PathBuf], view: &dyn HostView) -> v1::DescribeHostResponse {
    let system = measure().unwrap_or_default();
    let names = nix::sys::utsname::uname().ok();
    let name = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        names.as_ref().map(|names| part(names).to_string_lossy().into_owned()).unwrap_or_default()
    };
    v1::DescribeHostResponse {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        hostname: name(|names| names.nodename()),
        operating_system: operating_system(),
        kernel_release: name(|names| names.release()),
        architecture: name(|names| names.machine()),
        boot_id: super::host::boot_id().unwrap_or_default(),
        cpu_count: system.cpu_count,
        memory_bytes: system.memory_bytes,
        memory_available_bytes: system.memory_available_bytes,
        disks: disks.iter().filter_map(disk).collect(),
        time: Some(wire::timestamp(now_us())),
        instances: view.instances(),
        metrics_port: 0,
        config_generation: view.config_generation(),
        epoch: 0,
        agent_process: view.agent_process(),
    }
}

#[derive(Default)]
struct Measured {
    cpu_count: u32,
    memory_bytes: u64,
    memory_available_bytes: u64,
}

fn measure() -> Result<Measured, sysinfo::Error> {
    let mut system = System::new()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    Ok(Measured {
        cpu_count: u32::try_from(system.cpus().len()).unwrap_or(u32::MAX),
        memory_bytes: system.total_memory(),
        memory_available_bytes: system.available_memory(),
    })
}

/// PRETTY_NAME of os-release(5).
fn operating_system() -> String {
    let text = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| fs::read_to_string(path).ok());
    text.as_deref()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")))
        .map_or_else(|| "Linux".into(), |name| name.trim_matches(['"', '\'']).to_owned())
}

fn disk(path: &PathBuf) -> Option<v1::Disk> {
    let space = nix::sys::statvfs::statvfs(path).ok()?;
    let unit = space.fragment_size();
    Some(v1::Disk {
        path: path.display().to_string(),
        total_bytes: space.blocks() * unit,
        available_bytes: space.blocks_available() * unit,
    })
}
