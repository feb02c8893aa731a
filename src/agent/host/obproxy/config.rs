//! Configuration items and passwords of a running obproxy.

use super::{
    super::Host,
    failure::unreadable,
    record::Record,
    redaction::redact,
    session::{item_failed, login, login_failed, secret},
    sql::{ItemError, ProxySql, SqlError, proxy_hash, same_value},
};
use crate::{
    agent::{
        host::{adapter::Adapter, process::runs},
        step::{Done, StepContext, StepError},
    },
    graph::Effect,
    steps::{OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD, SetObproxyPasswords, SyncObproxyParameters, values::Port},
    telemetry::chain,
};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::time::sleep;

/// A host may be too busy for some seconds to let its proxy answer.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

async fn session(host: &Host, port: Port, context: &StepContext) -> Result<ProxySql, StepError> {
    let password = secret(context, OBPROXY_SYS_PASSWORD)?;
    let record = Record::read(&host.settings, port).map_err(unreadable)?.ok_or_else(|| {
        let next_move = "start it by a task first, then retry the subtask";
        StepError::new("NOT_STARTED", format!("this agent did not start an obproxy on port {port}"), next_move)
    })?;
    let login = async {
        for _ in 1..TRIES {
            match login(host, port, &record.run, password).await {
                Err(error @ (SqlError::Late | SqlError::Broken(_))) => {
                    context.log.line(&format!("the proxy does not answer, asking again: {}", chain(&error)));
                    sleep(PAUSE).await;
                }
                result => return result.map_err(|error| login_failed(port, error)),
            }
        }
        login(host, port, &record.run, password).await.map_err(|error| login_failed(port, error))
    };
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
    // Where the proxy logs much, it logs the hash of what it is told (A19), also if it refuses it.
    let dir = host.settings.instance_dir(step.sql_port);
    if known.get(OBSERVER_SYS_PASSWORD) == Some(proxy_hash(observer).as_str()) {
        context.log.line("proxyro@sys has its password");
        // It may be from this very step, and the agent may have died before it looked at the log.
        redact(&dir, context).await;
    } else {
        let set = sql.set_password(OBSERVER_SYS_PASSWORD, observer).await;
        redact(&dir, context).await;
        set.map_err(|error| item_failed(error).leaving(Effect::Unknown))?;
        context.log.line("proxyro@sys: password set");
        done.effect = Effect::Done;
    }
    sql.close().await;
    Ok(done)
}
