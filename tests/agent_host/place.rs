//! One host below a temporary directory, and what is done there.

use futures_util::future::BoxFuture;
use oblet::{
    agent::{
        host::{
            DirectSupervisor, Host, HostSettings, Kind, Launch, ProcessId, RunState, Supervisor, SystemdSupervisor,
        },
        step::{Carrier as _, Done, IdentityStore, Secrets, StepContext, StepError, StepLog, Undoes},
    },
    graph::Effect,
    steps::{
        AgentStep, InstallPackage, Instance, InstanceKind, StartObproxy, WorkMode,
        values::{PackageRef, Parameter, Port},
    },
};
use oblet_standins::{
    client::{self, Client},
    package::{self, Options},
};
use sha2::{Digest as _, Sha256};
use std::{
    env, fs,
    io::Write as _,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

pub(crate) const PACKAGE: &str = "obproxy-1.0-1.el7.noarch";
pub(crate) const ADMIN: &str = "root@proxysys";
/// Of the host. Not the one that every network has: a first start has another network.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 4, 7);

/// The lines of obproxy that the stand-in plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Old,
    New,
}

pub(crate) const VERSIONS: [Version; 2] = [Version::Old, Version::New];

/// What a cluster has.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    pub(crate) sys: String,
    pub(crate) observer: String,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { sys: "not-to-be-seen-by-anybody".into(), observer: "not-to-be-seen-either".into() }
    }
}

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
    pub(crate) passwords: Passwords,
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
        Self { dir, host, passwords: Passwords::default() }
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
            address: Some(ADDRESS.into()),
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
        let log = self.dir.path().join("log");
        (context(run_id, identity, store.clone(), &self.passwords, log), store)
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

    pub(crate) fn put(&self, name: &str, script: impl Into<Vec<u8>>) -> AgentStep {
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

    /// A place with the stand-in installed, and a step that starts it. The faults hold at every start of it.
    pub(crate) async fn with_obproxy(version: Version, faults: &[(&str, &str)]) -> (Self, StartObproxy) {
        let place = Self::new();
        let (install, start) = place.put_obproxy(version, faults);
        place.execute(&install, "install", None).await.result.unwrap();
        (place, start)
    }

    /// The steps that install and start the stand-in.
    pub(crate) fn put_obproxy(&self, version: Version, faults: &[(&str, &str)]) -> (AgentStep, StartObproxy) {
        let binary = oblet_standins::program("obproxy").unwrap();
        let mut options = match version {
            Version::Old => Options::new(binary, self.dir.path()),
            Version::New => Options::modern(binary, self.dir.path()),
        };
        options.faults = faults.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let path = package::build(&options).unwrap();
        let package: PackageRef = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let install = self.put_file(package.clone(), &fs::read(path).unwrap());
        let rpc_port = (version == Version::New).then(free_port);
        (install, StartObproxy { package, rpc_port, ..start_step() })
    }

    pub(crate) fn instance_dir(&self, start: &StartObproxy) -> PathBuf {
        self.dir.path().join("root/run/obproxy").join(start.sql_port.to_string())
    }

    pub(crate) fn record(&self, start: &StartObproxy) -> PathBuf {
        self.dir.path().join("state/obproxies").join(format!("{}.json", start.sql_port))
    }

    /// The agent knows of a proxy that ran in the directory of this step at another time.
    pub(crate) fn put_record_of_another_time(&self, start: &StartObproxy) {
        let record = serde_json::json!({"schema": 2, "run": "of-another-time", "step": start});
        let path = self.record(start);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, record.to_string()).unwrap();
    }

    /// What the service says before its log begins.
    pub(crate) fn out(&self, start: &StartObproxy) -> PathBuf {
        self.dir.path().join("root/var/log/oblet").join(format!("obproxy@{}.out", start.sql_port))
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.dir.path().join("state/runs")
    }

    /// What the logs of all steps say.
    pub(crate) fn told(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Programs that run from below the root of this host.
    pub(crate) fn programs(&self) -> Vec<i32> {
        let root = self.dir.path().join("root").canonicalize().unwrap();
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(&root)))
            .collect()
    }

    /// Of the instance of this step nothing is left but its package, and of its runs nothing at all.
    pub(crate) fn assert_nothing_is_left(&self, start: &StartObproxy, run_id: &str) {
        self.assert_no_instance(start);
        for run in fs::read_dir(self.runs()).into_iter().flatten() {
            let name = run.unwrap().file_name().into_string().unwrap();
            let is_own = name == run_id || name.starts_with(&format!("{run_id}-"));
            assert!(!is_own, "the run {name} is left over");
        }
    }

    pub(crate) fn assert_no_instance(&self, start: &StartObproxy) {
        for path in [self.instance_dir(start), self.record(start), self.out(start)] {
            assert!(!path.exists(), "{} is left over", path.display());
        }
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.dir.path().join("root/home/admin/obproxy-1.0/bin/obproxy")
    }
}

pub(crate) fn context(
    run_id: &str,
    identity: Option<String>,
    identities: Arc<dyn IdentityStore>,
    passwords: &Passwords,
    log: PathBuf,
) -> StepContext {
    let Passwords { sys, observer } = passwords.clone();
    let secrets = [("obproxy_sys_password", sys), ("observer_sys_password", observer)]
        .map(|(name, password)| (name.to_owned(), Zeroizing::new(password)));
    StepContext {
        run_id: run_id.into(),
        log: Arc::new(Log(log)),
        cancel: Default::default(),
        secrets: Secrets::from_iter(secrets),
        timeout: Some(Duration::from_secs(60)),
        identity,
        identities,
    }
}

pub(crate) fn rpm_is_missing() -> bool {
    let missing = !HostSettings::default_search_path().iter().any(|dir| dir.join("rpm").exists());
    if missing {
        crate::skip::skip("it needs rpm");
    }
    missing
}

pub(crate) fn free_port() -> Port {
    i64::from(crate::ports::own()).try_into().unwrap()
}

/// The same on other ports.
pub(crate) fn elsewhere(start: &StartObproxy) -> StartObproxy {
    StartObproxy {
        sql_port: free_port(),
        exporter_port: free_port(),
        rpc_port: start.rpc_port.map(|_| free_port()),
        ..start.clone()
    }
}

pub(crate) fn instance(start: &StartObproxy) -> Instance {
    Instance {
        kind: InstanceKind::Obproxy,
        sql_port: start.sql_port,
        exporter_port: start.exporter_port,
        cluster_name: start.app_name.clone(),
        cluster_id: 7,
        server_id: 8,
    }
}

pub(crate) fn parameter(name: &str, value: &str) -> Parameter {
    Parameter { name: name.parse().unwrap(), value: value.parse().unwrap() }
}

pub(crate) fn login(start: &StartObproxy, password: &str) -> Result<Client, client::Error> {
    Client::login(&ADDRESS.to_string(), start.sql_port.get(), ADMIN, password)
}

pub(crate) fn is_refused<T>(login: Result<T, client::Error>) -> bool {
    matches!(login, Err(client::Error::Refused { code: 1045, .. }))
}

/// The value of an item of the proxy, by its administrator.
pub(crate) fn item(client: &mut Client, name: &str) -> String {
    let rows = client.query("SHOW PROXYCONFIG").unwrap();
    let row = rows.into_iter().find(|row| row[0].as_deref() == Some(name)).unwrap();
    row[1].clone().unwrap_or_default()
}

/// As obproxy keeps a password.
pub(crate) fn proxy_hash(password: &str) -> String {
    oblet_standins::mysql::hex(&oblet_standins::mysql::sha1(&[password.as_bytes()]))
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
    let end = Instant::now() + Duration::from_secs(60);
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
