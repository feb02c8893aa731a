//! The coordinator's part of restarting, stopping and upgrading agents.

use super::{Adapter, Done, LocalError, RETRY_DELAY, work::Work};
use crate::{
    coordinator::{
        agents::{AgentAddress, CallError},
        store::host::{self, Host, HostStatus},
    },
    rpc::v1::DescribeHostResponse,
    steps::{
        AgentOperation, FinishAgentOperation, FinishAgentUpgrade, PrepareAgentOperation, PrepareAgentUpgrade,
        values::PackageRef,
    },
};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

/// An agent that does not answer cannot be asked for anything.
impl Adapter for PrepareAgentOperation {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            let host = work.host(self.host_id).await?;
            let answer = work.describe(&host, work.deadline).await?;
            work.line(&told(&host, &answer.facts)).await
        })
    }
}

impl Adapter for FinishAgentOperation {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            let host = work.host(self.host_id).await?;
            match self.operation {
                AgentOperation::Restart => welcome(&host, work).await,
                AgentOperation::Stop => {
                    wait_for_silence(&host, work).await?;
                    let id = host.id;
                    work.change(move |rows| Box::pin(host::set_status(rows, id, HostStatus::Offline))).await?;
                    work.line(&format!("the agent of host {} does not answer any more", host.inner_ip)).await
                }
            }
        })
    }
}

/// Nothing is touched on a host that none of the packages is for.
impl Adapter for PrepareAgentUpgrade {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            for package in &self.packages {
                work.check_package(package).await?;
            }
            let host = work.host(self.host_id).await?;
            let facts = work.describe(&host, work.deadline).await?.facts;
            let fits = |package: &PackageRef| [facts.architecture.as_str(), "noarch"].contains(&package.machine());
            if !self.packages.iter().any(fits) {
                let architecture = facts.architecture;
                return Err(LocalError::NoFitPackage { host: host.inner_ip, architecture }.into());
            }
            work.line(&told(&host, &facts)).await
        })
    }
}

impl Adapter for FinishAgentUpgrade {
    fn execute<'a>(&'a self, work: &'a mut Work<'_>) -> BoxFuture<'a, Done> {
        Box::pin(async {
            let host = work.host(self.host_id).await?;
            welcome(&host, work).await
        })
    }
}

/// Waits until the agent is back, and keeps what it says of itself.
async fn welcome(host: &Host, work: &mut Work<'_>) -> Done {
    let facts = work.describe(host, work.deadline).await?.facts;
    let line = told(host, &facts);
    work.keep(host, facts, None).await?;
    work.line(&line).await
}

async fn wait_for_silence(host: &Host, work: &Work<'_>) -> Result<(), LocalError> {
    let agent = work.shared.agents.agent(AgentAddress::new(host.inner_ip, host.agent_port));
    work.place.waits_for(format!("the agent of host {} to fall silent", host.inner_ip));
    while !matches!(agent.describe_host().await, Err(CallError::Unknown { .. })) {
        if work.deadline <= Instant::now() {
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
