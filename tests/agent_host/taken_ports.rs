//! Ports that somebody takes between the look at them and the start, and strangers that answer there.

use crate::place::{ADDRESS, Place, VERSIONS, Version, parameter, rpm_is_missing, until};
use oblet::{
    agent::step::StepError,
    graph::Effect,
    steps::{AgentStep, StartObproxy, values::Port},
};
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    time::{Duration, Instant},
};

/// The service begins so late that its ports can be taken before it listens.
const SLOW: (&str, &str) = ("standin_slow_start_ms", "1000");

/// Starts a proxy one of whose ports is taken once it has its passwords; answers the error, which undo has forgotten.
async fn taken(version: Version, port: fn(&StartObproxy) -> Port, take: impl FnOnce(TcpListener)) -> StepError {
    let (place, start) = Place::with_obproxy(version, &[SLOW]).await;
    let step = AgentStep::StartObproxy(start.clone());
    let squat = async {
        until("the end of the first start", || place.told().contains("passwords and parameters are set, and")).await;
        take(TcpListener::bind((ADDRESS, port(&start).get())).unwrap());
        Instant::now()
    };
    let (attempt, since) = tokio::join!(place.execute(&step, "r1", None), squat);
    assert!(since.elapsed() < Duration::from_secs(10), "{version:?}: it took {:?}", since.elapsed());
    assert!(place.programs().is_empty(), "{version:?}: it still runs");
    assert_eq!(place.undo(&step, "u1", &[attempt.undoes]).await, Effect::Done);
    place.assert_nothing_is_left(&start, "r1");
    let error = attempt.result.unwrap_err();
    assert!(!error.next_move.is_empty());
    error
}

#[tokio::test]
async fn a_sql_port_that_was_taken_meanwhile_is_told_by_the_log() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        // It listens, and answers nobody.
        let mut silent = None;
        let error = taken(version, |start| start.sql_port, |listener| silent = Some(listener)).await;
        assert_eq!(error.reason, "DEAD_ON_ARRIVAL");
        assert!(error.message.contains("a port is taken"), "{}", error.message);
        assert!(error.message.contains("fail to start mysql accept server"), "{}", error.message);
    }
}

#[tokio::test]
async fn an_rpc_port_that_was_taken_meanwhile_is_told_by_the_log() {
    if rpm_is_missing() {
        return;
    }
    let mut silent = None;
    let error = taken(Version::New, |start| start.rpc_port.unwrap(), |listener| silent = Some(listener)).await;
    assert_eq!(error.reason, "DEAD_ON_ARRIVAL");
    assert!(error.message.contains("a port is taken"), "{}", error.message);
    assert!(error.message.contains("fail to start rpc accept server"), "{}", error.message);
}

#[tokio::test]
async fn a_metrics_port_that_was_taken_meanwhile_is_told_at_once() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let mut silent = None;
        let error = taken(version, |start| start.exporter_port, |listener| silent = Some(listener)).await;
        assert_eq!(error.reason, "METRICS_PORT");
        assert!(error.message.contains("fail to init prometheus"), "{}", error.message);
        assert!(error.next_move.contains("ss -ltnp"), "{}", error.next_move);
    }
}

/// Answers everybody with metrics, as a proxy of somebody else would.
fn answer_with_metrics(listener: &TcpListener) {
    let body = "# TYPE odp_current_session gauge\nodp_current_session 1\n";
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
    }
}

#[tokio::test]
async fn metrics_of_a_stranger_are_not_taken_for_those_of_the_proxy() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let take = |listener| drop(std::thread::spawn(move || answer_with_metrics(&listener)));
        let error = taken(version, |start| start.exporter_port, take).await;
        assert_eq!(error.reason, "METRICS_PORT", "{}", error.message);
    }
}

#[tokio::test]
async fn a_proxy_without_metrics_is_told_at_once() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start) = Place::with_obproxy(version, &[("standin_no_metrics", "1")]).await;
        let step = AgentStep::StartObproxy(start);
        let begin = Instant::now();
        let attempt = place.execute(&step, "r1", None).await;
        assert_eq!(attempt.result.unwrap_err().reason, "METRICS_PORT");
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert!(place.programs().is_empty());
        assert_eq!(place.undo(&step, "u1", &[attempt.undoes]).await, Effect::Done);
    }
}

#[tokio::test]
async fn a_proxy_that_complains_of_its_metrics_and_has_them_serves() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start) = Place::with_obproxy(version, &[("standin_complaint_of_metrics", "1")]).await;
        let step = AgentStep::StartObproxy(start);
        place.execute(&step, "r1", None).await.result.unwrap();
    }
}

#[tokio::test]
async fn a_refused_login_says_what_to_do() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start) = Place::with_obproxy(version, &[]).await;
        // Altered in the first start, in force in the one after it.
        let refusing = StartObproxy { startup_parameters: vec![parameter("standin_refuse_logins", "1")], ..start };
        let step = AgentStep::StartObproxy(refusing.clone());
        let attempt = place.execute(&step, "r1", None).await;
        let error = attempt.result.unwrap_err();
        assert_eq!(error.reason, "LOGIN_REFUSED");
        assert!(error.message.contains(&refusing.sql_port.to_string()), "{}", error.message);
        assert!(error.next_move.contains("ss -ltnp") && error.next_move.contains("retry"), "{}", error.next_move);
        assert!(place.programs().is_empty());
        assert_eq!(place.undo(&step, "u1", &[attempt.undoes]).await, Effect::Done);
        place.assert_nothing_is_left(&refusing, "r1");
    }
}

/// Greets everybody as obproxy does; answers what it heard from the first who came.
fn greet(listener: TcpListener) -> Vec<u8> {
    let (mut stream, _) = listener.accept().unwrap();
    let hello = [&b"\x0a5.6.25\0\x01\0\0\0saltsalt\0"[..], &[0; 18], b"saltsaltsalt\0mysql_native_password\0"].concat();
    let mut packet = vec![hello.len() as u8, 0, 0, 0];
    packet.extend_from_slice(&hello);
    stream.write_all(&packet).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut heard = Vec::new();
    // Whoever hangs up without a word may do it rudely.
    let _ = stream.read_to_end(&mut heard);
    heard
}

#[tokio::test]
async fn a_squatter_on_the_sql_port_gets_no_proof_of_the_password() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let mut squatter = None;
        let take = |listener| squatter = Some(std::thread::spawn(move || greet(listener)));
        let error = taken(version, |start| start.sql_port, take).await;
        assert_eq!(error.reason, "PORT_STRANGER", "{}", error.message);
        assert_eq!(squatter.unwrap().join().unwrap(), b"", "not a byte");
    }
}
