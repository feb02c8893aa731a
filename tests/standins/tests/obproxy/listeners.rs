//! L1 to L7.

use crate::{
    place::{NEW, OLD, Place, value, wait},
    ports,
};
use std::{net::TcpListener, net::TcpStream};

fn answers(address: &str, port: u16) -> bool {
    TcpStream::connect((address, port)).is_ok()
}

#[test]
fn only_the_sql_port_keeps_to_the_bound_address() {
    for version in [OLD, NEW] {
        let mut place = Place::new("bound", version);
        place.start(",local_bound_ip=127.0.0.1");
        place.login();
        assert!(!answers("127.0.0.2", place.sql_port), "L8");
        assert!(answers("127.0.0.2", place.metrics_port), "L3");
        assert_eq!(answers("127.0.0.2", place.rpc_port), version == NEW, "L1");
    }
}

#[test]
fn the_rpc_port_can_be_left_out() {
    let mut place = Place::new("no-rpc", NEW);
    place.start(",enable_obproxy_rpc_service=false");
    place.login();
    assert!(!answers("127.0.0.1", place.rpc_port), "L2");
}

#[test]
fn a_taken_port_kills_unless_it_is_for_metrics() {
    let mut place = Place::new("taken", NEW);
    for (port, message) in [
        (place.sql_port, "fail to start mysql accept server(ret=-4016)"), // L4
        (place.rpc_port, "fail to start rpc accept server(ret=-4016)"),   // L5
    ] {
        let _stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
        place.start("");
        assert_eq!(place.ended(), Some(0));
        assert!(place.log().contains(message), "{}", place.log());
    }
    let stranger = TcpListener::bind(("127.0.0.1", place.metrics_port)).unwrap();
    place.start("");
    place.login();
    assert!(place.log().lines().any(|line| line.contains("WDIAG") && line.contains("fail to init prometheus")), "L6");
    drop(stranger);
    wait("a refusal", || (!answers("127.0.0.1", place.metrics_port)).then_some(()));
}

#[test]
fn a_port_moves_at_the_next_start() {
    let mut place = Place::new("moves", NEW);
    place.start("");
    let mut client = place.login();
    let port = ports::own();
    client.query(&format!("ALTER PROXYCONFIG SET listen_port={port}")).unwrap();
    assert_eq!(value(&mut client, "listen_port"), port.to_string(), "L7");
    assert!(!answers("127.0.0.1", port), "L7");
    place.login();
    place.stop();
    place.sql_port = port;
    place.start_with::<&str>(&[]);
    place.login();
}
