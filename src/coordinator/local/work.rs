//! What a step of the coordinator works with: rows that are changed through the engine's journal, agents that are asked,
//! and the log of the attempt.

use super::{LocalError, RETRY_DELAY, SqlLocalSteps, error::Stopped};
use crate::{
    coordinator::{
        agents::{AgentAddress, CallError},
        engine::{AttemptLog, waits::WaitPlace},
        store::{
            StoreError, Together,
            host::{self, Host},
            now_micros, package,
        },
    },
    rpc::v1,
    steps::values::PackageRef,
};
use futures_util::future::BoxFuture;
use sqlx::AnyConnection;
use std::sync::Arc;
use tokio::time::Instant;

/// One run of a step.
pub(super) struct Work<'a> {
    pub(super) shared: &'a SqlLocalSteps,
    pub(super) deadline: Instant,
    pub(super) place: &'a WaitPlace,
    pub(super) log: &'a mut AttemptLog,
}

/// What an agent said of its host, and between which two moments of the coordinator's clock.
pub(super) struct Answer {
    pub(super) facts: v1::DescribeHostResponse,
    pub(super) asked_at: i64,
    pub(super) answered_at: i64,
}

impl Work<'_> {
    pub(super) async fn line(&mut self, text: &str) -> Result<(), Stopped> {
        Ok(self.log.line(text).await?)
    }

    /// Rows by their ids.
    pub(super) fn rows(&self) -> &Together {
        self.shared.store.together()
    }

    pub(super) async fn host(&self, id: i64) -> Result<Arc<Host>, Stopped> {
        Ok(self.rows().hosts.get(id).await?.ok_or(LocalError::Gone { what: "host", id })?)
    }

    /// Writes through the journal of the engine, so that steps that end together are synced together.
    pub(super) async fn change<T: Send + 'static>(
        &self,
        change: impl for<'c> Fn(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, Stopped> {
        Ok(self.log.journal().change(self.log.claim(), change).await??)
    }

    /// Asks the agent what the host is, until it answers or the time is over.
    pub(super) async fn describe(&mut self, host: &Host, deadline: Instant) -> Result<Answer, Stopped> {
        let refused = |error: CallError| LocalError::Refused { host: host.inner_ip, source: Box::new(error) };
        let agent = self.shared.agents.agent(AgentAddress::new(host.inner_ip, host.agent_port));
        let left = i64::try_from(deadline.saturating_duration_since(Instant::now()).as_micros()).unwrap_or(i64::MAX);
        let until = now_micros().saturating_add(left);
        let mut told = false;
        loop {
            self.place.waits_until(until, format!("an answer of the agent of host {}", host.inner_ip));
            let asked_at = now_micros();
            match agent.describe_host().await {
                Ok(facts) => return Ok(Answer { facts, asked_at, answered_at: now_micros() }),
                Err(error @ (CallError::Unknown { .. } | CallError::Busy { .. })) => {
                    if deadline <= Instant::now() {
                        return Err(LocalError::Unreachable { host: host.inner_ip, source: Box::new(error) }.into());
                    }
                    if !told {
                        self.line(&format!("waiting: {error}")).await?;
                    }
                    told = true;
                    self.place.is_silent();
                    self.place.waits_until(until, format!("the next try, because {error}"));
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                Err(CallError::Distrusted { source, .. }) => {
                    return Err(LocalError::Distrusted { host: host.inner_ip, source }.into());
                }
                Err(error) => return Err(refused(error).into()),
            }
        }
    }

    /// Writes down what an agent says of its host that is not known yet, and the port of its metrics if that is given;
    /// answers whether there is such a host.
    pub(super) async fn keep(
        &self,
        host: &Host,
        facts: v1::DescribeHostResponse,
        metrics_port: Option<u16>,
    ) -> Result<bool, Stopped> {
        if metrics_port.is_none() && host.details.clone().told_by(&facts) == host.details {
            return Ok(true);
        }
        let id = host.id;
        let facts = Arc::new(facts);
        self.change(move |rows| {
            let facts = Arc::clone(&facts);
            Box::pin(async move {
                let known = host::told(rows, id, &facts).await?.is_some();
                if let Some(port) = metrics_port {
                    host::set_metrics_port(rows, id, port).await?;
                }
                Ok(known)
            })
        })
        .await
    }

    /// The coordinator still has the package, whole.
    pub(super) async fn check_package(&self, reference: &PackageRef) -> Result<(), LocalError> {
        let found = self.rows().packages.get(reference.file_name()).await?;
        let package = found.ok_or_else(|| LocalError::NoPackage(reference.clone()))?;
        let metadata = tokio::fs::metadata(package::path(&self.shared.packages_dir, &package)).await;
        let size = metadata.map_err(|source| LocalError::PackageFile { package: reference.clone(), source })?.len();
        if i64::try_from(size) != Ok(package.size_bytes) {
            let expected = package.size_bytes;
            return Err(LocalError::PackageSize { package: reference.clone(), found: size, expected });
        }
        Ok(())
    }
}
