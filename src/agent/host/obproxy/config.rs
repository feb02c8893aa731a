//! Configuration items and passwords of a running obproxy.

use super::{
    super::{Host, package_file, runs},
    sql::{Login, Passwords, ProxySql, SqlError},
};
use crate::{
    agent::step::{Done, StepContext, StepError},
    graph::Effect,
    steps::{OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD, SetObproxyPasswords, SyncObproxyParameters, values::Port},
};
use sha1::{Digest as _, Sha1};

pub(super) fn passwords(host: &Host, context: &StepContext) -> Result<Passwords, StepError> {
    let built_in = host.settings.builtin_sys_password_file.as_deref();
    Passwords::read(context.secrets.get(OBPROXY_SYS_PASSWORD), built_in)
}

/// obproxy keeps a password as SHA-1 in hexadecimal.
pub(super) fn proxy_hash(password: &str) -> String {
    package_file::hex(&Sha1::digest(password.as_bytes()))
}

fn sql_failed(port: Port, what: &str) -> impl Fn(SqlError) -> StepError + use<> {
    let message = format!("{what} through port {port} failed");
    move |error| {
        let next_move = match error {
            SqlError::Refused => {
                "give the task the password that root@proxysys has on this proxy, then retry the subtask"
            }
            SqlError::Statement(_) => {
                "look the error code up in the proxy's log, correct the value, then retry the subtask"
            }
            SqlError::Late | SqlError::Broken(_) => {
                "see whether the proxy runs and answers on this port, then retry the subtask"
            }
        };
        StepError::new("PROXY_SQL", message.clone(), next_move).because(error)
    }
}

async fn login(host: &Host, port: Port, context: &StepContext) -> Result<(ProxySql, Login), StepError> {
    let passwords = passwords(host, context)?;
    let what = "the login of root@proxysys";
    let login = ProxySql::login_any(host.settings.reach(), port.get(), &passwords);
    runs::ask(context, what, async { login.await.map_err(sql_failed(port, what)) }).await
}

pub(in crate::agent::host) async fn sync(
    host: &Host,
    step: &SyncObproxyParameters,
    context: &StepContext,
) -> Result<Done, StepError> {
    if step.parameters.is_empty() {
        return Ok(Done::already());
    }
    let (mut sql, _) = login(host, step.sql_port, context).await?;
    let mut done = Done::already();
    for parameter in &step.parameters {
        let (name, wanted) = (parameter.name.as_str(), parameter.value.as_str());
        if context.cancel.is_cancelled() {
            return Err(StepError::canceled("the change of parameters").leaving(done.effect));
        }
        let failed = sql_failed(step.sql_port, &format!("the change of {name}"));
        let before = sql.item(name).await.map_err(&failed).map_err(|error| error.leaving(done.effect))?;
        let Some(before) = before else {
            return Err(StepError::new(
                "PARAMETER_UNKNOWN",
                format!("this version of obproxy has no parameter {name}"),
                "take the parameter out of the request or choose another version, then retry the subtask",
            )
            .leaving(done.effect));
        };
        if same_value(&before, wanted) {
            context.log.line(&format!("{name} is as wanted"));
            continue;
        }
        sql.set_item(name, wanted).await.map_err(&failed).map_err(|error| error.leaving(Effect::Unknown))?;
        done.effect = Effect::Done;
        let after = sql.item(name).await.map_err(&failed).map_err(|error| error.leaving(Effect::Done))?;
        if !after.as_deref().is_some_and(|after| same_value(after, wanted)) {
            return Err(StepError::new(
                "PARAMETER_NOT_SET",
                format!("{name} reads differently after it was set"),
                "see SHOW PROXYCONFIG on the proxy for the allowed range, correct the value, then retry the subtask",
            )
            .leaving(Effect::Done));
        }
        context.log.line(&format!("{name} set"));
    }
    sql.close().await;
    Ok(done)
}

/// obproxy prints `True` for `true` and `2GB` for `2G`.
fn same_value(left: &str, right: &str) -> bool {
    let plain = |text: &str| {
        let text = text.trim().to_ascii_lowercase();
        match text.strip_suffix('b') {
            Some(number) if number.ends_with(['k', 'm', 'g', 't']) => number.to_owned(),
            _ => text,
        }
    };
    plain(left) == plain(right)
}

pub(in crate::agent::host) async fn set_passwords(
    host: &Host,
    step: &SetObproxyPasswords,
    context: &StepContext,
) -> Result<Done, StepError> {
    let secret = |name| {
        context.secrets.get(name).ok_or_else(|| {
            StepError::new(
                "SECRET_MISSING",
                format!("the secret {name} did not come with the step"),
                "start the task again",
            )
        })
    };
    let (sys, observer) = (secret(OBPROXY_SYS_PASSWORD)?, secret(OBSERVER_SYS_PASSWORD)?);
    let (mut sql, by) = login(host, step.sql_port, context).await?;
    let failed = |what: &'static str| sql_failed(step.sql_port, what);
    let mut done = Done::already();
    let known = sql.item(OBSERVER_SYS_PASSWORD).await.map_err(failed("the reading of the configuration"))?;
    if known.as_deref() == Some(proxy_hash(observer).as_str()) {
        context.log.line("proxyro@sys has its password");
    } else {
        // Plain text: the proxy hashes what comes by SQL.
        let set = sql.set_item(OBSERVER_SYS_PASSWORD, observer).await;
        set.map_err(failed("the change of proxyro's password")).map_err(|error| error.leaving(Effect::Unknown))?;
        context.log.line("proxyro@sys: password set");
        done.effect = Effect::Done;
    }
    match by {
        Login::Cluster => context.log.line("root@proxysys has its password"),
        Login::BuiltIn => {
            let set = sql.set_item(OBPROXY_SYS_PASSWORD, sys).await;
            set.map_err(failed("the change of root's password")).map_err(|error| error.leaving(Effect::Unknown))?;
            let check = ProxySql::login(host.settings.reach(), step.sql_port.get(), sys).await;
            let check = check.map_err(failed("the login with the password just set"));
            check.map_err(|error| error.leaving(Effect::Done))?.close().await;
            context.log.line("root@proxysys: password set, login verified");
            done.effect = Effect::Done;
        }
    }
    sql.close().await;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_of_obproxy() {
        assert_eq!(proxy_hash("123456"), "7c4a8d09ca3762af61e59520943dc26494f8941b");
    }

    #[test]
    fn values_are_compared_as_the_proxy_prints_them() {
        assert!(same_value("True", "true") && same_value("2GB", "2g") && same_value("64", " 64"));
        assert!(!same_value("2G", "3G") && !same_value("b", ""));
    }
}
