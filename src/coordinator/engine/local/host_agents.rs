//! The coordinator's part of restarting and stopping agents.

use super::{Done, LocalError, RETRY_DELAY, SqlLocalSteps, describe};
use crate::{
    coordinator::{
        agents::{AgentAddress, CallError},
        engine::{AttemptLog, waits::WaitPlace},
        store::{
            StoreError,
            hosts::{self, Host, HostDetails, HostStatus},
        },
    },
    rpc::v1::DescribeHostResponse,
    steps::{AgentOperation, AgentRef},
};
use tokio::time::Instant;

async fn host(shared: &SqlLocalSteps, id: i64) -> Result<Host, LocalError> {
    let mut connection = shared.store.readers().acquire().await.map_err(StoreError::from)?;
    hosts::get(&mut connection, id).await?.ok_or(LocalError::Gone { what: "host", id })
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
        AgentOperation::Restart => {
            let facts = match describe(shared, &host, deadline, place, log).await? {
                Ok(answer) => answer.facts,
                Err(closed) => return Ok(Err(closed)),
            };
            keep(shared, host.id, |host| (host.status, host.details.clone().told_by(&facts))).await?;
            Ok(log.line(&told(&host, &facts)).await)
        }
        AgentOperation::Stop => {
            wait_for_silence(shared, &host, deadline, place).await?;
            keep(shared, host.id, |host| (HostStatus::Offline, host.details.clone())).await?;
            Ok(log.line(&format!("the agent of host {} does not answer any more", host.inner_ip)).await)
        }
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

async fn keep(
    shared: &SqlLocalSteps,
    id: i64,
    state: impl Fn(&Host) -> (HostStatus, HostDetails),
) -> Result<(), StoreError> {
    let mut transaction = shared.store.begin().await?;
    if let Some(host) = hosts::get(&mut transaction, id).await? {
        let (status, details) = state(&host);
        hosts::observe(&mut transaction, id, status, &details).await?;
    }
    Ok(transaction.commit().await?)
}

fn told(host: &Host, facts: &DescribeHostResponse) -> String {
    let pid = facts.agent_process.as_ref().map_or(0, |process| process.pid);
    format!("the agent of host {}, version {}, answers as pid {pid}", host.inner_ip, facts.agent_version)
}
