//! The first start of a proxy, in a network of its own.
//!
//! The password that is built into obproxy is known to nobody here, and the only way to give it another one is a hash on
//! its command line, which every user of the host can read and log in with (A4, A11). So the proxy is started once where
//! nobody can reach it, with a password that is used this one time; it is told its passwords and items over SQL, keeps them
//! in its own configuration, and ends. From then on it is started without any arguments.
//!
//!  1. Each start by a step begins with this one, so no proxy that can be reached has other passwords than its cluster's.
//!  2. What is broken off leaves a configuration that the next try overrules: the arguments win over it (D10).
//!  3. What the proxy writes to its logs from the first password on is removed whatever happens: nobody knows what of the
//!     statements it holds. A proxy that ends before that keeps its log, which says why.

use super::{
    super::{Host, blocking},
    earlier_logs::EarlierLogs,
    failure::{dead, directory_failed},
    launch::{Launcher, items},
    log::LogOfStart,
    redaction::redact,
    session::{Passwords, item_failed},
    sql::{ProxySql, SqlError},
};
use crate::{
    agent::{
        host::process::{
            runs,
            secluded::Door,
            supervisor::{RunState, failed},
        },
        step::{StepContext, StepError},
    },
    graph::Effect,
    steps::{OBPROXY_SYS_PASSWORD, OBSERVER_SYS_PASSWORD, StartObproxy},
};
use std::{io, path::Path, time::Duration};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

/// obproxy ends within a moment of SIGTERM (X1); after this it is killed.
pub(super) const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
const WHAT: &str = "the first start of obproxy";

/// Brings passwords and items into the configuration that the proxy keeps. The run of this name is over at the end,
/// whatever happened.
pub(super) async fn prepare(
    host: &Host,
    launcher: &Launcher<'_>,
    run: &str,
    passwords: &Passwords<'_>,
    directory_existed: bool,
    context: &StepContext,
) -> Result<(), StepError> {
    let run_dir = runs::dir(&host.settings, run);
    let dir = host.settings.instance_dir(launcher.step.sql_port);
    let log = LogOfStart::begin(&dir);
    let earlier_logs = if directory_existed { EarlierLogs::of(&dir) } else { Ok(EarlierLogs::default()) };
    let earlier_logs = earlier_logs.map_err(directory_failed(&dir))?;
    let mut passwords_told = false;
    let one_time = one_time_password().map_err(failed(WHAT))?;
    let launch = launcher.first(&one_time, run_dir.join("out"));
    context
        .log
        .line("first start, in a network of its own: passwords and parameters are set before anybody can log in");
    let told = async {
        runs::start(&*host.supervisor, &run_dir, &launch, GRACE, context, WHAT).await?;
        let mut sql = first_login(host, launcher.step, run, &one_time, log, &dir, context).await?;
        passwords_told = true;
        let mut told = tell(&mut sql, host, launcher, passwords, context).await;
        sql.close().await;
        if told.is_ok() {
            told = verify(&run_dir, &one_time, passwords).await;
        }
        told
    };
    let told = told.await.map_err(|error| error.leaving(Effect::Unknown));
    let stopped = host.supervisor.stop(&run_dir, GRACE).await.map_err(failed("the end of the first start"));
    let cleared = if passwords_told {
        let place = dir.clone();
        blocking(move || earlier_logs.restore(&place).map_err(failed(WHAT))).await
    } else {
        redact(&dir, context).await;
        Ok(())
    };
    told?;
    stopped.and(cleared).map_err(|error| error.leaving(Effect::Unknown))?;
    context.log.line("passwords and parameters are set, and the proxy has kept them");
    Ok(())
}

fn one_time_password() -> io::Result<Zeroizing<String>> {
    use ring::rand::SecureRandom as _;
    let mut random = Zeroizing::new([0_u8; 24]);
    let filled = ring::rand::SystemRandom::new().fill(random.as_mut());
    filled.map_err(|_| io::Error::other("the kernel gave no random bytes"))?;
    Ok(Zeroizing::new(crate::agent::host::package::content::hex(random.as_ref())))
}

async fn first_login(
    host: &Host,
    step: &StartObproxy,
    run: &str,
    one_time: &str,
    log: LogOfStart,
    dir: &Path,
    context: &StepContext,
) -> Result<ProxySql, StepError> {
    let run_dir = runs::dir(&host.settings, run);
    let door = Door::of(&run_dir).map_err(failed(WHAT))?;
    let end = runs::deadline(context);
    loop {
        match host.find(run).await? {
            RunState::Running(_) | RunState::Between => {}
            RunState::Ended(outcome) => {
                return Err(dead(step, dir, &run_dir.join("out"), log, &outcome).await);
            }
            RunState::Nothing => return Err(failed(WHAT)(io::Error::other("the run was given up"))),
        }
        if context.cancel.is_cancelled() {
            return Err(StepError::canceled(WHAT));
        }
        match ProxySql::login_secluded(&door.path(), one_time).await {
            Ok(sql) => return Ok(sql),
            Err(SqlError::Refused) => {
                return Err(StepError::new(
                    "PASSWORD_NOT_TAKEN",
                    "this obproxy does not take the password of root@proxysys from its first start",
                    "report its version: oblet cannot manage it; choose another one",
                ));
            }
            // Nobody listens yet.
            Err(_) if Instant::now() < end => {}
            Err(error) => return Err(runs::timed_out(WHAT).because(error)),
        }
        tokio::select! {
            () = context.cancel.cancelled() => {}
            () = sleep(POLL) => {}
        }
    }
}

async fn tell(
    sql: &mut ProxySql,
    host: &Host,
    launcher: &Launcher<'_>,
    passwords: &Passwords<'_>,
    context: &StepContext,
) -> Result<(), StepError> {
    for (name, value) in items(&host.settings, launcher.step) {
        if context.cancel.is_cancelled() {
            return Err(StepError::canceled(WHAT));
        }
        sql.set_item(&name, &value).await.map_err(item_failed)?;
        context.log.line(&format!("{name} set"));
    }
    sql.set_password(OBSERVER_SYS_PASSWORD, passwords.observer).await.map_err(item_failed)?;
    // The last one: from here on the one-time password opens nothing.
    sql.set_password(OBPROXY_SYS_PASSWORD, passwords.sys).await.map_err(item_failed)
}

/// The password of the cluster opens the proxy, and the one of this start does not any more.
async fn verify(run_dir: &Path, one_time: &str, passwords: &Passwords<'_>) -> Result<(), StepError> {
    let door = Door::of(run_dir).map_err(failed(WHAT))?;
    let failed = |message: &'static str| {
        move |error: SqlError| {
            StepError::new(
                "PASSWORD_NOT_SET",
                message,
                "choose another password for the cluster, or report this version",
            )
            .because(error)
        }
    };
    let sql = ProxySql::login_secluded(&door.path(), passwords.sys).await;
    sql.map_err(failed("the login with the password just set failed"))?.close().await;
    match ProxySql::login_secluded(&door.path(), one_time).await {
        Err(SqlError::Refused) => Ok(()),
        Ok(_) => Err(failed("the proxy still takes the password of its first start")(SqlError::Refused)),
        Err(error) => Err(failed("the proxy ended before its passwords could be tried")(error)),
    }
}
