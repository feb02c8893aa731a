//! Takes away a proxy that this agent has started, and brings it back if the task is rolled back.
//!
//!  1. What runs is stopped before anything is removed.
//!  2. Only what this agent has brought goes: the proxy of its own record, and a package that it has installed and that
//!     neither a process nor another proxy needs.
//!  3. What was found is on disk before anything is touched, and counts for every attempt until an undo has brought it back: a
//!     retry finds less than there was.
//!  4. The record goes last: while it is there, a retry and an undo know whose the directory is.
//!  5. The undo brings back what was found. A proxy that served is installed and started as by a task that adds it, in its
//!     directory if that is still there; one that did not serve is not started.

use super::{
    super::{Host, beneath::Directory, blocking, durable, managed::List},
    failure::{directory_failed, unreadable},
    first_start::GRACE,
    found::Found,
    launch::log,
    record::Record,
};
use crate::{
    agent::{
        host::{
            adapter::Adapter,
            package::{install, ours, rpm_database::RpmDatabase},
            process::{runs, supervisor::failed},
        },
        step::{Done, IdentityStore, StepContext, StepError, Undoes},
    },
    graph::Effect,
    steps::{InstallPackage, Instance, StartObproxy, SyncObproxyParameters, UninstallObproxy},
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{io, path::Path, sync::Arc};
use tokio::sync::MutexGuard;

impl Adapter for UninstallObproxy {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(execute(host, self, context))
    }

    fn undo<'a>(
        &'a self,
        host: &'a Host,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(bring_back(host, self, context, undoes))
    }
}

async fn execute(host: &Host, step: &UninstallObproxy, context: &StepContext) -> Result<Done, StepError> {
    install::settle_earlier(host, context.identity.as_deref(), context).await?;
    let port = step.start.sql_port;
    let record = Record::read(&host.settings, port).map_err(unreadable)?;
    if let Some(record) = &record
        && record.step.app_name != step.start.app_name
    {
        let (owner, own) = (&record.step.app_name, &step.start.app_name);
        return Err(StepError::new(
            "NOT_THIS_PROXY",
            format!("the obproxy at port {port} is one of {owner}, not of {own}"),
            "leave that proxy alone: skip the subtask (oblet subtask skip), or name its own cluster",
        ));
    }
    check_place(host, step)?;
    let known = Found::read(&host.settings, &step.instance).map_err(unreadable)?;
    let found = match known {
        Some(known) => known,
        None => Found::look(host, step, record.as_ref()).await?,
    };
    install::name_run(host, context).await?;
    found.write(&host.settings, port).map_err(unreadable)?;
    context.confirm_identity().await?;
    let removed = remove(host, step, record.as_ref(), context).await;
    removed.map_err(|error| error.else_leaving(Effect::Unknown))
}

/// A task whose reservations were released may be retried when the port belongs to another proxy of the same cluster.
fn check_place(host: &Host, step: &UninstallObproxy) -> Result<(), StepError> {
    let Instance { kind, sql_port, server_id, .. } = step.instance;
    match host.managed.get(List::Instances, kind, sql_port) {
        Some(listed) if listed.server_id != server_id => Err(StepError::new(
            "NOT_THIS_PROXY",
            format!("the obproxy at port {sql_port} is proxy {}, not {server_id}", listed.server_id),
            "leave that proxy alone: skip the subtask (oblet subtask skip)",
        )),
        Some(_) | None => Ok(()),
    }
}

async fn remove(
    host: &Host,
    step: &UninstallObproxy,
    record: Option<&Record>,
    context: &StepContext,
) -> Result<Done, StepError> {
    let port = step.start.sql_port;
    match record {
        Some(record) => stop(host, record, context).await?,
        None => context.log.line(&format!("this agent has no obproxy at port {port}")),
    }
    let (kind, server) = (step.instance.kind, step.instance.server_id);
    if host.managed.get(List::Instances, kind, port).is_some_and(|listed| listed.server_id == server) {
        host.managed.set(List::Instances, kind, port, None).map_err(unreadable)?;
        context.log.line(&format!("the agent looks after the proxy at port {port} no more"));
    }
    erase(host, step, context).await?;
    let Some(record) = record else { return Ok(Done::made()) };
    let (settings, keep_logs) = (Arc::clone(&host.settings), step.keep_logs);
    let dir = settings.instance_dir(port);
    // Its logs may be many gigabytes, and the agent has one thread for everything else.
    let gone = dir.clone();
    let kept = blocking(move || remove_directory(&gone, keep_logs).map_err(directory_failed(&gone))).await?;
    match kept {
        Some(name) => context.log.line(&format!("its logs are kept in {}", dir.with_file_name(name).display())),
        None => context.log.line(&format!("{} is removed", dir.display())),
    }
    if !keep_logs {
        durable::remove(&log(&settings, port)).map_err(directory_failed(&dir))?;
    }
    Record::remove(&settings, port).map_err(unreadable)?;
    for run in record.runs() {
        if let Err(error) = runs::forget(&settings, run) {
            tracing::warn!(run, %error, "the files of a run could not be removed");
        }
    }
    Ok(Done::made())
}

async fn stop(host: &Host, record: &Record, context: &StepContext) -> Result<(), StepError> {
    for run in record.runs() {
        if host.find(run).await?.lives() {
            context
                .log
                .line(&format!("stopping the obproxy of {} at port {}", record.step.app_name, record.step.sql_port));
        }
        let stopped = host.supervisor.stop(&runs::dir(&host.settings, run), GRACE).await;
        stopped.map_err(failed("the stop of obproxy"))?;
    }
    Ok(())
}

async fn erase(host: &Host, step: &UninstallObproxy, context: &StepContext) -> Result<(), StepError> {
    let package = &step.start.package;
    let stays = |why: &str| context.log.line(&format!("{package} stays: {why}"));
    let _turn = package_turn(host, context).await?;
    let database = RpmDatabase::open(&host.settings).await?;
    if !runs::ask(context, "the removal", database.has(package)).await? {
        context.log.line(&format!("{package} is not installed"));
        return Ok(());
    }
    if !ours::is_ours(&host.settings, &database, package).await? {
        stays("this agent has not installed it");
        return Ok(());
    }
    for other in Record::all(&host.settings).map_err(unreadable)? {
        let is_other = other.step.package == *package && other.step.sql_port != step.start.sql_port;
        // Of two that go at once, the one that looks last erases the package.
        if is_other && !Found::is_going(&host.settings, &other).map_err(unreadable)? {
            stays(&format!("the obproxy of {} at port {} runs from it", other.step.app_name, other.step.sql_port));
            return Ok(());
        }
    }
    install::erase(host, &database, package, context).await.map(drop)
}

/// Several proxies of a host go, or come back, at once; one at a time looks at the packages and changes them.
async fn package_turn<'a>(host: &'a Host, context: &StepContext) -> Result<MutexGuard<'a, ()>, StepError> {
    runs::ask(context, "the turn of the packages", async { Ok(host.packages.lock().await) }).await
}

/// Answers the name under which the logs are kept, if they are.
fn remove_directory(dir: &Path, keep_logs: bool) -> io::Result<Option<String>> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(None) };
    let Some(parent) = Directory::find(parent)? else { return Ok(None) };
    let Some(own) = Directory::find(dir)? else { return Ok(None) };
    let (name, logs) = (Path::new(name), Path::new("log"));
    if !keep_logs || !own.entries()?.iter().any(|(entry, _)| entry == logs) {
        // Through the descriptor: where an administrator has put a link, what it leads to has to go.
        own.clear()?;
        parent.remove(name)?;
        return Ok(None);
    }
    own.clear_but(logs)?;
    let kept = format!("{}.removed-{}", name.display(), Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    parent.rename(name, Path::new(&kept))?;
    Ok(Some(kept))
}

async fn bring_back(
    host: &Host,
    step: &UninstallObproxy,
    context: &StepContext,
    undoes: &[Undoes],
) -> Result<Done, StepError> {
    let begun: Vec<_> = undoes.iter().filter(|undo| undo.effect != Effect::None).collect();
    let found = Found::read(&host.settings, &step.instance).map_err(unreadable)?;
    let Some(found) = found.filter(|_| !begun.is_empty()) else {
        context.log.line("this operation removed nothing");
        return Ok(Done::already());
    };
    check_place(host, step)?;
    for undo in begun {
        install::settle_earlier(host, undo.identity.as_deref(), context).await?;
    }
    let port = step.start.sql_port;
    match &found.proxy {
        Some(proxy) if proxy.served => serve_again(host, step, &proxy.start, context).await?,
        Some(_) | None => context.log.line(&format!("no obproxy served at port {port} before, so none is started")),
    }
    if found.listed {
        let listed = host.managed.set(List::Instances, step.instance.kind, port, Some(&step.instance));
        listed.map_err(unreadable)?;
    }
    Found::forget(&host.settings, port).map_err(unreadable)?;
    Ok(Done::made())
}

async fn serve_again(
    host: &Host,
    step: &UninstallObproxy,
    start: &StartObproxy,
    context: &StepContext,
) -> Result<(), StepError> {
    reinstall(host, step, context).await?;
    start.execute(host, &part(context, "start")).await?;
    let sync = SyncObproxyParameters { sql_port: start.sql_port, parameters: step.parameters.clone() };
    sync.execute(host, context).await?;
    context.log.line(&format!("the obproxy at port {} serves again", start.sql_port));
    Ok(())
}

async fn reinstall(host: &Host, step: &UninstallObproxy, context: &StepContext) -> Result<(), StepError> {
    let package = &step.start.package;
    let _turn = package_turn(host, context).await?;
    let database = RpmDatabase::open(&host.settings).await?;
    match &step.sha256 {
        // With the run of an installation that the agent's restart has interrupted.
        Some(sha256) => {
            let install = InstallPackage { package: package.clone(), sha256: sha256.clone() };
            install.execute(host, &part(context, "install")).await.map(drop)
        }
        None if runs::ask(context, "the installation", database.has(package)).await? => Ok(()),
        None => Err(StepError::new(
            "PACKAGE_MISSING",
            format!("{package} is erased, and the coordinator had no file of it when the proxy was to go"),
            "install that package on the host by hand, then retry the rollback",
        )),
    }
}

/// What a step that is part of this one has chosen.
#[derive(Serialize, Deserialize)]
struct Part {
    part: String,
    identity: String,
}

/// Keeps the identity of one part in that of the whole. Parts come one after the other, and each looks at the host first, so
/// only the last one's is needed.
struct PartIdentity {
    part: &'static str,
    whole: Arc<dyn IdentityStore>,
}

impl IdentityStore for PartIdentity {
    fn choose(&self, identity: String) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            let part = Part { part: self.part.into(), identity };
            self.whole.choose(serde_json::to_string(&part)?).await
        })
    }

    fn confirm(&self) -> BoxFuture<'_, io::Result<()>> {
        self.whole.confirm()
    }
}

fn part(context: &StepContext, part: &'static str) -> StepContext {
    let chosen = context.identity.as_deref().and_then(|text| serde_json::from_str::<Part>(text).ok());
    StepContext {
        identity: chosen.filter(|chosen| chosen.part == part).map(|chosen| chosen.identity),
        identities: Arc::new(PartIdentity { part, whole: Arc::clone(&context.identities) }),
        ..context.clone()
    }
}
