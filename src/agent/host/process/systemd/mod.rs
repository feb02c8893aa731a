//! Has PID 1 start programs, so that nothing of them hangs on the agent: not their parent, not their control group.
//!
//!  1. A job runs under the same shim as in [`super::direct`], in a transient unit. What became of it is read from the
//!     files of the shim alone; systemd is asked only to start and to stop it.
//!  2. A service runs under systemd itself, from a unit file that names its run.
//!  3. Whoever writes `claim` first decides: the shim of a job, the agent that is about to start a service, or the agent
//!     that looks for a run which nobody holds. The agent claims a service before it asks systemd to start it; if it dies
//!     in between, the search finds a unit that has never begun and takes it away, so that it never will.
//!  4. A service goes to the background by itself, and the unit follows its main process by a file of this agent's own:
//!     a hot restart hands over to another process, of which systemd learns by that file alone. [`super::unit_helper`]
//!     writes it at each start; its copy beside the agent's state serves also when the package of the agent is gone.
//!  5. A service has to be kept before its unit is started again by anybody. Until then its first end is its outcome,
//!     which is written down before the unit is taken away.

mod bus;
pub(super) mod cgroup;
mod job;
mod service;
mod status;
pub(in crate::agent::host) mod unit_file;

use super::{
    identity::ProcessId,
    shim::{CLAIM, Claim},
    shimmed,
    supervisor::{Kind, Launch, RunState, Supervisor},
};
use crate::agent::host::durable::read_json;
use bus::Bus;
use futures_util::future::BoxFuture;
use std::{
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};

pub struct SystemdSupervisor {
    bus: Bus,
    agent: PathBuf,
}

impl SystemdSupervisor {
    /// Connects to nothing yet. Jobs run under the program at the path of the running one: after an upgrade that is the
    /// installed program, the running one's file being gone.
    pub fn new() -> io::Result<Self> {
        let agent = env::current_exe()?;
        let name = agent.as_os_str().to_string_lossy();
        let installed = name.strip_suffix(" (deleted)").map(PathBuf::from);
        Ok(Self::with_agent(installed.unwrap_or(agent)))
    }

    /// Uses another `oblet-agent` for the shim.
    pub fn with_agent(agent: PathBuf) -> Self {
        Self { bus: Bus::default(), agent }
    }
}

fn run_name(run_dir: &Path) -> io::Result<&str> {
    let name = run_dir.file_name().and_then(|name| name.to_str());
    let fit = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    name.filter(fit).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name of the run fits no unit"))
}

/// Who holds the run. A service whose files were collected is recognised by its unit.
fn holder(run_dir: &Path) -> io::Result<Claim> {
    match shimmed::settle_claim(run_dir)? {
        Claim::Recovery if !run_dir.exists() => {
            let unit = unit_file::of_run(run_name(run_dir)?)?;
            Ok(unit.map_or(Claim::Recovery, Claim::Unit))
        }
        claim => Ok(claim),
    }
}

impl Supervisor for SystemdSupervisor {
    fn start<'a>(&'a self, run_dir: &'a Path, launch: &'a Launch) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            match &launch.kind {
                Kind::Job | Kind::SecludedJob { .. } => job::start(&self.bus, &self.agent, run_dir, launch).await,
                Kind::Service { name, .. } => service::start(&self.bus, &self.agent, run_dir, launch, name).await,
            }
        })
    }

    fn find<'a>(&'a self, run_dir: &'a Path) -> BoxFuture<'a, io::Result<RunState>> {
        Box::pin(async move {
            match holder(run_dir)? {
                Claim::Shim(shim) => shimmed::find(shim, run_dir),
                Claim::Unit(unit) => service::find(&self.bus, run_dir, &unit).await,
                Claim::Recovery => Ok(RunState::Nothing),
            }
        })
    }

    fn peek(&self, run_dir: &Path) -> io::Result<Option<ProcessId>> {
        match read_json(&run_dir.join(CLAIM))? {
            Some(Claim::Shim(_)) => shimmed::program(run_dir),
            Some(Claim::Unit(unit)) => service::peek(run_dir, &unit),
            Some(Claim::Recovery) | None => Ok(None),
        }
    }

    fn processes(&self, run_dir: &Path) -> io::Result<Vec<ProcessId>> {
        // Only a look: one that claimed the run would keep it from its start.
        match read_json(&run_dir.join(CLAIM))? {
            Some(Claim::Shim(shim)) => Ok(shim.session()),
            Some(Claim::Unit(_)) => service::processes(run_dir),
            Some(Claim::Recovery) | None => Ok(Vec::new()),
        }
    }

    fn outlives_the_agent(&self) -> bool {
        true
    }

    fn keep<'a>(&'a self, run_dir: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            match holder(run_dir)? {
                Claim::Unit(unit) => service::keep(&self.bus, run_dir, &unit).await,
                // Started directly, before the setting was changed.
                Claim::Shim(_) => shimmed::keep(run_dir),
                Claim::Recovery => Err(io::Error::other("the run was given up before it began")),
            }
        })
    }

    fn stop<'a>(&'a self, run_dir: &'a Path, grace: Duration) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            match holder(run_dir)? {
                Claim::Shim(shim) => job::stop(&self.bus, run_dir, &shim, grace).await,
                Claim::Unit(unit) => service::stop(&self.bus, run_dir, &unit, grace).await,
                Claim::Recovery => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::durable::write_json;
    use std::os::unix::net::UnixListener;

    fn over(socket: &Path) -> SystemdSupervisor {
        let bus = Bus::at(&format!("unix:path={}", socket.display()));
        SystemdSupervisor { bus, agent: "/nowhere/oblet-agent".into() }
    }

    fn job(dir: &Path) -> Launch {
        Launch {
            kind: Kind::Job,
            description: "a job".into(),
            program: "/bin/true".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: dir.into(),
            user: None,
            log: dir.join("log"),
        }
    }

    #[tokio::test]
    async fn a_service_is_not_over_because_systemd_cannot_be_asked() {
        let dir = tempfile::tempdir().unwrap();
        let supervisor = over(&dir.path().join("no-bus"));
        write_json(&dir.path().join(CLAIM), &Claim::Unit("oblet-obproxy@2883.service".into())).unwrap();
        let error = supervisor.find(dir.path()).await.unwrap_err();
        assert!(error.to_string().contains("cannot be reached over D-Bus"), "{error}");
        assert!(supervisor.stop(dir.path(), Duration::ZERO).await.is_err());
        assert!(supervisor.keep(dir.path()).await.is_err());
    }

    #[tokio::test]
    async fn a_job_whose_start_failed_never_starts() {
        let dir = tempfile::tempdir().unwrap();
        let (supervisor, run) = (over(&dir.path().join("no-bus")), dir.path().join("run"));
        assert!(supervisor.start(&run, &job(dir.path())).await.is_err());
        assert_eq!(supervisor.find(&run).await.unwrap(), RunState::Nothing);
        let error = supervisor.start(&run, &job(dir.path())).await.unwrap_err();
        assert!(error.to_string().contains("given up"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bus_that_says_nothing_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let _silent = UnixListener::bind(dir.path().join("bus")).unwrap();
        let supervisor = over(&dir.path().join("bus"));
        let error = supervisor.start(&dir.path().join("run"), &job(dir.path())).await.unwrap_err();
        assert!(error.to_string().contains("did not answer"), "{error}");
    }

    #[test]
    fn a_run_whose_name_means_something_to_systemd_is_refused() {
        assert_eq!(run_name(Path::new("/runs/0197-1.undo-2")).unwrap(), "0197-1.undo-2");
        for bad in ["/runs/a%i", "/runs/a b", "/runs/.."] {
            assert!(run_name(Path::new(bad)).is_err(), "{bad}");
        }
    }
}
