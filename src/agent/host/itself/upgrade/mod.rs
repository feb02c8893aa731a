//! The agent exchanges its own program, and takes that back.
//!
//!  1. A job of the supervisor does it, in a unit of its own, so that the end of the agent does not end it: see
//!     [`replace_self`]. It is carried out by a copy of the program that served before.
//!  2. The run and the package from before are on disk before the job starts. Whichever agent serves when the job is
//!     over finds the run, waits for its end and reads its verdict.
//!  3. A [`guard`] is enabled before the job starts: a power cut ends the job, and may leave a program that never gets
//!     ready.
//!  4. What has begun is not canceled: it ends by itself within its limits, and half of it would be worse than either
//!     end.

mod guard;
mod origin;
mod owner;
mod plan;
pub mod replace_self;
#[cfg(test)]
mod replace_self_tests;
#[cfg(test)]
mod tests;

use super::service::{ServiceManager, Systemd, unmanaged};
use crate::{
    agent::{
        host::{
            Host,
            adapter::Adapter,
            blocking, durable,
            package::file,
            process::{
                runs,
                supervisor::{Kind, Launch, RunOutcome, RunState, failed},
            },
            settings::HostSettings,
        },
        step::{Done, StepContext, StepError, Undoes},
    },
    graph::Effect,
    steps::{
        AgentPackage, InstallPackage, UpgradeAgent,
        values::{PackageRef, Sha256},
    },
    telemetry::chain,
};
use futures_util::future::BoxFuture;
use guard::Guard;
use origin::Origin;
use plan::{Change, PLAN, PROGRAM, Plan, VERDICT, Verdict};
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const INSTALL_LIMIT: Duration = Duration::from_secs(600);
/// The old process has 30 s to stop.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longer than everything that the job may take by its own limits.
const JOB_LIMIT: Duration = Duration::from_secs(1500);
const GRACE: Duration = Duration::from_secs(60);
const GUARD_POLL: Duration = Duration::from_secs(1);
/// The running program, also when its file was replaced.
const RUNNING: &str = "/proc/self/exe";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identity {
    run: String,
    /// The agent was installed from it before this operation.
    before: PackageRef,
    /// Digest of that package's file, if an exchange had installed it.
    #[serde(default)]
    before_sha256: Option<Sha256>,
}

fn read_identity(text: Option<&str>) -> Option<Identity> {
    serde_json::from_str(text?).ok()
}

/// The agent as it is installed and as it runs.
struct Installed {
    program: PathBuf,
    package: PackageRef,
    sha256: Option<Sha256>,
    /// The running program is the one of the package, which is installed to its end.
    genuine: bool,
}

fn mark(settings: &HostSettings) -> PathBuf {
    settings.state_dir.join("program-put-back")
}

fn origin(settings: &HostSettings) -> PathBuf {
    settings.state_dir.join("program-origin")
}

/// Path of the running program, whatever lies there by now, and whether it is still that file.
fn own_program() -> io::Result<(PathBuf, bool)> {
    let path = std::env::current_exe()?;
    let name = path.as_os_str().to_string_lossy();
    Ok(match name.strip_suffix(" (deleted)") {
        Some(installed) => (installed.into(), false),
        None => (path, true),
    })
}

async fn installed(host: &Host) -> Result<Installed, StepError> {
    let (program, is_current) = own_program().map_err(failed("looking for the agent's own program"))?;
    let owner = owner::owner(&host.settings.search_path, &program).await.map_err(|error| {
        StepError::new("PACKAGE_MANAGER", "the package manager of the host does not answer", "fix it, then retry")
            .because(error)
    })?;
    let owner::Owner { package, is_whole } = owner.ok_or_else(|| {
        StepError::new(
            "NOT_FROM_A_PACKAGE",
            format!("{} belongs to no package of rpm or dpkg", program.display()),
            "install oblet-agent on the host by its package, then retry the subtask",
        )
    })?;
    let (file, named) = (origin(&host.settings), package.clone());
    let origin = blocking(move || {
        Ok(Origin::read(&file, &named, Path::new(RUNNING)).unwrap_or_else(|error| {
            // It only makes the way back nicer: without it the saved program comes back.
            tracing::warn!(file = %file.display(), error = chain(&error), "where the program comes from is not known");
            None
        }))
    });
    let sha256 = origin.await?.map(|origin| origin.sha256);
    Ok(Installed { genuine: is_whole && is_current && !mark(&host.settings).exists(), program, package, sha256 })
}

/// The one that the package manager of the host can put in the place of what is installed.
fn fitting<'a>(step: &'a UpgradeAgent, installed: &PackageRef) -> Result<&'a AgentPackage, StepError> {
    let fits = |item: &&AgentPackage| {
        item.package.format() == installed.format() && [installed.machine(), "noarch"].contains(&item.package.machine())
    };
    step.packages.iter().find(fits).ok_or_else(|| {
        let kind = installed.format().as_str();
        StepError::new(
            "NO_FIT_PACKAGE",
            format!(
                "the agent is installed from {installed}, and no package of the task is a {kind} for {}",
                installed.machine()
            ),
            format!("upload the {kind} of oblet-agent, and upgrade the host by a task that names it as well"),
        )
    })
}

impl Adapter for UpgradeAgent {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(execute(host, &Systemd, self, context))
    }

    fn undo<'a>(
        &'a self,
        host: &'a Host,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(undo(host, &Systemd, context, undoes))
    }
}

async fn execute(
    host: &Host,
    manager: &dyn ServiceManager,
    step: &UpgradeAgent,
    context: &StepContext,
) -> Result<Done, StepError> {
    let Some(earlier) = read_identity(context.identity.as_deref()) else {
        return exchange(host, manager, step, None, context).await;
    };
    let resumed = match settle(host, manager, &earlier.run, context).await {
        Ok(Some(verdict)) => return judge(host, step, verdict, context).await,
        // It may have ended at any point of its work.
        Ok(None) => exchange(host, manager, step, Some(earlier), context).await,
        Err(error) => Err(error),
    };
    resumed.map_err(|error| match error.effect {
        Effect::None => error.leaving(Effect::Unknown),
        Effect::Done | Effect::Unknown => error,
    })
}

/// `earlier`: a run of this attempt that never began, or was lost.
async fn exchange(
    host: &Host,
    manager: &dyn ServiceManager,
    step: &UpgradeAgent,
    earlier: Option<Identity>,
    context: &StepContext,
) -> Result<Done, StepError> {
    let found = installed(host).await?;
    let wanted = fitting(step, &found.package)?;
    if found.package == wanted.package && found.genuine {
        context.log.line(&format!("the agent serves from {}", wanted.package));
        // An earlier run of this attempt was lost after it had done its work.
        let done = if earlier.is_some() { Done::made() } else { Done::already() };
        return Ok(done.with("package", &wanted.package));
    }
    let file = check(host, wanted, context).await?;
    let saved = earlier.as_ref().map(|earlier| runs::dir(&host.settings, &earlier.run).join(PROGRAM));
    let before = earlier.map_or((found.package.clone(), found.sha256), |own| (own.before, own.before_sha256));
    let change = Change::Install { package: wanted.package.clone(), file, sha256: wanted.sha256.clone() };
    context.log.line(&format!("{} is to become {}", found.package, wanted.package));
    let verdict = replace(host, manager, &found.program, change, before, saved, context).await?;
    judge(host, step, verdict, context).await
}

async fn check(host: &Host, wanted: &AgentPackage, context: &StepContext) -> Result<PathBuf, StepError> {
    let (settings, cancel) = (host.settings.clone(), context.cancel.clone());
    let AgentPackage { package, sha256 } = wanted.clone();
    blocking(move || file::check(&settings, &InstallPackage { package, sha256 }, &cancel))
        .await
        .map(|checked| checked.path)
}

/// What the verdict on an upgrade means to the agent that reads it.
async fn judge(host: &Host, step: &UpgradeAgent, verdict: Verdict, context: &StepContext) -> Result<Done, StepError> {
    result("the upgrade", verdict)?;
    let found = installed(host).await.map_err(|error| error.leaving(Effect::Done))?;
    let wanted = fitting(step, &found.package).map_err(|error| error.leaving(Effect::Done))?;
    if found.package == wanted.package && found.genuine {
        context.log.line(&format!("the agent serves from {}, as pid {}", wanted.package, std::process::id()));
        return Ok(Done::made().with("package", &wanted.package));
    }
    Err(StepError::new(
        "CHANGED_SINCE",
        format!("the agent was upgraded, but {} is what is installed", found.package),
        "see who else installs packages on the host, then retry the subtask",
    )
    .leaving(Effect::Done))
}

fn result(what: &str, verdict: Verdict) -> Result<(), StepError> {
    let (reason, message, next_move, effect) = match verdict {
        Verdict::Replaced => return Ok(()),
        Verdict::Unchanged(why) => (
            "NOT_INSTALLED",
            format!("{what} changed nothing: {why}"),
            "read the lines of the package manager in the log, remove their cause on the host, then retry the subtask",
            Effect::None,
        ),
        Verdict::RolledBack(why) => (
            "ROLLED_BACK",
            format!("the program from before serves again after {what} failed: {why}"),
            "see on the host why the other one does not get ready (journalctl -u oblet-agent), then retry with a better \
             package, or roll the task back",
            Effect::Done,
        ),
        Verdict::Stranded(why) => {
            ("NOT_READY", format!("{what} failed: {why}"), "see journalctl -u oblet-agent on the host", Effect::Done)
        }
    };
    Err(StepError::new(reason, message, next_move).leaving(effect))
}

/// Has a job carry the change out, and waits for its verdict.
async fn replace(
    host: &Host,
    manager: &dyn ServiceManager,
    program: &Path,
    change: Change,
    (before, before_sha256): (PackageRef, Option<Sha256>),
    saved: Option<PathBuf>,
    context: &StepContext,
) -> Result<Verdict, StepError> {
    let service = manager.own_service().await.map_err(unmanaged)?;
    if !host.supervisor.outlives_the_agent() {
        return Err(unmanaged(io::Error::other("the agent starts processes directly (its setting supervisor)")));
    }
    if context.cancel.is_cancelled() {
        return Err(StepError::canceled("the exchange of the agent"));
    }
    let run = runs::fresh(&host.settings, &context.run_id);
    let identity = serde_json::to_string(&Identity { run: run.clone(), before, before_sha256 });
    let identity = identity.map_err(io::Error::from);
    context.choose_identity(identity.map_err(failed("naming the run"))?).await?;
    let run_dir = runs::dir(&host.settings, &run);
    let plan = Plan {
        change,
        program: program.to_owned(),
        fallback: run_dir.join(PROGRAM),
        service,
        mark: mark(&host.settings),
        origin: origin(&host.settings),
        guard: Guard::below(&manager.unit_directory()),
        search_path: host.settings.search_path.clone(),
        install_limit: INSTALL_LIMIT,
        ready_limit: READY_LIMIT,
    };
    let prepared = {
        let plan = plan.clone();
        blocking(move || prepare(&plan, saved).map_err(failed("saving the agent's program"))).await
    };
    if let Err(error) = prepared {
        return Err(unguarded(&plan.guard, error.leaving(Effect::None)));
    }
    let plan_file = run_dir.join(PLAN);
    let launch = Launch {
        kind: Kind::Job,
        description: format!("oblet: exchange of {}", plan.program.display()),
        program: plan.fallback.clone(),
        arguments: vec!["replace-self".into(), plan_file.to_string_lossy().into_owned()],
        environment: owner::environment(&plan.search_path),
        directory: "/".into(),
        user: None,
        log: context.log.path().unwrap_or_else(|| run_dir.join("log")),
    };
    let steady = steady(context);
    let started = runs::start(&*host.supervisor, &run_dir, &launch, GRACE, &steady, "the start of the exchange").await;
    if let Err(error) = started {
        return Err(unguarded(&plan.guard, error).leaving(Effect::Unknown));
    }
    context.confirm_identity().await?;
    let lost = || {
        StepError::new("INTERRUPTED", "the upgrade of the agent ended without a result", "retry the subtask")
            .leaving(Effect::Unknown)
    };
    let settled = settle(host, manager, &run, context).await.map_err(|error| error.else_leaving(Effect::Unknown))?;
    settled.ok_or_else(lost)
}

/// Nobody waits for an exchange that did not begin and begins at the next boot.
fn unguarded(guard: &Guard, error: StepError) -> StepError {
    match guard.remove() {
        Ok(()) => error,
        Err(left) => {
            let message = format!("{}; and {} is still enabled, because of {left}", error.message, guard::UNIT);
            StepError { message, ..error }.leaving(Effect::Unknown)
        }
    }
}

/// What has begun ends within limits of its own.
fn steady(context: &StepContext) -> StepContext {
    StepContext { cancel: CancellationToken::new(), timeout: Some(JOB_LIMIT), ..context.clone() }
}

/// The copy is synced: it may have to come back after a power cut.
fn prepare(plan: &Plan, saved: Option<PathBuf>) -> io::Result<()> {
    let run_dir = plan.fallback.parent().ok_or_else(|| io::Error::other("the run has no directory"))?;
    durable::make_directory(run_dir)?;
    let source = saved.filter(|saved| saved.exists()).unwrap_or_else(|| RUNNING.into());
    std::fs::copy(source, &plan.fallback)?;
    let copy = File::open(&plan.fallback)?;
    copy.set_permissions(Permissions::from_mode(0o700))?;
    copy.sync_all()?;
    let plan_file = run_dir.join(PLAN);
    durable::write_json(&plan_file, plan)?;
    plan.guard.set(&plan.fallback, &plan_file)
}

/// Waits for the end of a run; none if it never began, or ended without a verdict.
async fn settle(
    host: &Host,
    manager: &dyn ServiceManager,
    run: &str,
    context: &StepContext,
) -> Result<Option<Verdict>, StepError> {
    let run_dir = runs::dir(&host.settings, run);
    let state = host.find(run).await?;
    if state.lives() {
        context.log.line("the upgrade of the agent is running, waiting for its end");
        runs::wait(&*host.supervisor, &run_dir, GRACE, &steady(context), "the exchange of the agent")
            .await
            .map_err(|error| error.leaving(Effect::Unknown))?;
    }
    let verdict = await_guard(manager, &run_dir, context).await?;
    if let (None, RunState::Ended(RunOutcome::NotStarted(why))) = (&verdict, &state) {
        return Ok(Some(Verdict::Unchanged(why.clone())));
    }
    Ok(verdict)
}

/// The verdict of a run whose job has ended, which the guard has to find after a power cut.
async fn await_guard(
    manager: &dyn ServiceManager,
    run_dir: &Path,
    context: &StepContext,
) -> Result<Option<Verdict>, StepError> {
    let guard = Guard::below(&manager.unit_directory());
    let read = || durable::read_json(&run_dir.join(VERDICT)).map_err(failed("reading the verdict"));
    let is_set = || guard.is_set_for(&run_dir.join(PLAN)).map_err(failed("looking for the guard of the exchange"));
    let deadline = Instant::now() + JOB_LIMIT;
    let mut told = false;
    loop {
        let verdict = read()?;
        if !is_set()? {
            return Ok(verdict);
        }
        // The bus may not answer yet while the host boots.
        let is_due = manager.is_due(guard::UNIT).await.unwrap_or(true);
        if verdict.is_some() || !is_due || Instant::now() >= deadline {
            // The agent is in charge again: what comes next has a guard of its own.
            guard.remove().map_err(failed("removing the guard of the exchange"))?;
            return read();
        }
        if !std::mem::replace(&mut told, true) {
            context.log.line(&format!("{} goes on with the exchange of the agent, waiting for its end", guard::UNIT));
        }
        sleep(GUARD_POLL).await;
    }
}

async fn undo(
    host: &Host,
    manager: &dyn ServiceManager,
    context: &StepContext,
    undoes: &[Undoes],
) -> Result<Done, StepError> {
    // A run is named before anything is done, so the journal has forgotten what it knew.
    if undoes.iter().any(|undo| undo.identity.is_none() && undo.effect == Effect::Done) {
        return Err(StepError::new(
            "NOT_KNOWN_ANY_MORE",
            "the agent does not know which package it was installed from",
            "install the wanted package with another task, then skip the subtask",
        ));
    }
    let own = read_identity(context.identity.as_deref());
    if let Some(own) = &own
        && let Some(verdict) = settle(host, manager, &own.run, context).await?
    {
        return result("the way back", verdict).map(|()| Done::made());
    }
    let mut first = None;
    for undo in undoes {
        let Some(identity) = read_identity(undo.identity.as_deref()) else { continue };
        let verdict = settle(host, manager, &identity.run, context).await?;
        let unchanged = matches!(verdict, Some(Verdict::Unchanged(_)));
        if undo.effect != Effect::None && !unchanged && first.is_none() {
            first = Some(identity);
        }
    }
    let Some(first) = first else {
        context.log.line("this operation did not change the agent");
        return Ok(Done::already());
    };
    let found = installed(host).await?;
    if found.package == first.before && found.genuine {
        context.log.line(&format!("the agent serves from {}", first.before));
        return Ok(if own.is_some() { Done::made() } else { Done::already() });
    }
    let change = match kept_package(host, &first, context).await? {
        Some(change) => {
            context.log.line(&format!("{} is installed again", first.before));
            change
        }
        None if mark(&host.settings).exists() => {
            let line = format!(
                "the program of {} serves; the package database says {}, and the agent has no file of the package from \
                 before",
                first.before, found.package
            );
            context.log.line(&line);
            return Ok(Done::already());
        }
        None => {
            context.log.line(&format!(
                "the agent has no file of {}, so the program is put back and the package database keeps saying {}",
                first.before, found.package
            ));
            Change::Restore { program: runs::dir(&host.settings, &first.run).join(PROGRAM) }
        }
    };
    let before = (first.before, first.before_sha256);
    let verdict = replace(host, manager, &found.program, change, before, None, context).await?;
    result("the way back", verdict).map(|()| Done::made())
}

/// The very file that the agent was installed from before, if an exchange installed it and it is still there, whole.
async fn kept_package(host: &Host, first: &Identity, context: &StepContext) -> Result<Option<Change>, StepError> {
    let (package, Some(sha256)) = (first.before.clone(), first.before_sha256.clone()) else { return Ok(None) };
    match check(host, &AgentPackage { package: package.clone(), sha256: sha256.clone() }, context).await {
        Ok(file) => Ok(Some(Change::Install { package, file, sha256 })),
        Err(error) if error.reason == "CANCELED" => Err(error),
        Err(error) => {
            context.log.line(&format!("the file of {package} cannot be installed again: {error}"));
            Ok(None)
        }
    }
}
