//! The small parent of a program that outlives the agent: `oblet-agent shim <run_dir>`.
//!
//! Files of a run directory, each written whole:
//!  1. `launch`: what to start, by the agent.
//!  2. `claim`: the shim's identity, created exclusively before anything is started. A recovering agent that finds no
//!     claim puts [`Claim::Recovery`] there, so a shim that comes late starts nothing.
//!  3. `program`: identity of the program.
//!  4. `kept`: the program is a service that serves, so the shim starts it again when it ends. Without it an end is final.
//!  5. `outcome`: how it ended.
//!
//! The shim leads a session of its own; everything it starts is found by that session, even if the shim is killed.
//! Nothing in these files is secret.
//!
//! Only `claim` has to outlive a power cut: it says that the run began. `launch` and `program` mean nothing to another
//! boot, and where `outcome` is missing then, the run counts as lost, as if its shim had been killed.

use super::{
    identity::ProcessId,
    secluded,
    supervisor::{Kind, Launch, RunOutcome},
    unit_helper::Starts,
};
use crate::agent::host::durable::{claim_json, read_json, write_json_for_this_boot, write_json_or_lose};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};
use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        fs::OpenOptionsExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

pub(super) const LAUNCH: &str = "launch";
pub(super) const CLAIM: &str = "claim";
pub(super) const PROGRAM: &str = "program";
pub(super) const KEPT: &str = "kept";
pub(super) const OUTCOME: &str = "outcome";
/// What the shim itself has to say.
pub(super) const SHIM_LOG: &str = "shim.log";

/// How soon a shim that waits notices that it shall not start its program again.
const POLL: Duration = Duration::from_millis(50);

/// The launch as a file.
#[derive(Serialize, Deserialize)]
pub(super) struct LaunchFile {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: PathBuf,
    user: Option<(u32, u32)>,
    log: PathBuf,
    /// In a network of its own, with a way in to this port.
    #[serde(default)]
    secluded: Option<u16>,
}

impl From<&Launch> for LaunchFile {
    fn from(launch: &Launch) -> Self {
        let (foreground, secluded): (&[String], _) = match &launch.kind {
            Kind::Job => (&[], None),
            Kind::SecludedJob { port } => (&[], Some(*port)),
            // A shim waits for the very process that it starts.
            Kind::Service { foreground, .. } => (foreground, None),
        };
        Self {
            program: launch.program.clone(),
            arguments: launch.arguments.iter().chain(foreground).cloned().collect(),
            environment: launch.environment.clone(),
            directory: launch.directory.clone(),
            user: launch.user,
            log: launch.log.clone(),
            secluded,
        }
    }
}

/// Who decides over a run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Claim {
    Shim(ProcessId),
    /// systemd, by the unit of this name.
    Unit(String),
    Recovery,
}

/// Entry point of `oblet-agent shim <run_dir>`.
pub fn main() -> ExitCode {
    let Some(run_dir) = env::args_os().nth(2) else {
        let _ = writeln!(io::stderr(), "usage: oblet-agent shim <run_dir>");
        return ExitCode::from(64);
    };
    // A secluded run changes its working directory.
    match std::path::absolute(&run_dir).and_then(|run_dir| run(&run_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "shim of {}: {error}", run_dir.display());
            ExitCode::FAILURE
        }
    }
}

fn run(run_dir: &Path) -> io::Result<()> {
    let mine = nix::unistd::getpid();
    // systemd has made its main process the leader of a session already.
    if nix::unistd::getsid(None)? != mine {
        nix::unistd::setsid()?;
    }
    let _runtime = survive_terminate()?;
    // The agent keeps its files private; rpm and the database programs expect the usual mask.
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let me = ProcessId::of(mine.as_raw())?;
    if !claim_json(&run_dir.join(CLAIM), &Claim::Shim(me))? {
        return Err(io::Error::other("the run belongs to another agent, nothing was started"));
    }
    let outcome = match carry(run_dir) {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => RunOutcome::ExitCode(code),
            (None, Some(signal)) => RunOutcome::Signal(signal),
            (None, None) => RunOutcome::Lost,
        },
        Err(error) => RunOutcome::NotStarted(error.to_string()),
    };
    write_json_or_lose(&run_dir.join(OUTCOME), &outcome)
}

/// systemd tells everything in a unit to end, and whoever is to write the outcome must not be the first to go. A
/// handler, unlike an ignored signal, is not inherited by the program.
fn survive_terminate() -> io::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    // The handler stays when nobody listens.
    let _ = signal(SignalKind::terminate())?;
    drop(entered);
    Ok(runtime)
}

fn carry(run_dir: &Path) -> io::Result<ExitStatus> {
    let launch: LaunchFile =
        read_json(&run_dir.join(LAUNCH))?.ok_or_else(|| io::Error::other("the launch file is missing"))?;
    // Whoever may write to the directory of the log could have planted a link there.
    let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let log = OpenOptions::new().create(true).append(true).custom_flags(no_follow).open(&launch.log)?;
    if let Some(port) = launch.secluded {
        secluded::enter(run_dir, port)?;
    }
    let begun = Instant::now();
    let mut starts = None;
    loop {
        let (next, pause) = Starts::next(starts, begun.elapsed());
        starts = Some(next);
        let kept_until = Instant::now() + pause;
        while Instant::now() < kept_until {
            if !run_dir.join(KEPT).exists() {
                return Err(io::Error::other("it was stopped before it was started again"));
            }
            sleep(POLL.min(kept_until.saturating_duration_since(Instant::now())));
        }
        let status = run_once(run_dir, &launch, &log)?;
        if !run_dir.join(KEPT).exists() {
            return Ok(status);
        }
    }
}

fn run_once(run_dir: &Path, launch: &LaunchFile, log: &File) -> io::Result<ExitStatus> {
    let mut command = Command::new(&launch.program);
    command.args(&launch.arguments).current_dir(&launch.directory);
    command.env_clear().envs(launch.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    if let Some((uid, gid)) = launch.user {
        // Supplementary groups are dropped by the standard library when a root process changes its uid.
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn()?;
    let recorded = i32::try_from(child.id())
        .map_err(io::Error::other)
        .and_then(ProcessId::of)
        .and_then(|program| write_json_for_this_boot(&run_dir.join(PROGRAM), &program));
    if let Err(error) = recorded {
        // A program that nobody can name must not live.
        child.kill()?;
        child.wait()?;
        return Err(error);
    }
    child.wait()
}
