//! The program that replaces the agent: `oblet-agent replace-self <plan>`, a copy of the agent in a unit of its own.
//!
//!  1. The package manager of the host installs the package; its scriptlets may restart the service meanwhile.
//!  2. The service is restarted, and is right when it is active, which means ready, and its main process runs the very
//!     file that is installed. Who restarted it last makes no difference.
//!  3. If that does not come true in time, the copy takes the place of the program again, and the service is restarted.
//!  4. What it came to is written down before it ends; the agent of that moment reads it.
//!  5. After a power cut the guard begins the same plan again. How far the package manager had come is not known then, so
//!     an installation that fails is never taken for one that changed nothing.

use super::{
    origin::Origin,
    owner::environment,
    plan::{BEGUN, Change, Plan, VERDICT, Verdict},
};
use crate::{
    agent::host::{
        checks::commands::find_command,
        durable::{self, read_json},
    },
    steps::values::{PackageFormat, PackageRef, Sha256},
    telemetry::chain,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout, timeout_at},
};

const POLL: Duration = Duration::from_millis(200);
/// A question about a unit.
const SHOW_LIMIT: Duration = Duration::from_secs(10);
/// Package managers end cleanly between two files.
const GRACE: Duration = Duration::from_secs(60);
const UNUSABLE: u8 = 64;

/// Entry point of `oblet-agent replace-self <plan>`.
pub fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(2) else {
        say("usage: oblet-agent replace-self <plan>");
        return ExitCode::from(UNUSABLE);
    };
    match run(Path::new(&path)) {
        Ok(verdict) => ExitCode::from(verdict.exit_code()),
        Err(error) => {
            say(&format!("the plan {} cannot be carried out: {}", path.display(), chain(&error)));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn run(path: &Path) -> io::Result<Verdict> {
    let plan: Plan = read_json(path)?.ok_or_else(|| io::Error::other("there is no such plan"))?;
    let verdict = match read_json(&path.with_file_name(VERDICT))? {
        // Its guard was still there.
        Some(verdict) => verdict,
        None => {
            let is_first = durable::claim_json(&path.with_file_name(BEGUN), &())?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let replacement = Replacement { plan: &plan, is_first, processes: Path::new("/proc") };
            let verdict = runtime.block_on(replacement.carry_out());
            verdict.write(path)?;
            verdict
        }
    };
    plan.guard.remove()?;
    Ok(verdict)
}

/// The log of the step; nobody is left to hear that it cannot be written.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Tells a file from another one at the same path.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// What is known of the service.
enum Service {
    Ready,
    /// And what it does instead.
    Pending(String),
    Failed,
}

pub(super) struct Replacement<'a> {
    pub(super) plan: &'a Plan,
    /// Nothing of the plan was begun before.
    pub(super) is_first: bool,
    /// `/proc`
    pub(super) processes: &'a Path,
}

impl Replacement<'_> {
    pub(super) async fn carry_out(&self) -> Verdict {
        let before = identity(&self.plan.program).ok();
        let changed = match &self.plan.change {
            Change::Install { package, file, sha256 } => self.install(package, file, sha256).await,
            Change::Restore { program } => self.put_back(program).map_err(|error| chain(&error)),
        };
        if let Err(why) = changed {
            // The scriptlets of a package may fail when its files are there already.
            return if self.is_first && identity(&self.plan.program).ok() == before {
                say(&format!("nothing was changed: {why}"));
                Verdict::Unchanged(why)
            } else {
                self.go_back(why).await
            };
        }
        match self.restart().await {
            Ok(()) => Verdict::Replaced,
            Err(why) => self.go_back(why).await,
        }
    }

    async fn go_back(&self, why: String) -> Verdict {
        say(&format!("the program from before comes back, because {why}"));
        let back = match self.put_back(&self.plan.fallback) {
            Ok(()) => self.restart().await,
            Err(error) => Err(format!("it could not be put back: {}", chain(&error))),
        };
        match back {
            Ok(()) => Verdict::RolledBack(why),
            Err(again) => {
                say(&again);
                Verdict::Stranded(format!("{why}; and the program from before does not serve either, because {again}"))
            }
        }
    }

    async fn install(&self, package: &PackageRef, file: &Path, sha256: &Sha256) -> Result<(), String> {
        let (manager, arguments): (_, &[&str]) = match package.format() {
            PackageFormat::Rpm => ("rpm", &["-U", "-v", "--oldpackage", "--replacepkgs"]),
            // Nobody is there to be asked which configuration to keep.
            PackageFormat::Deb => ("dpkg", &["--force-confdef", "--force-confold", "-i"]),
        };
        say(&format!("{manager} {} {}", arguments.join(" "), file.display()));
        let mut command = self.command(manager)?;
        let child = command.args(arguments).arg(file).spawn().map_err(|error| format!("{manager}: {error}"))?;
        let status = end(child, self.plan.install_limit).await?;
        if !status.success() {
            return Err(format!("{manager} ended with {status}"));
        }
        let Plan { origin, mark, program, .. } = self.plan;
        Origin::write(origin, package, sha256, program).map_err(|error| format!("{}: {error}", origin.display()))?;
        durable::remove(mark).map_err(|error| format!("{}: {error}", mark.display()))
    }

    /// The whole file or the one from before, whatever happens meanwhile.
    fn put_back(&self, saved: &Path) -> io::Result<()> {
        let program = &self.plan.program;
        let directory = program.parent().ok_or_else(|| io::Error::other("the program has no directory"))?;
        durable::write_text(&self.plan.mark, "The agent's program was put back; its package is another one.\n", 0o600)?;
        let mut file = tempfile::Builder::new().prefix(".oblet-agent-").tempfile_in(directory)?;
        io::copy(&mut File::open(saved)?, &mut file)?;
        file.as_file().set_permissions(Permissions::from_mode(0o755))?;
        file.as_file().sync_all()?;
        file.persist(program).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()?;
        say(&format!("{} is in the place of {}", saved.display(), program.display()));
        Ok(())
    }

    /// Restarts the service and waits until it is ready with the installed program.
    async fn restart(&self) -> Result<(), String> {
        let service = &self.plan.service;
        say(&format!("restarting {service}"));
        let deadline = Instant::now() + self.plan.ready_limit;
        // Else a service that was started often would not be started again. Whether this worked, the restart shows.
        let mut reset = self.command("systemctl")?;
        let _ = timeout_at(deadline, reset.args(["reset-failed", service]).stderr(Stdio::null()).status()).await;
        let mut command = self.command("systemctl")?;
        let child = command.args(["restart", service]).spawn().map_err(|error| format!("systemctl: {error}"))?;
        // Whatever it says, another restart may have come in between: the state of the service decides.
        let ordered = end(child, self.plan.ready_limit).await;
        loop {
            let found = match self.look().await {
                Ok(Service::Ready) => {
                    say(&format!("{service} is ready"));
                    return Ok(());
                }
                Ok(Service::Failed) => return Err(format!("{service} has failed; see journalctl -u {service}")),
                Ok(Service::Pending(found)) | Err(found) => found,
            };
            if Instant::now() >= deadline {
                let limit = self.plan.ready_limit.as_secs();
                let said = ordered.err().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(format!("{service} was not ready within {limit} s: {found}{said}"));
            }
            sleep(POLL).await;
        }
    }

    async fn look(&self) -> Result<Service, String> {
        let mut command = self.command("systemctl")?;
        command.args(["show", "-p", "ActiveState", "-p", "MainPID", &self.plan.service]).stdout(Stdio::piped());
        let output = timeout(SHOW_LIMIT, command.output()).await.map_err(|_| "systemctl does not answer".to_owned())?;
        let output = output.map_err(|error| format!("systemctl: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let (state, pid) = (value("ActiveState").unwrap_or("unknown"), value("MainPID").unwrap_or("0"));
        match state {
            "failed" => return Ok(Service::Failed),
            "active" => {}
            other => return Ok(Service::Pending(format!("it is {other}"))),
        }
        let running = identity(&self.processes.join(pid).join("exe"));
        let installed = identity(&self.plan.program).map_err(|error| chain(&error))?;
        Ok(match running {
            Ok(running) if running == installed => Service::Ready,
            Ok(_) | Err(_) => Service::Pending(format!("process {pid} does not run the installed program")),
        })
    }

    /// A program of the search path. It says what it has to say in the log.
    fn command(&self, name: &str) -> Result<Command, String> {
        let path = &self.plan.search_path;
        let program = find_command(path, name).ok_or_else(|| format!("{name} is not on the search path"))?;
        let mut command = Command::new(program);
        command.env_clear().envs(environment(path)).current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }
}

/// Waits for a program, asks it to end at `limit`, and insists later.
async fn end(mut child: Child, limit: Duration) -> Result<ExitStatus, String> {
    if let Ok(status) = timeout(limit, child.wait()).await {
        return status.map_err(|error| error.to_string());
    }
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended at this very moment.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let late = format!("it took longer than {} s", limit.as_secs());
    match timeout(GRACE, child.wait()).await {
        Ok(_) => Err(late),
        Err(_) => child.kill().await.map_err(|error| error.to_string()).and(Err(late)),
    }
}
