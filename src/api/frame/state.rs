//! What the handlers work with.

use super::{gate::Gate, metrics::RequestMetrics};
use crate::{
    api::system::scrape_token::ScrapeToken,
    coordinator::{
        engine::{CommandError, Wait},
        enrolment::Enrolment,
        network::Network,
        secrets::Vault,
        store::{Store, task::TaskId},
    },
    graph::{Command, NodeIndex},
    rpc::v1::DescribeHostResponse,
};
use futures_util::future::BoxFuture;
use prometheus::Registry;
use std::{collections::HashMap, net::IpAddr, path::PathBuf, sync::Arc};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Streams that are open at a time.
pub(in crate::api) const MAX_STREAMS: usize = 256;

/// Drives tasks and speaks with agents. Implemented by the coordinator.
pub trait TaskEngine: Send + Sync {
    /// Claim of this coordinator, under which new tasks are made.
    fn epoch(&self) -> i64;

    /// A task was committed and can be taken up.
    fn wake(&self, id: TaskId);

    /// Carries out the decision of the user `by`; returns once it is in the journal.
    fn command<'a>(&'a self, id: TaskId, command: Command, by: &'a str) -> BoxFuture<'a, Result<(), CommandError>>;

    /// Grows with every commit of events or logs by this coordinator.
    fn commits(&self) -> watch::Receiver<u64>;

    /// What the running subtasks of a task wait for.
    fn waits(&self, id: TaskId) -> HashMap<NodeIndex, Wait>;

    /// Asks the agent at an address what its host is.
    fn describe_host<'a>(
        &'a self,
        address: IpAddr,
        agent_port: u16,
    ) -> BoxFuture<'a, Result<DescribeHostResponse, Silence>>;

    /// Ends every connection to the agent of a host that is not trusted any more.
    fn cut_off(&self, host: IpAddr);

    /// Unfinished tasks have been taken up again.
    fn is_ready(&self) -> bool;
}

/// Why an agent does not answer.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Silence {
    pub problem: String,
    /// Its host answers that nothing listens on the agent's port.
    pub is_stopped: bool,
}

/// What the API is built from.
pub struct ApiSettings {
    pub store: Store,
    pub vault: Arc<Vault>,
    pub packages_dir: PathBuf,
    pub max_package_bytes: u64,
    /// Address of this coordinator, as tasks name their executor.
    pub address: String,
    /// Whose reports the config service accepts, besides those of the hosts.
    pub config_service_reporters: Vec<Network>,
    /// What config URLs begin with, such as `http://192.0.2.1:8080`.
    pub config_url_base: String,
    /// Where hosts that are to be enrolled find this coordinator, such as `https://192.0.2.1:8443`.
    pub rest_url: String,
    /// With which Prometheus asks for its targets.
    pub scrape_token: ScrapeToken,
    pub enrolment: Arc<Enrolment>,
    pub engine: Arc<dyn TaskEngine>,
    pub registry: Registry,
    /// Ends the streams of events and logs, which else last as long as their clients like.
    pub shutdown: CancellationToken,
}

impl ApiSettings {
    pub const DEFAULT_MAX_PACKAGE_BYTES: u64 = 4 << 30;
}

/// Shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub(in crate::api) settings: Arc<ApiSettings>,
    pub(in crate::api) gate: Arc<Gate>,
    pub(in crate::api) metrics: RequestMetrics,
    /// One permit per stream that is open.
    pub(in crate::api) streams: Arc<Semaphore>,
    /// Short name of this host, which every answer carries.
    pub(in crate::api) server: Arc<str>,
}

impl ApiState {
    /// Registers the metrics of the API; fails if they are registered already.
    pub fn new(settings: ApiSettings) -> Result<Self, prometheus::Error> {
        let metrics = RequestMetrics::register(&settings.registry)?;
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let server = host.split('.').next().unwrap_or_default().into();
        let streams = Arc::new(Semaphore::new(MAX_STREAMS));
        Ok(Self { gate: Arc::new(Gate::new()), metrics, streams, server, settings: Arc::new(settings) })
    }

    pub(in crate::api) fn store(&self) -> &Store {
        &self.settings.store
    }

    pub(in crate::api) fn engine(&self) -> &dyn TaskEngine {
        &*self.settings.engine
    }
}
