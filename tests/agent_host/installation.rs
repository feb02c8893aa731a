//! A whole installation with the stand-in of obproxy, in both of its versions.

use crate::place::{
    ADDRESS, Place, VERSIONS, Version, elsewhere, free_port, instance, is_refused, item, login, parameter, proxy_hash,
    rpm_is_missing, running, supervisor, until,
};
use oblet::{
    agent::HostView as _,
    graph::Effect,
    steps::{
        AgentStep, CheckProcesses, ExposeExporter, RefreshConfig, SetObproxyPasswords, StartObproxy,
        SyncObproxyParameters,
    },
};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Every step of the operation "install obproxy" after the checks.
pub(crate) fn steps_of_an_installation(place: &Place, version: Version) -> (Vec<AgentStep>, StartObproxy) {
    let (install, start) = place.put_obproxy(version, &[]);
    let sql_port = start.sql_port;
    let instance = instance(&start);
    let steps = vec![
        install,
        AgentStep::StartObproxy(start.clone()),
        AgentStep::SyncObproxyParameters(SyncObproxyParameters {
            sql_port,
            parameters: vec![parameter("proxy_mem_limited", "4G"), parameter("syslog_level", "INFO")],
        }),
        AgentStep::SetObproxyPasswords(SetObproxyPasswords { sql_port }),
        AgentStep::RefreshConfig(RefreshConfig { instance: instance.clone() }),
        AgentStep::ExposeExporter(ExposeExporter { instance }),
    ];
    (steps, start)
}

fn no_obproxy() -> AgentStep {
    AgentStep::CheckProcesses(CheckProcesses { keywords: vec!["obproxy".parse().unwrap()] })
}

/// The passwords and parameters of the installation, and no other password.
pub(crate) fn assert_configured(place: &Place, start: &StartObproxy) {
    let mut client = login(start, &place.passwords.sys).unwrap();
    assert_eq!(item(&mut client, "proxy_mem_limited"), "4G");
    assert_eq!(item(&mut client, "syslog_level"), "INFO");
    assert_eq!(item(&mut client, "local_bound_ip"), ADDRESS.to_string());
    assert_eq!(item(&mut client, "observer_sys_password"), proxy_hash(&place.passwords.observer));
    for wrong in ["", "wrong", &place.passwords.observer, &proxy_hash(&place.passwords.sys)] {
        assert!(is_refused(login(start, wrong)), "{wrong:?} opens the proxy");
    }
}

async fn every_step_twice(version: Version) {
    let mut place = Place::new();
    let (steps, start) = steps_of_an_installation(&place, version);
    let mut attempts = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let first = place.execute(step, &format!("first-{number}"), None).await;
        // It has its passwords since its first start.
        let expected = if matches!(step, AgentStep::SetObproxyPasswords(_)) { Effect::None } else { Effect::Done };
        assert_eq!(first.result.unwrap().effect, expected, "{version:?} {}", step.kind());
        let second = place.execute(step, &format!("second-{number}"), None).await;
        assert_eq!(second.result.unwrap().effect, Effect::None, "{version:?} {}", step.kind());
        assert_eq!(place.undo(step, &format!("quiet-{number}"), &[second.undoes]).await, Effect::None);
        attempts.push(first.undoes);
    }
    assert_configured(&place, &start);
    assert_eq!(place.host.config_generation(), 2);
    // The agent restarts, the instance does not.
    let before = place.host.instances();
    place.host = Place::open(place.dir.path());
    assert!(before[0].alive);
    assert_eq!(place.host.instances(), before);
    place.execute(&no_obproxy(), "check", None).await.result.unwrap();

    assert!(!place.told().contains("not-to-be-seen"));
    for (number, (step, undoes)) in steps.iter().zip(attempts).enumerate().rev() {
        let changes = !matches!(step, AgentStep::SyncObproxyParameters(_) | AgentStep::SetObproxyPasswords(_));
        let expected = if changes { Effect::Done } else { Effect::None };
        let undoes = [undoes];
        assert_eq!(place.undo(step, &format!("undo-{number}"), &undoes).await, expected, "{}", step.kind());
        assert_eq!(place.undo(step, &format!("again-{number}"), &undoes).await, Effect::None, "{}", step.kind());
    }
    assert!(place.host.instances().is_empty());
    assert!(place.programs().is_empty());
    place.assert_nothing_is_left(&start, "first-1");
}

#[tokio::test]
async fn every_step_has_one_effect_and_every_undo_is_quiet_the_second_time() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        every_step_twice(version).await;
    }
}

#[tokio::test]
async fn a_wrong_parameter_names_itself() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start) = Place::with_obproxy(version, &[]).await;
        let step = AgentStep::StartObproxy(start.clone());
        let started = place.execute(&step, "s", None).await;
        started.result.unwrap();
        for (name, value, reason) in
            [("no_such_item", "1", "PARAMETER_UNKNOWN"), ("listen_port", "2883", "PARAMETER_FIXED")]
        {
            let parameters = vec![parameter(name, value)];
            let sync = SyncObproxyParameters { sql_port: start.sql_port, parameters };
            let error = place.execute(&AgentStep::SyncObproxyParameters(sync), "p", None).await.result.unwrap_err();
            assert_eq!(error.reason, reason, "{version:?}");
            assert!(error.message.contains(name) && !error.next_move.is_empty());
        }
        assert_eq!(place.undo(&step, "u", &[started.undoes]).await, Effect::Done);
    }
}

#[tokio::test]
async fn root_starts_the_proxy_as_the_run_user() {
    if rpm_is_missing() {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        return crate::skip::skip("it needs root");
    }
    for version in VERSIONS {
        let place = Place::with_run_user("nobody");
        let (install, start) = place.put_obproxy(version, &[]);
        place.execute(&install, "i", None).await.result.unwrap();
        let step = AgentStep::StartObproxy(start.clone());
        let attempt = place.execute(&step, "s", None).await;
        attempt.result.unwrap();
        let process = running(&place.runs().join("s")).await;
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let four = |id: u32| [id.to_string().as_str(); 4].join("\t");
        assert_eq!(line("Uid:"), four(nobody.uid.as_raw()));
        assert_eq!(line("Gid:"), four(nobody.gid.as_raw()));
        let own = nobody.gid.to_string();
        assert!(line("Groups:").split_whitespace().all(|group| group == own), "no group of root is left");
        let log = place.out(&start);
        assert_eq!(fs::metadata(&log).unwrap().uid(), 0);
        let parent = fs::metadata(log.parent().unwrap()).unwrap();
        assert_eq!(parent.uid(), 0, "nobody can put a link in the place of the log");
        assert_eq!(place.undo(&step, "u", &[attempt.undoes]).await, Effect::Done);
    }
}

/// A program that is killed with its test.
struct ByHand(Child);

impl ByHand {
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The launch of a run, as an operator would repeat it.
fn repeated(run: &Path) -> Command {
    let launch: serde_json::Value = serde_json::from_slice(&fs::read(run.join("launch")).unwrap()).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let mut command = Command::new(text(&launch["program"]));
    command.args(launch["arguments"].as_array().unwrap().iter().map(text)).env_clear();
    for pair in launch["environment"].as_array().unwrap() {
        command.env(text(&pair[0]), text(&pair[1]));
    }
    command.current_dir(text(&launch["directory"]));
    command
}

#[tokio::test]
async fn a_restart_and_a_retry_of_every_step_keep_passwords_and_parameters() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let place = Place::new();
        let (steps, start) = steps_of_an_installation(&place, version);
        for (number, step) in steps.iter().enumerate() {
            place.execute(step, &format!("first-{number}"), None).await.result.unwrap();
        }
        let run = place.runs().join("first-1");
        supervisor().stop(&run, Duration::from_secs(10)).await.unwrap();
        assert!(place.programs().is_empty());
        let by_hand = ByHand::start(repeated(&run));
        until("the proxy", || login(&start, &place.passwords.sys).is_ok()).await;
        assert_configured(&place, &start);
        by_hand.end();

        for (number, step) in steps.iter().enumerate() {
            let effect = place.execute(step, &format!("retry-{number}"), None).await.result.unwrap().effect;
            let expected = if matches!(step, AgentStep::StartObproxy(_)) { Effect::Done } else { Effect::None };
            assert_eq!(effect, expected, "{version:?} {}", step.kind());
        }
        assert_configured(&place, &start);
        assert_eq!(place.programs().len(), 1);
    }
}

#[tokio::test]
async fn proxies_on_one_host_do_not_collide_and_a_strange_one_still_counts() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, first) = Place::with_obproxy(version, &[]).await;
        let second = elsewhere(&first);
        for start in [&first, &second] {
            place.execute(&no_obproxy(), "check", None).await.result.unwrap();
            let run_id = format!("start-{}", start.sql_port);
            place.execute(&AgentStep::StartObproxy(start.clone()), &run_id, None).await.result.unwrap();
        }
        for start in [&first, &second] {
            login(start, &place.passwords.sys).unwrap();
        }
        let clash = StartObproxy { exporter_port: first.exporter_port, ..elsewhere(&first) };
        let error = place.execute(&AgentStep::StartObproxy(clash), "clash", None).await.result.unwrap_err();
        assert_eq!(error.reason, "PORT_TAKEN");
        let (app, port) = (&first.app_name, first.sql_port);
        let held =
            format!("port {} is held by the obproxy of {app} at port {port}, which oblet runs", first.exporter_port);
        assert!(error.message.contains(&held), "{}", error.message);
        assert!(!error.next_move.contains("stop"), "{}", error.next_move);

        let strange = stranger(&place);
        let error = place.execute(&no_obproxy(), "check", None).await.result.unwrap_err();
        assert_eq!(error.reason, "PROCESS_EXISTS");
        assert!(error.message.starts_with(&format!("1 process(es) match obproxy: pid {}", strange.0.id())));
    }
}

/// An obproxy that somebody else has started on this host.
fn stranger(place: &Place) -> ByHand {
    let root = place.dir.path().join("root");
    let directory = root.join("elsewhere");
    fs::create_dir(&directory).unwrap();
    let program: PathBuf = fs::read_link(format!("/proc/{}/exe", place.programs()[0])).unwrap();
    let mut command = Command::new(program);
    let ports = [free_port(), free_port()].map(|port| port.to_string());
    command.args(["-N", "-p", &ports[0], "-l", &ports[1], "-r", "127.0.0.1:1", "-n", "strange"]);
    command.args(["-o", "enable_obproxy_rpc_service=false"]).env_clear().current_dir(directory);
    let strange = ByHand::start(command);
    // The kernel says that a program is executed before it shows the command line of it.
    let shown = PathBuf::from(format!("/proc/{}/cmdline", strange.0.id()));
    let end = Instant::now() + Duration::from_secs(10);
    while fs::read(&shown).unwrap().is_empty() {
        assert!(Instant::now() < end, "it has no command line");
        std::thread::yield_now();
    }
    strange
}
