//! A directory with runs, and which supervisor starts them.

use oblet::{
    agent::host::{
        DirectSupervisor, Kind, Launch, ProcessId, RunOutcome, RunState, ServiceName, Supervisor, SystemdSupervisor,
    },
    steps::InstanceKind,
};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

static PORTS: AtomicU16 = AtomicU16::new(20_000);

/// Goes to the background as obproxy does, and stays in the foreground with the same flag. `$0` is the script.
const LIKE_OBPROXY: &str = r#"for last; do :; done
if [ "$last" = -N ]; then exec /bin/sh -c "$0" sh "$@"; fi
setsid /bin/sh -c "$0" sh "$@" &"#;

pub(crate) fn is_systemd() -> bool {
    match env::var("OBLET_TEST_SUPERVISOR").as_deref() {
        Ok("systemd") => true,
        Ok("direct") | Err(_) => false,
        Ok(other) => panic!("OBLET_TEST_SUPERVISOR is {other:?}, neither direct nor systemd"),
    }
}

pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) supervisor: Box<dyn Supervisor>,
    pub(crate) service: ServiceName,
    pub(crate) unit: String,
}

/// The `oblet-agent` under test.
pub(crate) fn agent() -> PathBuf {
    env::var_os("OBLET_TEST_AGENT").unwrap_or(env!("CARGO_BIN_EXE_oblet-agent").into()).into()
}

/// A supervisor as after a start of the agent.
pub(crate) fn supervisor() -> Box<dyn Supervisor> {
    supervisor_of(agent())
}

pub(crate) fn supervisor_of(agent: PathBuf) -> Box<dyn Supervisor> {
    if is_systemd() {
        Box::new(SystemdSupervisor::with_agent(agent))
    } else {
        Box::new(DirectSupervisor::with_agent(agent))
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = i64::from(PORTS.fetch_add(1, Ordering::Relaxed)).try_into().unwrap();
        let service = ServiceName::new(InstanceKind::Obproxy, port);
        let unit = format!("oblet-{service}.service");
        Self { dir, supervisor: supervisor(), service, unit }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The directory of a run. Names of runs are part of names of units, so each place has its own.
    pub(crate) fn run(&self, name: &str) -> PathBuf {
        let place = self.dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        self.path("runs").join(format!("{place}-{name}"))
    }

    pub(crate) fn job(&self, script: &str) -> Launch {
        Launch {
            kind: Kind::Job,
            description: format!("a script below {}", self.dir.path().display()),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
            directory: self.dir.path().into(),
            user: None,
            log: self.path("log"),
        }
    }

    /// The script begins when the start has been seen to succeed, so that under systemd its process is known by then; every
    /// further start of the service finds it begun.
    pub(crate) fn service(&self, script: &str) -> Launch {
        let started = self.path("started");
        self.hasty_service(&format!("until [ -e {} ]; do sleep 0.02; done\n{script}", started.display()))
    }

    /// The script begins at once.
    pub(crate) fn hasty_service(&self, script: &str) -> Launch {
        let kind = Kind::Service { name: self.service.clone(), foreground: vec!["-N".into()] };
        let arguments = vec!["-c".into(), LIKE_OBPROXY.into(), script.into()];
        Launch { kind, arguments, ..self.job("") }
    }

    /// A job and a service, each in a run of its own.
    pub(crate) fn both(&self, script: &str) -> [(PathBuf, Launch); 2] {
        [(self.run("job"), self.job(script)), (self.run("service"), self.service(script))]
    }

    pub(crate) async fn start(&self, run: &Path, launch: &Launch) {
        fs::create_dir_all(self.path("runs")).unwrap();
        self.supervisor.start(run, launch).await.unwrap();
        if matches!(launch.kind, Kind::Service { .. }) {
            fs::write(self.path("started"), "").unwrap();
        }
    }

    pub(crate) async fn running(&self, run: &Path) -> ProcessId {
        match self.supervisor.find(run).await.unwrap() {
            RunState::Running(process) => process,
            other => panic!("it does not run: {other:?}; its log: {}", self.read("log")),
        }
    }

    pub(crate) async fn outcome(&self, run: &Path) -> RunOutcome {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(outcome) = self.supervisor.outcome(run).await.unwrap() {
                return outcome;
            }
            assert!(Instant::now() < end, "the outcome did not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A test that fails leaves nothing behind.
impl Drop for Place {
    fn drop(&mut self) {
        let runs: Vec<PathBuf> =
            fs::read_dir(self.path("runs")).into_iter().flatten().map(|run| run.unwrap().path()).collect();
        let stopped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for run in runs {
                    supervisor().stop(&run, Duration::ZERO).await.unwrap();
                }
            });
        });
        if stopped.join().is_err() {
            eprintln!("processes below {} could not be stopped", self.dir.path().display());
        }
    }
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
