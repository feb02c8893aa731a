//! What a test can ask to go wrong.

use crate::place::{ADMIN, NEW, OLD, PASSWORD, Place, code_of, value};
use std::time::{Duration, Instant};

#[test]
fn it_dies_as_asked() {
    for version in [OLD, NEW] {
        let mut place = Place::new("die", version);
        place.start(",standin_die_after_ms=1,standin_exit_code=7");
        assert_eq!(place.ended(), Some(7));
        place.start(",standin_exit_code=0");
        assert_eq!(place.ended(), Some(0), "it was stored");
    }
}

#[test]
fn altered_faults_act_from_the_next_start_on() {
    let mut place = Place::new("next", NEW);
    place.start("");
    let mut client = place.login();
    assert_eq!(code_of(client.query("ALTER PROXYCONFIG SET standin_refuse_logins=2")), 4147);
    client.query("ALTER PROXYCONFIG SET standin_refuse_logins=1, standin_no_metrics=1").unwrap();
    assert_eq!(value(&mut client, "standin_refuse_logins"), "1");
    assert_eq!(value(&mut place.login(), "standin_no_metrics"), "1");
    assert_eq!(place.stop(), Some(1));
    place.start_with::<&str>(&[]);
    assert!(place.refusal(ADMIN, PASSWORD).contains("1045"));
    assert!(std::net::TcpStream::connect(("127.0.0.1", place.metrics_port)).is_err());
    assert!(place.log().contains("fail to init prometheus"));
}

#[test]
fn a_package_carries_faults_for_every_start() {
    let mut place = Place::new("carried", NEW);
    place.carry("standin_slow_start_ms=200\nstandin_bad_metrics=1\n");
    for _ in 0..2 {
        let begin = Instant::now();
        place.start(",standin_slow_start_ms=0");
        assert_eq!(value(&mut place.login(), "standin_slow_start_ms"), "200");
        assert!(begin.elapsed() >= Duration::from_millis(200));
        assert!(place.http("/metrics").1.contains("<html>"));
        assert_eq!(place.stop(), Some(1));
    }
    place.carry("standin_typo=1\n");
    place.start("");
    assert_eq!(place.ended(), Some(0));
    assert!(place.log().contains("no such fault: standin_typo=1(ret=-4147)"));
}

#[test]
fn a_backslash_can_stand_for_itself() {
    for (fault, kept) in [("0", "a\\b"), ("1", "a\\\\b")] {
        let mut place = Place::new(&format!("backslash-{fault}"), NEW);
        place.start(&format!(",standin_no_backslash_escapes={fault}"));
        let mut client = place.login();
        client.query(r"ALTER PROXYCONFIG SET idc_name='a\\b'").unwrap();
        assert_eq!(value(&mut client, "idc_name"), kept);
    }
}
