//! One round: a fresh lab, a task, blows, everything back up, the task driven to its end, and the checks.

use super::{
    blow::How,
    check::{self, Installations},
    errands,
    operator::{Operator, Violation, require, tell, text},
    plan::{Fault, PROXIES, Round, Scenario, Work},
    site::Site,
    strike::{Strike, strike},
};
use crate::lab::{Lab, Place, SQL_PORT};
use futures_util::future::{join_all, try_join_all};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

#[derive(Default)]
pub(super) struct Report {
    pub(super) strikes: Vec<Strike>,
    /// How each task of the proxies ended, and each errand.
    pub(super) outcomes: Vec<String>,
    /// From the return of the last victim until everything was at its end.
    pub(super) recovery: Duration,
    pub(super) violations: Vec<Violation>,
    /// Logs and stores, kept if something was violated.
    pub(super) kept: Option<PathBuf>,
}

pub(super) async fn play(round: &Round, package: &Path) -> Report {
    let site = Site::prepare(round, package).await;
    each_host(&site, round, inject);
    let mut report = Report::default();
    if let Err(violation) = drive(round, &site, &mut report).await {
        report.violations.push(violation);
    }
    report.violations.extend(ended(&mut site.lab()));
    if !report.violations.is_empty() {
        report.kept = Some(site.keep());
    }
    report
}

fn each_host(site: &Site, round: &Round, change: fn(&Place, Option<Fault>)) {
    site.lab().hosts.iter().zip(round.faults).for_each(|(host, fault)| change(host, fault));
}

async fn drive(round: &Round, site: &Site, report: &mut Report) -> Result<(), Violation> {
    let ids = fail_first(round, site).await?;
    for drawn in &round.errands {
        errands::get_ready(site, drawn).await?;
    }
    let begin = Instant::now();
    let (acted, back, ends) = tokio::join!(
        see_to_proxies(round, site, ids, begin),
        strike(site, &round.blows, begin, &mut report.strikes),
        join_all(round.errands.iter().map(|drawn| errands::run(site, drawn))),
    );
    report.recovery = back.elapsed();
    for end in ends {
        match end {
            Ok(told) => report.outcomes.push(told),
            Err(violation) => report.violations.push(violation),
        }
    }
    let ids = acted?;
    let mut ends = Vec::new();
    for id in &ids {
        let task = settle(round, &site.operator, *id).await?;
        report.outcomes.push(format!("{} {}", text(&task["operation"]), text(&task["status"])));
        ends.push(End { rolled_back: task["operation"] == "ROLLBACK", attempts: installation_attempts(&task) });
    }
    judge(round, site, &ends, report).await?;
    site.operator.add_again("first", &ids).await?;
    if round.again && ends.iter().all(|end| end.rolled_back) && round.faults[0] != Some(Fault::Parameter) {
        once_more(round, site, &ends, report).await?;
    }
    report.violations.extend(check::tasks(site).await?);
    Ok(())
}

/// How the task of a proxy ended.
struct End {
    rolled_back: bool,
    /// How often its package may have been installed.
    attempts: usize,
}

/// Brings the tasks to the point from which they are rolled back or retried.
async fn fail_first(round: &Round, site: &Site) -> Result<Vec<i64>, Violation> {
    if !matches!(round.scenario, Scenario::Rollback | Scenario::Retry) {
        return Ok(Vec::new());
    }
    let ids = site.operator.batch_add("first").await?;
    for (id, fault) in ids.iter().zip(round.faults) {
        let task = site.operator.rest_of(*id).await?;
        let expected = if fault.is_some() { "FAILED" } else { "SUCCESSFUL" };
        require(task["status"] == expected, || format!("expected {expected}: {}", tell(&task)))?;
    }
    if round.scenario == Scenario::Retry {
        each_host(site, round, mend);
    }
    Ok(ids)
}

/// The proxies from the request to the rest of their tasks, which are answered.
async fn see_to_proxies(round: &Round, site: &Site, ids: Vec<i64>, begin: Instant) -> Result<Vec<i64>, Violation> {
    let is_over = |host: usize| !ids.is_empty() && round.faults[host].is_none();
    (0..PROXIES).filter(|host| !is_over(*host)).for_each(|host| site.begin(Work::Proxies, Some(host)));
    let ids = act(round, &site.operator, ids, begin).await?;
    let rest = ids.iter().enumerate().map(async |(host, id)| {
        site.operator.rest_of(*id).await?;
        site.end(Work::Proxies, Some(host));
        Ok::<(), Violation>(())
    });
    try_join_all(rest).await?;
    Ok(ids)
}

/// What must be true of the proxies' hosts.
async fn judge(round: &Round, site: &Site, ends: &[End], report: &mut Report) -> Result<(), Violation> {
    for (index, end) in ends.iter().enumerate() {
        let host = &site.place(index);
        let installed = !end.rolled_back;
        let expected = round.faults[index].is_some() && round.scenario == Scenario::Rollback;
        let free = matches!(round.scenario, Scenario::Cancel(_));
        require(free || installed != expected, || format!("host {} has the wrong end", host.address))?;
        let installations =
            if round.is_loose() { Installations::AtMost(end.attempts) } else { Installations::Exactly(1) };
        report.violations.extend(check::host(host, installed, installations).await);
        report.violations.extend(check::coordinator(&site.operator, host, installed).await?);
        let strange = expected && round.faults[index] == Some(Fault::Directory);
        if strange && !check::is_strange(&instance_directory(host)) {
            report.violations.push(format!("the rollback on {} removed what was not its own", host.address));
        }
    }
    Ok(())
}

/// After a rollback the same can be asked for again.
async fn once_more(round: &Round, site: &Site, ends: &[End], report: &mut Report) -> Result<(), Violation> {
    each_host(site, round, mend);
    for id in site.operator.batch_add("second").await? {
        let task = site.operator.rest_of(id).await?;
        require(task["status"] == "SUCCESSFUL", || format!("once more: {}", tell(&task)))?;
    }
    for (index, end) in ends.iter().enumerate() {
        let installations = Installations::AtMost(end.attempts + 1);
        report.violations.extend(check::host(&site.place(index), true, installations).await);
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

fn instance_directory(host: &Place) -> PathBuf {
    host.root().join(format!("home/admin/obproxy/{SQL_PORT}"))
}

fn inject(host: &Place, fault: Option<Fault>) {
    match fault {
        Some(Fault::Scriptlet) => fs::write(host.directory.join("refuse"), "").unwrap(),
        Some(Fault::Directory) => {
            fs::create_dir_all(instance_directory(host)).unwrap();
            fs::write(instance_directory(host).join("precious"), "not oblet's").unwrap();
        }
        Some(Fault::Parameter) | None => {}
    }
}

fn mend(host: &Place, fault: Option<Fault>) {
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
