//! What speaking to a proxy needs: the passwords that came with the step, a login, and what their failures mean.

use super::sql::{Configuration, ItemError, ProxySql, SqlError, same_value};
use crate::{
    agent::{
        host::{Host, process::runs},
        step::{StepContext, StepError},
    },
    steps::{OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD, values::Port},
};
use std::net::SocketAddr;

/// The passwords of a cluster, which come with the step.
pub(super) struct Passwords<'a> {
    /// Of root@proxysys.
    pub(super) sys: &'a str,
    /// Of proxyro on the observers.
    pub(super) observer: &'a str,
}

impl<'a> Passwords<'a> {
    pub(super) fn of(context: &'a StepContext) -> Result<Self, StepError> {
        Ok(Self { sys: secret(context, OBPROXY_SYS_PASSWORD)?, observer: secret(context, OBSERVER_SYS_PASSWORD)? })
    }
}

pub(super) fn secret<'a>(context: &'a StepContext, name: &str) -> Result<&'a str, StepError> {
    context.secrets.get(name).ok_or_else(|| {
        StepError::new(
            "SECRET_MISSING",
            format!("the coordinator did not send the secret {name} with the step"),
            "start the task again",
        )
    })
}

/// Logs in to the proxy of this run, and to nobody else who may listen on its port.
pub(super) async fn login(host: &Host, port: Port, run: &str, password: &str) -> Result<ProxySql, SqlError> {
    let address = SocketAddr::new(host.settings.reach(), port.get());
    let (supervisor, run_dir) = (host.supervisor.clone(), runs::dir(&host.settings, run));
    let owners = move || Ok(supervisor.processes(&run_dir)?.into_iter().map(|process| process.pid).collect());
    ProxySql::login(address, owners, password).await
}

pub(super) fn login_failed(port: Port, error: SqlError) -> StepError {
    let message = format!("root@proxysys cannot log in through port {port}");
    let (reason, next_move) = match error {
        SqlError::Refused => (
            "LOGIN_REFUSED",
            format!(
                "it is another proxy than the one of this cluster, or a proxy whose password was changed by hand: see who \
                 listens with ss -ltnp 'sport = :{port}', give that proxy the password of its cluster or choose another \
                 port, then retry the subtask"
            ),
        ),
        SqlError::Stranger(_) => (
            "PORT_STRANGER",
            format!("see who listens with ss -ltnp 'sport = :{port}', stop it or choose another port, then retry"),
        ),
        SqlError::Late | SqlError::Broken(_) | SqlError::Statement(_) => {
            ("PROXY_SQL", "see whether the proxy runs and answers on this port, then retry the subtask".into())
        }
    };
    StepError::new(reason, message, next_move).because(error)
}

pub(super) fn item_failed(error: ItemError) -> StepError {
    let message = error.to_string();
    let retry = "then retry the subtask";
    match error {
        ItemError::Unknown(_) => StepError::new(
            "PARAMETER_UNKNOWN",
            message,
            format!("take the parameter out of the request or choose another version, {retry}"),
        ),
        ItemError::Invalid(..) | ItemError::Differs(_) => StepError::new(
            "PARAMETER_INVALID",
            message,
            format!(
                "see SHOW PROXYCONFIG on a proxy of this version for the allowed range, correct the value, {retry}"
            ),
        ),
        ItemError::Fixed(_) => StepError::new(
            "PARAMETER_FIXED",
            message,
            "take the parameter out of the request: it follows from the proxy's ports, name or cluster",
        ),
        ItemError::NoMetrics(_) => StepError::new(
            "METRICS_OFF",
            message,
            "take the parameter out of the request: the port of the metrics belongs to what a proxy is checked for",
        ),
        ItemError::Refused(..) => {
            StepError::new("PROXY_SQL", message, format!("look up what the error means to obproxy, {retry}"))
        }
        ItemError::Sql(error) => StepError::new(
            "PROXY_SQL",
            "the configuration of the proxy could not be changed",
            format!("see the cause, and whether the proxy ended, {retry}"),
        )
        .because(error),
    }
}

/// The first item that is not in force, and what stands in its place.
pub(super) fn not_in_force(wanted: &[(String, String)], known: &Configuration) -> Option<StepError> {
    wanted.iter().find_map(|(name, value)| match known.get(name) {
        Some(shown) if same_value(shown, value) => None,
        Some(shown) => Some(StepError::new(
            "PARAMETER_NOT_IN_FORCE",
            format!("{name} should be {value:?} but is {shown:?}"),
            "see SHOW PROXYCONFIG on the proxy for the allowed range, correct the value, then retry the subtask",
        )),
        None => Some(item_failed(ItemError::Unknown(name.clone()))),
    })
}
