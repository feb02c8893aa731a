//! What can go wrong, and what must not be possible, while a proxy takes its passwords and parameters.

use crate::place::{
    ADDRESS, Attempt, Passwords, Place, VERSIONS, Version, elsewhere, is_refused, item, login, parameter, proxy_hash,
    rpm_is_missing, until,
};
use futures_util::future::join_all;
use oblet::{
    graph::Effect,
    steps::{AgentStep, CheckProcesses, StartObproxy},
};
use std::{
    fs,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

const SET: &str = "passwords and parameters are set";

/// Each of them is refused by another rule.
const BAD: [(&str, &str, &str); 14] = [
    ("no_such_item", "1", "PARAMETER_UNKNOWN"),
    ("enable_cached_server", "maybe", "PARAMETER_INVALID"),
    ("client_max_connections", "-5", "PARAMETER_INVALID"),
    ("proxy_mem_limited", "1", "PARAMETER_INVALID"),
    ("proxy_id", "9000", "PARAMETER_INVALID"),
    ("log_dir_size_threshold", "much", "PARAMETER_INVALID"),
    ("proxy_hot_upgrade_check_interval", "1s", "PARAMETER_INVALID"),
    ("syslog_level", "LOUD", "PARAMETER_INVALID"),
    ("idc_name", "it's", "PARAMETER_INVALID"),
    ("enable_prometheus", "False", "METRICS_OFF"),
    ("app_name", "other", "PARAMETER_FIXED"),
    ("listen_port", "2883", "PARAMETER_FIXED"),
    ("obproxy_sys_password", "mine", "PARAMETER_FIXED"),
    ("proxy_local_cmd", "1", "PARAMETER_FIXED"),
];

#[tokio::test]
async fn a_bad_parameter_is_named_before_anything_serves_and_leaves_nothing() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start) = Place::with_obproxy(version, &[]).await;
        let place = &place;
        let tries = BAD.iter().enumerate().map(|(number, (name, value, reason))| {
            let start = StartObproxy { startup_parameters: vec![parameter(name, value)], ..elsewhere(&start) };
            async move {
                let (step, run_id) = (AgentStep::StartObproxy(start.clone()), format!("bad{number}"));
                let Attempt { result, undoes } = place.execute(&step, &run_id, None).await;
                let error = result.unwrap_err();
                assert_eq!(&error.reason, reason, "{version:?} {name}: {}", error.message);
                assert!(error.message.contains(name) && !error.next_move.is_empty(), "{}", error.message);
                assert!(!place.out(&start).exists(), "{version:?} {name}: the service was started");
                assert_eq!(place.undo(&step, "undo", &[undoes]).await, Effect::Done);
                place.assert_nothing_is_left(&start, &run_id);
            }
        });
        join_all(tries).await;
        assert!(place.programs().is_empty());
    }
}

const ODD: [&str; 12] = [
    "it's",
    "''",
    r#"say "no""#,
    r#"'"both"'"#,
    "100%_",
    r"a\b\\c",
    r"trailing\",
    r"'\",
    r"\' or ''='",
    "\u{fc}\u{20ac}\u{6f22}\u{1f980}",
    " blanks  around ",
    "0123456789 abcdefghijk'\"%\\\u{fc}mnopq",
];

async fn odd_passwords_work(version: Version, backslash_stands: &str) {
    let (mut place, start) = Place::with_obproxy(version, &[("standin_no_backslash_escapes", backslash_stands)]).await;
    assert_eq!(ODD[11].chars().count(), 32);
    for (number, sys) in ODD.iter().enumerate() {
        let observer = ODD[(number + 1) % ODD.len()];
        place.passwords = Passwords { sys: (*sys).into(), observer: observer.into() };
        let start = elsewhere(&start);
        let step = AgentStep::StartObproxy(start.clone());
        let attempt = place.execute(&step, &format!("odd{number}"), None).await;
        attempt.result.unwrap_or_else(|error| panic!("{version:?} {sys:?}: {error}"));
        let mut client = login(&start, sys).unwrap();
        assert_eq!(item(&mut client, "observer_sys_password"), proxy_hash(observer), "{observer:?}");
        assert!(
            is_refused(login(&start, "")) && is_refused(login(&start, &sys.replace('\\', "\\\\\\")))
                || !sys.contains('\\')
        );
        place.undo(&step, "undo", &[attempt.undoes]).await;
    }
}

#[tokio::test]
async fn passwords_with_odd_characters_work_where_a_backslash_escapes() {
    if !rpm_is_missing() {
        tokio::join!(odd_passwords_work(Version::Old, "0"), odd_passwords_work(Version::New, "0"));
    }
}

#[tokio::test]
async fn passwords_with_odd_characters_work_where_a_backslash_stands_for_itself() {
    if !rpm_is_missing() {
        tokio::join!(odd_passwords_work(Version::Old, "1"), odd_passwords_work(Version::New, "1"));
    }
}

/// Knocks at the port until it opens; answers how often it was closed, and what the log of the step said when it opened.
fn knock(port: u16, over: &AtomicBool, closed: &AtomicUsize, told: impl FnOnce() -> String) -> String {
    while !over.load(Ordering::Relaxed) {
        if TcpStream::connect((ADDRESS, port)).is_ok() {
            return told();
        }
        closed.fetch_add(1, Ordering::Relaxed);
    }
    panic!("the port never opened")
}

#[tokio::test]
async fn nobody_reaches_the_proxy_during_its_first_start() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        // Slow enough to have many tries before each of the two starts listens.
        let (place, start) = Place::with_obproxy(version, &[("standin_slow_start_ms", "300")]).await;
        let (over, closed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let knocking = std::thread::spawn({
            let (port, over, closed) = (start.sql_port.get(), over.clone(), closed.clone());
            let log = place.dir.path().join("log");
            move || knock(port, &over, &closed, || fs::read_to_string(log).unwrap_or_default())
        });
        let step = AgentStep::StartObproxy(start.clone());
        let first_runs = place.runs().join("s-first/program");
        let seclusion = async {
            until("the first start", || first_runs.exists()).await;
            let program: serde_json::Value = serde_json::from_slice(&fs::read(&first_runs).unwrap()).unwrap();
            let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
            assert_ne!(network(&program["pid"].to_string()), network("self"));
            // It belongs to this agent already, and is no reason to refuse another proxy.
            let check = AgentStep::CheckProcesses(CheckProcesses { keywords: vec!["obproxy".parse().unwrap()] });
            place.execute(&check, "check", None).await.result.unwrap();
        };
        let (attempt, ()) = tokio::join!(place.execute(&step, "s", None), seclusion);
        attempt.result.unwrap();
        over.store(true, Ordering::Relaxed);
        let told = knocking.join().unwrap();
        assert!(told.contains(SET), "{version:?}: the port opened during the first start: {told}");
        assert!(closed.load(Ordering::Relaxed) > 100);
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_its_one_time_password_is_given_up_at_once() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start) = Place::with_obproxy(version, &[("standin_refuse_logins", "1")]).await;
        let step = AgentStep::StartObproxy(start.clone());
        let attempt = place.execute(&step, "r1", None).await;
        let error = attempt.result.unwrap_err();
        assert_eq!(error.reason, "PASSWORD_NOT_TAKEN");
        assert!(place.programs().is_empty());
        assert_eq!(place.undo(&step, "u1", &[attempt.undoes]).await, Effect::Done);
        place.assert_nothing_is_left(&start, "r1");
    }
}

#[tokio::test]
async fn a_proxy_that_dies_in_its_first_start_says_why() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        // A fault that the stand-in does not know ends it as a bad value on its command line would.
        let (place, start) = Place::with_obproxy(version, &[("standin_typo", "1")]).await;
        let step = AgentStep::StartObproxy(start.clone());
        let attempt = place.execute(&step, "r1", None).await;
        let error = attempt.result.unwrap_err();
        assert_eq!(error.reason, "DEAD_ON_ARRIVAL");
        assert!(error.message.contains("the value of a parameter is not valid"), "{}", error.message);
        assert!(error.message.contains("no such fault: standin_typo=1"), "{}", error.message);
        assert_eq!(place.undo(&step, "u1", &[attempt.undoes]).await, Effect::Done);
        place.assert_nothing_is_left(&start, "r1");
    }
}

#[tokio::test]
async fn an_argument_that_obproxy_does_not_understand_is_told_as_one() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start) = Place::with_obproxy(version, &[]).await;
        // ALTER takes any list of servers, and the next start cannot read this one.
        let start = StartObproxy { startup_parameters: vec![parameter("rootservice_list", "bad")], ..start };
        let step = AgentStep::StartObproxy(start.clone());
        let attempt = place.execute(&step, "r1", None).await;
        let error = attempt.result.unwrap_err();
        assert_eq!(error.reason, "DEAD_ON_ARRIVAL");
        assert!(error.message.contains("an argument is not valid"), "{}", error.message);
        assert!(error.message.contains("ret=-4002"), "{}", error.message);
        assert_eq!(place.undo(&step, "u1", &[attempt.undoes]).await, Effect::Done);
        place.assert_nothing_is_left(&start, "r1");
    }
}

/// A first start that fails after it was told a password, in a directory of its own or in one that was there before.
async fn forgets_what_it_was_told(version: Version, directory_existed: bool) {
    const EARLIER: &str = "of another time\n";
    let (place, start) = Place::with_obproxy(version, &[("standin_refuse_sys_password", "1")]).await;
    let log = place.instance_dir(&start).join("log");
    if directory_existed {
        place.put_record_of_another_time(&start);
        fs::create_dir_all(&log).unwrap();
        fs::write(log.join("obproxy.log"), EARLIER).unwrap();
    }
    let error = place.execute(&AgentStep::StartObproxy(start.clone()), "r1", None).await.result.unwrap_err();
    assert_eq!(error.reason, "PARAMETER_INVALID", "{version:?}: {}", error.message);
    assert!(error.message.contains("obproxy_sys_password"), "it has taken the other one: {}", error.message);
    let left: Vec<_> = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).collect();
    if directory_existed {
        assert_eq!(left, [log.join("obproxy.log")], "{version:?}");
        assert_eq!(fs::read_to_string(&left[0]).unwrap(), EARLIER, "{version:?}");
    } else {
        assert!(left.is_empty(), "{version:?}: {left:?}");
    }
}

#[tokio::test]
async fn a_first_start_that_fails_leaves_no_log_of_the_passwords_that_it_was_told() {
    if !rpm_is_missing() {
        for version in VERSIONS {
            for directory_existed in [false, true] {
                forgets_what_it_was_told(version, directory_existed).await;
            }
        }
    }
}
