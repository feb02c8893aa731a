//! Starts an obproxy and waits until it serves; stops it and takes its directory away again.
//!
//! The identity (the run, and whether the directory was there before) is on disk before anything is made. The marker in
//! the instance's directory leads from a port to the run that serves it, also for later tasks.

use super::{
    super::{
        Host, blocking, durable,
        install_package::find_program,
        rpm_database::RpmDatabase,
        runs,
        sockets::held_ports,
        supervisor::{RunOutcome, RunState, failed},
    },
    config::passwords,
    launch::{Marker, is_bare, launch, log, make_directory, make_log_directory, run_user},
    sql::{Login, Passwords, ProxySql, SqlError},
};
use crate::{
    agent::step::{Done, StepContext, StepError, Undoes},
    graph::Effect,
    steps::{OBSERVER_SYS_PASSWORD, StartObproxy},
};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// obproxy ends within a moment of SIGTERM; after this it is killed.
const GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const TAIL_LINES: usize = 10;
const TAIL_BYTES: u64 = 16 << 10;

#[derive(Serialize, Deserialize)]
struct Identity {
    run: String,
    /// The directory was there before this operation.
    directory_existed: bool,
}

fn read_identity(text: Option<&str>) -> Option<Identity> {
    serde_json::from_str(text?).ok()
}

fn directory_failed(dir: &Path) -> impl Fn(io::Error) -> StepError + use<> {
    let message = format!("the directory {} could not be used", dir.display());
    move |error| {
        let next_move = "look at its owner, its mode and the free space, then retry the subtask";
        StepError::new("DIRECTORY", message.clone(), next_move).because(error)
    }
}

pub(in crate::agent::host) async fn execute(
    host: &Host,
    step: &StartObproxy,
    context: &StepContext,
) -> Result<Done, StepError> {
    let dir = host.settings.instance_dir(step.sql_port);
    let passwords = passwords(host, context)?;
    let earlier = read_identity(context.identity.as_deref());
    if let Some(earlier) = &earlier {
        match host.find(&earlier.run).await? {
            state @ (RunState::Running(_) | RunState::Between) => {
                context.log.line(&format!("obproxy runs{} since before the agent's restart", as_pid(&state)));
                return serve(host, step, &earlier.run, &passwords, context).await.map(|()| Done::made());
            }
            RunState::Ended(outcome) => return Err(dead(host, step, &outcome)),
            RunState::Nothing => context.log.line("obproxy was not started before the agent's restart"),
        }
    }
    let marker = Marker::read(&dir).map_err(directory_failed(&dir))?;
    if let Some(marker) = &marker {
        let state = host.find(&marker.run).await?;
        if state.lives() && marker.step != *step {
            let (owner, port) = (&marker.step.app_name, step.sql_port);
            return Err(port_taken(format!(
                "port {port} is held by an obproxy of {owner} with other settings{}",
                as_pid(&state)
            )));
        }
        if state.lives() {
            context.log.line(&format!("obproxy runs already{}", as_pid(&state)));
            return serve(host, step, &marker.run, &passwords, context).await.map(|()| Done::already());
        }
    }
    let held = held_ports(host.settings.listen(), &[step.sql_port.get(), step.exporter_port.get()]);
    if !held.is_empty() {
        return Err(port_taken(held.join("; ")));
    }
    let strange = dir.exists() && marker.is_none_or(|marker| marker.step.app_name != step.app_name);
    let directory_existed = earlier.as_ref().map_or_else(|| dir.exists(), |earlier| earlier.directory_existed);
    if strange && directory_existed {
        return Err(StepError::new(
            "DIRECTORY_TAKEN",
            format!("{} belongs to something else", dir.display()),
            "move that directory away or choose another port, then retry the subtask",
        ));
    }
    let user = run_user(&host.settings)?;
    let program = runs::ask(context, "the start of obproxy", program(host, step)).await?;
    let launch = launch(&host.settings, step, program, user, context.secrets.get(OBSERVER_SYS_PASSWORD))?;

    let run = runs::fresh(&host.settings, &context.run_id);
    let identity = serde_json::to_string(&Identity { run: run.clone(), directory_existed });
    context.choose_identity(identity.map_err(io::Error::from).map_err(directory_failed(&dir))?).await?;
    let made = make_log_directory(&launch.log).and_then(|()| make_directory(&dir, user));
    let made = made.and_then(|()| Marker::of(&run, step).write(&dir));
    made.map_err(directory_failed(&dir)).map_err(|error| error.leaving(Effect::Unknown))?;
    context.log.line(&format!("{} {}", launch.program.display(), launch.arguments.join(" ")));
    let run_dir = runs::dir(&host.settings, &run);
    let started = runs::start(&*host.supervisor, &run_dir, &launch, GRACE, context, "the start of obproxy").await;
    started.map_err(|error| error.leaving(Effect::Unknown))?;
    context.confirm_identity().await?;
    serve(host, step, &run, &passwords, context).await.map(|()| Done::made())
}

fn as_pid(state: &RunState) -> String {
    match state {
        RunState::Running(process) => format!(" as pid {}", process.pid),
        RunState::Between | RunState::Ended(_) | RunState::Nothing => String::new(),
    }
}

fn port_taken(message: String) -> StepError {
    StepError::new("PORT_TAKEN", message, "stop that process or choose other ports, then retry the subtask")
}

async fn program(host: &Host, step: &StartObproxy) -> Result<PathBuf, StepError> {
    let database = RpmDatabase::open(&host.settings).await?;
    let missing = |message| StepError::new("NOT_INSTALLED", message, "install the package, then retry the subtask");
    if !database.has(&step.package).await? {
        return Err(missing(format!("{} is not installed", step.package)));
    }
    let files = database.files(&step.package).await?;
    find_program(&files, &["obproxy"]).ok_or_else(|| missing(format!("{} has no bin/obproxy", step.package)))
}

/// Waits until both ports answer; on cancel and timeout the proxy is stopped first.
async fn serve(
    host: &Host,
    step: &StartObproxy,
    run: &str,
    passwords: &Passwords,
    context: &StepContext,
) -> Result<(), StepError> {
    let run_dir = runs::dir(&host.settings, run);
    let end = runs::deadline(context);
    let mut told = String::new();
    loop {
        match host.find(run).await? {
            RunState::Running(_) | RunState::Between => {}
            RunState::Ended(outcome) => return Err(dead(host, step, &outcome)),
            RunState::Nothing => return Err(dead(host, step, &RunOutcome::Lost)),
        }
        let late = Instant::now() >= end;
        if late || context.cancel.is_cancelled() {
            host.supervisor.stop(&run_dir, GRACE).await.map_err(failed("the stop of obproxy"))?;
            let error = if late {
                runs::timed_out("the start of obproxy")
            } else {
                StepError::canceled("the start of obproxy")
            };
            return Err(error.leaving(Effect::Done));
        }
        let waits_for = tokio::select! {
            answer = missing(host, step, passwords, context) => answer,
            () = context.cancel.cancelled() => continue,
        };
        let Some(waits_for) = waits_for else {
            return host.supervisor.keep(&run_dir).await.map_err(failed("making obproxy start again by itself"));
        };
        if waits_for != told {
            context.log.line(&format!("waiting: {waits_for}"));
            told = waits_for;
        }
        tokio::select! {
            () = context.cancel.cancelled() => {}
            () = sleep(POLL) => {}
        }
    }
}

/// What the proxy still lacks; none when it serves.
async fn missing(host: &Host, step: &StartObproxy, passwords: &Passwords, context: &StepContext) -> Option<String> {
    let address = host.settings.reach();
    let login = match ProxySql::login_any(address, step.sql_port.get(), passwords).await {
        Ok((sql, by)) => {
            sql.close().await;
            match by {
                Login::Cluster => "login of root@proxysys with the cluster's password",
                Login::BuiltIn => "login of root@proxysys with the built-in password",
            }
        }
        // Whoever refuses a login answers logins.
        Err(SqlError::Refused) => "the login port answers; it refuses both known passwords of root@proxysys",
        Err(error) => return Some(chain(&error)),
    };
    match host.scraper.check(address, step.exporter_port.get()).await {
        Ok(summary) => {
            context.log.line(&format!("port {}: {login}", step.sql_port));
            context.log.line(&format!("port {}: {} samples", step.exporter_port, summary.samples));
            None
        }
        Err(error) => Some(chain(&error)),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn dead(host: &Host, step: &StartObproxy, outcome: &RunOutcome) -> StepError {
    let said = log(&host.settings, step.sql_port);
    let dir = host.settings.instance_dir(step.sql_port);
    let lines = tail(&said).unwrap_or_default();
    let words = if lines.is_empty() { "it wrote nothing".into() } else { lines.join(" | ") };
    outcome.mark(
        StepError::new(
            "DEAD_ON_ARRIVAL",
            format!("obproxy ended before it served, {outcome}: {words}"),
            format!(
                "read {} and {}, remove the cause, then retry the subtask",
                said.display(),
                dir.join("log").display()
            ),
        )
        .leaving(Effect::Done),
    )
}

fn tail(path: &Path) -> io::Result<Vec<String>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<String> = text.lines().rev().take(TAIL_LINES).map(String::from).collect();
    lines.reverse();
    Ok(lines)
}

pub(in crate::agent::host) async fn undo(
    host: &Host,
    step: &StartObproxy,
    context: &StepContext,
    undoes: &[Undoes],
) -> Result<Done, StepError> {
    let dir = host.settings.instance_dir(step.sql_port);
    let identities: Vec<Identity> = undoes.iter().filter_map(|undo| read_identity(undo.identity.as_deref())).collect();
    // A retry finds the directory of the attempt before it, so the first attempt says whose it is.
    let made_directory = identities.first().is_some_and(|first| !first.directory_existed);
    let mut done = Done::already();
    let marker = Marker::read(&dir).map_err(directory_failed(&dir))?;
    // The journal forgets after its retention. The coordinator still knows that the proxy was started, and the marker
    // which run of this very step did it; whose the directory was is not known any more, so it stays.
    let started = identities.is_empty() && undoes.iter().any(|undo| undo.effect == Effect::Done);
    let forgotten = marker.as_ref().filter(|marker| started && marker.step == *step).map(|marker| marker.run.as_str());
    for run in identities.iter().map(|identity| identity.run.as_str()).chain(forgotten) {
        let run_dir = runs::dir(&host.settings, run);
        let state = host.find(run).await?;
        if state.lives() {
            context.log.line(&format!("stopping obproxy, which runs{}", as_pid(&state)));
            done.effect = Effect::Done;
        }
        host.supervisor.stop(&run_dir, GRACE).await.map_err(failed("the stop of obproxy"))?;
    }
    let ours = match marker {
        Some(marker) => identities.iter().any(|identity| identity.run == marker.run),
        // A crash between the directory and its marker.
        None => !identities.is_empty() && dir.exists() && is_bare(&dir).map_err(directory_failed(&dir))?,
    };
    if ours && made_directory && dir.exists() {
        context.log.line(&format!("removing {}", dir.display()));
        // Its logs may be many gigabytes, and the agent has one thread for everything else.
        let gone = dir.clone();
        blocking(move || std::fs::remove_dir_all(&gone).map_err(directory_failed(&gone))).await?;
        durable::remove(&log(&host.settings, step.sql_port)).map_err(directory_failed(&dir))?;
        done.effect = Effect::Done;
    }
    for identity in &identities {
        if let Err(error) = runs::forget(&host.settings, &identity.run) {
            tracing::warn!(run = identity.run, %error, "the files of a run could not be removed");
        }
    }
    if done.effect == Effect::None {
        context.log.line("this operation left nothing running");
    }
    Ok(done)
}
