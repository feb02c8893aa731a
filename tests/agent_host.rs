//! The real host in a directory of its own: real rpm, real processes, the real shim.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a panic is fine where it fails a test"
)]

use oblet::{
    agent::{
        HostView,
        host::{DirectSupervisor, Host, HostSettings, Launch, ProcessId, RunOutcome, RunState, Supervisor},
        step::{BoxFuture, Carrier, Done, IdentityStore, Secrets, StepContext, StepError, StepLog, Undoes},
    },
    graph::Effect,
    steps::{
        AgentStep, CheckProcesses, ExposeExporter, InstallPackage, Instance, InstanceKind, RefreshConfig,
        SetObproxyPasswords, StartObproxy, SyncObproxyParameters, WorkMode,
        values::{PackageRef, Parameter, Port},
    },
};
use sha2::{Digest as _, Sha256};
use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

const PACKAGE: &str = "obproxy-1.0-1.el7.noarch";

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
struct Identities(Mutex<Option<String>>);

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
struct Place {
    dir: tempfile::TempDir,
    host: Host,
}

/// A test that fails leaves no process behind.
impl Drop for Place {
    fn drop(&mut self) {
        for run in fs::read_dir(self.dir.path().join("state/runs")).into_iter().flatten() {
            if let Ok(RunState::Running(process)) = supervisor().find(&run.unwrap().path()) {
                let pid = nix::unistd::Pid::from_raw(process.pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// One attempt: its result and what an undo is told of it.
struct Attempt {
    result: Result<Done, StepError>,
    undoes: Undoes,
}

fn supervisor() -> DirectSupervisor {
    DirectSupervisor::with_agent(env!("CARGO_BIN_EXE_oblet-agent").into())
}

impl Place {
    fn new() -> Self {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
        Self::with_run_user(&user.name)
    }

    fn with_run_user(user: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let host = Self::open_as(dir.path(), user);
        Self { dir, host }
    }

    /// As after a restart of the agent.
    fn open(dir: &Path) -> Host {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
        Self::open_as(dir, &user.name)
    }

    fn open_as(dir: &Path, run_user: &str) -> Host {
        let settings = HostSettings {
            root_dir: dir.join("root"),
            state_dir: dir.join("state"),
            address: Some(std::net::Ipv4Addr::LOCALHOST.into()),
            run_user: run_user.into(),
            run_path: "/run/obproxy".into(),
            rpm_scriptlets: false,
            rpm_dependencies: false,
            builtin_sys_password_file: None,
            search_path: HostSettings::default_search_path(),
        };
        fs::create_dir_all(&settings.root_dir).unwrap();
        fs::set_permissions(&settings.root_dir, fs::Permissions::from_mode(0o755)).unwrap();
        Host::with_supervisor(settings, Box::new(supervisor())).unwrap()
    }

    fn context(&self, run_id: &str, identity: Option<String>) -> (StepContext, Arc<Identities>) {
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

    async fn execute(&self, step: &AgentStep, run_id: &str, identity: Option<String>) -> Attempt {
        let (context, store) = self.context(run_id, identity);
        let result = self.host.execute(step, &context).await;
        let effect = match &result {
            Ok(done) => done.effect,
            Err(error) => error.effect,
        };
        let identity = store.0.lock().unwrap().clone();
        Attempt { result, undoes: Undoes { identity, effect } }
    }

    async fn undo(&self, step: &AgentStep, run_id: &str, undoes: &[Undoes]) -> Effect {
        let (context, _) = self.context(run_id, None);
        self.host.undo(step, &context, undoes).await.unwrap().effect
    }

    fn put(&self, name: &str, script: &str) -> AgentStep {
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

    fn put_file(&self, package: PackageRef, bytes: &[u8]) -> AgentStep {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let dir = self.dir.path().join("state/packages").join(&digest);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(package.file_name()), bytes).unwrap();
        AgentStep::InstallPackage(InstallPackage { package, sha256: digest.parse().unwrap() })
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("root/home/admin/obproxy-1.0/bin/obproxy")
    }
}

fn rpm_is_missing() -> bool {
    let missing = !HostSettings::default_search_path().iter().any(|dir| dir.join("rpm").exists());
    if missing {
        eprintln!("SKIPPED: this test needs rpm");
    }
    missing
}

fn free_port() -> Port {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    i64::from(port).try_into().unwrap()
}

fn start_step() -> StartObproxy {
    StartObproxy {
        package: PACKAGE.parse().unwrap(),
        app_name: "odp".parse().unwrap(),
        sql_port: free_port(),
        exporter_port: free_port(),
        work_mode: WorkMode::ConfigUrl { url: "http://127.0.0.1/?".into() },
        startup_parameters: Vec::new(),
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn launch(dir: &Path, script: &str) -> Launch {
    Launch {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("SECRET".into(), "not-to-be-seen".into())],
        directory: dir.into(),
        user: None,
        log: dir.join("log"),
    }
}

#[tokio::test]
async fn a_run_is_found_followed_and_its_outcome_kept() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let supervisor = supervisor();
    supervisor.start(&run, &launch(dir.path(), "echo $SECRET; exit 3")).await.unwrap();
    until("the outcome", || supervisor.outcome(&run).unwrap().is_some()).await;
    assert_eq!(supervisor.outcome(&run).unwrap(), Some(RunOutcome::ExitCode(3)));
    assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "not-to-be-seen\n");
    for file in fs::read_dir(&run).unwrap() {
        assert!(!fs::read_to_string(file.unwrap().path()).unwrap().contains("not-to-be-seen"));
    }
    assert!(supervisor.start(&run, &launch(dir.path(), "touch again")).await.is_ok());
    assert!(!dir.path().join("again").exists(), "a run starts once");
}

#[tokio::test]
async fn stopping_ends_the_whole_session_even_if_it_does_not_listen() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let supervisor = supervisor();
    let script = "trap '' TERM; sleep 600 & echo $! > child; wait; wait";
    supervisor.start(&run, &launch(dir.path(), script)).await.unwrap();
    until("the child", || fs::read_to_string(dir.path().join("child")).is_ok_and(|text| text.ends_with('\n'))).await;
    let RunState::Running(program) = supervisor.find(&run).unwrap() else { panic!("it does not run") };
    supervisor.stop(&run, Duration::from_millis(200)).await.unwrap();
    assert!(!program.is_alive());
    assert!(matches!(supervisor.find(&run).unwrap(), RunState::Ended(RunOutcome::Signal(9) | RunOutcome::ExitCode(_))));
    supervisor.stop(&run, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_late_shim_cannot_start_what_recovery_gave_up() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    let supervisor = supervisor();
    assert_eq!(supervisor.find(&run).unwrap(), RunState::Nothing);
    assert!(supervisor.start(&run, &launch(dir.path(), "touch started")).await.is_err());
    assert!(!dir.path().join("started").exists());
    assert_eq!(supervisor.find(&run).unwrap(), RunState::Nothing);
}

#[tokio::test]
async fn a_program_that_cannot_be_started_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let supervisor = supervisor();
    let missing = Launch { program: "/nowhere/program".into(), ..launch(dir.path(), "") };
    supervisor.start(&run, &missing).await.unwrap();
    assert!(matches!(supervisor.outcome(&run).unwrap(), Some(RunOutcome::NotStarted(why)) if why.contains("No such")));
}

#[tokio::test]
async fn a_package_is_installed_once_and_erased_only_by_its_installer() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    let first = place.execute(&step, "r1", None).await;
    let done = first.result.unwrap();
    assert_eq!(done.effect, Effect::Done);
    let home = place.dir.path().join("root/home/admin/obproxy-1.0").display().to_string();
    assert_eq!(done.output, [("home".to_owned(), home)]);
    assert!(place.program().exists());

    let second = place.execute(&step, "r2", None).await;
    assert_eq!(second.undoes.effect, Effect::None);
    assert_eq!(place.undo(&step, "u2", &[second.undoes]).await, Effect::None);
    assert!(place.program().exists());

    let again = place.execute(&step, "r1", first.undoes.identity.clone()).await;
    assert_eq!(again.undoes.effect, Effect::Done, "after a crash the attempt still knows that it installed it");

    let newer = place.put("obproxy-2.0-1.el7.noarch", "#!/bin/sh\n");
    let refused = place.execute(&newer, "r3", None).await.result.unwrap_err();
    assert_eq!(refused.reason, "OTHER_VERSION");
    assert!(refused.message.contains(PACKAGE), "{}", refused.message);

    let unknown = Undoes { effect: Effect::Unknown, ..first.undoes };
    assert_eq!(place.undo(&step, "u1", std::slice::from_ref(&unknown)).await, Effect::Done);
    assert!(!place.program().exists());
    assert_eq!(place.undo(&step, "u1-again", &[unknown]).await, Effect::None);
}

#[tokio::test]
async fn a_package_that_came_before_rpm_was_begun_is_somebody_elses() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    place.execute(&step, "other", None).await.result.unwrap();
    let named = || Some(r#"{"run":"r1","was_installed":false}"#.to_owned());
    assert_eq!(place.execute(&step, "r1", named()).await.undoes.effect, Effect::None);
    let unknown = Undoes { identity: named(), effect: Effect::Unknown };
    assert_eq!(place.undo(&step, "u1", &[unknown]).await, Effect::None);
    assert!(place.program().exists());
}

#[tokio::test]
async fn a_stopped_rpm_is_asked_for_what_it_left() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    place.execute(&step, "r0", None).await.result.unwrap();
    // It has installed the package and is still at its scriptlets when the agent comes back.
    let run = place.dir.path().join("state/runs/r1");
    supervisor().start(&run, &launch(place.dir.path(), "exec sleep 600")).await.unwrap();
    let (context, _) = place.context("r1", Some(r#"{"run":"r1","was_installed":false}"#.to_owned()));
    context.cancel.cancel();
    let error = place.host.execute(&step, &context).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("CANCELED", Effect::Done));
}

#[tokio::test]
async fn a_refusal_of_rpm_carries_its_words() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    // Where a directory has to be, there is a file.
    fs::write(place.dir.path().join("root/home"), "").unwrap();
    let attempt = place.execute(&step, "r1", None).await;
    let error = attempt.result.unwrap_err();
    assert_eq!((error.reason, error.effect), ("RPM_FAILED", Effect::None), "{}", error.message);
    assert!(error.exit_code.is_some_and(|code| code != 0));
    assert_eq!(place.undo(&step, "u1", &[attempt.undoes]).await, Effect::None);
}

#[tokio::test]
async fn a_proxy_that_dies_at_once_is_reported_with_its_last_words() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    place.execute(&place.put(PACKAGE, "#!/bin/sh\necho no room for $observer_sys_password\nexit 3\n"), "i", None).await;
    let start = start_step();
    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());
    let step = AgentStep::StartObproxy(start);
    let attempt = place.execute(&step, "r1", None).await;
    let error = attempt.result.unwrap_err();
    assert_eq!((error.reason, error.exit_code), ("DEAD_ON_ARRIVAL", Some(3)));
    assert!(error.message.contains("no room for"), "{}", error.message);
    assert!(!error.message.contains("not-to-be-seen"));
    assert!(dir.join(".oblet.json").exists());
    assert_eq!(place.undo(&step, "u1", std::slice::from_ref(&attempt.undoes)).await, Effect::Done);
    assert!(!dir.exists());
    assert_eq!(place.undo(&step, "u2", &[attempt.undoes]).await, Effect::None);
}

/// A proxy whose agent has died while it waited for the ports.
async fn left_alone(place: &mut Place) -> (StartObproxy, Option<String>, ProcessId) {
    place.execute(&place.put(PACKAGE, "#!/bin/sh\necho \"$@\" > arguments\nexec sleep 600\n"), "i", None).await;
    let start = start_step();
    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());
    let step = AgentStep::StartObproxy(start.clone());
    let (context, store) = place.context("r1", None);
    {
        let running = place.host.execute(&step, &context);
        tokio::pin!(running);
        tokio::select! {
            _ = &mut running => panic!("a sleeping proxy does not serve"),
            () = until("the program", || dir.join("arguments").exists()) => {}
        }
    }
    let identity = store.0.lock().unwrap().clone();
    let named: serde_json::Value = serde_json::from_str(identity.as_deref().unwrap()).unwrap();
    let run = place.dir.path().join("state/runs").join(named["run"].as_str().unwrap());
    place.host = Place::open(place.dir.path());
    let RunState::Running(before) = supervisor().find(&run).unwrap() else { panic!("it does not run") };
    (start, identity, before)
}

#[tokio::test]
async fn what_the_journal_has_forgotten_is_stopped_by_its_marker() {
    if rpm_is_missing() {
        return;
    }
    let mut place = Place::new();
    let (start, _, before) = left_alone(&mut place).await;
    let forgotten = [Undoes { identity: None, effect: Effect::Done }];
    let other = AgentStep::StartObproxy(StartObproxy { app_name: "other".parse().unwrap(), ..start.clone() });
    assert_eq!(place.undo(&other, "u1", &forgotten).await, Effect::None);
    assert!(before.is_alive(), "it belongs to another task");
    let step = AgentStep::StartObproxy(start);
    assert_eq!(place.undo(&step, "u2", &forgotten).await, Effect::Done);
    assert!(!before.is_alive());
    assert_eq!(place.undo(&step, "u3", &forgotten).await, Effect::None);
}

#[tokio::test]
async fn a_proxy_outlives_the_agent_is_adopted_and_stopped() {
    if rpm_is_missing() {
        return;
    }
    let mut place = Place::new();
    let (start, identity, before) = left_alone(&mut place).await;
    let step = AgentStep::StartObproxy(start.clone());
    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());

    let other = AgentStep::StartObproxy(StartObproxy { app_name: "other".parse().unwrap(), ..start });
    let refused = place.execute(&other, "r2", None).await.result.unwrap_err();
    assert_eq!(refused.reason, "PORT_TAKEN");
    assert!(refused.message.contains(&format!("pid {}", before.pid)), "{}", refused.message);

    // Adopted, it still does not serve; a cancel stops it.
    let (context, _) = place.context("r1", identity.clone());
    let cancel = context.cancel.clone();
    let log = place.dir.path().join("log");
    let adopted = async {
        until("the adoption", || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("before the agent's restart"))
        })
        .await;
        assert!(before.is_alive());
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(place.host.execute(&step, &context), adopted);
    assert_eq!(result.unwrap_err().reason, "CANCELED");
    assert!(!before.is_alive());
    let undoes = [Undoes { identity, effect: Effect::Unknown }];
    assert_eq!(place.undo(&step, "u1", &undoes).await, Effect::Done);
    assert!(!dir.exists());
    assert_eq!(place.undo(&step, "u2", &undoes).await, Effect::None);
}

#[tokio::test]
async fn strangers_on_the_port_and_in_the_directory_are_left_alone() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    place.execute(&place.put(PACKAGE, "#!/bin/sh\nexit 0\n"), "i", None).await;
    let start = start_step();
    let step = AgentStep::StartObproxy(start.clone());
    let listener = TcpListener::bind(("127.0.0.1", start.sql_port.get())).unwrap();
    let taken = place.execute(&step, "r1", None).await.result.unwrap_err();
    assert_eq!(taken.reason, "PORT_TAKEN");
    assert!(taken.message.contains(&format!("pid {}", std::process::id())), "{}", taken.message);
    drop(listener);

    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());
    fs::create_dir_all(dir.join("etc")).unwrap();
    let attempt = place.execute(&step, "r2", None).await;
    assert_eq!(attempt.result.unwrap_err().reason, "DIRECTORY_TAKEN");
    assert_eq!(place.undo(&step, "u2", &[attempt.undoes]).await, Effect::None);
    assert!(dir.join("etc").exists());
}

/// Every step of the operation "install obproxy" after the checks.
fn steps_of_an_installation(place: &Place) -> Vec<AgentStep> {
    let binary = oblet_standins::program("obproxy").unwrap();
    let path =
        oblet_standins::package::build(&oblet_standins::package::Options::new(binary, place.dir.path())).unwrap();
    let package: PackageRef = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let install = place.put_file(package.clone(), &fs::read(path).unwrap());
    let start = StartObproxy { package, ..start_step() };
    let sql_port = start.sql_port;
    let parameter = |name: &str, value: &str| Parameter { name: name.parse().unwrap(), value: value.parse().unwrap() };
    let instance = Instance {
        kind: InstanceKind::Obproxy,
        sql_port,
        exporter_port: start.exporter_port,
        cluster_name: "odp".parse().unwrap(),
        cluster_id: 7,
        server_id: 8,
    };
    vec![
        install,
        AgentStep::StartObproxy(start),
        AgentStep::SyncObproxyParameters(SyncObproxyParameters {
            sql_port,
            parameters: vec![parameter("proxy_mem_limited", "4G"), parameter("syslog_level", "INFO")],
        }),
        AgentStep::SetObproxyPasswords(SetObproxyPasswords { sql_port }),
        AgentStep::RefreshConfig(RefreshConfig { instance: instance.clone() }),
        AgentStep::ExposeExporter(ExposeExporter { instance }),
    ]
}

#[tokio::test]
async fn every_step_has_one_effect_and_every_undo_is_quiet_the_second_time() {
    if rpm_is_missing() {
        return;
    }
    let mut place = Place::new();
    let steps = steps_of_an_installation(&place);
    let mut attempts = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let first = place.execute(step, &format!("first-{number}"), None).await;
        assert_eq!(first.result.unwrap().effect, Effect::Done, "{}", step.kind());
        let second = place.execute(step, &format!("second-{number}"), None).await;
        assert_eq!(second.result.unwrap().effect, Effect::None, "{}", step.kind());
        assert_eq!(place.undo(step, &format!("quiet-{number}"), &[second.undoes]).await, Effect::None);
        attempts.push(first.undoes);
    }
    assert_eq!(place.host.config_generation(), 2);
    // The agent restarts, the instance does not.
    let before = place.host.instances();
    place.host = Place::open(place.dir.path());
    assert!(before[0].alive);
    assert_eq!(place.host.instances(), before);
    let keyword = AgentStep::CheckProcesses(CheckProcesses { keywords: vec!["obproxy".parse().unwrap()] });
    let found = place.execute(&keyword, "check", None).await.result.unwrap_err();
    assert!(found.message.contains(&format!("pid {}", before[0].pid)), "{}", found.message);

    let log = fs::read_to_string(place.dir.path().join("log")).unwrap();
    assert!(!log.contains("not-to-be-seen"));
    for (number, (step, undoes)) in steps.iter().zip(attempts).enumerate().rev() {
        let changes = !matches!(step, AgentStep::SyncObproxyParameters(_) | AgentStep::SetObproxyPasswords(_));
        let expected = if changes { Effect::Done } else { Effect::None };
        let undoes = [undoes];
        assert_eq!(place.undo(step, &format!("undo-{number}"), &undoes).await, expected, "{}", step.kind());
        assert_eq!(place.undo(step, &format!("again-{number}"), &undoes).await, Effect::None, "{}", step.kind());
    }
    assert!(place.host.instances().is_empty());
    place.execute(&keyword, "check", None).await.result.unwrap();
}

#[tokio::test]
async fn a_wrong_parameter_names_itself() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let steps = steps_of_an_installation(&place);
    let [install, start, ..] = steps.as_slice() else { panic!("two steps at least") };
    place.execute(install, "i", None).await.result.unwrap();
    let started = place.execute(start, "s", None).await;
    started.result.unwrap();
    let AgentStep::StartObproxy(StartObproxy { sql_port, .. }) = start else { panic!("the second step starts") };
    let parameters = vec![Parameter { name: "no_such_item".parse().unwrap(), value: "1".parse().unwrap() }];
    let sync = AgentStep::SyncObproxyParameters(SyncObproxyParameters { sql_port: *sql_port, parameters });
    let error = place.execute(&sync, "p", None).await.result.unwrap_err();
    assert_eq!(error.reason, "PARAMETER_UNKNOWN");
    assert!(error.message.contains("no_such_item") && !error.next_move.is_empty());
    assert_eq!(place.undo(start, "u", &[started.undoes]).await, Effect::Done);
}

#[tokio::test]
async fn root_starts_the_proxy_as_the_run_user() {
    if rpm_is_missing() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    let place = Place::with_run_user("nobody");
    let steps = steps_of_an_installation(&place);
    let [install, start, ..] = steps.as_slice() else { panic!("two steps at least") };
    place.execute(install, "i", None).await.result.unwrap();
    let attempt = place.execute(start, "s", None).await;
    attempt.result.unwrap();
    let identity: serde_json::Value = serde_json::from_str(attempt.undoes.identity.as_deref().unwrap()).unwrap();
    let run = place.dir.path().join("state/runs").join(identity["run"].as_str().unwrap());
    let RunState::Running(process) = supervisor().find(&run).unwrap() else { panic!("it does not run") };
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let four = |id: u32| [id.to_string().as_str(); 4].join("\t");
    assert_eq!(line("Uid:"), four(nobody.uid.as_raw()));
    assert_eq!(line("Gid:"), four(nobody.gid.as_raw()));
    assert_eq!(line("Groups:"), "", "no group of root is left");
    let AgentStep::StartObproxy(StartObproxy { sql_port, .. }) = start else { panic!("the second step starts") };
    let log = place.dir.path().join("root/run/obproxy").join(sql_port.to_string()).join("log/obproxy.out");
    assert_eq!(fs::metadata(log).unwrap().uid(), nobody.uid.as_raw());
    assert_eq!(place.undo(start, "u", &[attempt.undoes]).await, Effect::Done);
}
