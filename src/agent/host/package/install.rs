//! Installs exactly one package and erases it again. How it survives a crash: the identity is on disk before rpm runs,
//! the supervisor keeps rpm running, and the rpm database says what was reached.

use super::{
    file::{self, CheckedPackage},
    ours,
    rpm_database::{RPM_GRACE, RpmDatabase},
    written,
};
use crate::{
    agent::{
        host::{
            Host,
            adapter::Adapter,
            blocking, durable,
            process::{
                runs,
                supervisor::{RunOutcome, RunState, failed},
            },
        },
        step::{Done, StepContext, StepError, Undoes},
    },
    graph::Effect,
    steps::{InstallPackage, values::PackageRef},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 << 10;

#[derive(Serialize, Deserialize)]
struct Identity {
    run: String,
    /// The package was there before this attempt.
    was_installed: bool,
}

fn read_identity(text: Option<&str>) -> Option<Identity> {
    serde_json::from_str(text?).ok()
}

async fn choose(host: &Host, context: &StepContext, was_installed: bool) -> Result<String, StepError> {
    let run = runs::fresh(&host.settings, &context.run_id);
    let identity = Identity { run: run.clone(), was_installed };
    let text = serde_json::to_string(&identity).map_err(std::io::Error::from).map_err(failed("naming the run"))?;
    context.choose_identity(text).await?;
    Ok(run)
}

/// The program of a package: a file in a directory `bin`, the database's own program first.
pub(in crate::agent::host) fn find_program(files: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    let in_bin = |path: &&PathBuf| path.parent().is_some_and(|dir| dir.ends_with("bin"));
    let named =
        |name: &&str| files.iter().filter(in_bin).find(|path| path.file_name().is_some_and(|file| file == *name));
    names.iter().find_map(named).cloned()
}

/// Parent of the `bin` that holds the program.
pub(in crate::agent::host) fn home(program: &Path) -> Option<&Path> {
    program.parent()?.parent()
}

fn with_home(files: &[PathBuf], done: Done) -> Done {
    let first = files.iter().find(|path| path.parent().is_some_and(|dir| dir.ends_with("bin"))).cloned();
    let program = find_program(files, &["obproxy", "observer"]).or(first);
    match program.as_deref().and_then(home) {
        Some(home) => done.with("home", home.display()),
        None => done,
    }
}

impl Adapter for InstallPackage {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(execute(host, self, context))
    }

    fn undo<'a>(
        &'a self,
        host: &'a Host,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(undo(host, self, context, undoes))
    }
}

async fn execute(host: &Host, step: &InstallPackage, context: &StepContext) -> Result<Done, StepError> {
    match read_identity(context.identity.as_deref()) {
        Some(earlier) => {
            let resumed = resume(host, step, &earlier, context).await;
            resumed.map_err(|error| error.else_leaving(Effect::Unknown))
        }
        None => install(host, step, false, context).await,
    }
}

/// Carries on after a restart of the agent: what the earlier run left is there, whatever becomes of this one.
async fn resume(
    host: &Host,
    step: &InstallPackage,
    earlier: &Identity,
    context: &StepContext,
) -> Result<Done, StepError> {
    let state = host.find(&earlier.run).await?;
    if state.lives() {
        context.log.line("rpm still runs, waiting for it");
        let run_dir = runs::dir(&host.settings, &earlier.run);
        if let Err(error) = runs::wait(&*host.supervisor, &run_dir, RPM_GRACE, context, "rpm").await {
            let left = match RpmDatabase::open(&host.settings).await {
                Ok(database) => left(host, &database, &earlier.run, step).await,
                Err(_) => Effect::Unknown,
            };
            return Err(error.leaving(left));
        }
    }
    install(host, step, !earlier.was_installed && has_begun(&state), context).await
}

/// `ours`: if the package is there, an earlier run of this attempt has installed it.
async fn install(host: &Host, step: &InstallPackage, ours: bool, context: &StepContext) -> Result<Done, StepError> {
    let database = RpmDatabase::open(&host.settings).await?;
    // The file is checked while rpm looks into its database.
    let unwanted = context.cancel.child_token();
    let asking = async {
        let others = runs::ask(context, "the installation", database.installed(step.package.name())).await;
        if others.as_ref().map_or(true, |others| !others.is_empty()) {
            unwanted.cancel();
        }
        others
    };
    let checking = {
        let (settings, step, unwanted) = (host.settings.clone(), step.clone(), unwanted.clone());
        blocking(move || file::check(&settings, &step, &unwanted))
    };
    let (others, checked) = tokio::join!(asking, checking);
    let others = others?;
    // No run of this attempt lives, so what the database has is what there is.
    let left = if ours && others.contains(&step.package) { Effect::Done } else { Effect::None };
    let done = complete(host, &database, &others, checked, step, ours, context).await;
    done.map_err(|error| error.else_leaving(left))
}

async fn complete(
    host: &Host,
    database: &RpmDatabase<'_>,
    others: &[PackageRef],
    checked: Result<CheckedPackage, StepError>,
    step: &InstallPackage,
    ours: bool,
    context: &StepContext,
) -> Result<Done, StepError> {
    if others.contains(&step.package) {
        context.log.line(&format!("{} is installed", step.package));
        let files = runs::ask(context, "the installation", database.files(&step.package)).await?;
        if !ours {
            return Ok(with_home(&files, Done::already()));
        }
        if !runs::ask(context, "the installation", database.is_whole(&step.package)).await? {
            return Err(StepError::new(
                "NOT_WHOLE",
                format!("{} is installed, and its files are not whole, as after a power cut", step.package),
                "retry the subtask, which erases the package first",
            ));
        }
        written::sync(files.clone()).await?;
        ours::note(&host.settings, database, &step.package, context).await;
        return Ok(with_home(&files, Done::made()));
    }
    if !others.is_empty() {
        let names: Vec<String> = others.iter().map(ToString::to_string).collect();
        return Err(StepError::new(
            "OTHER_VERSION",
            format!("{} cannot be installed: {} is installed", step.package, names.join(", ")),
            "choose the installed version, or upgrade or erase it first, then retry the subtask",
        ));
    }
    let checked = checked?;
    if context.cancel.is_cancelled() {
        return Err(StepError::canceled("the installation"));
    }
    let run = choose(host, context, false).await?;
    let arguments = database.install_arguments(&checked);
    let outcome = database.transact(&*host.supervisor, &run, arguments, context).await;
    // rpm ends with 0 only after its database has the package, so there is no need to ask it again.
    if let Ok(RunOutcome::ExitCode(0)) = outcome {
        written::sync(checked.files.clone()).await.map_err(|error| error.leaving(Effect::Done))?;
        ours::note(&host.settings, database, &step.package, context).await;
        return Ok(with_home(&checked.files, Done::made()));
    }
    let left = left(host, database, &run, step).await;
    let outcome = outcome.map_err(|error| error.leaving(left))?;
    Err(rpm_failed(&format!("the installation of {}", step.package), &outcome, context, &run, host).leaving(left))
}

/// What a run of rpm has left. One that may still be in mid-transaction has not said the last word.
async fn left(host: &Host, database: &RpmDatabase<'_>, run: &str, step: &InstallPackage) -> Effect {
    if !matches!(host.find(run).await, Ok(RunState::Ended(_) | RunState::Nothing)) {
        return Effect::Unknown;
    }
    match database.has(&step.package).await {
        Ok(true) => Effect::Done,
        // rpm may have left files of an interrupted transaction.
        Ok(false) => Effect::None,
        Err(_) => Effect::Unknown,
    }
}

/// A run that was named and never began has installed nothing: what is there is somebody else's.
fn has_begun(state: &RunState) -> bool {
    match state {
        RunState::Running(_) | RunState::Between | RunState::Ended(_) => true,
        RunState::Nothing => false,
    }
}

fn rpm_failed(what: &str, outcome: &RunOutcome, context: &StepContext, run: &str, host: &Host) -> StepError {
    let mut tail = context.log.tail(TAIL_LINES);
    if context.log.path().is_none() {
        let own = durable::read_end(&runs::dir(&host.settings, run).join("log"), TAIL_BYTES).unwrap_or_default();
        tail = own.lines().map(String::from).collect();
    }
    let said = tail.iter().rev().find(|line| !line.trim().is_empty()).cloned().unwrap_or_default();
    outcome.mark(StepError::new(
        "RPM_FAILED",
        format!("{what} failed with {outcome}: {said}"),
        "read the lines of rpm in the log, remove their cause on the host, then retry the subtask",
    ))
}

async fn undo(host: &Host, step: &InstallPackage, context: &StepContext, undoes: &[Undoes]) -> Result<Done, StepError> {
    let own = read_identity(context.identity.as_deref());
    if let Some(own) = &own {
        settle(host, own, context).await?;
    }
    let (mut identities, mut ours) = (Vec::new(), false);
    for undo in undoes {
        let mut may_be_ours = false;
        if let Some(identity) = read_identity(undo.identity.as_deref()) {
            may_be_ours = settle(host, &identity, context).await? && !identity.was_installed;
            identities.push(identity);
        }
        ours |= match undo.effect {
            Effect::Done => true,
            Effect::Unknown => may_be_ours,
            Effect::None => false,
        };
    }
    if !ours {
        context.log.line("this operation installed nothing");
        return Ok(Done::already());
    }
    let database = RpmDatabase::open(&host.settings).await?;
    if !runs::ask(context, "the removal", database.has(&step.package)).await? {
        context.log.line(&format!("{} is not installed", step.package));
        forget(host, &identities);
        return Ok(if own.is_some() { Done::made() } else { Done::already() });
    }
    // Reservations may have been released by hand, and somebody else may run from what this operation has installed.
    if !erase(host, &database, &step.package, context).await? {
        return Ok(Done::already());
    }
    forget(host, &identities);
    Ok(Done::made())
}

/// Erases an installed package; `false` if it stays, because a process runs from it.
pub(in crate::agent::host) async fn erase(
    host: &Host,
    database: &RpmDatabase<'_>,
    package: &PackageRef,
    context: &StepContext,
) -> Result<bool, StepError> {
    let files = runs::ask(context, "the removal", database.files(package)).await?;
    if let Some(program) = find_program(&files, &["obproxy", "observer"]) {
        let executes = blocking(move || Ok(crate::agent::host::checks::processes::executing(&program))).await?;
        if let Some(pid) = executes {
            context.log.line(&format!("{package} stays: pid {pid} runs from it"));
            return Ok(false);
        }
    }
    let run = choose(host, context, true).await?;
    let arguments = database.erase_arguments(package);
    let outcome = database
        .transact(&*host.supervisor, &run, arguments, context)
        .await
        .map_err(|error| error.leaving(Effect::Unknown))?;
    if database.has(package).await? {
        return Err(rpm_failed(&format!("the removal of {package}"), &outcome, context, &run, host));
    }
    ours::forget(&host.settings, package)?;
    context.log.line(&format!("{package} is erased"));
    Ok(true)
}

/// Names the run of rpm that may come, for a step that erases a package among other things.
pub(in crate::agent::host) async fn name_run(host: &Host, context: &StepContext) -> Result<(), StepError> {
    choose(host, context, true).await.map(drop)
}

/// Waits for the run of rpm that an attempt began before the agent was restarted.
pub(in crate::agent::host) async fn settle_earlier(
    host: &Host,
    identity: Option<&str>,
    context: &StepContext,
) -> Result<(), StepError> {
    match read_identity(identity) {
        Some(identity) => settle(host, &identity, context).await.map(drop),
        None => Ok(()),
    }
}

/// Waits for the end of a run; answers whether it ever began.
async fn settle(host: &Host, identity: &Identity, context: &StepContext) -> Result<bool, StepError> {
    let state = host.find(&identity.run).await?;
    if state.lives() {
        let run_dir = runs::dir(&host.settings, &identity.run);
        runs::wait(&*host.supervisor, &run_dir, RPM_GRACE, context, "rpm").await?;
    }
    Ok(has_begun(&state))
}

/// What is left of ended runs is small and harmless; a failure to remove it must not fail the undo.
fn forget(host: &Host, identities: &[Identity]) {
    for identity in identities {
        if let Err(error) = runs::forget(&host.settings, &identity.run) {
            tracing::warn!(run = identity.run, %error, "the files of a run could not be removed");
        }
    }
}
