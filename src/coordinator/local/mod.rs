//! Steps that need no host. Each may run twice: it looks at the rows first, and writes what is missing.

pub(super) mod agent;
pub(super) mod host;

use super::{
    agents::{AgentAddress, AgentPool, CallError},
    connection::Distrust,
    engine::{attempt::Outcome, journal::Closed, log::AttemptLog, waits::WaitPlace},
    store::{
        Store, StoreError,
        host::{self as host_rows, Host, HostStatus},
        now_micros,
        obproxy::{self, ObproxyStatus},
        package,
    },
};
use crate::{
    graph::{Direction, Effect, Failure},
    rpc::v1,
    steps::{CoordinatorStep, ObproxyRef, PrepareObproxyInstall, values::PackageRef},
};
use futures_util::future::BoxFuture;
use host::Skew;
use sqlx::AnyConnection;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Why a local step failed, with what to do about it.
#[derive(Debug, thiserror::Error)]
enum LocalError {
    #[error("the coordinator's store does not answer")]
    Store(#[from] StoreError),
    #[error("{what} {id} does not exist any more")]
    Gone { what: &'static str, id: i64 },
    #[error("package {0} is not among the uploaded packages")]
    NoPackage(PackageRef),
    #[error("the coordinator's copy of package {package} cannot be read")]
    PackageFile { package: PackageRef, source: std::io::Error },
    #[error("the coordinator's copy of package {package} has {found} bytes instead of {expected}")]
    PackageSize { package: PackageRef, found: u64, expected: i64 },
    #[error("package {package} is for another architecture than host {host}, which is {architecture}")]
    Architecture { package: PackageRef, host: std::net::IpAddr, architecture: String },
    #[error("no package of the agent is for host {host}, which is {architecture}")]
    NoFitPackage { host: std::net::IpAddr, architecture: String },
    #[error("the agent of host {host} did not answer in time")]
    Unreachable { host: std::net::IpAddr, source: Box<CallError> },
    #[error("the clock of host {host} is {skew}, at most {limit} ms are allowed")]
    Clock { host: std::net::IpAddr, skew: Skew, limit: i64 },
    #[error("the agent of host {host} does not tell its time")]
    NoClock { host: std::net::IpAddr },
    #[error(
        "the agent of host {host} has version {agent:?}, which this coordinator of version {own} does not understand"
    )]
    AgentVersion { host: std::net::IpAddr, agent: String, own: &'static str },
    #[error("the agent of host {host} still answers")]
    StillAnswers { host: std::net::IpAddr },
    #[error("host {host} is in use: proxy {proxy} is on it")]
    InUse { host: std::net::IpAddr, proxy: i64 },
    #[error("the agent of host {host} is not trusted")]
    Distrusted { host: std::net::IpAddr, source: Distrust },
    #[error("the agent of host {host} refuses this coordinator")]
    Refused { host: std::net::IpAddr, source: Box<CallError> },
}

impl LocalError {
    fn advice(&self) -> (&'static str, &'static str) {
        match self {
            Self::Store(_) => ("STORE", "see the coordinator's log, then retry the subtask"),
            Self::Gone { .. } => ("GONE", "it was deleted meanwhile: roll the task back"),
            Self::NoPackage(_) | Self::PackageFile { .. } | Self::PackageSize { .. } => {
                ("PACKAGE_MISSING", "upload the package again, then retry the subtask")
            }
            Self::Architecture { .. } => {
                ("ARCHITECTURE", "roll the task back and add the proxy with a package for this architecture")
            }
            Self::NoFitPackage { .. } => (
                "NO_FIT_PACKAGE",
                "upload the package for this architecture, and upgrade the host by a task that names it as well",
            ),
            Self::Unreachable { .. } => (
                "AGENT_UNREACHABLE",
                "see on the host whether oblet-agent runs, is enrolled with this coordinator and its port is open, then \
                 retry the subtask",
            ),
            Self::Clock { .. } | Self::NoClock { .. } => {
                ("CLOCK_SKEW", "let chrony or ntpd set the clock of the host, then retry the subtask")
            }
            Self::AgentVersion { .. } => (
                "AGENT_VERSION",
                "install an agent of the coordinator's major version on the host, then retry the subtask",
            ),
            Self::StillAnswers { .. } => ("AGENT_STILL_ANSWERS", "roll the task back, and stop the agent once more"),
            Self::InUse { .. } => ("HOST_IN_USE", "remove what is on the host, then retry the rollback"),
            Self::Distrusted { .. } => (
                "HOST_NOT_TRUSTED",
                "enrol the host again with a fresh token (oblet host add --token), then retry the subtask",
            ),
            Self::Refused { .. } => ("AGENT_REFUSED", "see the agent's log on the host, then retry the subtask"),
        }
    }
}

/// One run of a local step.
pub struct LocalRun<'a> {
    pub step: &'a CoordinatorStep,
    pub direction: Direction,
    pub deadline: Instant,
    pub cancel: &'a CancellationToken,
    pub place: &'a WaitPlace,
}

/// Carries out steps that need no host.
pub trait LocalSteps: Send + Sync {
    fn run<'a>(&'a self, run: LocalRun<'a>, log: &'a mut AttemptLog) -> BoxFuture<'a, Outcome>;
}

/// The real ones: rows of the store, and questions to agents.
pub struct SqlLocalSteps {
    pub store: Store,
    pub agents: Arc<AgentPool>,
    pub packages_dir: PathBuf,
}

impl LocalSteps for SqlLocalSteps {
    fn run<'a>(&'a self, run: LocalRun<'a>, log: &'a mut AttemptLog) -> BoxFuture<'a, Outcome> {
        Box::pin(carry_out(self, run, log))
    }
}

async fn carry_out(shared: &SqlLocalSteps, run: LocalRun<'_>, log: &mut AttemptLog) -> Outcome {
    let LocalRun { step, direction, deadline, cancel, place } = run;
    let work = async {
        loop {
            let result = match (step, direction) {
                (CoordinatorStep::PrepareObproxyInstall(step), Direction::Execute) => {
                    prepare_install(shared, step, deadline, place, log).await
                }
                (CoordinatorStep::PrepareObproxyInstall(step), Direction::Undo) => forget_install(step, log).await,
                (CoordinatorStep::UpdateObproxyStatus(proxy), Direction::Execute) => {
                    set_status(proxy, ObproxyStatus::Running, log).await
                }
                (CoordinatorStep::UpdateObproxyStatus(proxy), Direction::Undo) => {
                    set_status(proxy, ObproxyStatus::Creating, log).await
                }
                (CoordinatorStep::Finish | CoordinatorStep::Wait, Direction::Execute | Direction::Undo) => Ok(Ok(())),
                (CoordinatorStep::PrepareAgentOperation(agent), Direction::Execute) => {
                    agent::prepare(shared, *agent, deadline, place, log).await
                }
                (CoordinatorStep::FinishAgentOperation(agent), Direction::Execute) => {
                    agent::finish(shared, *agent, deadline, place, log).await
                }
                (CoordinatorStep::PrepareAgentUpgrade(step), Direction::Execute) => {
                    agent::prepare_upgrade(shared, step, deadline, place, log).await
                }
                (CoordinatorStep::FinishAgentUpgrade(host), Direction::Execute) => {
                    agent::finish_upgrade(shared, *host, deadline, place, log).await
                }
                // Never asked for: they leave nothing to take back.
                (
                    CoordinatorStep::PrepareAgentOperation(_)
                    | CoordinatorStep::FinishAgentOperation(_)
                    | CoordinatorStep::PrepareAgentUpgrade(_)
                    | CoordinatorStep::FinishAgentUpgrade(_),
                    Direction::Undo,
                ) => Ok(Ok(())),
                (CoordinatorStep::PrepareHost(step), Direction::Execute) => {
                    host::prepare(shared, step, deadline, place, log).await
                }
                (CoordinatorStep::PrepareHost(step), Direction::Undo) => host::forget(step, log).await,
                (CoordinatorStep::UpdateHostStatus(host), Direction::Execute) => {
                    host::set_status(*host, HostStatus::New, HostStatus::Available, log).await
                }
                (CoordinatorStep::UpdateHostStatus(host), Direction::Undo) => {
                    host::set_status(*host, HostStatus::Available, HostStatus::New, log).await
                }
            };
            // As the engine itself: a full disk, or a store that others use, costs time and no step.
            match result {
                Err(LocalError::Store(error @ (StoreError::DiskFull(_) | StoreError::Busy))) => {
                    tracing::error!(error = crate::telemetry::chain(&error), "waiting for the store");
                    place.waits_for(match error {
                        StoreError::Busy => "its turn in the coordinator's store",
                        _ => "room on the coordinator's disk",
                    });
                }
                result => return result,
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = cancel.cancelled() => return Outcome::Failed(failure("CANCELED", format!("{} was canceled", step.info().name), Vec::new(), "retry the subtask when you are ready")),
    };
    match result {
        Ok(Ok(())) => Outcome::Succeeded { effect: Effect::Done, output: Vec::new() },
        Ok(Err(Closed)) => Outcome::Abandoned,
        Err(error) => {
            let (reason, next_move) = error.advice();
            let causes = crate::telemetry::causes(&error);
            let _ = log.line(&format!("failed: {}", crate::telemetry::chain(&error))).await;
            Outcome::Failed(failure(reason, error.to_string(), causes, next_move))
        }
    }
}

fn failure(reason: &str, message: String, causes: Vec<String>, next_move: &str) -> Failure {
    Failure {
        reason: reason.into(),
        message,
        causes,
        next_move: next_move.into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect: Effect::None,
    }
}

type Done = Result<Result<(), Closed>, LocalError>;

/// Everything that can be found out before the host is touched: rows, the package, the agent, the architecture.
async fn prepare_install(
    shared: &SqlLocalSteps,
    step: &PrepareObproxyInstall,
    deadline: Instant,
    place: &WaitPlace,
    log: &mut AttemptLog,
) -> Done {
    let mut connection = shared.store.engine_readers().acquire().await.map_err(StoreError::from)?;
    let gone = |what, id| LocalError::Gone { what, id };
    let cluster = obproxy::get(&mut connection, step.cluster_id).await?;
    let cluster = cluster.ok_or_else(|| gone("proxy cluster", step.cluster_id))?;
    let Some(reference) = &step.proxy else {
        return Ok(log.line(&format!("proxy cluster {} is registered", cluster.name)).await);
    };
    let proxy = obproxy::proxy(&mut connection, reference.server_id).await?;
    let proxy = proxy.ok_or_else(|| gone("proxy", reference.server_id))?;
    let host = host_rows::get(&mut connection, proxy.host_id).await?.ok_or_else(|| gone("host", proxy.host_id))?;
    if let Some(package) = &step.package {
        check_package(shared, &mut connection, package).await?;
    }
    drop(connection);

    let facts = match describe(shared, &host, deadline, place, log).await? {
        Ok(answer) => answer.facts,
        Err(closed) => return Ok(Err(closed)),
    };
    if let Some(package) = &step.package
        && ![facts.architecture.as_str(), "noarch"].contains(&package.architecture())
    {
        let (package, architecture) = (package.clone(), facts.architecture);
        return Err(LocalError::Architecture { package, host: host.inner_ip, architecture });
    }
    let line = format!(
        "host {} ({}): agent {}, {}, {} processors",
        host.inner_ip, facts.hostname, facts.agent_version, facts.architecture, facts.cpu_count
    );
    match keep(log, host.id, facts, None).await? {
        Ok(_) => Ok(log.line(&line).await),
        Err(closed) => Ok(Err(closed)),
    }
}

async fn check_package(
    shared: &SqlLocalSteps,
    connection: &mut AnyConnection,
    reference: &PackageRef,
) -> Result<(), LocalError> {
    let found = package::by_file_name(connection, &reference.file_name()).await?;
    let package = found.ok_or_else(|| LocalError::NoPackage(reference.clone()))?;
    let metadata = tokio::fs::metadata(package::path(&shared.packages_dir, &package)).await;
    let size = metadata.map_err(|source| LocalError::PackageFile { package: reference.clone(), source })?.len();
    if i64::try_from(size) != Ok(package.size_bytes) {
        let expected = package.size_bytes;
        return Err(LocalError::PackageSize { package: reference.clone(), found: size, expected });
    }
    Ok(())
}

/// What an agent said of its host, and between which two moments of the coordinator's clock.
struct Answer {
    facts: v1::DescribeHostResponse,
    asked_at: i64,
    answered_at: i64,
}

/// Asks the agent what the host is, until it answers or the time is over.
async fn describe(
    shared: &SqlLocalSteps,
    host: &Host,
    deadline: Instant,
    place: &WaitPlace,
    log: &mut AttemptLog,
) -> Result<Result<Answer, Closed>, LocalError> {
    let refused = |error: CallError| LocalError::Refused { host: host.inner_ip, source: Box::new(error) };
    let agent = shared.agents.agent(AgentAddress::new(host.inner_ip, host.agent_port)).map_err(refused)?;
    let left = i64::try_from(deadline.saturating_duration_since(Instant::now()).as_micros()).unwrap_or(i64::MAX);
    let until = now_micros().saturating_add(left);
    let mut told = false;
    loop {
        place.waits_until(until, format!("an answer of the agent of host {}", host.inner_ip));
        let asked_at = now_micros();
        match agent.describe_host().await {
            Ok(facts) => return Ok(Ok(Answer { facts, asked_at, answered_at: now_micros() })),
            Err(error @ (CallError::Unknown { .. } | CallError::Busy { .. })) => {
                if deadline <= Instant::now() {
                    return Err(LocalError::Unreachable { host: host.inner_ip, source: Box::new(error) });
                }
                if !told && let Err(closed) = log.line(&format!("waiting: {error}")).await {
                    return Ok(Err(closed));
                }
                told = true;
                place.waits_until(until, format!("the next try, because {error}"));
                tokio::time::sleep(RETRY_DELAY).await;
            }
            Err(CallError::Distrusted { source, .. }) => {
                return Err(LocalError::Distrusted { host: host.inner_ip, source });
            }
            Err(error) => return Err(refused(error)),
        }
    }
}

/// Writes through the journal of the engine, so that steps that end together are synced together.
async fn change<T: Send + 'static>(
    log: &AttemptLog,
    change: impl for<'c> Fn(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + Sync + 'static,
) -> Result<Result<T, Closed>, LocalError> {
    match log.journal().change(log.claim(), change).await {
        Ok(answer) => Ok(Ok(answer?)),
        Err(closed) => Ok(Err(closed)),
    }
}

/// Writes down what an agent says of its host, and the port of its metrics if that is given; answers whether there is
/// such a host.
async fn keep(
    log: &AttemptLog,
    id: i64,
    facts: v1::DescribeHostResponse,
    metrics_port: Option<u16>,
) -> Result<Result<bool, Closed>, LocalError> {
    let facts = Arc::new(facts);
    change(log, move |rows| {
        let facts = Arc::clone(&facts);
        Box::pin(async move {
            let known = host_rows::told(rows, id, &facts).await?.is_some();
            if let Some(port) = metrics_port {
                host_rows::set_metrics_port(rows, id, port).await?;
            }
            Ok(known)
        })
    })
    .await
}

/// Takes back what the request wrote: the proxy, or the cluster that has no proxies.
async fn forget_install(step: &PrepareObproxyInstall, log: &mut AttemptLog) -> Done {
    let (proxy, cluster) = (step.proxy.as_ref().map(|proxy| proxy.server_id), step.cluster_id);
    let forgotten = change(log, move |rows| Box::pin(forget_rows(rows, proxy, cluster))).await?;
    let line = match proxy {
        Some(proxy) => format!("proxy {proxy} is not registered any more"),
        None => format!("proxy cluster {cluster} is not registered any more"),
    };
    match forgotten {
        Ok(()) => Ok(log.line(&line).await),
        Err(closed) => Ok(Err(closed)),
    }
}

async fn forget_rows(rows: &mut AnyConnection, proxy: Option<i64>, cluster: i64) -> Result<(), StoreError> {
    if let Some(proxy) = proxy {
        obproxy::delete_proxy(rows, proxy).await?;
        return Ok(());
    }
    for proxy in obproxy::proxies(rows, cluster).await? {
        if proxy.status == ObproxyStatus::Creating {
            obproxy::delete_proxy(rows, proxy.id).await?;
        }
    }
    if obproxy::proxies(rows, cluster).await?.is_empty() {
        obproxy::delete(rows, cluster).await?;
    }
    Ok(())
}

async fn set_status(reference: &ObproxyRef, status: ObproxyStatus, log: &mut AttemptLog) -> Done {
    let id = reference.server_id;
    match change(log, move |rows| Box::pin(lead_to(rows, id, status))).await? {
        Ok(true) => Ok(log.line(&format!("proxy {id} is {status}")).await),
        Ok(false) if status == ObproxyStatus::Creating => Ok(Ok(())),
        Ok(false) => Err(LocalError::Gone { what: "proxy", id }),
        Err(closed) => Ok(Err(closed)),
    }
}

/// Answers whether there is such a proxy. What its host is follows from what runs on it.
async fn lead_to(rows: &mut AnyConnection, id: i64, status: ObproxyStatus) -> Result<bool, StoreError> {
    let Some(proxy) = obproxy::proxy(rows, id).await? else { return Ok(false) };
    obproxy::set_proxy_status(rows, proxy.id, status).await?;
    let others = obproxy::proxies_on_host(rows, proxy.host_id).await?;
    let running = others.iter().any(|proxy| proxy.status == ObproxyStatus::Running);
    let status = if running { HostStatus::Online } else { HostStatus::Available };
    host_rows::set_status(rows, proxy.host_id, status).await?;
    Ok(true)
}
