//! Starts programs through the shim, where no service manager does it.

use super::{
    durable::{claim_json, read_json, write_json},
    process::ProcessId,
    shim::{CLAIM, Claim, LAUNCH, LaunchFile, OUTCOME, PROGRAM},
    supervisor::{Launch, RunOutcome, RunState, Supervisor},
};
use crate::agent::step::BoxFuture;
use rustix::process::Signal;
use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// A shim needs milliseconds; this is for a machine under heavy load.
const SHIM_DEADLINE: Duration = Duration::from_secs(15);
/// The kernel needs this long at most to end what was killed.
const KILL_DEADLINE: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(1);
const FIRST_POLL: Duration = Duration::from_millis(10);
/// Looking through all processes costs milliseconds, and rpm may take its whole grace.
const LAST_POLL: Duration = Duration::from_millis(100);

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
        DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
        write_json(&run_dir.join(LAUNCH), &LaunchFile::from(launch))?;
        let mut shim = tokio::process::Command::new(&self.agent)
            .arg0("oblet-agent")
            .arg("shim")
            .arg(run_dir)
            .env_clear()
            .envs(launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(run_dir.join("shim.log"))?)
            .spawn()?;
        let program = run_dir.join(PROGRAM);
        let outcome = run_dir.join(OUTCOME);
        let deadline = Instant::now() + SHIM_DEADLINE;
        while !program.exists() && !outcome.exists() {
            if shim.try_wait()?.is_some() && !outcome.exists() {
                let why = std::fs::read_to_string(run_dir.join("shim.log")).unwrap_or_default();
                return Err(io::Error::other(format!("the shim ended early: {}", why.trim())));
            }
            if Instant::now() > deadline {
                self.stop(run_dir, Duration::ZERO).await?;
                return Err(io::Error::other("the shim did not start the program in time"));
            }
            sleep(START_POLL).await;
        }
        // Reaps the shim; the run itself is followed through its files.
        tokio::spawn(async move { shim.wait().await });
        Ok(())
    }
}

impl Default for DirectSupervisor {
    fn default() -> Self {
        Self::new()
    }
}

/// The shim that holds the run; none if the run can no longer begin.
fn holder(run_dir: &Path) -> io::Result<Option<ProcessId>> {
    let path = run_dir.join(CLAIM);
    // A claim is never withdrawn; a run is asked for many times a second, and making one costs a sync.
    let mut claim = read_json(&path)?;
    if claim.is_none() {
        if !run_dir.exists() || claim_json(&path, &Claim::Recovery)? {
            return Ok(None);
        }
        claim = read_json(&path)?;
    }
    Ok(match claim {
        Some(Claim::Shim(shim)) => Some(shim),
        Some(Claim::Recovery) | None => None,
    })
}

fn program_of(run_dir: &Path) -> io::Result<Option<ProcessId>> {
    Ok(read_json(&run_dir.join(PROGRAM))?.filter(ProcessId::is_alive))
}

impl Supervisor for DirectSupervisor {
    fn start<'a>(&'a self, run_dir: &'a Path, launch: &'a Launch) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(self.start_shim(run_dir, launch))
    }

    fn find(&self, run_dir: &Path) -> io::Result<RunState> {
        let Some(shim) = holder(run_dir)? else { return Ok(RunState::Nothing) };
        // The shim outlives its program, so the process list is read only when the shim was killed.
        let lives = shim.is_alive() || !shim.session().is_empty();
        // Read after that look: a run that ended in between has its outcome by now.
        if let Some(outcome) = read_json(&run_dir.join(OUTCOME))? {
            return Ok(RunState::Ended(outcome));
        }
        if !lives {
            return Ok(RunState::Ended(RunOutcome::Lost));
        }
        Ok(RunState::Running(program_of(run_dir)?.unwrap_or(shim)))
    }

    fn peek(&self, run_dir: &Path) -> io::Result<Option<ProcessId>> {
        program_of(run_dir)
    }

    fn stop<'a>(&'a self, run_dir: &'a Path, grace: Duration) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let Some(shim) = holder(run_dir)? else { return Ok(()) };
            let asked = Instant::now();
            let mut told = Vec::new();
            let mut poll = FIRST_POLL;
            loop {
                let session = shim.session();
                if session.is_empty() {
                    return Ok(());
                }
                // The shim goes by itself when its program is gone, after it has written the outcome.
                let (shims, programs): (Vec<_>, Vec<_>) = session.into_iter().partition(|process| *process == shim);
                let insist = asked.elapsed() >= grace;
                for process in programs {
                    if insist {
                        process.signal(Signal::KILL)?;
                    } else if !told.contains(&process) {
                        process.signal(Signal::TERM)?;
                        told.push(process);
                    }
                }
                if asked.elapsed() > grace + KILL_DEADLINE / 2 {
                    for process in shims {
                        process.signal(Signal::KILL)?;
                    }
                }
                if asked.elapsed() > grace + KILL_DEADLINE {
                    return Err(io::Error::other(format!("processes of session {} do not end", shim.pid)));
                }
                sleep(poll).await;
                poll = LAST_POLL.min(poll.mul_f32(1.5));
            }
        })
    }
}
