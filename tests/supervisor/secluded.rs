//! Jobs in a network of their own.
//!
//! The program that is secluded is this very test program, which listens when it is told a port.

use crate::{
    place::{Place, agent, is_systemd},
    skip::skip,
};
use oblet::agent::host::{Kind, Launch, RunOutcome};
use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const PORT: u16 = 2883;
const PORT_VARIABLE: &str = "OBLET_TEST_LISTEN";

/// Answers each connection with the names of the network devices that it sees, and with what it was told.
#[test]
#[ignore = "no test by itself: the program that the others seclude"]
fn listener() {
    let Some(port) = env::var(PORT_VARIABLE).ok().and_then(|port| port.parse::<u16>().ok()) else { return };
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        let devices = fs::read_to_string("/proc/self/net/dev").unwrap();
        let devices: Vec<&str> = devices.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        stream.write_all(format!("{}\n", devices.join(",")).as_bytes()).unwrap();
        stream.write_all(&told).unwrap();
    }
}

fn launch(place: &Place) -> Launch {
    Launch {
        kind: Kind::SecludedJob { port: PORT },
        program: env::current_exe().unwrap(),
        arguments: ["--exact", "secluded::listener", "--include-ignored", "--nocapture"].map(String::from).into(),
        environment: vec![(PORT_VARIABLE.into(), PORT.to_string())],
        ..place.job("")
    }
}

/// One conversation through the way in; it ends at once while nobody listens.
fn tell(run: &Path, what: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(run.join("sql"))?;
    let mut sender = stream.try_clone()?;
    let what = what.to_vec();
    let sent = std::thread::spawn(move || {
        sender.write_all(&what)?;
        sender.shutdown(Shutdown::Write)
    });
    let mut answer = Vec::new();
    let received = stream.read_to_end(&mut answer);
    let sent = sent.join().unwrap();
    received.and(sent).map(|()| answer)
}

async fn answer(place: &Place, run: &Path, what: &[u8]) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match tell(run, what) {
            Ok(answer) if !answer.is_empty() => return answer,
            _ => assert!(Instant::now() < end, "it does not answer: {}", place.read("log")),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_secluded_program_is_reached_by_its_owner_alone() {
    let place = Place::new();
    let run = place.run("job");
    place.start(&run, &launch(&place)).await;
    if let Some(outcome) = place.supervisor.outcome(&run).await.unwrap() {
        panic!("{outcome:?}: {}", place.read("log"));
    }
    // More than any buffer on the way holds, in both directions.
    let much = vec![b'x'; 3 << 20];
    let answered = answer(&place, &run, &much).await;
    assert_eq!(answered.strip_prefix(b"lo\n"), Some(much.as_slice()), "it sees its own loopback device alone");
    let program = place.running(&run).await;
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(network("self"), network(&program.pid.to_string()));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_err(), "nobody on the host reaches its port");
    assert_eq!(fs::metadata(&run).unwrap().permissions().mode() & 0o777, 0o700, "nor the way in");
    assert!(place.supervisor.processes(&run).unwrap().contains(&program));

    place.supervisor.stop(&run, Duration::from_secs(5)).await.unwrap();
    assert!(!program.is_alive());
    assert!(tell(&run, b"anybody?").is_err(), "the way in is closed");
    assert_eq!(place.outcome(&run).await, RunOutcome::Signal(15));
}

/// A case of this program in a process of its own, under the direct supervisor, with copies that everybody may execute.
fn again(name: &str, prepare: impl FnOnce(&Path, &Path) -> Command) {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (case, shim) = (dir.path().join("case"), dir.path().join("oblet-agent"));
    fs::copy(env::current_exe().unwrap(), &case).unwrap();
    fs::copy(agent(), &shim).unwrap();
    for program in [&case, &shim] {
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = prepare(dir.path(), &case)
        .args(["--exact", name, "--include-ignored", "--nocapture"])
        .env("OBLET_TEST_SUPERVISOR", "direct")
        .env("OBLET_TEST_AGENT", &shim)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("it needs root, to give its rights away");
    }
    root
}

#[test]
fn root_an_agent_without_rights_secludes_its_program_in_a_user_namespace() {
    if !is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let allowed = Command::new("unshare").args(["--user", "--net", "true"]).uid(uid).gid(gid).output().unwrap();
    if !allowed.status.success() {
        let why = String::from_utf8_lossy(&allowed.stderr);
        return skip(&format!("this kernel gives a user without rights no namespace of his own: {why}"));
    }
    again("secluded::a_secluded_program_is_reached_by_its_owner_alone", |dir, case| {
        let mut command = Command::new(case);
        command.uid(uid).gid(gid).current_dir(dir);
        command
    });
}

const REFUSED_VARIABLE: &str = "OBLET_TEST_REFUSED";

#[tokio::test]
#[ignore = "no test by itself: the inside of a_program_that_cannot_be_secluded"]
async fn refusal() {
    if env::var_os(REFUSED_VARIABLE).is_none() {
        return;
    }
    assert!(!is_systemd(), "PID 1 has given nothing away");
    let place = Place::new();
    let run = place.run("job");
    place.start(&run, &launch(&place)).await;
    let outcome = place.outcome(&run).await;
    let said = |why: &str| why.contains("network of its own") && why.contains("CAP_SYS_ADMIN");
    assert!(matches!(&outcome, RunOutcome::NotStarted(why) if said(why)), "{outcome:?}");
    assert!(place.read("log").is_empty(), "the program did not start outside");
}

#[test]
fn root_a_program_that_cannot_be_secluded_is_not_started_and_the_reason_is_said() {
    if !is_root() {
        return;
    }
    again("secluded::refusal", |_, case| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]).arg(case).env(REFUSED_VARIABLE, "1");
        command
    });
}
