//! What the coordinator costs: what durability takes from the speed of the store, a proxy for every host of a hundred, a
//! thousand and ten thousand simulated hosts behind real gRPC with mutual TLS, a large package for a hundred hosts, and the
//! first pages of long lists.
//!
//! Prints a table and writes `target/bench/coordinator.json`. The hosts live in this process, the coordinator in its
//! own; both share the processors of this machine. `-- NAME` measures one part:
//! statements, fleets, packages or large; `OBLET_BENCH_HOSTS=n` one fleet of n hosts instead.

#![allow(clippy::print_stdout, reason = "a benchmark talks to its caller")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a benchmark may fail loudly")]

mod fleet;
mod floors;
mod hosts;
mod lists;

use fleet::{Fleet, Run};
use oblet::tls;
use serde_json::{Value, json};
use std::{env, fs, net::Ipv4Addr, path::Path};

const SMALL_PACKAGE: usize = 8 << 10;
const LARGE_PACKAGE: usize = 50 << 20;
/// What is counted shows in the log at this filter, a line each.
const STATEMENTS: &str = "warn,sqlx::query=debug";

/// Measures something and answers its lines of the table.
type Part = fn() -> Vec<Value>;

fn main() {
    tls::install_crypto_provider();
    // `cargo test` runs benches too, to see that they start; a measurement is asked for by `cargo bench`.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let parts: [(&str, Part); 4] = [
        ("statements", || on_a_runtime(statements())),
        ("fleets", || fleets()),
        ("packages", || on_a_runtime(packages())),
        ("large", || on_a_runtime(large())),
    ];
    if let Some(hosts) = env::var("OBLET_BENCH_HOSTS").ok().filter(|hosts| !hosts.is_empty()) {
        return report(&on_a_runtime(one(hosts.parse().unwrap())), &format!("coordinator-{hosts}"));
    }
    let asked: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut results = Vec::new();
    for (name, part) in parts {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            results.extend(part());
        }
    }
    report(&results, "coordinator");
}

/// Each fleet has a runtime of its own: its hosts end with it and give their port back.
fn on_a_runtime<T>(part: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(part)
}

/// Statements that the store carries out, logins and lists of the benchmark itself among them. Each goes from one thread to
/// another and back.
async fn statements() -> Vec<Value> {
    let count = 100;
    let mut fleet = Fleet::start(Ipv4Addr::new(127, 78, 0, 1), count, STATEMENTS).await;
    let version = fleet.upload(&fleet.package(SMALL_PACKAGE)).await;
    let log = fleet.directory.path().join("log");
    let statements = || fs::read_to_string(&log).unwrap().lines().filter(|line| line.contains("sqlx::query")).count();
    let before = statements();
    let run = fleet.add_everywhere(&version).await;
    let statements = (statements() - before) as f64;
    vec![
        line("statements per group commit, 100 hosts", statements / run.commits, "", 64.0, "lower", Some(1.0)),
        line("statements per subtask, 100 hosts", statements / (run.hosts * 12.0), "", 2.0, "lower", Some(1.0)),
    ]
}

struct Floors {
    commits: f64,
    call_seconds: f64,
}

async fn fleet(network: u8, count: u16) -> (Run, Floors) {
    let mut fleet = Fleet::start(Ipv4Addr::new(127, 78, 0, network), count, "warn").await;
    let version = fleet.upload(&fleet.package(SMALL_PACKAGE)).await;
    let run = fleet.add_everywhere(&version).await;
    let directory = fleet.directory.path();
    let call_seconds = floors::calls(&fleet.authority, directory, count).await;
    let commits = floors::synced_commits(directory).await;
    (run, Floors { commits, call_seconds })
}

fn fleets() -> Vec<Value> {
    let (small, _) = on_a_runtime(fleet(2, 100));
    let (large, floors) = on_a_runtime(fleet(3, 1000));
    let micros = large.micros_per_subtask();
    vec![
        line(
            "transitions per second, 1000 hosts",
            large.events / large.wall_seconds,
            "1/s",
            floors.commits,
            "higher",
            None,
        ),
        line("transitions per synced commit", large.events / large.commits, "", 1.0, "higher", Some(3.0)),
        line(
            "batchAdd on 1000 hosts against its calls",
            large.wall_seconds,
            "s",
            floors.call_seconds,
            "lower",
            Some(8.0),
        ),
        line("  the same against its aim", large.wall_seconds, "s", 3.0, "lower", Some(1.0)),
        line("  peak memory of the coordinator", large.peak_mib, "MiB", 100.0, "lower", Some(1.0)),
        line("  processor time per subtask", micros, "us", 250.0, "lower", Some(1.0)),
        line("  the same against 100 hosts", micros, "us", small.micros_per_subtask(), "lower", Some(1.1)),
    ]
}

/// A fleet of another size, for the page about sizing.
async fn one(count: u16) -> Vec<Value> {
    let (run, floors) = fleet(6, count).await;
    vec![
        line(
            &format!("batchAdd on {count} hosts against its calls"),
            run.wall_seconds,
            "s",
            floors.call_seconds,
            "lower",
            None,
        ),
        line("  processor time of the coordinator", run.cpu_seconds, "s", run.wall_seconds, "lower", None),
        line("  peak memory of the coordinator", run.peak_mib, "MiB", 100.0, "lower", None),
    ]
}

/// A large package that each host of a hundred takes.
async fn packages() -> Vec<Value> {
    let count = 100;
    let mut fleet = Fleet::start(Ipv4Addr::new(127, 78, 0, 4), count, "warn").await;
    let file = fleet.package(LARGE_PACKAGE);
    let version = fleet.upload(&file).await;
    let before = fleet.hosts.received();
    let run = fleet.add_everywhere(&version).await;
    assert!(floors::took_all(&fleet.hosts, before, &file, count), "a host lacks a part of the package");
    let copies = floors::copies(&fleet.authority, fleet.directory.path(), &file, count).await;
    vec![
        line("50 MiB to 100 hosts against bare copies", run.wall_seconds, "s", copies, "lower", None),
        line("  memory of the coordinator above idle", run.peak_mib - run.idle_mib, "MiB", 64.0, "lower", Some(1.0)),
    ]
}

async fn large() -> Vec<Value> {
    let count = 10_000;
    let mut fleet = Fleet::start(Ipv4Addr::new(127, 78, 0, 5), count, "warn").await;
    let version = fleet.upload(&fleet.package(SMALL_PACKAGE)).await;
    let run = fleet.add_everywhere(&version).await;
    let micros = run.micros_per_subtask();
    let mut lines = vec![
        line("batchAdd on 10,000 hosts", run.wall_seconds, "s", 60.0, "lower", Some(1.0)),
        line("  peak memory of the coordinator", run.peak_mib, "MiB", 600.0, "lower", Some(1.0)),
        line("  processor time per subtask", micros, "us", 250.0, "lower", None),
    ];
    lines.extend(lists::measure(&mut fleet).await);
    lines
}

pub(crate) fn line(name: &str, value: f64, unit: &str, floor: f64, better: &str, aim: Option<f64>) -> Value {
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
