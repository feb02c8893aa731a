//! One round: a fresh lab, a task, blows, everything back up, the task driven to its end, and the checks.

use super::{
    check::{self, Installations},
    operator::{Operator, Violation, tell},
    plan::{Blow, Fault, How, Round, Scenario, Victim},
};
use crate::lab::{Host, Lab, SQL_PORT, command_lines};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Phase of the tasks at the moment of a blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Executing,
    RollingBack,
    AtRest,
}

/// A blow that fell.
pub(super) struct Strike {
    pub(super) blow: String,
    pub(super) kind: String,
    pub(super) at: Duration,
    pub(super) phase: Phase,
    /// What ran, in words.
    pub(super) ran: String,
}

#[derive(Default)]
pub(super) struct Report {
    pub(super) strikes: Vec<Strike>,
    /// How each task ended.
    pub(super) outcomes: Vec<String>,
    /// From the return of the last victim until all tasks were at rest.
    pub(super) recovery: Duration,
    pub(super) violations: Vec<Violation>,
    /// Logs and stores, kept if something was violated.
    pub(super) kept: Option<PathBuf>,
}

pub(super) async fn play(round: &Round, package: &Path) -> Report {
    let mut lab = Lab::start(2).await;
    let parameters = match round.faults[0] {
        Some(Fault::Parameter) => json!([{"name": "no_such_parameter", "value": "1"}]),
        Some(Fault::Directory | Fault::Scriptlet) | None => json!([]),
    };
    let cluster = lab.set_up_with(package, json!({ "parameters": parameters })).await;
    for (host, fault) in lab.hosts.iter().zip(round.faults) {
        inject(host, fault);
    }
    let operator = Operator { rest: lab.rest().clone(), cluster, batches: lab.batch_add_bodies() };
    let mut report = Report::default();
    if let Err(violation) = drive(round, &mut lab, &operator, &mut report).await {
        report.violations.push(violation);
    }
    report.violations.extend(ended(&mut lab));
    if !report.violations.is_empty() {
        report.kept = Some(lab.keep());
    }
    report
}

async fn drive(round: &Round, lab: &mut Lab, operator: &Operator, report: &mut Report) -> Result<(), Violation> {
    let mut ids = Vec::new();
    if matches!(round.scenario, Scenario::Rollback | Scenario::Retry) {
        ids = operator.batch_add("first").await?;
        for (id, fault) in ids.iter().zip(round.faults) {
            let task = operator.rest_of(*id).await?;
            let expected = if fault.is_some() { "FAILED" } else { "SUCCESSFUL" };
            require(task["status"] == expected, || format!("expected {expected}: {}", tell(&task)))?;
        }
    }
    if round.scenario == Scenario::Retry {
        lab.hosts.iter().zip(round.faults).for_each(|(host, fault)| mend(host, fault));
    }

    let begin = Instant::now();
    let (acted, back) =
        tokio::join!(act(round, operator, ids, begin), strike(lab, operator, &round.blows, begin, &mut report.strikes));
    let ids = acted?;
    for id in &ids {
        operator.rest_of(*id).await?;
    }
    report.recovery = Instant::now().saturating_duration_since(back);

    let mut rolled_back = Vec::new();
    let mut attempts = Vec::new();
    for id in &ids {
        let task = settle(round, operator, *id).await?;
        report.outcomes.push(format!("{} {}", text(&task["operation"]), text(&task["status"])));
        rolled_back.push(task["operation"] == "ROLLBACK");
        attempts.push(installation_attempts(&task));
    }
    for (index, host) in lab.hosts.iter().enumerate() {
        let installed = !rolled_back[index];
        let expected = round.faults[index].is_some() && round.scenario == Scenario::Rollback;
        let free = matches!(round.scenario, Scenario::Cancel(_));
        require(free || installed != expected, || format!("host {} has the wrong end", host.address))?;
        let installations =
            if round.is_loose() { Installations::AtMost(attempts[index]) } else { Installations::Exactly(1) };
        report.violations.extend(check::host(host, installed, installations).await);
        report.violations.extend(check::coordinator(operator, host, installed).await?);
        let strange = expected && round.faults[index] == Some(Fault::Directory);
        if strange && !check::is_strange(&instance_directory(host)) {
            report.violations.push(format!("the rollback on {} removed what was not its own", host.address));
        }
    }
    if round.again && rolled_back == [true, true] && round.faults[0] != Some(Fault::Parameter) {
        lab.hosts.iter().zip(round.faults).for_each(|(host, fault)| mend(host, fault));
        for id in operator.batch_add("second").await? {
            let task = operator.rest_of(id).await?;
            require(task["status"] == "SUCCESSFUL", || format!("once more: {}", tell(&task)))?;
        }
        for (host, before) in lab.hosts.iter().zip(attempts) {
            report.violations.extend(check::host(host, true, Installations::AtMost(before + 1)).await);
        }
    }
    Ok(())
}

impl Round {
    /// Whether a step may have to run once more because it was stopped in the middle from outside.
    fn is_loose(&self) -> bool {
        matches!(self.scenario, Scenario::Cancel(_)) || self.kills_shims()
    }

    /// The outcome of a program whose shim is killed is lost; its step may fail by that.
    fn kills_shims(&self) -> bool {
        self.blows.iter().any(|blow| blow.how == How::KillWithShims)
    }
}

/// What the operator does while the blows fall; answers the tasks.
async fn act(round: &Round, operator: &Operator, ids: Vec<i64>, begin: Instant) -> Result<Vec<i64>, Violation> {
    match round.scenario {
        Scenario::Install => operator.batch_add("first").await,
        Scenario::Cancel(after) => {
            let ids = operator.batch_add("first").await?;
            sleep_until(begin + after).await;
            operator.cancel(ids[0]).await?;
            operator.cancel_subtasks(ids[1]).await?;
            Ok(ids)
        }
        Scenario::Rollback | Scenario::Retry => {
            let decision = if round.scenario == Scenario::Retry { "retry" } else { "rollback" };
            for (id, fault) in ids.iter().zip(round.faults) {
                if fault.is_some() {
                    operator.decide(*id, decision).await?;
                }
            }
            Ok(ids)
        }
    }
}

/// Lets the blows fall; answers when the last victim came back.
async fn strike(
    lab: &mut Lab,
    operator: &Operator,
    blows: &[Blow],
    begin: Instant,
    strikes: &mut Vec<Strike>,
) -> Instant {
    let mut back = begin;
    for blow in blows {
        sleep_until(back + blow.after).await;
        let (phase, ran) = under_way(operator).await;
        let at = begin.elapsed();
        strikes.push(Strike { blow: blow.to_string(), kind: blow.kind(), at, phase, ran });
        for victim in &blow.victims {
            fell(lab, *victim, blow.how);
        }
        sleep(blow.outage).await;
        for victim in &blow.victims {
            raise(lab, *victim, blow.how);
        }
        back = Instant::now();
    }
    back
}

fn fell(lab: &mut Lab, victim: Victim, how: How) {
    let process = match victim {
        Victim::Agent(index) => lab.hosts[index].agent.as_mut().unwrap(),
        Victim::Coordinator => lab.coordinator.as_mut().unwrap(),
    };
    match how {
        How::Pause => process.pause(),
        How::Kill | How::KillWithShims => process.kill(),
    }
    if let (How::KillWithShims, Victim::Agent(index)) = (how, victim) {
        let runs = lab.hosts[index].directory.join("state/runs").display().to_string();
        for (pid, line) in command_lines() {
            let run = line.trim_end().rsplit(' ').next().unwrap_or_default();
            let is_shim = line.starts_with("oblet-agent shim") && run.starts_with(&runs);
            // That of a service that serves stands in for a service manager, and obproxy goes with it (C12).
            if is_shim && !Path::new(run).join("kept").exists() {
                // It may have ended by itself.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
        }
    }
}

fn raise(lab: &mut Lab, victim: Victim, how: How) {
    match (how, victim) {
        (How::Pause, Victim::Agent(index)) => lab.hosts[index].agent.as_ref().unwrap().resume(),
        (How::Pause, Victim::Coordinator) => lab.coordinator.as_ref().unwrap().resume(),
        (How::Kill | How::KillWithShims, Victim::Agent(index)) => lab.hosts[index].start_agent(),
        (How::Kill | How::KillWithShims, Victim::Coordinator) => lab.start_coordinator(),
    }
}

/// What the newest two tasks do at this moment, if the coordinator tells at once.
async fn under_way(operator: &Operator) -> (Phase, String) {
    let look = async {
        let list = operator.rest.get("/api/v2/tasks/instances?size=2").await.ok()?;
        let mut phases = Vec::new();
        let mut ran = Vec::new();
        for row in list["data"]["contents"].as_array()? {
            let path = format!("/api/v2/tasks/instances/{}", row["id"]);
            let task = operator.rest.get(&path).await.ok()?["data"].clone();
            phases.push(match (text(&task["status"]), text(&task["operation"])) {
                ("RUNNING", "ROLLBACK") => Phase::RollingBack,
                ("RUNNING", _) => Phase::Executing,
                (_, _) => Phase::AtRest,
            });
            let subtasks = task["subtasks"].as_array()?;
            let active = subtasks.iter().find(|subtask| ["RUNNING", "CANCELING"].contains(&text(&subtask["status"])));
            let words = active.map_or("nothing", |subtask| text(&subtask["name"])).split(' ').take(2);
            ran.push(words.collect::<Vec<_>>().join(" "));
        }
        let phase = [Phase::RollingBack, Phase::Executing].into_iter().find(|phase| phases.contains(phase));
        Some((phase.unwrap_or(Phase::AtRest), ran.join(", ")))
    };
    match timeout(Duration::from_millis(500), look).await {
        Ok(Some(seen)) => seen,
        // A coordinator that is just coming back has the task before it.
        Ok(None) | Err(_) => (Phase::Executing, "coordinator away".into()),
    }
}

/// Decides what is left to decide until the task is SUCCESSFUL, as an operator would.
async fn settle(round: &Round, operator: &Operator, id: i64) -> Result<Value, Violation> {
    for _ in 0..4 {
        let task = operator.rest_of(id).await?;
        if task["status"] == "SUCCESSFUL" {
            return Ok(task);
        }
        let canceled = matches!(round.scenario, Scenario::Cancel(_)) && was_canceled(&task);
        require(canceled || round.kills_shims(), || format!("failed without a reason: {}", tell(&task)))?;
        let back = round.scenario == Scenario::Rollback
            || task["operation"] == "ROLLBACK"
            || (matches!(round.scenario, Scenario::Cancel(_)) && round.gives_up);
        operator.decide(id, if back { "rollback" } else { "retry" }).await?;
    }
    Err(format!("four decisions did not bring task {id} to its end"))
}

/// A task that is canceled between two subtasks has none that failed.
fn was_canceled(task: &Value) -> bool {
    let mut subtasks = task["subtasks"].as_array().into_iter().flatten();
    subtasks.all(|subtask| subtask["status"] != "FAILED" || subtask["failure"]["reason"] == "CANCELED")
}

fn installation_attempts(task: &Value) -> usize {
    let mut subtasks = task["subtasks"].as_array().into_iter().flatten();
    let install = subtasks.find(|subtask| text(&subtask["name"]).starts_with("Install rpm"));
    install.and_then(|subtask| subtask["runTime"].as_u64()).and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

fn instance_directory(host: &Host) -> PathBuf {
    host.root().join(format!("home/admin/obproxy/{SQL_PORT}"))
}

fn inject(host: &Host, fault: Option<Fault>) {
    match fault {
        Some(Fault::Scriptlet) => fs::write(host.directory.join("refuse"), "").unwrap(),
        Some(Fault::Directory) => {
            fs::create_dir_all(instance_directory(host)).unwrap();
            fs::write(instance_directory(host).join("precious"), "not oblet's").unwrap();
        }
        Some(Fault::Parameter) | None => {}
    }
}

fn mend(host: &Host, fault: Option<Fault>) {
    match fault {
        Some(Fault::Scriptlet) => fs::remove_file(host.directory.join("refuse")).unwrap(),
        Some(Fault::Directory) => fs::remove_dir_all(instance_directory(host)).unwrap(),
        Some(Fault::Parameter) | None => {}
    }
}

/// Programs that ended although nobody killed them.
fn ended(lab: &mut Lab) -> Vec<Violation> {
    let agents = lab.hosts.iter_mut().map(|host| (format!("agent of {}", host.address), host.agent.as_mut()));
    let coordinator = std::iter::once(("coordinator".to_owned(), lab.coordinator.as_mut()));
    let programs = agents.chain(coordinator);
    let dead = programs.filter_map(|(name, process)| process.is_none_or(|process| !process.is_alive()).then_some(name));
    dead.map(|name| format!("{name} ended by itself")).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn require(fits: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if fits { Ok(()) } else { Err(what()) }
}
