//! The coordinator's part of restarting, stopping and upgrading agents.

use super::{Done, LocalError, RETRY_DELAY, SqlLocalSteps, change, check_package, describe, keep};
use crate::{
    coordinator::{
        agents::{AgentAddress, CallError},
        engine::{AttemptLog, waits::WaitPlace},
        store::{
            StoreError,
            host::{self, Host, HostStatus},
        },
    },
    rpc::v1::DescribeHostResponse,
    steps::{AgentOperation, AgentRef, HostRef, PrepareAgentUpgrade, values::PackageRef},
};
use tokio::time::Instant;

async fn host(shared: &SqlLocalSteps, id: i64) -> Result<Host, LocalError> {
    let mut connection = shared.store.engine_readers().acquire().await.map_err(StoreError::from)?;
    host::get(&mut connection, id).await?.ok_or(LocalError::Gone { what: "host", id })
}

/// An agent that does not answer cannot be asked for anything.
pub(super) async fn prepare(
    shared: &SqlLocalSteps,
    agent: AgentRef,
    deadline: Instant,
    place: &WaitPlace,
    log: &mut AttemptLog,
) -> Done {
    let host = host(shared, agent.host_id).await?;
    match describe(shared, &host, deadline, place, log).await? {
        Ok(answer) => Ok(log.line(&told(&host, &answer.facts)).await),
        Err(closed) => Ok(Err(closed)),
    }
}

pub(super) async fn finish(
    shared: &SqlLocalSteps,
    agent: AgentRef,
    deadline: Instant,
    place: &WaitPlace,
    log: &mut AttemptLog,
) -> Done {
    let host = host(shared, agent.host_id).await?;
    match agent.operation {
        AgentOperation::Restart => welcome(shared, &host, deadline, place, log).await,
        AgentOperation::Stop => {
            wait_for_silence(shared, &host, deadline, place).await?;
            let id = host.id;
            match change(log, move |rows| Box::pin(host::set_status(rows, id, HostStatus::Offline))).await? {
                Ok(_) => Ok(log.line(&format!("the agent of host {} does not answer any more", host.inner_ip)).await),
                Err(closed) => Ok(Err(closed)),
            }
        }
    }
}

/// Nothing is touched on a host that none of the packages is for.
pub(super) async fn prepare_upgrade(
    shared: &SqlLocalSteps,
    step: &PrepareAgentUpgrade,
    deadline: Instant,
    place: &WaitPlace,
    log: &mut AttemptLog,
) -> Done {
    let mut connection = shared.store.engine_readers().acquire().await.map_err(StoreError::from)?;
    for package in &step.packages {
        check_package(shared, &mut connection, package).await?;
    }
    drop(connection);
    let host = host(shared, step.host_id).await?;
    let facts = match describe(shared, &host, deadline, place, log).await? {
        Ok(answer) => answer.facts,
        Err(closed) => return Ok(Err(closed)),
    };
    let fits = |package: &PackageRef| [facts.architecture.as_str(), "noarch"].contains(&package.machine());
    if !step.packages.iter().any(fits) {
        return Err(LocalError::NoFitPackage { host: host.inner_ip, architecture: facts.architecture });
    }
    Ok(log.line(&told(&host, &facts)).await)
}

pub(super) async fn finish_upgrade(
    shared: &SqlLocalSteps,
    HostRef { host_id }: HostRef,
    deadline: Instant,
    place: &WaitPlace,
    log: &mut AttemptLog,
) -> Done {
    let host = host(shared, host_id).await?;
    welcome(shared, &host, deadline, place, log).await
}

/// Waits until the agent is back, and keeps what it says of itself.
async fn welcome(
    shared: &SqlLocalSteps,
    host: &Host,
    deadline: Instant,
    place: &WaitPlace,
    log: &mut AttemptLog,
) -> Done {
    let facts = match describe(shared, host, deadline, place, log).await? {
        Ok(answer) => answer.facts,
        Err(closed) => return Ok(Err(closed)),
    };
    let line = told(host, &facts);
    match keep(log, host.id, facts, None).await? {
        Ok(_) => Ok(log.line(&line).await),
        Err(closed) => Ok(Err(closed)),
    }
}

async fn wait_for_silence(
    shared: &SqlLocalSteps,
    host: &Host,
    deadline: Instant,
    place: &WaitPlace,
) -> Result<(), LocalError> {
    let refused = |error| LocalError::Refused { host: host.inner_ip, source: Box::new(error) };
    let agent = shared.agents.agent(AgentAddress::new(host.inner_ip, host.agent_port)).map_err(refused)?;
    place.waits_for(format!("the agent of host {} to fall silent", host.inner_ip));
    while !matches!(agent.describe_host().await, Err(CallError::Unknown { .. })) {
        if deadline <= Instant::now() {
            return Err(LocalError::StillAnswers { host: host.inner_ip });
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
    Ok(())
}

fn told(host: &Host, facts: &DescribeHostResponse) -> String {
    let pid = facts.agent_process.as_ref().map_or(0, |process| process.pid);
    format!("the agent of host {}, version {}, answers as pid {pid}", host.inner_ip, facts.agent_version)
}
