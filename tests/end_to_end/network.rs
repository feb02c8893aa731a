//! Silence and noise on the network.

use crate::lab::{AGENT_PORT, Lab, possible};
use serde_json::json;
use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_makes_its_own_task_wait_and_no_other() {
    if !possible() {
        return;
    }
    let lab = Lab::start(2).await;
    let cluster = lab.set_up(json!({})).await;
    lab.hosts[1].agent.as_ref().unwrap().pause();
    let ids = lab.batch_add(cluster).await;
    let task = lab.finished(ids[0]).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    let silent = lab.get(&format!("/api/v2/tasks/instances/{}", ids[1])).await.unwrap()["data"].clone();
    assert_eq!(silent["status"], "RUNNING", "{silent:#}");
    let waits_for = silent["subtasks"][0]["waiting"]["for"].as_str().unwrap_or_default();
    assert!(waits_for.contains(&lab.hosts[1].address.to_string()), "it says for whom: {silent:#}");

    lab.hosts[1].agent.as_ref().unwrap().resume();
    let task = lab.finished(ids[1]).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    for host in &lab.hosts {
        assert_eq!(host.processes().len(), 1);
        assert_eq!(host.count_in_logs("scriptlet ran once"), 1);
    }
}

/// Strangers speak to the ports of agent and coordinator until told to stop; answers how many calls got through.
fn pester(ports: [SocketAddr; 2], stop: &AtomicBool) -> usize {
    // The beginning of a TLS handshake that announces more than it brings.
    let half_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0x42, 0x42];
    let noise: Vec<u8> = (0..4096_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut kept = Vec::new();
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) {
        for port in ports {
            for text in [half_hello.as_slice(), &noise, request, b""] {
                let Ok(mut stream) = TcpStream::connect_timeout(&port, Duration::from_secs(1)) else { continue };
                // Whoever hangs up on noise is right.
                let _ = stream.write_all(text);
                calls += 1;
                if kept.len() < 200 {
                    kept.push(stream);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_the_ports_disturbs_no_task() {
    if !possible() {
        return;
    }
    let lab = Lab::start(1).await;
    let cluster = lab.set_up(json!({})).await;
    let stop = Arc::new(AtomicBool::new(false));
    let ports = [SocketAddr::from((lab.hosts[0].address, AGENT_PORT)), lab.listen];
    let strangers = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || pester(ports, &stop)
    });
    let id = lab.batch_add(cluster).await[0];
    // A header that no server has to take.
    let request = lab.rest().request(reqwest::Method::GET, "/api/v2/info").header("x-noise", "x".repeat(1 << 20));
    let taken = request.send().await.is_ok_and(|answer| answer.status().is_success());
    assert!(!taken, "a header of a mebibyte was taken");
    let task = lab.finished(id).await;
    stop.store(true, Ordering::Relaxed);
    assert!(strangers.join().unwrap() > 8, "both ports were spoken to");
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    assert_eq!(lab.hosts[0].processes().len(), 1);
    assert_eq!(lab.hosts[0].count_in_logs("scriptlet ran once"), 1);
}
