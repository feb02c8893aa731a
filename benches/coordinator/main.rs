//! What the coordinator costs: what durability takes from the speed of the store, and a proxy for every host of a
//! fleet of a hundred and of a thousand simulated hosts behind real gRPC with mutual TLS.
//!
//! Prints a table and writes `target/bench/coordinator.json`. `OBLET_BENCH_HOSTS=n` measures one fleet of n hosts instead. The hosts live in this process, the coordinator in its
//! own; both share the processors of this machine.

#![allow(clippy::print_stdout, reason = "a benchmark talks to its caller")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a benchmark may fail loudly")]

mod fleet;
mod floors;
mod hosts;

use fleet::{Fleet, Run};
use oblet::{
    coordinator::agents::{AgentAddress, AgentPool},
    tls::{self, Identity, Role},
};
use serde_json::{Value, json};
use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

fn main() {
    tls::install_crypto_provider();
    // `cargo test` runs benches too, to see that they start; a measurement is asked for by `cargo bench`.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hosts = env::var("OBLET_BENCH_HOSTS").ok().filter(|hosts| !hosts.is_empty());
    match hosts.map(|hosts| hosts.parse().unwrap()) {
        Some(hosts) => report(&runtime.block_on(measure_one(hosts)), &format!("coordinator-{hosts}")),
        None => report(&runtime.block_on(measure()), "coordinator"),
    }
}

/// A fleet of another size, for the page about sizing: there is nothing of the same run to compare it with.
async fn measure_one(hosts: u16) -> Vec<Value> {
    let (run, floors) = on_its_own_runtime(3, hosts).await;
    let wall = run.wall_seconds;
    vec![
        line(&format!("batchAdd on {hosts} hosts, wall time"), wall, "s", floors.call_seconds(&run), "lower", None),
        line("  processor time of the coordinator", run.cpu_seconds, "s", wall, "lower", None),
        line("  peak memory of the coordinator", run.peak_mib, "MiB", 100.0, "lower", None),
    ]
}

/// Each fleet has a runtime of its own: its hosts end with it and give their addresses back.
async fn measure() -> Vec<Value> {
    let small = on_its_own_runtime(1, 100).await;
    let large = on_its_own_runtime(2, 1000).await;
    let (small, large) = (small.0, large);
    let (large, floors) = large;
    let per_subtask = |run: &Run| run.cpu_seconds / run.subtasks * 1e6;
    let transitions = large.events / large.wall_seconds;
    vec![
        line("transitions per second, 1000 hosts", transitions, "1/s", floors.commits, "higher", None),
        line("transitions per synced commit", large.events / large.commits, "", 1.0, "higher", Some(3.0)),
        line("batchAdd on 1000 hosts, wall time", large.wall_seconds, "s", floors.call_seconds(&large), "lower", None),
        line("  the same against its aim", large.wall_seconds, "s", 5.0, "lower", Some(1.0)),
        line("  processor time of the coordinator", large.cpu_seconds, "s", large.wall_seconds, "lower", None),
        line("  peak memory of the coordinator", large.peak_mib, "MiB", 100.0, "lower", Some(1.0)),
        line(
            "  processor time per subtask against 100 hosts",
            per_subtask(&large),
            "us",
            per_subtask(&small),
            "lower",
            Some(1.2),
        ),
    ]
}

struct Floors {
    commits: f64,
    calls: f64,
}

impl Floors {
    /// What the calls alone would take: of the twelve subtasks three are checks of one call, six are submitted, watched
    /// and acknowledged, and one asks the host what it is.
    fn call_seconds(&self, run: &Run) -> f64 {
        run.subtasks / 12.0 * (3.0 + 6.0 * 3.0 + 1.0) / self.calls
    }
}

async fn on_its_own_runtime(network: u8, count: u16) -> (Run, Floors) {
    let fleet = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (fleet, authority) = Fleet::start(Ipv4Addr::new(127, 78, 0, network), count).await;
            let run = fleet.add_everywhere(count).await;
            drop(fleet);
            let directory = tempfile::tempdir().unwrap();
            let issued = authority.issue(Role::Coordinator, "bench", &[]).unwrap();
            fs::write(directory.path().join("ca.pem"), authority.certificate_pem()).unwrap();
            let (certificate, key) = issued.write(directory.path(), "coordinator").unwrap();
            let identity = Identity::read(&directory.path().join("ca.pem"), &certificate, &key).unwrap();
            let address = AgentAddress::new(IpAddr::V4(hosts::address(1)), hosts::AGENT_PORT);
            let agent = AgentPool::new(&identity).unwrap().agent(address).unwrap();
            let calls = floors::calls(&agent).await;
            (run, Floors { commits: floors::synced_commits(directory.path()).await, calls })
        })
    };
    tokio::task::spawn_blocking(fleet).await.unwrap()
}

fn line(name: &str, value: f64, unit: &str, floor: f64, better: &str, aim: Option<f64>) -> Value {
    let round = |number: f64| (number * 1000.0).round() / 1000.0;
    let ratio = value / floor;
    let met = aim.map(|aim| if better == "higher" { ratio >= aim } else { ratio <= aim });
    json!({"name": name, "value": round(value), "unit": unit, "floor": round(floor), "ratio": round(ratio),
        "better": better, "aim": aim, "met": met})
}

fn report(results: &[Value], name: &str) {
    println!("{:<50} {:>10} {:<5} {:>10} {:>8} {:>6}  met", "what", "value", "unit", "floor", "ratio", "aim");
    for line in results {
        let text = |key: &str| match &line[key] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let [name, value, unit, floor, ratio, aim, met] =
            ["name", "value", "unit", "floor", "ratio", "aim", "met"].map(text);
        println!("{name:<50} {value:>10} {unit:<5} {floor:>10} {ratio:>8} {aim:>6}  {met}");
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("{name}.json")), format!("{}\n", serde_json::to_string_pretty(results).unwrap()))
        .unwrap();
}
