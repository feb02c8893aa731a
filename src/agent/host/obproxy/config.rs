//! Configuration items and passwords of a running obproxy.

use super::{
    super::Host,
    first_start::{item_failed, secret},
    record::Record,
    sql::{ItemError, ProxySql, SqlError, proxy_hash, same_value},
};
use crate::{
    agent::{
        host::{adapter::Adapter, process::runs},
        step::{Done, StepContext, StepError},
    },
    graph::Effect,
    steps::{OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD, SetObproxyPasswords, SyncObproxyParameters, values::Port},
};
use futures_util::future::BoxFuture;
use std::net::SocketAddr;

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

async fn session(host: &Host, port: Port, context: &StepContext) -> Result<ProxySql, StepError> {
    let password = secret(context, OBPROXY_SYS_PASSWORD)?;
    let record = Record::read(&host.settings, port).map_err(super::start::unreadable)?.ok_or_else(|| {
        let next_move = "start it by a task first, then retry the subtask";
        StepError::new("NOT_STARTED", format!("this agent has started no obproxy on port {port}"), next_move)
    })?;
    let login = async { login(host, port, &record.run, password).await.map_err(|error| login_failed(port, error)) };
    runs::ask(context, "the login of root@proxysys", login).await
}

impl Adapter for SyncObproxyParameters {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(sync(host, self, context))
    }
}

async fn sync(host: &Host, step: &SyncObproxyParameters, context: &StepContext) -> Result<Done, StepError> {
    if step.parameters.is_empty() {
        return Ok(Done::already());
    }
    let mut sql = session(host, step.sql_port, context).await?;
    let known = sql.configuration().await.map_err(|error| login_failed(step.sql_port, error))?;
    let mut done = Done::already();
    for parameter in &step.parameters {
        let (name, wanted) = (parameter.name.as_str(), parameter.value.as_str());
        if context.cancel.is_cancelled() {
            return Err(StepError::canceled("the change of parameters").leaving(done.effect));
        }
        let Some(before) = known.get(name) else {
            return Err(item_failed(ItemError::Unknown(name.into())).leaving(done.effect));
        };
        if same_value(before, wanted) {
            context.log.line(&format!("{name} is as wanted"));
            continue;
        }
        let set = sql.set_item(name, wanted).await;
        set.map_err(|error| item_failed(error).leaving(Effect::Unknown))?;
        done.effect = Effect::Done;
        context.log.line(&format!("{name} set"));
    }
    sql.close().await;
    Ok(done)
}

/// The proxy has had its passwords since its first start; what differs since then is mended.
impl Adapter for SetObproxyPasswords {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(set_passwords(host, self, context))
    }
}

async fn set_passwords(host: &Host, step: &SetObproxyPasswords, context: &StepContext) -> Result<Done, StepError> {
    let observer = secret(context, OBSERVER_SYS_PASSWORD)?;
    let mut sql = session(host, step.sql_port, context).await?;
    context.log.line("root@proxysys has its password");
    let known = sql.configuration().await.map_err(|error| login_failed(step.sql_port, error))?;
    let mut done = Done::already();
    if known.get(OBSERVER_SYS_PASSWORD) == Some(proxy_hash(observer).as_str()) {
        context.log.line("proxyro@sys has its password");
    } else {
        let set = sql.set_password(OBSERVER_SYS_PASSWORD, observer).await;
        set.map_err(|error| item_failed(error).leaving(Effect::Unknown))?;
        context.log.line("proxyro@sys: password set");
        done.effect = Effect::Done;
    }
    sql.close().await;
    Ok(done)
}
