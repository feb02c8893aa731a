//! What a step really does on a host. One room per subject; `process` keeps processes beyond the agent.

mod adapter;
mod beneath;
mod checks;
pub(super) mod durable;
mod itself;
mod managed;
pub mod metrics;
mod obproxy;
mod package;
mod process;
pub mod settings;
mod sockets;
#[cfg(test)]
mod testing;

pub use itself::upgrade::replace_self;
pub(super) use package::content;
pub(super) use process::identity::boot_id;
pub use process::{
    choice::SupervisorChoice,
    direct::DirectSupervisor,
    identity::ProcessId,
    shim,
    supervisor::{Kind, Launch, RunOutcome, RunState, ServiceName, Supervisor},
    systemd::SystemdSupervisor,
    unit_helper,
};
pub use settings::HostSettings;

use super::{
    HostView,
    step::{Carrier, Done, StepContext, StepError, Undoes},
};
use crate::{
    rpc::v1::{AgentProcess, ManagedInstance},
    steps::{AgentStep, Instance, InstanceKind},
};
use adapter::adapter;
use futures_util::future::BoxFuture;
use managed::{List, Managed};
use metrics::scrape::Scraper;
use obproxy::record::Record;
use process::{runs, supervisor};
use std::{collections::HashMap, sync::Arc};

/// Why the host cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("the state directory cannot be used")]
    State(#[from] std::io::Error),
    #[error("the client for metrics could not be made")]
    Scraper(#[from] reqwest::Error),
}

/// The real host.
pub struct Host {
    settings: Arc<HostSettings>,
    supervisor: Arc<dyn Supervisor>,
    managed: Managed,
    scraper: Scraper,
    /// Held by steps that look at the packages and then change them, and that are not told apart by their lock.
    packages: tokio::sync::Mutex<()>,
}

impl Host {
    /// Opens the managed state, creating the state directory if it is missing.
    pub fn open(settings: HostSettings, supervisor: Box<dyn Supervisor>) -> Result<Self, HostError> {
        durable::make_directory(&settings.state_dir)?;
        let managed = Managed::open(&settings.state_dir)?;
        for instance in managed.all(List::Instances) {
            if let Err(error) = Record::take_over(&settings, instance.sql_port) {
                tracing::warn!(port = %instance.sql_port, %error, "what an earlier agent knew of a proxy is not taken over");
            }
        }
        Ok(Self {
            settings: Arc::new(settings),
            supervisor: supervisor.into(),
            managed,
            scraper: Scraper::new()?,
            packages: tokio::sync::Mutex::default(),
        })
    }

    /// The process that the agent started, or whoever took its port over in a hot restart.
    fn instance_pid(&self, instance: &Instance) -> Option<i32> {
        let started = match instance.kind {
            InstanceKind::Obproxy => {
                let record = Record::read(&self.settings, instance.sql_port).ok().flatten();
                let run_dir = record.map(|record| runs::dir(&self.settings, &record.run));
                run_dir.and_then(|run_dir| self.supervisor.peek(&run_dir).ok().flatten())
            }
            InstanceKind::Observer => None,
        };
        match started {
            Some(process) => Some(process.pid),
            None => sockets::listener_pid(self.settings.reach(), instance.sql_port.get()),
        }
    }

    /// How many instances the agent looks after.
    pub fn instance_count(&self) -> usize {
        self.managed.all(List::Instances).len()
    }

    /// Takes the hashes of passwords out of the logs of proxies that start again without a step; never ends.
    pub fn redact_logs(&self) -> impl Future<Output = ()> + use<> {
        obproxy::restarts::watch(Arc::clone(&self.settings), Arc::clone(&self.supervisor))
    }

    async fn find(&self, run: &str) -> Result<RunState, StepError> {
        let found = self.supervisor.find(&runs::dir(&self.settings, run)).await;
        found.map_err(supervisor::failed("looking for the process"))
    }
}

impl HostView for Host {
    fn instances(&self) -> Vec<ManagedInstance> {
        let describe = |instance: Instance| {
            let pid = self.instance_pid(&instance);
            ManagedInstance {
                kind: instance.kind.as_str().into(),
                port: instance.sql_port.into(),
                pid: pid.unwrap_or(0),
                alive: pid.is_some(),
            }
        };
        self.managed.all(List::Instances).into_iter().map(describe).collect()
    }

    fn config_generation(&self) -> u64 {
        self.managed.generation()
    }

    fn agent_process(&self) -> Option<AgentProcess> {
        itself::process::describe(&self.settings.state_dir).ok()
    }
}

/// The processes of the proxies that this agent has started, each with the words for its proxy.
type OwnProxies = HashMap<i32, String>;

fn own_proxies(supervisor: &dyn Supervisor, settings: &HostSettings) -> std::io::Result<OwnProxies> {
    let mut own = OwnProxies::new();
    for record in Record::all(settings)? {
        let name = format!("the obproxy of {} at port {}", record.step.app_name, record.step.sql_port);
        for run in record.runs() {
            let processes = supervisor.processes(&runs::dir(settings, run))?;
            own.extend(processes.into_iter().map(|process| (process.pid, name.clone())));
        }
    }
    Ok(own)
}

/// Runs work that reads a lot of files beside the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StepError::new(
            "INTERNAL",
            "internal error: the work ended unexpectedly",
            "report the agent's log, then retry",
        )
        .because(error)),
    }
}

impl Carrier for Host {
    fn execute<'a>(&'a self, step: &'a AgentStep, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        adapter(step).execute(self, context)
    }

    fn undo<'a>(
        &'a self,
        step: &'a AgentStep,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        adapter(step).undo(self, context, undoes)
    }

    fn runs(&self) -> Vec<String> {
        runs::names(&self.settings)
    }

    fn forget_run<'a>(&'a self, run: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(runs::collect(&*self.supervisor, &self.settings, run))
    }
}
