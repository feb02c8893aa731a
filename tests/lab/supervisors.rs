use crate::fleet::{Fleet, possible};
use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
};

/// The newest program of a test target, beside the program of this one.
fn test_program(name: &str) -> PathBuf {
    let this = env::current_exe().unwrap();
    let prefix = format!("{name}-");
    let built = fs::read_dir(this.parent().unwrap()).unwrap().flatten().map(|entry| entry.path());
    let of_target = built.filter(|path| {
        path.extension().is_none() && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
    });
    of_target.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).expect("the tests are built")
}

/// The modules of `agent_host` that take about as long as the others together.
const HALF: &str = "crashes:: first_start:: installation:: packages:: removal::";
/// Hundreds of agents that die are left to the supervisor that needs no bus, one case of them is enough here; the last two
/// start and end programs past the supervisor.
const NOT_HERE: &str = "--skip crashes::a_new --skip crashes::an_old --skip removal::the_removal_of \
                        --skip passwords_with_odd_characters --skip a_restart_and_a_retry";

/// The suites that the `direct` supervisor passes wherever tests run, under a systemd. One case at a time on a host: names of
/// units repeat themselves from test to test, and one case restarts the bus that all use.
#[tokio::test(flavor = "multi_thread")]
async fn lab_systemd_does_what_the_direct_supervisor_does() {
    if !possible() {
        return;
    }
    let fleet = Fleet::empty();
    fleet.lab(&["boot", "h1", "h2", "h3"]);
    let others: String = HALF.split(' ').map(|module| format!("--skip {module} ")).collect();
    let suites = [
        ("h1", "supervisor", String::new()),
        ("h2", "agent_host", format!("{HALF} {NOT_HERE}")),
        ("h3", "agent_host", format!("{others} {NOT_HERE}")),
    ];
    thread::scope(|scope| {
        for (host, name, tests) in &suites {
            let fleet = &fleet;
            scope.spawn(move || run_suite(fleet, host, name, tests));
        }
    });
}

fn run_suite(fleet: &Fleet, host: &str, name: &str, tests: &str) {
    let suite = test_program(name);
    let agent = Path::new(env!("CARGO_BIN_EXE_oblet-agent")).to_owned();
    let [obproxy, login] = ["obproxy", "sql-login"].map(|name| oblet_standins::program(name).unwrap());
    for program in [&suite, &agent, &obproxy, &login] {
        fleet.lab(&["put", program.to_str().unwrap(), host]);
    }
    let suite = suite.file_name().unwrap().to_str().unwrap();
    let ran = fleet.on(
        host,
        &format!(
            "cd /root && OBLET_TEST_SUPERVISOR=systemd OBLET_TEST_AGENT=/root/oblet-agent \\
             timeout 300 ./{suite} {tests} --include-ignored --test-threads=1 --nocapture 2>&1"
        ),
    );
    assert!(ran.contains("test result: ok"), "{ran}");
    assert!(!ran.contains("SKIPPED"), "{ran}");
    println!("{ran}");
}
