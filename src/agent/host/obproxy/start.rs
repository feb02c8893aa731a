//! Starts an obproxy and waits until it serves; stops it and takes its directory away again.
//!
//! The identity (the runs, and whether the directory was there before) is on disk before anything is made. The record in
//! the agent's state leads from a port to the run that serves it, also for later tasks.

use super::{
    super::{
        Host,
        beneath::Directory,
        blocking, durable, own_proxies,
        sockets::{HeldPort, held_ports, listener_pid},
    },
    failure::{dead, directory_failed, read_complaints, unreadable},
    first_start::{self, GRACE},
    launch::{Launcher, items, log, make_directory, make_log_directory, run_user},
    log::{Complaints, LogOfStart},
    record::Record,
    redaction::redact,
    session::{Passwords, login, login_failed, not_in_force},
    sql::{SqlError, same_value},
};
use crate::{
    agent::{
        host::{
            adapter::Adapter,
            checks::processes::user,
            package::{install::find_program, rpm_database::RpmDatabase},
            process::{
                runs,
                supervisor::{RunOutcome, RunState, failed},
            },
        },
        step::{Done, StepContext, StepError, Undoes},
    },
    graph::Effect,
    steps::{ObproxyVersion, StartObproxy, values::Port},
    telemetry::chain,
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

const POLL: Duration = Duration::from_millis(100);
/// A proxy that lets root in listens on all of its ports, or never will.
const METRICS_PATIENCE: Duration = Duration::from_secs(15);
/// Without it there is no listener for RPC (L2).
const RPC_SERVICE: &str = "enable_obproxy_rpc_service";
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
struct Identity {
    run: String,
    /// The run in which the proxy takes its passwords, out of everybody's reach.
    #[serde(default)]
    first: Option<String>,
    /// The run that the record names until it names this one, if both are of the same attempt.
    #[serde(default)]
    recorded: Option<String>,
    /// The directory was there before this operation.
    directory_existed: bool,
    /// Where the log of this start begins.
    #[serde(default)]
    log: LogOfStart,
}

fn read_identity(text: Option<&str>) -> Option<Identity> {
    serde_json::from_str(text?).ok()
}

/// A proxy that was started, on its way to serve.
struct Starting<'a> {
    host: &'a Host,
    step: &'a StartObproxy,
    run: &'a str,
    /// Another operation has started it, and may have let it serve for years.
    of_another: bool,
    passwords: &'a Passwords<'a>,
    log: LogOfStart,
    context: &'a StepContext,
}

impl Adapter for StartObproxy {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(execute(host, self, context))
    }

    fn undo<'a>(
        &'a self,
        host: &'a Host,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(undo(host, self, context, undoes))
    }
}

async fn execute(host: &Host, step: &StartObproxy, context: &StepContext) -> Result<Done, StepError> {
    let earlier = read_identity(context.identity.as_deref());
    let begun = earlier.is_some();
    let started = start(host, step, earlier, context).await;
    // What was begun before the agent's restart is there until somebody has looked.
    started.map_err(|error| if begun { error.else_leaving(Effect::Unknown) } else { error })
}

async fn start(
    host: &Host,
    step: &StartObproxy,
    earlier: Option<Identity>,
    context: &StepContext,
) -> Result<Done, StepError> {
    let dir = host.settings.instance_dir(step.sql_port);
    let passwords = &Passwords::of(context)?;
    if let Some(earlier) = &earlier {
        let log = earlier.log;
        let starting = Starting { host, step, run: &earlier.run, of_another: false, passwords, log, context };
        match host.find(&earlier.run).await? {
            state @ (RunState::Running(_) | RunState::Between) => {
                context.log.line(&format!("obproxy runs{} since before the agent's restart", as_pid(&state)));
                return starting.serve().await.map(|()| Done::made());
            }
            RunState::Ended(outcome) => return Err(starting.dead(&outcome).await),
            RunState::Nothing => context.log.line("obproxy was not started before the agent's restart"),
        }
    }
    let record = Record::read(&host.settings, step.sql_port).map_err(unreadable)?;
    if let Some(record) = &record {
        let state = host.find(&record.run).await?;
        if state.lives() && record.step != *step {
            let (owner, port) = (&record.step.app_name, step.sql_port);
            let text =
                format!("oblet runs the obproxy of {owner} at port {port} with other settings{}", as_pid(&state));
            return Err(port_taken(text, true));
        }
        if state.lives() {
            context.log.line(&format!("obproxy runs already{}", as_pid(&state)));
            let log = LogOfStart::begin(&dir);
            let starting = Starting { host, step, run: &record.run, of_another: true, passwords, log, context };
            return starting.serve().await.map(|()| Done::already());
        }
    }
    // What an agent that died has left in its first start would keep the directory to itself.
    let firsts = [
        earlier.as_ref().and_then(|earlier| earlier.first.as_ref()),
        record.as_ref().and_then(|record| record.first.as_ref()),
    ];
    for first in firsts.into_iter().flatten() {
        let stopped = host.supervisor.stop(&runs::dir(&host.settings, first), GRACE).await;
        stopped.map_err(failed("the end of the first start"))?;
    }
    let held = taken_ports(host, step);
    if !held.is_empty() {
        let own = own_proxies(&*host.supervisor, &host.settings).map_err(unreadable)?;
        let told: Vec<String> = held.iter().map(|port| port.told(&own)).collect();
        return Err(port_taken(told.join("; "), held.iter().any(|port| port.is_of(&own))));
    }
    let exists = Directory::find(&dir).map_err(directory_failed(&dir))?.is_some();
    let directory_existed = earlier.as_ref().map_or(exists, |earlier| earlier.directory_existed);
    let strange = record.as_ref().is_none_or(|record| record.step.app_name != step.app_name);
    if exists && strange && directory_existed {
        return Err(StepError::new(
            "DIRECTORY_TAKEN",
            format!("{} belongs to something else", dir.display()),
            "move that directory away or choose another port, then retry the subtask",
        ));
    }
    let user = run_user(&host.settings)?;
    let program = runs::ask(context, "the start of obproxy", program(host, step)).await?;
    let launcher = Launcher { settings: &host.settings, step, program, user };

    let run = runs::fresh(&host.settings, &context.run_id);
    let first = runs::fresh(&host.settings, &format!("{run}-first"));
    let log = LogOfStart::begin(&dir);
    let of_this_attempt = |run: &String| {
        let runs = earlier.iter().flat_map(|earlier| [Some(&earlier.run), earlier.recorded.as_ref()]);
        runs.flatten().any(|earlier| earlier == run)
    };
    let recorded = record.map(|record| record.run).filter(of_this_attempt);
    let identity = Identity { run: run.clone(), first: Some(first.clone()), recorded, directory_existed, log };
    let identity = serde_json::to_string(&identity).map_err(io::Error::from).map_err(directory_failed(&dir))?;
    context.choose_identity(identity).await?;
    // The record first: whatever of the directory is there after a crash is known to be of this run.
    Record::new(&run, Some(&first), step).write(&host.settings).map_err(unreadable)?;
    let launch = launcher.service();
    let made = make_directory(&dir, user).and_then(|()| make_log_directory(&launch.log));
    made.map_err(directory_failed(&dir)).map_err(|error| error.leaving(Effect::Unknown))?;
    first_start::prepare(host, &launcher, &first, passwords, directory_existed, context).await?;

    context.log.line(&launch.program.display().to_string());
    let run_dir = runs::dir(&host.settings, &run);
    let started = runs::start(&*host.supervisor, &run_dir, &launch, GRACE, context, "the start of obproxy").await;
    started.map_err(|error| error.leaving(Effect::Unknown))?;
    context.confirm_identity().await?;
    Starting { host, step, run: &run, of_another: false, passwords, log, context }.serve().await.map(|()| Done::made())
}

fn as_pid(state: &RunState) -> String {
    match state {
        RunState::Running(process) => format!(" as pid {}", process.pid),
        RunState::Between | RunState::Ended(_) | RunState::Nothing => String::new(),
    }
}

/// A proxy that oblet runs is never to be stopped for another one; its ports stay taken, however often this is retried.
fn port_taken(message: String, by_own_proxy: bool) -> StepError {
    let next_move = if by_own_proxy {
        "roll the task back and choose other ports: a proxy that oblet runs has them"
    } else {
        "stop that process if nothing uses it, then retry the subtask; or roll the task back and choose other ports"
    };
    StepError::new("PORT_TAKEN", message, next_move)
}

/// The port of the metrics listens everywhere, whatever is configured (L3), and so may that for RPC.
fn taken_ports(host: &Host, step: &StartObproxy) -> Vec<HeldPort> {
    let everywhere: Vec<u16> = [step.exporter_port].into_iter().chain(step.rpc_port).map(|port| port.get()).collect();
    let mut held = held_ports(host.settings.listen(), &[step.sql_port.get()]);
    held.extend(held_ports(Ipv4Addr::UNSPECIFIED.into(), &everywhere));
    held
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

/// Who listens on a port of a proxy.
enum Listener {
    /// Or it cannot be told.
    Proxy,
    Stranger(String),
    Nobody,
}

/// What a look at a proxy has shown.
enum Look {
    Serves,
    /// It may come yet.
    Lacks(String),
    Fails(StepError),
}

impl Starting<'_> {
    /// Waits until the proxy serves; if it does not, nothing runs any more of what this operation has started.
    async fn serve(&self) -> Result<(), StepError> {
        let effect = if self.of_another { Effect::None } else { Effect::Done };
        // Also if the supervisor cannot be asked: what was started is there until an undo has looked.
        self.until_it_serves().await.map_err(|error| error.leaving(effect))
    }

    async fn until_it_serves(&self) -> Result<(), StepError> {
        let (host, context) = (self.host, self.context);
        let run_dir = runs::dir(&host.settings, self.run);
        let end = runs::deadline(context);
        let (mut told, mut let_in) = (String::new(), None);
        let error = loop {
            match host.find(self.run).await? {
                RunState::Running(_) | RunState::Between => {}
                RunState::Ended(outcome) => return Err(self.dead(&outcome).await),
                RunState::Nothing => return Err(self.dead(&RunOutcome::Lost).await),
            }
            if context.cancel.is_cancelled() {
                break StepError::canceled("the start of obproxy");
            }
            if Instant::now() >= end {
                break runs::timed_out("the start of obproxy");
            }
            let look = tokio::select! {
                look = self.look(&mut let_in) => look,
                () = context.cancel.cancelled() => continue,
            };
            let lacks = match look {
                Look::Serves => {
                    self.redact_log().await;
                    return host
                        .supervisor
                        .keep(&run_dir)
                        .await
                        .map_err(failed("making obproxy start again by itself"));
                }
                Look::Fails(error) => break error,
                Look::Lacks(what) => what,
            };
            if lacks != told {
                context.log.line(&format!("waiting: {lacks}"));
                told = lacks;
            }
            tokio::select! {
                () = context.cancel.cancelled() => {}
                () = sleep(POLL) => {}
            }
        };
        if self.of_another {
            return Err(error);
        }
        host.supervisor.stop(&run_dir, GRACE).await.map_err(failed("the stop of obproxy"))?;
        Err(error)
    }

    /// `let_in` is when root@proxysys was let in for the first time.
    async fn look(&self, let_in: &mut Option<Instant>) -> Look {
        let (step, address) = (self.step, self.host.settings.reach());
        let known = match login(self.host, step.sql_port, self.run, self.passwords.sys).await {
            Ok(mut sql) => {
                let known = sql.configuration().await;
                sql.close().await;
                known
            }
            Err(error) => Err(error),
        };
        let known = match known {
            Ok(known) => known,
            Err(error @ (SqlError::Refused | SqlError::Stranger(_) | SqlError::Statement(_))) => {
                return Look::Fails(login_failed(step.sql_port, error));
            }
            Err(error @ (SqlError::Late | SqlError::Broken(_))) => return Look::Lacks(chain(&error)),
        };
        let let_in = *let_in.get_or_insert_with(Instant::now);
        if let Some(error) = not_in_force(&items(&self.host.settings, step), &known) {
            return Look::Fails(error);
        }
        let without_rpc = known.get(RPC_SERVICE).is_some_and(|shown| same_value(shown, "false"));
        if let Some(port) = step.rpc_port.filter(|_| !without_rpc) {
            let connected = timeout(CONNECT_DEADLINE, TcpStream::connect(SocketAddr::new(address, port.get()))).await;
            if !matches!(connected, Ok(Ok(_))) {
                return Look::Lacks(format!("the RPC port {port} does not answer"));
            }
        }
        // Asked before the port is: whoever has taken it may keep silent, or answer with metrics of his own.
        let complaints = self.complaints().await;
        if complaints.no_metrics().is_some() {
            match self.listener_on(step.exporter_port).await {
                // It complains of something else.
                Listener::Proxy => {}
                Listener::Nobody => return Look::Fails(no_metrics(step, &complaints, "nobody listens there")),
                Listener::Stranger(who) => {
                    return Look::Fails(no_metrics(step, &complaints, &format!("it is answered by {who}")));
                }
            }
        }
        match self.host.scraper.check(address, step.exporter_port.get()).await {
            Ok(summary) => {
                if let Listener::Stranger(who) = self.listener_on(step.exporter_port).await {
                    return Look::Fails(no_metrics(step, &complaints, &format!("it is answered by {who}")));
                }
                let log = &self.context.log;
                log.line(&format!("port {}: root@proxysys logs in with the cluster's password", step.sql_port));
                log.line(&format!("port {}: {} samples", step.exporter_port, summary.samples));
                if let Some(port) = step.rpc_port.filter(|_| !without_rpc) {
                    log.line(&format!("port {port}: answers"));
                }
                Look::Serves
            }
            Err(error) => {
                if let_in.elapsed() > METRICS_PATIENCE {
                    Look::Fails(no_metrics(step, &complaints, &chain(&error)))
                } else {
                    Look::Lacks(chain(&error))
                }
            }
        }
    }

    async fn listener_on(&self, port: Port) -> Listener {
        let address = self.host.settings.reach();
        let listener = blocking(move || Ok(listener_pid(address, port.get()))).await.ok().flatten();
        let Some(listener) = listener else { return Listener::Nobody };
        match self.host.supervisor.processes(&runs::dir(&self.host.settings, self.run)) {
            Ok(own) if own.iter().all(|process| process.pid != listener) => {
                Listener::Stranger(format!("pid {listener} of {}", user(listener)))
            }
            Ok(_) | Err(_) => Listener::Proxy,
        }
    }

    /// It has printed hashes into its log (D14). What a proxy writes later is found by [`super::restarts`].
    async fn redact_log(&self) {
        redact(&self.host.settings.instance_dir(self.step.sql_port), self.context).await;
    }

    async fn complaints(&self) -> Complaints {
        let dir = self.host.settings.instance_dir(self.step.sql_port);
        read_complaints(&dir, self.log, ObproxyVersion::of(&self.step.package)).await
    }

    async fn dead(&self, outcome: &RunOutcome) -> StepError {
        let settings = &self.host.settings;
        let dir = settings.instance_dir(self.step.sql_port);
        let error = dead(self.step, &dir, &log(settings, self.step.sql_port), self.log, outcome).await;
        if self.of_another { error.leaving(Effect::None) } else { error }
    }
}

fn no_metrics(step: &StartObproxy, complaints: &Complaints, otherwise: &str) -> StepError {
    let port = step.exporter_port;
    let why = complaints.no_metrics().unwrap_or(otherwise);
    StepError::new(
        "METRICS_PORT",
        format!("obproxy serves without metrics: port {port} could not be listened on, or does not answer: {why}"),
        format!("see who listens with ss -ltnp 'sport = :{port}', free the port or choose another one, then retry"),
    )
}

async fn undo(host: &Host, step: &StartObproxy, context: &StepContext, undoes: &[Undoes]) -> Result<Done, StepError> {
    let dir = host.settings.instance_dir(step.sql_port);
    let identities: Vec<Identity> = undoes.iter().filter_map(|undo| read_identity(undo.identity.as_deref())).collect();
    // A retry finds the directory of the attempt before it, so the first attempt says whose it is.
    let made_directory = identities.first().is_some_and(|first| !first.directory_existed);
    let mut done = Done::already();
    let record = Record::read(&host.settings, step.sql_port).map_err(unreadable)?;
    // The journal forgets after its retention. The coordinator still knows that the proxy was started, and the record
    // which run of this very step did it; whose the directory was is not known any more, so it stays.
    let started = identities.is_empty() && undoes.iter().any(|undo| undo.effect == Effect::Done);
    let forgotten = record.as_ref().filter(|record| started && record.step == *step).map(|record| record.run.as_str());
    let runs_of = |identity: &Identity| [Some(identity.run.clone()), identity.first.clone(), identity.recorded.clone()];
    let named: Vec<String> = identities.iter().flat_map(runs_of).flatten().collect();
    for run in named.iter().map(String::as_str).chain(forgotten) {
        let run_dir = runs::dir(&host.settings, run);
        let state = host.find(run).await?;
        if state.lives() {
            context.log.line(&format!("stopping obproxy, which runs{}", as_pid(&state)));
            done.effect = Effect::Done;
        }
        host.supervisor.stop(&run_dir, GRACE).await.map_err(failed("the stop of obproxy"))?;
    }
    let ours = record.is_some_and(|record| named.contains(&record.run));
    if ours && made_directory {
        if Directory::find(&dir).map_err(directory_failed(&dir))?.is_some() {
            context.log.line(&format!("removing {}", dir.display()));
            // Its logs may be many gigabytes, and the agent has one thread for everything else.
            let gone = dir.clone();
            blocking(move || remove_directory(&gone).map_err(directory_failed(&gone))).await?;
            done.effect = Effect::Done;
        }
        durable::remove(&log(&host.settings, step.sql_port)).map_err(directory_failed(&dir))?;
        Record::remove(&host.settings, step.sql_port).map_err(unreadable)?;
    }
    for run in &named {
        if let Err(error) = runs::forget(&host.settings, run) {
            tracing::warn!(run, %error, "the files of a run could not be removed");
        }
    }
    if done.effect == Effect::None {
        context.log.line("this operation left nothing running");
    }
    Ok(done)
}

fn remove_directory(dir: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return Ok(()) };
    match Directory::find(parent)? {
        Some(parent) => parent.remove(Path::new(name)),
        None => Ok(()),
    }
}
