//! Starts programs through the shim, where no service manager does it. The shim starts a service again when it ends, and
//! nobody does after a reboot.

use super::{
    identity::ProcessId,
    shim::{CLAIM, Claim, LAUNCH, LaunchFile, SHIM_LOG},
    shimmed,
    supervisor::{Launch, RunState, Supervisor},
};
use crate::agent::host::durable::{make_directory, read_json, write_json_for_this_boot};
use futures_util::future::BoxFuture;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

pub struct DirectSupervisor {
    agent: PathBuf,
}

impl DirectSupervisor {
    /// Uses the running program itself, also after its file was replaced by an upgrade.
    pub fn new() -> Self {
        Self::with_agent("/proc/self/exe".into())
    }

    /// Uses another `oblet-agent` for the shim.
    pub fn with_agent(agent: PathBuf) -> Self {
        Self { agent }
    }

    async fn start_shim(&self, run_dir: &Path, launch: &Launch) -> io::Result<()> {
        make_directory(run_dir)?;
        if !shimmed::is_open(run_dir)? {
            return Ok(());
        }
        write_json_for_this_boot(&run_dir.join(LAUNCH), &LaunchFile::from(launch))?;
        let mut shim = tokio::process::Command::new(&self.agent)
            .arg0("oblet-agent")
            .arg("shim")
            .arg(run_dir)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(run_dir.join(SHIM_LOG))?)
            .spawn()?;
        let gone = || std::future::ready(shim.try_wait().map(|status| status.is_some()));
        let started = shimmed::wait_for_start(run_dir, gone).await;
        if started.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            self.stop(run_dir, Duration::ZERO).await?;
        }
        // Reaps the shim; the run itself is followed through its files.
        tokio::spawn(async move { shim.wait().await });
        started
    }
}

impl Default for DirectSupervisor {
    fn default() -> Self {
        Self::new()
    }
}

fn foreign(unit: &str) -> io::Error {
    io::Error::other(format!("systemd holds the run as {unit}, and this agent's setting supervisor is direct"))
}

impl Supervisor for DirectSupervisor {
    fn start<'a>(&'a self, run_dir: &'a Path, launch: &'a Launch) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(self.start_shim(run_dir, launch))
    }

    fn find<'a>(&'a self, run_dir: &'a Path) -> BoxFuture<'a, io::Result<RunState>> {
        Box::pin(async move {
            match shimmed::settle_claim(run_dir)? {
                Claim::Shim(shim) => shimmed::find(shim, run_dir),
                Claim::Unit(unit) => Err(foreign(&unit)),
                Claim::Recovery => Ok(RunState::Nothing),
            }
        })
    }

    fn peek(&self, run_dir: &Path) -> io::Result<Option<ProcessId>> {
        match read_json(&run_dir.join(CLAIM))? {
            Some(Claim::Unit(unit)) => Err(foreign(&unit)),
            Some(Claim::Shim(_) | Claim::Recovery) | None => shimmed::program(run_dir),
        }
    }

    fn processes(&self, run_dir: &Path) -> io::Result<Vec<ProcessId>> {
        match read_json(&run_dir.join(CLAIM))? {
            Some(Claim::Shim(shim)) => Ok(shim.session()),
            Some(Claim::Unit(unit)) => Err(foreign(&unit)),
            Some(Claim::Recovery) | None => Ok(Vec::new()),
        }
    }

    /// Its jobs are in the agent's control group, if that is a service.
    fn outlives_the_agent(&self) -> bool {
        false
    }

    fn keep<'a>(&'a self, run_dir: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { shimmed::keep(run_dir) })
    }

    fn stop<'a>(&'a self, run_dir: &'a Path, grace: Duration) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            match shimmed::settle_claim(run_dir)? {
                Claim::Shim(shim) => shimmed::stop(run_dir, &shim, grace).await,
                Claim::Unit(unit) => Err(foreign(&unit)),
                Claim::Recovery => Ok(()),
            }
        })
    }
}
