//! Cuts the power of real machines, again and again, while proxies are added and while that is rolled back. Both
//! machines are cut, each by itself, right before one of its syncs; the other one goes on. `disk` says what a cut leaves.
//!
//! What must be true whatever was cut:
//!
//!  1. Both programs start again on what is left.
//!  2. A task that was answered is there, it comes to rest by itself, and a subtask that was seen to be SUCCESSFUL stays so.
//!  3. A package that was reported as installed is there, with the bytes of its files. Its scriptlets have run once,
//!     or once more for each cut that hit rpm itself.
//!  4. A rollback leaves nothing on the host, whether or not the outcome of a step got lost.
//!  5. At rest a cut changes nothing.
//!
//! `OBLET_POWER_CUTS=all` cuts before every sync of both machines, instead of a sample of them.

mod disk;
mod machine;
mod systemd;
mod units;

use crate::{
    chaos::{
        self,
        check::Installations,
        operator::{Operator, Violation, tell},
    },
    lab::{Lab, PACKAGE, PATIENCE, POLL, possible},
};
use disk::{Deaf, Disk};
use machine::Machine;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tokio::time::sleep;

/// The power goes before the n-th sync of a machine, and n syncs after it has started again.
const SAMPLE: [usize; 9] = [1, 3, 6, 10, 15, 22, 35, 48, 64];
/// Of one machine during the installation, and again during the rollback.
const CUTS: usize = 3;

struct Site {
    coordinator: Machine,
    host: Machine,
    /// Subtasks that were SUCCESSFUL, with their attempts.
    seen: BTreeSet<(i64, i64)>,
    installations: usize,
    lab: Lab,
}

impl Site {
    /// A cluster whose parameters no proxy takes, so that the installation fails when everything is there.
    async fn prepare(deaf: Deaf, seed: Option<u64>) -> (Self, Operator) {
        let mut lab = Lab::start(1).await;
        let package = chaos::build_package(lab.directory.path());
        let parameters = json!([{"name": "no_such_parameter", "value": "1"}]);
        let cluster = lab.set_up_with(&package, json!({ "parameters": parameters })).await;
        lab.hosts[0].agent.take().unwrap().stop();
        lab.coordinator.take().unwrap().stop();
        let state = lab.directory.path().join("coordinator/state");
        let disk = Disk::new(vec![state], deaf, seed);
        let coordinator = Machine::start(lab.coordinator_command(), lab.coordinator_log(), disk);
        let host = &lab.hosts[0];
        let disk = Disk::new(vec![host.directory.join("state"), host.root()], deaf, seed.map(|seed| !seed));
        let host = Machine::start(host.agent_command(), host.directory.join("agent.log"), disk);
        lab.connect().await;
        let operator = Operator { rest: lab.rest().clone(), cluster, batches: lab.batch_add_bodies() };
        (Self { coordinator, host, seen: BTreeSet::new(), installations: 1, lab }, operator)
    }

    fn arm(&self, every: Option<usize>) {
        let machines = [&self.coordinator, &self.host];
        every.into_iter().for_each(|every| machines.into_iter().for_each(|machine| machine.arm(every, CUTS)));
    }

    async fn disarm(&self) {
        self.coordinator.disarm().await;
        self.host.disarm().await;
    }

    /// Cuts both machines; what they have answered stays.
    async fn cut_at_rest(&mut self, task: &Value, operator: &Operator) -> Result<(), Violation> {
        self.coordinator.cut_at_rest().await;
        self.host.cut_at_rest().await;
        let again = self.rest_of(task["id"].as_i64().unwrap(), operator).await?;
        let same = again["status"] == task["status"] && again["operation"] == task["operation"];
        require(same, || format!("it was at rest before the cut: {}", tell(&again)))
    }

    /// Waits until the task came to rest, and sees to it that nothing of it is lost on the way.
    async fn rest_of(&mut self, id: i64, operator: &Operator) -> Result<Value, Violation> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Value::Null;
        while Instant::now() < deadline {
            for (name, machine) in [("coordinator", &self.coordinator), ("agent", &self.host)] {
                require(!machine.has_ended(), || format!("the {name} ended by itself"))?;
            }
            // The coordinator may be down at the moment.
            if let Ok(answer) = operator.rest.get(&format!("/api/v2/tasks/instances/{id}")).await {
                last = answer["data"].clone();
                require(!last.is_null(), || format!("task {id} was answered and is lost: {answer}"))?;
                if last["operation"] != "ROLLBACK" {
                    self.see(&last)?;
                }
                if last["status"] != "RUNNING" {
                    return Ok(last);
                }
            }
            sleep(POLL).await;
        }
        Err(format!("task {id} does not come to rest: {}", tell(&last)))
    }

    fn see(&mut self, task: &Value) -> Result<(), Violation> {
        let subtasks = task["subtasks"].as_array().into_iter().flatten();
        let successful: BTreeSet<(i64, i64)> = subtasks
            .filter(|subtask| subtask["status"] == "SUCCESSFUL")
            .filter_map(|subtask| Some((subtask["id"].as_i64()?, subtask["runTime"].as_i64()?)))
            .collect();
        let lost: Vec<_> = self.seen.difference(&successful).collect();
        require(lost.is_empty(), || format!("{lost:?} were SUCCESSFUL: {}", tell(task)))?;
        self.seen = successful;
        Ok(())
    }

    /// How often rpm was hit.
    fn hits(&self) -> usize {
        self.host.cuts().iter().filter(|cut| cut.hit_rpm).count()
    }

    /// Nothing is left on the host, and its package was installed as often as it should.
    async fn check_removal(&self) -> Result<(), Violation> {
        let (hits, count) = (self.hits(), self.installations);
        let installations = if hits == 0 { Installations::Exactly(count) } else { Installations::AtMost(count + hits) };
        let violations = chaos::check::host(&self.lab.hosts[0], false, installations).await;
        require(violations.is_empty(), || violations.join("; "))
    }
}

/// What a cut may not change once a step was reported as done.
async fn check_installation(site: &Site, task: &Value) -> Result<(), Violation> {
    let mut subtasks = task["subtasks"].as_array().into_iter().flatten();
    let Some(install) = subtasks.find(|subtask| text(&subtask["name"]).starts_with("Install rpm")) else {
        return Err(format!("no subtask installs anything: {}", tell(task)));
    };
    if install["status"] != "SUCCESSFUL" {
        return Ok(());
    }
    let host = &site.lab.hosts[0];
    let packages = host.packages();
    require(packages.trim() == PACKAGE, || format!("it was installed, and rpm has {packages:?}"))?;
    let program = fs::read(find(&host.root(), "bin/obproxy").ok_or("the package's program is gone")?).unwrap();
    let built = fs::read(oblet_standins::program("obproxy").unwrap()).unwrap();
    require(program == built, || "the package's program is not whole".into())?;
    let log = site.lab.log(task, text(&install["name"])).await;
    let kept = log.contains(PACKAGE) && host.count_in_logs(PACKAGE) > 0;
    require(kept, || format!("the log of the installation is lost; the coordinator has {log:?}"))
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.find_map(|path| if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn require(fits: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if fits { Ok(()) } else { Err(what()) }
}

async fn play(site: &mut Site, operator: &Operator, every: Option<usize>) -> Result<(), Violation> {
    site.arm(every);
    let id = operator.batch_add("power").await?[0];
    let mut task = site.rest_of(id, operator).await?;
    // The power went between rpm's last word and the sync of its files.
    if tell(&task).contains("not whole") {
        println!("  {}", tell(&task));
        site.installations += 1;
        operator.decide(id, "retry").await?;
        task = site.rest_of(id, operator).await?;
    }
    site.disarm().await;
    println!("  {}", tell(&task));
    require(task["status"] == "FAILED", || format!("it cannot succeed: {}", tell(&task)))?;
    site.cut_at_rest(&task, operator).await?;
    check_installation(site, &task).await?;

    site.arm(every);
    operator.decide(id, "rollback").await?;
    task = site.rest_of(id, operator).await?;
    site.disarm().await;
    println!("  {}", tell(&task));
    for _ in 0..site.hits() {
        if task["status"] == "FAILED" {
            operator.decide(id, "rollback").await?;
            task = site.rest_of(id, operator).await?;
        }
    }
    require(task["status"] == "SUCCESSFUL", || format!("the rollback does not end: {}", tell(&task)))?;
    site.check_removal().await?;

    site.cut_at_rest(&task, operator).await?;
    site.check_removal().await
}

/// Plays a round and tells of its cuts; answers how many fell while something was going on. At rest both machines are cut
/// in any case.
async fn round(every: Option<usize>, deaf: Deaf, seed: Option<u64>) -> (usize, Result<(), Violation>) {
    let (mut site, operator) = Site::prepare(deaf, seed).await;
    let begin = Instant::now();
    let mut played = play(&mut site, &operator, every).await;
    let Site { coordinator, host, lab, .. } = site;
    let mut count = 0;
    for (name, machine) in [("coordinator", coordinator), ("host", host)] {
        for cut in machine.cuts() {
            println!("  {name}: {cut}");
            count += usize::from(cut.before.is_some());
        }
    }
    println!("every {every:?}: {count} cuts in {:?}: {played:?}", begin.elapsed());
    if let Err(violation) = &mut played {
        *violation = format!("every {every:?}: {violation}; logs and stores: {}", lab.keep().display());
    }
    (count, played)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_before_any_sync_loses_and_repeats_nothing() {
    if !possible() {
        return;
    }
    let all = env::var("OBLET_POWER_CUTS").is_ok_and(|which| which == "all");
    let rounds: Box<dyn Iterator<Item = usize>> = if all { Box::new(1..) } else { Box::new(SAMPLE.into_iter()) };
    let mut bad = Vec::new();
    for every in rounds {
        let (cuts, played) = round(Some(every), |_| false, Some(every as u64)).await;
        bad.extend(played.err());
        if cuts == 0 {
            break;
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

fn has_part(path: &Path, part: &str) -> bool {
    path.to_string_lossy().contains(part)
}

/// A disk that does not hear some of the syncs is what these would be if they were left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_left_out_is_found() {
    if !possible() {
        return;
    }
    let defects: [(&str, Deaf); 5] = [
        ("synchronous = OFF in the coordinator's store", |path| has_part(path, "/coordinator.db")),
        ("synchronous = OFF in the agent's journal", |path| has_part(path, "/journal.db")),
        ("no sync of installed files", |path| has_part(path, "/obproxy-1.9.1.1/")),
        ("no sync of logs", |path| has_part(path, "/logs")),
        ("no sync of directories", Path::is_dir),
    ];
    for (defect, deaf) in defects {
        let (_, played) = round(None, deaf, None).await;
        assert!(played.is_err(), "{defect}: nothing was found");
    }
}
