//! C1 to C18.

use crate::place::{NEW, OLD, Place, hash, value, wait};
use std::fs;

#[test]
fn what_it_says_goes_to_stderr_and_it_never_fails() {
    for version in [OLD, NEW] {
        let place = Place::new("says", version);
        let usage = "--promethues_listen_port";
        for (arguments, expected) in [
            (vec!["-Z"], "fail to parse cmd line, ret=-4104"),
            (vec!["--bogus"], "ret=-4104"),
            (vec!["-p"], "ret=-4104"),
            (vec!["-p", "80"], "ret=-4002"),
            (vec!["-p", "abc"], "ret=-4002"),
            (vec!["-l70000"], "ret=-4002"),
            (vec!["-h"], usage),
            (vec!["--help"], usage),
            (vec!["-V"], "\nREVISION:"),
            (vec!["-R"], ""),
        ] {
            let output = place.output(&arguments);
            let stderr = String::from_utf8(output.stderr).unwrap();
            let argv = format!("obproxy {}", arguments.join(" "));
            assert!(stderr.lines().next().unwrap().ends_with(&argv), "C1: {stderr}");
            assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
            assert_eq!(stderr.contains(usage), expected.contains("ret=") || expected == usage, "C4, C5: {stderr}");
            assert!(output.stdout.is_empty(), "C2, C9");
            assert_eq!(output.status.code(), Some(0), "C3");
        }
        assert!(place.pids().is_empty());
    }
    let stderr = String::from_utf8(Place::new("version", NEW).output(&["-V"]).stderr).unwrap();
    assert_eq!(stderr.lines().nth(1), Some("obproxy (OceanBase 4.3.1.0 1.el8)"), "C8");
}

#[test]
fn only_new_versions_have_an_rpc_port() {
    let stderr = |version| String::from_utf8(Place::new("rpc", version).output(&["-s", "80"]).stderr).unwrap();
    assert!(stderr(NEW).contains("ret=-4002") && stderr(NEW).contains("--rpc_listen_port"));
    assert!(stderr(OLD).contains("ret=-4104") && !stderr(OLD).contains("--rpc_listen_port"));
}

#[test]
fn a_daemon_is_the_same_program_in_a_session_of_its_own() {
    for version in [OLD, NEW] {
        let place = Place::new("daemon", version);
        let mut arguments = place.flags();
        arguments.extend(["-o".into(), "obproxy_sys_password=".into()]);
        assert_eq!(place.output(&arguments).status.code(), Some(0), "C10");
        place.try_login("root@proxysys", "").unwrap();
        let [pid] = place.pids()[..] else { panic!("one process") };
        let of_process = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let argv = of_process("cmdline");
        assert_eq!(argv.trim_end_matches('\0').split('\0').skip(1).collect::<Vec<_>>(), arguments);
        let stat = of_process("stat");
        let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
        let own = fs::read_to_string("/proc/self/stat").unwrap();
        assert!(!own.contains(&format!(" {session} ")), "C10: {session}");
        assert_eq!(of_process("cgroup"), fs::read_to_string("/proc/self/cgroup").unwrap());
        assert_eq!(of_process("comm"), "obproxy\n");
        for stream in 0..3 {
            assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap().to_str(), Some("/dev/null"));
        }
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), place.root());
    }
}

#[test]
fn a_start_that_fails_says_so_in_the_log_alone() {
    let quoted = format!("obproxy_sys_password='{}'", hash("x"));
    for version in [OLD, NEW] {
        for (arguments, expected) in [
            (vec![], "fail to set opt rs list to web rs list(ret=-4147)"), // C17
            (vec!["-n", "demo"], "(ret=-4147)"),                           // C17
            (vec!["-r", "nonsense"], "(ret=-4002)"),                       // C16
            (vec!["-r", "127.0.0.1:1", "-o", "proxy_mem_limited=1"], "(ret=-4147)"), // C15
            (vec!["-r", "127.0.0.1:1", "-o", "listen_port=80"], "(ret=-4147)"), // C15
            (vec!["-r", "127.0.0.1:1", "-o", "syslog_level=LOUD"], "(ret=-4147)"), // C15
            (vec!["-r", "127.0.0.1:1", "-o", &quoted], "(ret=-4016)"),     // A7
        ] {
            for foreground in [true, false] {
                let mut place = Place::new("failing", version);
                if foreground {
                    place.start_with(&arguments);
                    assert_eq!(place.ended(), Some(0), "C3");
                } else {
                    let output = place.output(&arguments);
                    assert_eq!(output.status.code(), Some(0), "C3");
                    assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1, "X3");
                }
                let init_failed =
                    wait("the death", || Some(place.log()).filter(|log| log.contains("fail to start obproxy")));
                let words = if version == NEW { ["EDIAG", "WDIAG"] } else { ["ERROR", "WARN"] };
                let lines: Vec<&str> = init_failed.lines().skip(1).collect();
                assert!(lines[0].contains(words[0]) && lines[0].ends_with(expected), "{arguments:?}: {}", lines[0]);
                assert!(lines[1].contains("obproxy init failed(ret=-4"), "X3: {}", lines[1]);
                assert!(lines[2].contains(words[1]), "X3: {}", lines[2]);
                wait("the end", || place.pids().is_empty().then_some(()));
            }
        }
    }
}

#[test]
fn what_is_unknown_or_left_out_does_not_hinder() {
    for version in [OLD, NEW] {
        let mut place = Place::new("unknown", version);
        let (sql, metrics) = (place.sql_port.to_string(), place.metrics_port.to_string());
        let rpc = format!("obproxy_sys_password=,no_such_item=1,rpc_listen_port={}", place.rpc_port);
        let url = "obproxy_config_server_url=http://127.0.0.1:1/x";
        place.start_with(&["-p", &sql, "-l", &metrics, "-o", url, "-o", &rpc]); // C14, C18, C19
        let mut client = place.try_login("root@proxysys", "").unwrap();
        assert_eq!(value(&mut client, "app_name"), "undefined");
        assert_eq!(client.query("SHOW PROXYCONFIG LIKE 'no_such_item'").unwrap(), Vec::<Vec<_>>::new());
    }
}

#[test]
fn a_dump_is_a_file_in_the_working_directory() {
    let place = Place::new("dump", NEW);
    assert_eq!(place.output(&["-d"]).status.code(), Some(0));
    assert!(place.root().join("obproxy_config_update.sql").exists(), "C13");
}
