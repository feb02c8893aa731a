//! Jobs: the shim in a transient unit.

use super::{
    bus::{Bus, Version},
    run_name,
    unit_file::EXEC_AND_APPEND,
};
use crate::agent::host::{
    durable::{make_directory, read_json, write_json_for_this_boot},
    process::{
        identity::ProcessId,
        shim::{CLAIM, Claim, LAUNCH, LaunchFile, SHIM_LOG},
        shimmed::{self, KILL_DEADLINE},
        supervisor::Launch,
    },
};
use std::{io, path::Path, time::Duration};
use tokio::time::Instant;
use zbus::Variant;

const START_DEADLINE: Duration = Duration::from_secs(30);
/// When the host goes down, rpm gets the time to end between two files.
const STOP_MICROSECONDS: u64 = 90_000_000;
/// The first systemd that can forget a failed unit by itself.
const COLLECT_MODE: Version = Version(236);

fn unit_name(run_dir: &Path) -> io::Result<String> {
    Ok(format!("oblet-job-{}.service", run_name(run_dir)?))
}

fn path(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path is not UTF-8"))
}

pub(super) async fn start(bus: &Bus, agent: &Path, run_dir: &Path, launch: &Launch) -> io::Result<()> {
    let unit = unit_name(run_dir)?;
    make_directory(run_dir)?;
    if !shimmed::is_open(run_dir)? {
        return Ok(());
    }
    write_json_for_this_boot(&run_dir.join(LAUNCH), &LaunchFile::from(launch))?;
    let version = bus.version().await?;
    let log = run_dir.join(SHIM_LOG);
    let arguments = vec!["oblet-agent", "shim", path(run_dir)?];
    // The environment of the program is in the private launch file, for everyone may read the properties of a unit.
    let mut properties = vec![
        ("Description", Variant::from(launch.description.as_str())),
        ("ExecStart", Variant::from(vec![(path(agent)?, arguments, false)])),
        ("KillMode", Variant::from("control-group")),
        ("TimeoutStopUSec", Variant::from(STOP_MICROSECONDS)),
    ];
    if version >= COLLECT_MODE {
        properties.push(("CollectMode", Variant::from("inactive-or-failed")));
    }
    if version >= EXEC_AND_APPEND {
        properties.push(("Type", Variant::from("exec")));
        properties.push(("StandardErrorFileToAppend", Variant::from(path(&log)?)));
    }
    let result = bus.start_transient(&unit, &properties, START_DEADLINE).await?;
    if result != "done" {
        let agent = agent.display();
        return Err(io::Error::other(format!("systemd could not start {agent}: the job of {unit} ended as {result}")));
    }
    let started = shimmed::wait_for_start(run_dir, || is_gone(bus, run_dir, &unit)).await;
    if started.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
        bus.stop(&unit, Duration::ZERO, KILL_DEADLINE).await?;
    }
    started
}

/// The shim has ended, or never will begin.
async fn is_gone(bus: &Bus, run_dir: &Path, unit: &str) -> io::Result<bool> {
    match read_json(&run_dir.join(CLAIM))? {
        Some(Claim::Shim(shim)) => Ok(!shim.is_alive()),
        Some(Claim::Unit(_) | Claim::Recovery) => Ok(true),
        None => Ok(!bus.status(unit).await?.is_busy()),
    }
}

/// Ends the session of the shim, which then writes the outcome, and after it whatever of the unit has left that session.
/// A run that was started directly, before the setting was changed, has no unit.
pub(super) async fn stop(bus: &Bus, run_dir: &Path, shim: &ProcessId, grace: Duration) -> io::Result<()> {
    let asked = Instant::now();
    shimmed::stop(run_dir, shim, grace).await?;
    let rest = grace.saturating_sub(asked.elapsed());
    Ok(bus.stop(&unit_name(run_dir)?, rest, KILL_DEADLINE).await?)
}
