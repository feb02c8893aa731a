//! One host below a temporary directory, and what is done there.

use oblet::{
    agent::{
        host::{
            DirectSupervisor, Host, HostSettings, Kind, Launch, ProcessId, RunState, Supervisor, SystemdSupervisor,
        },
        step::{BoxFuture, Carrier as _, Done, IdentityStore, Secrets, StepContext, StepError, StepLog, Undoes},
    },
    graph::Effect,
    steps::{
        AgentStep, InstallPackage, StartObproxy, WorkMode,
        values::{PackageRef, Port},
    },
};
use sha2::{Digest as _, Sha256};
use std::{
    env, fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

pub(crate) const PACKAGE: &str = "obproxy-1.0-1.el7.noarch";

struct Log(PathBuf);

impl StepLog for Log {
    fn line(&self, text: &str) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        writeln!(file, "{text}").unwrap();
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.0.clone())
    }

    fn tail(&self, count: usize) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(String::from).collect();
        lines[lines.len().saturating_sub(count)..].to_vec()
    }
}

#[derive(Default)]
pub(crate) struct Identities(pub(crate) Mutex<Option<String>>);

impl IdentityStore for Identities {
    fn choose(&self, identity: String) -> BoxFuture<'_, std::io::Result<()>> {
        *self.0.lock().unwrap() = Some(identity);
        Box::pin(async { Ok(()) })
    }

    fn confirm(&self) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// One host below a temporary directory.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: Host,
}

/// A test that fails leaves no process behind.
impl Drop for Place {
    fn drop(&mut self) {
        let runs = fs::read_dir(self.dir.path().join("state/runs")).into_iter().flatten();
        let runs: Vec<PathBuf> = runs.map(|run| run.unwrap().path()).collect();
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

/// One attempt: its result and what an undo is told of it.
pub(crate) struct Attempt {
    pub(crate) result: Result<Done, StepError>,
    pub(crate) undoes: Undoes,
}

fn me() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}

/// The supervisor that the promises of `tests/supervisor` are tried with, chosen in the same way.
pub(crate) fn supervisor() -> Box<dyn Supervisor> {
    let agent = env::var_os("OBLET_TEST_AGENT").unwrap_or(env!("CARGO_BIN_EXE_oblet-agent").into());
    match env::var("OBLET_TEST_SUPERVISOR").as_deref() {
        Ok("systemd") => Box::new(SystemdSupervisor::with_agent(agent.into())),
        Ok("direct") | Err(_) => Box::new(DirectSupervisor::with_agent(agent.into())),
        Ok(other) => panic!("OBLET_TEST_SUPERVISOR is {other:?}, neither direct nor systemd"),
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with_run_user(&me())
    }

    pub(crate) fn with_run_user(user: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let host = Self::open_as(dir.path(), user, HostSettings::default_search_path());
        Self { dir, host }
    }

    /// A host whose rpm is this script.
    pub(crate) fn with_rpm(script: &str) -> Self {
        let mut place = Self::new();
        let programs = place.dir.path().join("programs");
        fs::create_dir(&programs).unwrap();
        fs::write(programs.join("rpm"), script).unwrap();
        fs::set_permissions(programs.join("rpm"), fs::Permissions::from_mode(0o755)).unwrap();
        let search_path = vec![programs, "/usr/bin".into(), "/bin".into()];
        place.host = Self::open_as(place.dir.path(), &me(), search_path);
        place
    }

    /// As after a restart of the agent.
    pub(crate) fn open(dir: &Path) -> Host {
        Self::open_as(dir, &me(), HostSettings::default_search_path())
    }

    pub(crate) fn open_as(dir: &Path, run_user: &str, search_path: Vec<PathBuf>) -> Host {
        let settings = HostSettings {
            root_dir: dir.join("root"),
            state_dir: dir.join("state"),
            address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            run_user: run_user.into(),
            run_path: "/run/obproxy".into(),
            rpm_scriptlets: false,
            rpm_dependencies: false,
            search_path,
        };
        fs::create_dir_all(&settings.root_dir).unwrap();
        fs::set_permissions(&settings.root_dir, fs::Permissions::from_mode(0o755)).unwrap();
        Host::open(settings, supervisor()).unwrap()
    }

    pub(crate) fn context(&self, run_id: &str, identity: Option<String>) -> (StepContext, Arc<Identities>) {
        let store = Arc::new(Identities(Mutex::new(identity.clone())));
        let secrets = ["obproxy_sys_password", "observer_sys_password"]
            .map(|name| (name.to_owned(), Zeroizing::new("not-to-be-seen".to_owned())));
        let context = StepContext {
            run_id: run_id.into(),
            log: Arc::new(Log(self.dir.path().join("log"))),
            cancel: Default::default(),
            secrets: Secrets::from_iter(secrets),
            timeout: Some(Duration::from_secs(60)),
            identity,
            identities: store.clone(),
        };
        (context, store)
    }

    pub(crate) async fn execute(&self, step: &AgentStep, run_id: &str, identity: Option<String>) -> Attempt {
        let (context, store) = self.context(run_id, identity);
        let result = self.host.execute(step, &context).await;
        let effect = match &result {
            Ok(done) => done.effect,
            Err(error) => error.effect,
        };
        let identity = store.0.lock().unwrap().clone();
        Attempt { result, undoes: Undoes { identity, effect } }
    }

    pub(crate) async fn undo(&self, step: &AgentStep, run_id: &str, undoes: &[Undoes]) -> Effect {
        let (context, _) = self.context(run_id, None);
        self.host.undo(step, &context, undoes).await.unwrap().effect
    }

    pub(crate) fn put(&self, name: &str, script: &str) -> AgentStep {
        let package: PackageRef = name.parse().unwrap();
        let mut bytes = Vec::new();
        rpm::PackageBuilder::new(package.name(), package.version(), "Apache-2.0", package.architecture(), "stand-in")
            .using_config(rpm::BuildConfig::v4().compression(rpm::CompressionType::None))
            .release(package.release())
            .with_file_contents(script, rpm::FileOptions::new("/home/admin/obproxy-1.0/bin/obproxy").permissions(0o755))
            .unwrap()
            .build()
            .unwrap()
            .write(&mut bytes)
            .unwrap();
        self.put_file(package, &bytes)
    }

    pub(crate) fn put_file(&self, package: PackageRef, bytes: &[u8]) -> AgentStep {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = self.dir.path().join("state/packages").join(&digest);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(package.file_name()), bytes).unwrap();
        AgentStep::InstallPackage(InstallPackage { package, sha256: digest.parse().unwrap() })
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.dir.path().join("root/home/admin/obproxy-1.0/bin/obproxy")
    }
}

pub(crate) fn rpm_is_missing() -> bool {
    let missing = !HostSettings::default_search_path().iter().any(|dir| dir.join("rpm").exists());
    if missing {
        eprintln!("SKIPPED: this test needs rpm");
    }
    missing
}

pub(crate) fn free_port() -> Port {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    i64::from(port).try_into().unwrap()
}

pub(crate) fn start_step() -> StartObproxy {
    StartObproxy {
        package: PACKAGE.parse().unwrap(),
        app_name: "odp".parse().unwrap(),
        sql_port: free_port(),
        exporter_port: free_port(),
        rpc_port: None,
        work_mode: WorkMode::ConfigUrl { url: "http://127.0.0.1/?".into() },
        startup_parameters: Vec::new(),
    }
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The program of a run that has to be there.
pub(crate) async fn running(run: &Path) -> ProcessId {
    let RunState::Running(process) = supervisor().find(run).await.unwrap() else { panic!("it does not run") };
    process
}

pub(crate) fn launch(dir: &Path, script: &str) -> Launch {
    Launch {
        kind: Kind::Job,
        description: "a script".into(),
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        directory: dir.into(),
        user: None,
        log: dir.join("log"),
    }
}
