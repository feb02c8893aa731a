//! What must be true of a host when its task has come to rest.

use super::{
    operator::{Operator, Violation},
    site::Site,
};
use crate::lab::{PACKAGE, Place, SQL_PORT, command_lines, holds_within};
use serde_json::Value;
use sqlx::{Connection as _, SqliteConnection};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often the package's scriptlets must have run, by the file that they write outside of the agent's knowledge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Installations {
    Exactly(usize),
    /// Where an installation may have been canceled, with its scriptlet in the middle.
    AtMost(usize),
}

pub(crate) async fn host(host: &Place, installed: bool, installations: Installations) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut expect = |fits: bool, what: String| {
        if !fits {
            found.push(format!("host {}: {what}", host.address));
        }
    };
    let packages = host.packages();
    expect(packages.trim() == if installed { PACKAGE } else { "" }, format!("rpm has {packages:?}"));

    let ran = fs::read_to_string(host.directory.join("scriptlets")).unwrap_or_default();
    let count = |what: &str| ran.lines().filter(|line| *line == what).count();
    let (installs, erasures) = (count("post"), count("postun"));
    let fits = match installations {
        Installations::Exactly(expected) => installs == expected && erasures + usize::from(installed) == expected,
        Installations::AtMost(most) => installs <= most && erasures <= most,
    };
    expect(fits, format!("installed {installs} times and erased {erasures} times, expected {installations:?}"));

    // A shim ends a moment after the outcome of its program is known.
    let alone = holds_within(Duration::from_secs(3), || strangers(host, installed).is_empty()).await;
    let strangers = strangers(host, installed);
    expect(alone, format!("processes left over: {}", strangers.join(" | ")));
    let proxies = host.processes();
    expect(proxies.len() == usize::from(installed), format!("{} obproxy processes: {proxies:?}", proxies.len()));

    let directory = host.root().join(format!("home/admin/obproxy/{SQL_PORT}"));
    let log = fs::read_to_string(directory.join("log/obproxy.log")).unwrap_or_default();
    let starts = log.matches("obproxy starts as pid").count();
    expect(starts == usize::from(installed), format!("obproxy was started {starts} times"));
    let left = !installed && directory.exists() && !is_strange(&directory);
    expect(!left, format!("{} is left over", directory.display()));

    let runs = entries(&host.directory.join("state/runs"));
    // Of an installed proxy the runs of its package and of its process are kept, of an erased one the erasure's.
    expect(runs.len() <= MAX_RUNS, format!("{} run directories: {runs:?}", runs.len()));
    let temporary = temporary_files(&host.directory.join("state"));
    expect(temporary.is_empty(), format!("temporary files left over: {temporary:?}"));
    found
}

/// At most two blows of a round hit the agent of one host, and each can make one run of each kind vain: that of rpm, that of
/// the proxy and that of its first start.
const MAX_RUNS: usize = 9;

/// Lies where an instance's directory belongs, and is none.
pub(super) fn is_strange(directory: &Path) -> bool {
    directory.join("precious").exists()
}

/// What the coordinator tells about the host.
pub(crate) async fn coordinator(
    operator: &Operator,
    host: &Place,
    installed: bool,
) -> Result<Vec<Violation>, Violation> {
    let address = &host.address.to_string();
    let mut found = Vec::new();
    let targets = match operator.rest.get("/api/v2/prometheus/targets").await {
        Ok(targets) => targets.to_string(),
        Err(error) => return Err(format!("the targets cannot be read: {error}")),
    };
    if targets.contains(&format!("\"{address}:{}\"", host.exporter_port)) != installed {
        found.push(format!("targets of {address} are wrong: {targets}"));
    }
    let cluster = operator.look(&format!("/api/v2/obproxy/clusters/{}", operator.cluster)).await?;
    let proxies = cluster["obproxies"].as_array().cloned().unwrap_or_default();
    let there = proxies.iter().filter(|proxy| proxy.to_string().contains(address)).collect::<Vec<&Value>>();
    if there.len() != usize::from(installed) {
        found.push(format!("the cluster has {} proxies on {address}", there.len()));
    }
    Ok(found)
}

/// Nothing runs any more, nothing is damaged, and a task that came to its end reserves nothing.
pub(super) async fn tasks(site: &Site) -> Result<Vec<Violation>, Violation> {
    let mut found: Vec<Violation> = site
        .operator
        .tasks()
        .await?
        .iter()
        .filter(|task| task["status"] != "SUCCESSFUL" || !task["problem"].is_null())
        .map(|task| format!("task {} {} is {}: {}", task["id"], task["name"], task["status"], task["problem"]))
        .collect();
    let told = |error: sqlx::Error| format!("the store cannot be read: {error}");
    let url = site.lab().store_url();
    let mut store = SqliteConnection::connect(&url).await.map_err(told)?;
    let query = "SELECT object_kind, object_id, task_id FROM object_locks";
    let locks: Vec<(String, i64, i64)> = sqlx::query_as(query).fetch_all(&mut store).await.map_err(told)?;
    found.extend(locks.iter().map(|(kind, id, task)| format!("{kind} {id} is still reserved by task {task}")));
    Ok(found)
}

/// Processes of the host that should not be there, by their command lines.
fn strangers(host: &Place, installed: bool) -> Vec<String> {
    let directory = host.directory.display().to_string();
    let proxies = host.processes();
    let mut shims = usize::from(installed);
    let mut found = Vec::new();
    for (pid, line) in command_lines() {
        if !line.contains(&directory) || proxies.contains(&pid) || line.contains("agent.toml") {
            continue;
        }
        // The one shim that may be there is the parent of the proxy.
        if line.starts_with("oblet-agent shim") && shims > 0 {
            shims -= 1;
            continue;
        }
        found.push(format!("{pid} {line}"));
    }
    found
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn temporary_files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // What a killed shim began to write goes with the directory of its run.
                directories.extend((name != "runs").then(|| entry.path()));
            } else if name.starts_with('.') {
                found.push(entry.path());
            }
        }
    }
    found
}
