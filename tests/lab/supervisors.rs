use crate::fleet::{Fleet, possible};
use std::{
    env, fs,
    path::{Path, PathBuf},
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

/// The suites that the `direct` supervisor passes wherever tests run, under a systemd.
#[tokio::test(flavor = "multi_thread")]
async fn lab_systemd_does_what_the_direct_supervisor_does() {
    if !possible() {
        return;
    }
    let fleet = Fleet::empty();
    fleet.lab(&["boot", "h1"]);
    let agent = Path::new(env!("CARGO_BIN_EXE_oblet-agent")).to_owned();
    let [obproxy, login] = ["obproxy", "sql-login"].map(|name| oblet_standins::program(name).unwrap());
    for name in ["supervisor", "agent_host"] {
        let suite = test_program(name);
        for program in [&suite, &agent, &obproxy, &login] {
            fleet.lab(&["put", program.to_str().unwrap(), "h1"]);
        }
        let suite = suite.file_name().unwrap().to_str().unwrap();
        // One at a time: a case restarts the bus that all use. Hundreds of agents that die are left to the supervisor that
        // needs no bus, one case of them is enough here; the last two skipped start and end programs past the supervisor.
        let ran = fleet.on(
            "h1",
            &format!(
                "cd /root && OBLET_TEST_SUPERVISOR=systemd OBLET_TEST_AGENT=/root/oblet-agent \\
                 timeout 300 ./{suite} --skip crashes::a_new --skip crashes::an_old \
                 --skip passwords_with_odd_characters --skip a_restart_and_a_retry \
                 --include-ignored --test-threads=1 --nocapture 2>&1"
            ),
        );
        assert!(ran.contains("test result: ok"), "{ran}");
        assert!(!ran.contains("SKIPPED"), "{ran}");
        println!("{ran}");
    }
}
