//! What all that goes on in a round at the same time shares: the programs, and who is at work on what.

use super::{
    blow::Victim,
    operator::{Operator, Violation, require},
    plan::{Errand, Fault, PROXIES, Round, Work},
};
use crate::{
    lab::{Lab, PATIENCE, Place, Process, holds_within},
    small_disk::SmallDisk,
    tokens::{caller, enroll_command},
};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// Of certificates, in seconds. The coordinator looks at them every second, and they outlive a round by far.
const LIFE_SECONDS: u32 = 40;

/// A program that was started and has not ended.
pub(super) fn running(program: &mut Option<Process>) -> Option<&mut Process> {
    program.as_mut().and_then(|process| process.is_alive().then_some(process))
}

pub(super) struct Site {
    pub(super) operator: Operator,
    /// Calls agents as the coordinator does.
    pub(super) caller: TlsConnector,
    /// By host; taken off before the programs of the lab end.
    disks: BTreeMap<usize, SmallDisk>,
    lab: Mutex<Lab>,
    under_way: Mutex<BTreeSet<(Work, Option<usize>)>>,
    stage: watch::Sender<usize>,
}

impl Site {
    /// Everything runs that is to run at the begin; the hosts of the errands are not known yet.
    pub(super) async fn prepare(round: &Round, package: &Path) -> Self {
        let mut lab = Lab::prepare(u8::try_from(round.hosts()).unwrap());
        lab.configure_coordinator(&format!("agent_certificate_seconds = {LIFE_SECONDS}"));
        let mut disks = BTreeMap::new();
        let mut bare = Vec::new();
        for drawn in &round.errands {
            let Some(host) = drawn.host else { continue };
            match drawn.errand {
                Errand::Enrolment { .. } | Errand::Renewal | Errand::Removal { .. } => bare.push(host),
                Errand::Disk { .. } => {
                    let disk = SmallDisk::under(&lab.hosts[host].directory.join("state"), 160);
                    disks.extend(disk.map(|disk| (host, disk)));
                }
                _ => {}
            }
        }
        for (number, host) in lab.hosts.iter_mut().enumerate() {
            if bare.contains(&number) {
                fs::remove_dir_all(host.directory.join("tls")).unwrap();
            } else {
                host.start_agent();
            }
        }
        lab.start_coordinator();
        lab.connect().await;
        let parameters = match round.faults[0] {
            Some(Fault::Parameter) => json!([{"name": "no_such_parameter", "value": "1"}]),
            Some(Fault::Directory | Fault::Scriptlet) | None => json!([]),
        };
        let cluster = lab.set_up_first(PROXIES, package, json!({ "parameters": parameters })).await;
        let batches = lab.batch_add_bodies().into_iter().take(PROXIES).collect();
        let operator = Operator { rest: lab.rest().clone(), cluster, batches };
        Self {
            operator,
            caller: caller(&lab),
            disks,
            lab: Mutex::new(lab),
            under_way: Mutex::default(),
            stage: watch::Sender::new(0),
        }
    }

    /// Held for moments only.
    pub(super) fn lab(&self) -> MutexGuard<'_, Lab> {
        self.lab.lock().unwrap()
    }

    /// Ends everything, and leaves the lab's directory to whoever wants to look at it.
    pub(super) fn keep(self) -> PathBuf {
        self.lab.into_inner().unwrap().keep()
    }

    pub(super) fn place(&self, host: usize) -> Place {
        Place::clone(&self.lab().hosts[host])
    }

    pub(super) fn disk(&self, host: usize) -> Option<&SmallDisk> {
        self.disks.get(&host)
    }

    /// Runs a program in the place of the host's agent, so that blows hit it.
    pub(super) fn enroll(&self, host: usize, token: &Value) {
        let place = self.place(host);
        let file = place.directory.join("token");
        let mut options = fs::OpenOptions::new();
        let written = options.create(true).truncate(true).write(true).mode(0o600).open(&file);
        std::io::Write::write_all(&mut written.unwrap(), token["token"].as_str().unwrap().as_bytes()).unwrap();
        let line = enroll_command(&place, token, file.to_str().unwrap());
        let process = Process::spawn(&line, &place.directory.join("enroll.log"));
        self.lab().hosts[host].agent = Some(process);
    }

    /// Whether what runs in the place of the host's agent, if anything, has ended.
    pub(super) fn is_down(&self, host: usize) -> bool {
        running(&mut self.lab().hosts[host].agent).is_none()
    }

    /// Starts the agent if it does not run, as a service manager would.
    pub(super) async fn serve(&self, host: usize) -> Result<(), Violation> {
        let place = {
            let mut lab = self.lab();
            let host = &mut lab.hosts[host];
            if running(&mut host.agent).is_none() {
                host.start_agent();
            }
            Place::clone(host)
        };
        let serves = holds_within(PATIENCE, || place.answers()).await;
        require(serves, || format!("the agent of {} does not serve", place.address))
    }

    /// Lets the errands of this stage begin.
    pub(super) fn open(&self, stage: usize) {
        self.stage.send_replace(stage);
    }

    pub(super) async fn wait_for_stage(&self, stage: usize) {
        // The sender lives as long as this.
        let _ = self.stage.subscribe().wait_for(|open| *open >= stage).await;
    }

    pub(super) fn begin(&self, work: Work, host: Option<usize>) {
        self.under_way.lock().unwrap().insert((work, host));
    }

    pub(super) fn end(&self, work: Work, host: Option<usize>) {
        self.under_way.lock().unwrap().remove(&(work, host));
    }

    /// What is under way that needs one of these programs.
    pub(super) fn concerned(&self, victims: &[Victim]) -> BTreeSet<Work> {
        let under_way = self.under_way.lock().unwrap();
        let needs = |host: Option<usize>| {
            let is_needed = |victim: &Victim| match victim {
                Victim::Coordinator => true,
                Victim::Agent(number) => host == Some(*number),
            };
            victims.iter().any(is_needed)
        };
        under_way.iter().filter(|(_, host)| needs(*host)).map(|(work, _)| *work).collect()
    }

    /// Changes the store behind the coordinator's back.
    pub(super) async fn change_store(&self, statement: &'static str, address: &str) -> Result<(), Violation> {
        let url = self.lab().store_url();
        let told = |error: sqlx::Error| format!("the store is not changed: {error}");
        let mut store = SqliteConnection::connect(&url).await.map_err(told)?;
        sqlx::query(statement).bind(address).execute(&mut store).await.map_err(told)?;
        store.close().await.map_err(told)
    }
}
