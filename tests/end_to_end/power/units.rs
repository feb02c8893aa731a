//! Cuts the power of a host where systemd starts the proxies: before each sync of the supervisor that writes, enables,
//! keeps and removes their units, and whenever it says that it has done so.
//!
//! What must be true whatever was cut:
//!
//!  1. At every boot a unit is whole or not there.
//!  2. A unit that was reported as started is there and starts with the host, and so it is once it is kept.
//!  3. A unit that was reported as gone is gone, with the link by which it started with the host.
//!
//! The supervisor and the files are the real ones. What systemd does to the disk and tells, `systemd` does: in a mount
//! namespace of its own, so that no unit of this machine is seen or touched. What the agent's journal would hold is in a
//! file that no cut takes back, for `power` has shown that none does.

use super::{
    disk::{Deaf, Disk},
    machine::Machine,
    systemd,
};
use crate::{
    chaos::operator::Violation,
    lab::{PATIENCE, possible},
};
use oblet::{
    agent::host::{Kind, Launch, RunState, ServiceName, Supervisor, SystemdSupervisor},
    steps::InstanceKind,
};
use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use tokio::time::sleep;

pub(super) const UNIT: &str = "oblet-obproxy@2883.service";
pub(super) const UNITS: &str = "/etc/systemd/system";
pub(super) const LINKS: &str = "/etc/systemd/system/multi-user.target.wants";

const HOST: &str = "OBLET_TEST_HOST_WITH_SYSTEMD";
const CUTS: usize = 3;
/// No phase has as many syncs.
const TOO_MANY: usize = 100;

/// What has been journaled of a run, and of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Nothing,
    Starting(usize),
    Started(usize),
    Kept(usize),
    Stopping(usize),
    Gone(usize),
    Checked,
}

impl Phase {
    fn read(directory: &Path) -> Self {
        let ledger = fs::read_to_string(directory.join("ledger")).unwrap_or_default();
        // The last line may be half written when the driver looks.
        let whole = ledger.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let (word, number) = whole.lines().last().and_then(|line| line.split_once(' ')).unwrap_or(("nothing", "0"));
        let run = number.parse().unwrap();
        match word {
            "starting" => Self::Starting(run),
            "started" => Self::Started(run),
            "kept" => Self::Kept(run),
            "stopping" => Self::Stopping(run),
            "gone" => Self::Gone(run),
            "checked" => Self::Checked,
            _ => Self::Nothing,
        }
    }

    /// The host does nothing more until it is started again.
    fn is_rest(self) -> bool {
        matches!(self, Self::Started(_) | Self::Kept(_) | Self::Gone(_) | Self::Checked)
    }
}

/// A host from one boot to the next.
struct Host {
    directory: PathBuf,
    supervisor: SystemdSupervisor,
}

impl Host {
    fn note(&self, word: &str, run: usize) {
        let mut ledger = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("ledger")).unwrap();
        ledger.write_all(format!("{word} {run}\n").as_bytes()).unwrap();
    }

    fn run(&self, number: usize) -> PathBuf {
        self.directory.join(format!("state/runs/run-{number}"))
    }

    async fn find(&self, run: usize) -> RunState {
        self.supervisor.find(&self.run(run)).await.unwrap()
    }

    async fn start(&self, run: usize) {
        self.note("starting", run);
        let launch = Launch {
            kind: Kind::Service {
                name: ServiceName::new(InstanceKind::Obproxy, 2883.try_into().unwrap()),
                foreground: Vec::new(),
            },
            description: "a proxy".into(),
            program: "/opt/obproxy".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: self.directory.clone(),
            user: None,
            log: self.directory.join("log"),
        };
        self.supervisor.start(&self.run(run), &launch).await.unwrap();
        self.note("started", run);
    }

    async fn assert_serves(&self, run: usize) {
        let state = self.find(run).await;
        assert!(matches!(state, RunState::Running(_)), "it was started, and after a boot it is {state:?}");
    }

    /// Goes on where the last boot ended.
    async fn go_on(&self) {
        match Phase::read(&self.directory) {
            Phase::Nothing => self.start(1).await,
            Phase::Starting(run) => match self.find(run).await {
                RunState::Running(_) | RunState::Between => self.note("started", run),
                RunState::Nothing | RunState::Ended(_) => self.start(run + 1).await,
            },
            Phase::Started(run) => {
                self.assert_serves(run).await;
                self.supervisor.keep(&self.run(run)).await.unwrap();
                self.note("kept", run);
            }
            Phase::Kept(run) => {
                self.assert_serves(run).await;
                let unit = fs::read_to_string(systemd::file()).unwrap();
                assert!(unit.contains("\nRestart=always\n"), "it was kept: {unit}");
                self.note("stopping", run);
                self.stop(run).await;
            }
            Phase::Stopping(run) => self.stop(run).await,
            Phase::Gone(run) => {
                assert_eq!(left(Path::new(UNITS)), Vec::<PathBuf>::new(), "it was gone");
                let state = self.find(run).await;
                assert!(matches!(state, RunState::Nothing | RunState::Ended(_)), "it was gone, and it is {state:?}");
                self.note("checked", run);
            }
            Phase::Checked => {}
        }
    }

    async fn stop(&self, run: usize) {
        self.supervisor.stop(&self.run(run), Duration::ZERO).await.unwrap();
        self.note("gone", run);
    }
}

/// Whatever names a unit of oblet.
fn left(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(left(&path));
        } else if path.file_name().unwrap().to_string_lossy().starts_with("oblet-") {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
#[ignore = "other tests let a machine of their own run it"]
async fn a_host_with_systemd() {
    let Ok(directory) = env::var(HOST) else { return };
    if let Ok(unit) = fs::read_to_string(systemd::file()) {
        let whole = unit.starts_with("# Written by oblet-agent") && unit.ends_with("\nWantedBy=multi-user.target\n");
        assert!(whole, "half a unit: {unit}");
    }
    systemd::boot();
    let directory = PathBuf::from(directory);
    let supervisor = SystemdSupervisor::with_agent(directory.join("agent"));
    Host { directory, supervisor }.go_on().await;
    std::future::pending::<()>().await;
}

/// In a namespace where the directories of systemd are those of the machine; the second one is new at each boot.
fn program(directory: &Path) -> Vec<String> {
    let script = "mount --bind \"$1/units\" /etc/systemd/system && mount -t tmpfs none /run && shift && exec \"$@\"";
    let mut words = vec!["unshare", "--mount"];
    if !nix::unistd::geteuid().is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    let directory = directory.to_str().unwrap();
    let (told, own) = (format!("{HOST}={directory}"), env::current_exe().unwrap());
    words.extend(["sh", "-c", script, "sh", directory, "env", &told, own.to_str().unwrap()]);
    words.extend(["power::units::a_host_with_systemd", "--exact", "--ignored", "--nocapture"]);
    words.into_iter().map(Into::into).collect()
}

/// Whether there can be such a namespace here.
fn has_namespaces() -> bool {
    let mut words = vec!["--mount"];
    if !nix::unistd::geteuid().is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    let script = "test -d /etc/systemd/system && mount -t tmpfs none /run";
    let done = Command::new("unshare").args(words).args(["sh", "-c", script]).output();
    let possible = done.is_ok_and(|done| done.status.success());
    if !possible {
        crate::skip::skip("no mount namespace can be made for a systemd of the test");
    }
    possible
}

/// Why a boot ended by itself, without its stack.
fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let words = text.rsplit_once("panicked at").map_or(&*text, |(_, words)| words);
    words.split("stack backtrace").next().unwrap_or_default().trim().into()
}

/// From nothing to a unit that was started, kept and stopped; answers how many cuts fell before syncs. Without another
/// unit that is enabled, systemd makes and removes the directory of the links too.
async fn round(every: Option<usize>, deaf: Deaf, seed: Option<u64>, has_other: bool) -> (usize, Result<(), Violation>) {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path();
    for name in ["state/runs", "units"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    if has_other {
        let links = directory.join("units/multi-user.target.wants");
        fs::create_dir(&links).unwrap();
        symlink("/lib/systemd/system/other.service", links.join("other.service")).unwrap();
    }
    fs::write(directory.join("agent"), "an agent").unwrap();
    let roots = vec![directory.join("state"), directory.join("units")];
    let disk = Disk::new(roots, deaf, seed).mounted_as(UNITS.into());
    let log = directory.join("log");
    let (every, times) = every.map_or((TOO_MANY, 0), |every| (every, CUTS));
    let machine = Machine::start_armed(program(directory), log.clone(), disk, every, times);
    let deadline = Instant::now() + PATIENCE;
    let mut rested = Phase::Nothing;
    let played = loop {
        let phase = Phase::read(directory);
        if machine.has_ended() || Instant::now() > deadline {
            break Err(format!("{phase:?}: {}", last_words(&log)));
        }
        if phase == Phase::Checked {
            break Ok(());
        }
        if phase.is_rest() && phase != rested {
            rested = phase;
            machine.cut_at_rest_and_arm(every, times).await;
        }
        sleep(Duration::from_millis(5)).await;
    };
    let cuts: Vec<_> = machine.cuts().into_iter().filter(|cut| cut.before.is_some()).collect();
    for cut in &cuts {
        println!("  {cut}");
    }
    println!("every {every}: {played:?}");
    (cuts.len(), played.map_err(|violation| format!("every {every}, seed {seed:?}: {violation}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_before_any_sync_leaves_whole_units_and_those_that_were_promised() {
    if !possible() || !has_namespaces() {
        return;
    }
    let mut bad = Vec::new();
    for every in 1..TOO_MANY {
        let mut cuts = 0;
        for (seed, has_other) in [(None, false), (None, true), (Some(every as u64), every % 2 == 0)] {
            let (fell, played) = round(Some(every), |_| false, seed, has_other).await;
            bad.extend(played.err());
            cuts += fell;
        }
        if cuts == 0 {
            break;
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// A disk that does not hear some of the syncs is what these would be if they were left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_of_a_unit_that_is_left_out_is_found() {
    if !possible() || !has_namespaces() {
        return;
    }
    let defects: [(&str, Deaf); 4] = [
        ("no sync of the links of enabled units", |path| path == Path::new(LINKS)),
        ("no sync of the directory of units", |path| path == Path::new(UNITS)),
        ("no sync of unit files", |path| path.parent() == Some(Path::new(UNITS)) && path != Path::new(LINKS)),
        ("no sync of anything below it", |path| path.starts_with(UNITS)),
    ];
    for (defect, deaf) in defects {
        let (_, played) = round(None, deaf, None, true).await;
        assert!(played.is_err(), "{defect}: nothing was found");
    }
}
