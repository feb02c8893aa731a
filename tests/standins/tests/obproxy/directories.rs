//! D1 to D13.

use crate::{
    place::{ADMIN, NEW, OLD, PASSWORD, Place, hash, value, wait},
    ports,
};
use std::{fs, os::unix::fs::PermissionsExt as _};

fn names(place: &Place, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(place.root().join(directory)).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn directories_and_files_are_those_of_the_version() {
    for (version, stored) in [(OLD, "obproxy_config.bin"), (NEW, "proxyconfig_v1.db")] {
        let mut place = Place::new("directories", version);
        place.start("");
        place.login();
        assert_eq!(names(&place, "."), [".conf", "control-config", "etc", "log", "sharding-config"], "D2, D7");
        assert_eq!(names(&place, "etc"), [stored], "D3, D4, V2");
        let file = place.root().join("etc").join(stored);
        // The umask of whoever runs this takes bits away.
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o700, 0o600, "D5");
        assert!(fs::read_to_string(&file).unwrap().contains(&hash(PASSWORD)), "D5");
        assert_eq!(names(&place, "log").contains(&"obproxy_xflush.log".to_owned()), version == NEW, "D6");
    }
}

#[test]
fn stored_values_hold_unless_flags_are_given() {
    for version in [OLD, NEW] {
        let mut place = Place::new("stored", version);
        let mut command = place.command(&place.flags());
        command.args(["-N", "-o", "obproxy_sys_password="]).env("observer_sys_password", hash("watching"));
        place.spawn(&mut command);
        let mut client = place.try_login(ADMIN, "").unwrap();
        let altered = r"a 'b' \c";
        client.query("ALTER PROXYCONFIG SET proxy_id=7, idc_name = 'x\\\\y\nz'").unwrap();
        client
            .query(&format!("ALTER PROXYCONFIG SET obproxy_sys_password=\"{}\"", altered.replace('\\', r"\\")))
            .unwrap();
        client.query("ALTER PROXYCONFIG SET proxy_local_cmd=0").unwrap();
        assert_eq!(place.stop(), Some(1));

        place.start_with::<&str>(&[]);
        let mut client = place.try_login(ADMIN, altered).unwrap();
        for (name, expected) in [
            ("proxy_id", "7"),
            ("idc_name", "x\\y\nz"),
            ("app_name", "demo"),
            ("rootservice_list", "127.0.0.1:2881"),
            ("rootservice_cluster_name", "obdemo"),
            ("observer_sys_password", &hash("watching")),
        ] {
            assert_eq!(value(&mut client, name), expected, "D9, D11, D12");
        }
        assert_eq!(place.stop(), Some(1));

        place.sql_port = ports::own();
        place.start_with(&["-p", &place.sql_port.to_string(), "-n", "other"]);
        let mut client = place.try_login(ADMIN, altered).unwrap();
        assert_eq!(value(&mut client, "app_name"), "other", "D10");
        assert_eq!(place.stop(), Some(1));

        place.start_with::<&str>(&[]);
        assert_eq!(value(&mut place.try_login(ADMIN, altered).unwrap(), "app_name"), "other", "D10");
    }
}

#[test]
fn a_second_start_leaves_the_first_alone() {
    let mut place = Place::new("second", NEW);
    place.start("");
    place.login();
    assert_eq!(place.output::<&str>(&[]).status.code(), Some(0), "D13");
    wait("the death of the second", || place.log().contains("fail to start obproxy").then_some(()));
    wait("its end", || (place.pids().len() == 1).then_some(()));
    place.login();
}

#[test]
fn a_root_that_cannot_be_used_is_passed_over_in_silence() {
    let place = Place::new("silence", NEW);
    for root in ["/proc/self/nothing", "relative"] {
        let output = place.command(&place.flags()).env("OBPROXY_ROOT", root).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "D1, D8");
        wait("the end", || place.pids().is_empty().then_some(()));
        assert_eq!(names(&place, "."), Vec::<String>::new());
    }
}
