//! Services: a unit of their own that systemd starts, with the host too.

use super::{
    bus::Bus,
    cgroup, run_name,
    status::UnitStatus,
    unit_file::{self, UnitFile, unit_name},
};
use crate::agent::host::{
    durable::{claim_json, make_directory, read_json, remove, write_json, write_text},
    process::{
        identity::ProcessId,
        shim::{CLAIM, Claim, OUTCOME},
        shimmed::{self, KILL_DEADLINE},
        supervisor::{Launch, RunOutcome, RunState, ServiceName},
        unit_helper,
    },
};
use serde::{Deserialize, Serialize};
use std::{io, path::Path, time::Duration};

/// The unit waits for the network, which takes minutes at most.
const START_DEADLINE: Duration = Duration::from_secs(150);
const RECORD: &str = "unit";

/// Written once the unit has begun.
#[derive(Serialize, Deserialize)]
struct Record {
    invocation: String,
    control_group: String,
}

impl Record {
    fn read(run_dir: &Path) -> io::Result<Option<Self>> {
        read_json(&run_dir.join(RECORD))
    }

    fn write(run_dir: &Path, status: &UnitStatus) -> io::Result<()> {
        let record = Self { invocation: status.invocation.clone(), control_group: status.control_group.clone() };
        write_json(&run_dir.join(RECORD), &record)
    }
}

/// A unit of a service and what is known of it for one run.
struct Look {
    status: UnitStatus,
    file: Option<UnitFile>,
    record: Option<Record>,
    ours: bool,
}

impl Look {
    async fn at(bus: &Bus, run_dir: &Path, unit: &str) -> io::Result<Self> {
        let run = run_name(run_dir)?;
        let status = bus.status(unit).await?;
        let (file, record) = (UnitFile::read(unit)?, Record::read(run_dir)?);
        let ours = match (&file, &record) {
            (Some(file), _) => file.run() == Some(run),
            // Somebody removed the file while the unit ran.
            (None, Some(record)) => !record.invocation.is_empty() && record.invocation == status.invocation,
            (None, None) => false,
        };
        Ok(Self { status, file, record, ours })
    }

    fn is_kept(&self) -> bool {
        self.file.as_ref().is_some_and(UnitFile::is_kept)
    }
}

/// A unit that runs for somebody else, or that somebody else has made, is never touched.
async fn refuse_taken(bus: &Bus, unit: &str) -> io::Result<()> {
    let taken = |why: String| Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    let status = bus.status(unit).await?;
    match UnitFile::read(unit)? {
        Some(file) => match file.run() {
            None => taken(format!("{} was not written by oblet", unit_file::path(unit).display())),
            Some(run) if status.is_busy() => taken(format!("{unit} runs already, for the run {run}")),
            Some(_) => Ok(()),
        },
        None if status.is_busy() || status.is_known() => taken(format!("{unit} exists already, not by oblet")),
        None => Ok(()),
    }
}

pub(super) async fn start(
    bus: &Bus,
    agent: &Path,
    run_dir: &Path,
    launch: &Launch,
    name: &ServiceName,
) -> io::Result<()> {
    let unit = unit_name(name);
    let run = run_name(run_dir)?;
    make_directory(run_dir)?;
    if !shimmed::is_open(run_dir)? {
        return Ok(());
    }
    refuse_taken(bus, &unit).await?;
    let helper = unit_helper::install(agent, run_dir)?;
    let file = UnitFile::render(launch, run, name, &helper, bus.version().await?)?;
    if !claim_json(&run_dir.join(CLAIM), &Claim::Unit(unit.clone()))? {
        return shimmed::is_open(run_dir).map(drop);
    }
    unit_helper::forget(&unit)?;
    write_text(&unit_file::path(&unit), file.text(), 0o644)?;
    // Enabled before it starts: systemd keeps what it knows of a unit only as long as another one refers to it.
    bus.enable(&unit).await?;
    unit_file::sync_links()?;
    bus.reload().await?;
    bus.reset_failed(&unit).await?;
    let result = bus.start(&unit, START_DEADLINE).await?;
    let status = bus.status(&unit).await?;
    if result == "done" {
        return Record::write(run_dir, &status);
    }
    let why = || RunOutcome::NotStarted(format!("the job of {unit} ended as {result}"));
    settle(bus, run_dir, &unit, status.failed_start().unwrap_or_else(why)).await.map(drop)
}

pub(super) async fn find(bus: &Bus, run_dir: &Path, unit: &str) -> io::Result<RunState> {
    if let Some(outcome) = read_json(&run_dir.join(OUTCOME))? {
        // A crash after the outcome was written has left the unit, and the next boot would start it.
        if UnitFile::read(unit)?.is_some_and(|file| file.run() == run_dir.file_name().and_then(|name| name.to_str())) {
            take_away(bus, unit).await?;
        }
        return Ok(RunState::Ended(outcome));
    }
    let look = Look::at(bus, run_dir, unit).await?;
    if !look.ours {
        let began = look.record.is_some();
        return Ok(if began { RunState::Ended(RunOutcome::Lost) } else { RunState::Nothing });
    }
    if let Some(life) = look.status.life() {
        if look.record.is_none() && matches!(life, RunState::Running(_)) && run_dir.exists() {
            Record::write(run_dir, &look.status)?;
        }
        return Ok(life);
    }
    match look.status.outcome() {
        // The administrator's from here on: he may start it again at any time.
        outcome if look.is_kept() => Ok(RunState::Ended(outcome.unwrap_or(RunOutcome::Lost))),
        Some(outcome) => settle(bus, run_dir, unit, outcome).await,
        // It ran in an earlier boot.
        None if look.record.is_some() => settle(bus, run_dir, unit, RunOutcome::Lost).await,
        None => take_away(bus, unit).await.map(|()| RunState::Nothing),
    }
}

/// Whoever is in the unit's control group belongs to the run.
pub(super) fn processes(run_dir: &Path) -> io::Result<Vec<ProcessId>> {
    Ok(Record::read(run_dir)?.map(|record| cgroup::processes(&record.control_group)).unwrap_or_default())
}

/// The process that the unit follows, while it is one of the unit's.
pub(super) fn peek(run_dir: &Path, unit: &str) -> io::Result<Option<ProcessId>> {
    if run_dir.join(OUTCOME).exists() {
        return Ok(None);
    }
    unit_helper::main_process(unit, processes(run_dir)?)
}

pub(super) async fn keep(bus: &Bus, run_dir: &Path, unit: &str) -> io::Result<()> {
    let look = Look::at(bus, run_dir, unit).await?;
    let Some(file) = look.file.filter(|_| look.ours) else {
        return Err(io::Error::other(format!("{unit} is not of this run")));
    };
    if !file.is_kept() {
        write_text(&unit_file::path(unit), file.keep().text(), 0o644)?;
    }
    if !file.is_kept() || look.status.needs_reload {
        bus.reload().await?;
    }
    Ok(())
}

pub(super) async fn stop(bus: &Bus, run_dir: &Path, unit: &str, grace: Duration) -> io::Result<()> {
    let look = Look::at(bus, run_dir, unit).await?;
    if !look.ours {
        return Ok(());
    }
    bus.stop(unit, grace, KILL_DEADLINE).await?;
    let status = bus.status(unit).await?;
    if status.is_busy() {
        return Err(io::Error::other(format!("{unit} does not end, it is {}", status.active_state)));
    }
    let began = look.record.map(|_| RunOutcome::Lost);
    match status.outcome().or(began) {
        Some(outcome) => settle(bus, run_dir, unit, outcome).await.map(drop),
        None => take_away(bus, unit).await,
    }
}

/// Writes down how the run ended, and only then lets go of the unit, which nobody shall start again.
async fn settle(bus: &Bus, run_dir: &Path, unit: &str, outcome: RunOutcome) -> io::Result<RunState> {
    let path = run_dir.join(OUTCOME);
    if run_dir.exists() && !path.exists() {
        write_json(&path, &outcome)?;
    }
    take_away(bus, unit).await?;
    Ok(RunState::Ended(outcome))
}

async fn take_away(bus: &Bus, unit: &str) -> io::Result<()> {
    let file = unit_file::path(unit);
    if file.exists() {
        bus.disable(unit).await?;
        // Before the file goes, by which whoever comes after a power cut learns that the link has to go too.
        unit_file::sync_links()?;
        remove(&file)?;
        unit_helper::forget(unit)?;
    }
    bus.reload().await?;
    Ok(bus.reset_failed(unit).await?)
}
