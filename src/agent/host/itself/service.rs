//! The agent asks the service manager of its host to restart it, or to stop it.
//!
//! A restart, whatever dies on the way:
//!  1. The process that takes the step writes its own identity (boot, pid, start time) to the journal, and only then
//!     asks for the restart.
//!  2. A process that takes the step up and finds its own identity there asks again: it was not restarted.
//!  3. One that finds another identity is the proof that the agent was restarted.
//!
//! A stopped agent can say nothing any more, so a stop is told first and carried out [`STOP_DELAY`] later. Should the
//! agent die in between, it is started again and does not stop; the coordinator sees that it still answers.

use crate::{
    agent::{
        host::{
            Host,
            adapter::Adapter,
            process::{identity::ProcessId, systemd::unit_file},
        },
        step::{Done, StepContext, StepError},
    },
    graph::Effect,
    steps::{RestartAgent, StopAgent},
    telemetry::chain,
};
use futures_util::future::BoxFuture;
use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// Enough for the outcome to be journaled and to reach a coordinator over a bad network.
const STOP_DELAY: Duration = Duration::from_secs(5);
/// A service manager that has not ended the process by then does not intend to.
const RESTART_LIMIT: Duration = Duration::from_secs(120);
const CALL_LIMIT: Duration = Duration::from_secs(25);

/// Who starts and stops the agent on its host.
pub(in crate::agent::host) trait ServiceManager: Send + Sync {
    /// Name of the service whose main process is this very process.
    fn own_service(&self) -> BoxFuture<'_, Result<String, ManagerError>>;
    /// Returns as soon as the order is taken.
    fn order<'a>(&'a self, order: Order, service: &'a str) -> BoxFuture<'a, Result<(), ManagerError>>;
    /// Whether a unit runs, or is to run in this boot.
    fn is_due<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<bool, ManagerError>>;
    /// Where the administrator's units lie.
    fn unit_directory(&self) -> PathBuf;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent::host) enum Order {
    Restart,
    Stop,
}

/// Why the service manager does not do what the agent asks for.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent::host) enum ManagerError {
    #[error("this process is not the main process of a service, but part of {0}")]
    NotMain(String),
    #[error("systemd does not respond over D-Bus")]
    Bus(#[from] zbus::Error),
    #[error("systemd did not answer within {} s", CALL_LIMIT.as_secs())]
    Late,
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    #[zbus(name = "GetUnitByPID")]
    fn get_unit_by_pid(&self, pid: u32) -> zbus::Result<zbus::OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn load_unit(&self, name: &str) -> zbus::Result<zbus::OwnedObjectPath>;
}

#[zbus::proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property(emits_changed_signal = "false"))]
    fn id(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;
    /// The job that waits for its turn; its number is 0 if there is none.
    #[zbus(property(emits_changed_signal = "false"))]
    fn job(&self) -> zbus::Result<(u32, zbus::OwnedObjectPath)>;
}

#[zbus::proxy(interface = "org.freedesktop.systemd1.Service", default_service = "org.freedesktop.systemd1")]
trait Service {
    #[zbus(property(emits_changed_signal = "false"), name = "MainPID")]
    fn main_pid(&self) -> zbus::Result<u32>;
}

/// PID 1, where it is systemd. Every call connects anew: they are rare.
pub(in crate::agent::host) struct Systemd;

async fn bounded<T>(work: impl Future<Output = Result<T, ManagerError>>) -> Result<T, ManagerError> {
    tokio::time::timeout(CALL_LIMIT, work).await.unwrap_or(Err(ManagerError::Late))
}

impl ServiceManager for Systemd {
    fn own_service(&self) -> BoxFuture<'_, Result<String, ManagerError>> {
        Box::pin(bounded(async {
            let bus = zbus::Connection::system().await?;
            let own = std::process::id();
            let path = ManagerProxy::new(&bus).await?.get_unit_by_pid(own).await?;
            let name = UnitProxy::new(&bus, path.clone()).await?.id().await?;
            // Started by hand it may be part of a session, or of the service that let its administrator in.
            if !name.ends_with(".service") || ServiceProxy::new(&bus, path).await?.main_pid().await? != own {
                return Err(ManagerError::NotMain(name));
            }
            Ok(name)
        }))
    }

    fn order<'a>(&'a self, order: Order, service: &'a str) -> BoxFuture<'a, Result<(), ManagerError>> {
        Box::pin(bounded(async move {
            let bus = zbus::Connection::system().await?;
            let manager = ManagerProxy::new(&bus).await?;
            match order {
                Order::Restart => manager.restart_unit(service, "replace").await?,
                Order::Stop => manager.stop_unit(service, "replace").await?,
            };
            Ok(())
        }))
    }

    fn is_due<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<bool, ManagerError>> {
        Box::pin(bounded(async move {
            let bus = zbus::Connection::system().await?;
            let path = ManagerProxy::new(&bus).await?.load_unit(unit).await?;
            let unit = UnitProxy::new(&bus, path).await?;
            Ok(unit.job().await?.0 != 0 || !["inactive", "failed"].contains(&unit.active_state().await?.as_str()))
        }))
    }

    fn unit_directory(&self) -> PathBuf {
        unit_file::UNIT_DIRECTORY.into()
    }
}

pub(super) fn unmanaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StepError {
    StepError::new(
        "NOT_UNDER_A_SERVICE_MANAGER",
        "the agent is not a systemd service, so it cannot be restarted, stopped or upgraded",
        "do it on the host by hand, in the way the agent was started there, then skip the subtask",
    )
    .because(error)
}

/// What tells this process from every other one.
fn own_identity() -> Result<String, StepError> {
    let own = i32::try_from(std::process::id()).map_err(io::Error::other).and_then(ProcessId::of);
    let own = own.map_err(|error| {
        StepError::new("INTERNAL", "the agent cannot determine its own process id", "retry the subtask").because(error)
    })?;
    Ok(format!("{} {} {}", own.boot_id, own.pid, own.start_ticks))
}

/// Answers the service of this process, whose identity is on disk then; None if another process took the step first.
async fn take(manager: &dyn ServiceManager, context: &StepContext) -> Result<Option<String>, StepError> {
    let own = own_identity()?;
    if context.identity.as_ref().is_some_and(|first| *first != own) {
        context.log.line(&format!("the agent was started since, as pid {}", std::process::id()));
        return Ok(None);
    }
    // Before anything is written down: what cannot be done leaves nothing.
    let service = manager.own_service().await.map_err(unmanaged)?;
    if context.identity.is_none() {
        context.choose_identity(own).await?;
    }
    Ok(Some(service))
}

impl Adapter for RestartAgent {
    fn execute<'a>(&'a self, _host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(restart(&Systemd, context))
    }
}

async fn restart(manager: &dyn ServiceManager, context: &StepContext) -> Result<Done, StepError> {
    let Some(service) = take(manager, context).await? else { return Ok(Done::made()) };
    context.log.line(&format!("asking systemd to restart {service}, which is pid {}", std::process::id()));
    manager.order(Order::Restart, &service).await.map_err(|error| {
        StepError::new(
            "RESTART_REFUSED",
            format!("systemd does not restart {service}"),
            "resolve the cause, then retry",
        )
        .because(error)
    })?;
    context.confirm_identity().await?;
    tokio::select! {
        () = context.cancel.cancelled() => Err(StepError::canceled("the restart").leaving(Effect::Unknown)),
        () = tokio::time::sleep(RESTART_LIMIT) => Err(StepError::new(
            "NOT_RESTARTED",
            format!("{service} was not restarted within {} s", RESTART_LIMIT.as_secs()),
            "see on the host what systemd waits for (systemctl list-jobs), then retry the subtask",
        )),
    }
}

impl Adapter for StopAgent {
    fn execute<'a>(&'a self, _host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(stop(Arc::new(Systemd), context))
    }
}

async fn stop(manager: Arc<dyn ServiceManager>, context: &StepContext) -> Result<Done, StepError> {
    // Else it was stopped after all, and its administrator has started it.
    let Some(service) = take(&*manager, context).await? else { return Ok(Done::made()) };
    context.confirm_identity().await?;
    let seconds = STOP_DELAY.as_secs();
    context.log.line(&format!("{service} stops in {seconds} s; to start it, on the host: systemctl start {service}"));
    tokio::spawn(async move {
        tokio::time::sleep(STOP_DELAY).await;
        if let Err(error) = manager.order(Order::Stop, &service).await {
            tracing::error!(service, error = chain(&error), "the agent continues, because it could not be stopped");
        }
    });
    Ok(Done::made())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::testing::{Identities, context};
    use tokio::sync::mpsc;

    /// Takes orders for a service, or knows none.
    struct Manager {
        service: Option<&'static str>,
        taken: mpsc::UnboundedSender<(Order, String)>,
    }

    impl ServiceManager for Manager {
        fn own_service(&self) -> BoxFuture<'_, Result<String, ManagerError>> {
            let service = self.service.ok_or_else(|| ManagerError::NotMain("session-1.scope".into()));
            Box::pin(async move { service.map(ToOwned::to_owned) })
        }

        fn order<'a>(&'a self, order: Order, service: &'a str) -> BoxFuture<'a, Result<(), ManagerError>> {
            self.taken.send((order, service.to_owned())).unwrap();
            Box::pin(async { Ok(()) })
        }

        fn is_due<'a>(&'a self, _unit: &'a str) -> BoxFuture<'a, Result<bool, ManagerError>> {
            Box::pin(async { Ok(false) })
        }

        fn unit_directory(&self) -> PathBuf {
            "/nowhere".into()
        }
    }

    fn manager(service: Option<&'static str>) -> (Arc<Manager>, mpsc::UnboundedReceiver<(Order, String)>) {
        let (taken, orders) = mpsc::unbounded_channel();
        (Arc::new(Manager { service, taken }), orders)
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_is_done_when_another_process_takes_the_step_up() {
        let (manager, mut orders) = manager(Some("oblet-agent.service"));
        let restart_ordered = (Order::Restart, "oblet-agent.service".to_owned());
        let kept = Arc::new(Identities::default());
        let mut first = context("r");
        first.identities = kept.clone();
        assert_eq!(restart(&*manager, &first).await.unwrap_err().reason, "NOT_RESTARTED", "nobody ended this process");
        assert_eq!(orders.recv().await.as_ref(), Some(&restart_ordered));
        let chosen = kept.0.lock().unwrap().clone();
        assert_eq!(chosen, Some(own_identity().unwrap()));

        let mut again = context("r");
        again.identity = chosen;
        assert_eq!(restart(&*manager, &again).await.unwrap_err().reason, "NOT_RESTARTED");
        assert_eq!(orders.recv().await, Some(restart_ordered), "the same process asks again");

        let mut next = context("r");
        next.identity = Some("another-boot 1 2".into());
        assert_eq!(restart(&*manager, &next).await.unwrap(), Done::made());
        assert!(orders.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_told_first_and_not_repeated_by_an_agent_that_was_started_since() {
        let (manager, mut orders) = manager(Some("oblet-agent.service"));
        assert_eq!(stop(manager.clone(), &context("s")).await.unwrap(), Done::made());
        assert!(orders.try_recv().is_err(), "the outcome has to be told first");
        assert_eq!(orders.recv().await.unwrap().0, Order::Stop);

        let mut next = context("s");
        next.identity = Some("another-boot 1 2".into());
        assert_eq!(stop(manager, &next).await.unwrap(), Done::made());
        tokio::time::sleep(STOP_DELAY * 2).await;
        assert!(orders.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_agent_that_is_no_service_says_so_and_leaves_nothing() {
        let (manager, mut orders) = manager(None);
        let restarted = restart(&*manager, &context("r")).await.unwrap_err();
        let stopped = stop(manager, &context("s")).await.unwrap_err();
        for error in [restarted, stopped] {
            assert_eq!((error.reason, error.effect), ("NOT_UNDER_A_SERVICE_MANAGER", Effect::None));
            assert_eq!(chain(&error).matches("session-1.scope").count(), 1);
        }
        assert!(orders.try_recv().is_err());
    }
}
