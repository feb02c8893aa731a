//! The agent as a process of its host.

use crate::{
    agent::host::{checks::processes, sockets},
    rpc::v1::AgentProcess,
};
use procfs::{ProcError, process::Process};
use prost_types::Timestamp;
use std::{io, path::Path};

pub(in crate::agent::host) fn describe(state_dir: &Path) -> Result<AgentProcess, ProcError> {
    let own = Process::myself()?;
    let since_boot = own.stat()?.starttime / procfs::ticks_per_second();
    let started = procfs::boot_time_secs()?.saturating_add(since_boot);
    let mut ports: Vec<u32> = sockets::own_ports()?.into_iter().map(u32::from).collect();
    ports.sort_unstable();
    let program = own.exe()?;
    let program_dir = program.parent().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok(AgentProcess {
        pid: own.pid,
        start_time: Some(Timestamp { seconds: i64::try_from(started).unwrap_or(i64::MAX), nanos: 0 }),
        user: processes::user(own.pid),
        command_line: own.cmdline()?.join(" "),
        ports,
        program_dir: program_dir.display().to_string(),
        log_dir: state_dir.join("logs").display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_asks_is_the_one_that_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let told = describe(Path::new("/state")).unwrap();
        assert_eq!(told.pid.unsigned_abs(), std::process::id());
        assert!(told.ports.contains(&listener.local_addr().unwrap().port().into()));
        let executable = std::env::current_exe().unwrap();
        assert_eq!(Path::new(&told.program_dir), executable.parent().unwrap());
        let age = jiff::Timestamp::now().as_second() - told.start_time.unwrap().seconds;
        assert!((-1..3600).contains(&age), "{age}");
        assert_eq!(told.log_dir, "/state/logs");
    }
}
