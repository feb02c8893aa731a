//! One screen for somebody who was woken up: is something wrong, and what to look at.

use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::version::INFO;
use crate::cli::{
    console::{
        error::CliError,
        output::{Shape, entries},
        table::{Column, column, text},
    },
    frame::{
        context::Context,
        kind::{CLUSTERS, HOSTS},
    },
    task::{
        model::Task,
        requests::TASKS,
        tables::{TASK_COLUMNS, task_row},
    },
};

/// More tasks than this are not read at three in the morning.
const TASKS_SHOWN: u64 = 10;

const HOST_COLUMNS: &[Column] = &[
    column("HOST", "/id"),
    column("ALIAS", "/alias"),
    column("ADDRESS", "/innerIpAddress"),
    column("STATUS", "/status"),
];

const PROXY_COLUMNS: &[Column] = &[
    column("PROXY", "/id"),
    column("CLUSTER", "/cluster"),
    column("HOST", "/hostId"),
    column("ADDRESS", "/ip"),
    column("SQL PORT", "/sqlPort"),
    column("STATUS", "/status"),
];

pub(crate) struct Status {
    pub(crate) data: Value,
    failed: Vec<Task>,
    running: Vec<Task>,
    problems: Vec<String>,
}

pub(crate) async fn run(context: &Context<'_>) -> Result<(), CliError> {
    let status = collect(context).await?;
    match context.output.shape() {
        Shape::Table => print(context, &status)?,
        Shape::Data | Shape::Name => context.output.data(&status.data)?,
    }
    if status.problems.is_empty() { Ok(()) } else { Err(CliError::Unhealthy(status.problems.join(", "))) }
}

pub(crate) async fn collect(context: &Context<'_>) -> Result<Status, CliError> {
    let client = &context.client;
    let info = client.get("ask the coordinator for its version", INFO).await?;
    let ready = client.is_ready("ask whether the coordinator is ready").await?;
    let hosts = client.list("list the hosts", HOSTS).await?;
    let clusters = client.list("list the OBProxy clusters", CLUSTERS).await?;
    let (running, running_count) = tasks(context, "RUNNING").await?;
    let (failed, failed_count) = tasks(context, "FAILED").await?;
    let proxies = proxies(&clusters);

    let is_offline = |host: &&Value| status_of(host) == "OFFLINE";
    let offline: Vec<&Value> = entries(&hosts).iter().filter(is_offline).collect();
    let not_running: Vec<&Value> = proxies.iter().filter(|proxy| status_of(proxy) != "RUNNING").collect();
    // A task that changes a proxy says itself whether it fails.
    let is_down = |proxy: &&&Value| proxy.get("operateStatus").and_then(Value::as_str) != Some("OPERATING");
    let down = not_running.iter().filter(is_down).count();
    let problems = [
        (!ready, "the coordinator is not ready".to_owned()),
        (!offline.is_empty(), format!("hosts OFFLINE: {}", offline.len())),
        (down > 0, format!("proxies not RUNNING: {down}")),
        (failed_count > 0, format!("tasks FAILED: {failed_count}")),
    ];
    let problems: Vec<_> = problems.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
    let data = json!({
        "healthy": problems.is_empty(),
        "problems": problems,
        "coordinator": {"url": client.url(), "buildVersion": info.get("buildVersion"), "ready": ready},
        "hosts": {"byStatus": by_status(entries(&hosts)), "offline": offline},
        "tasks": {"running": running_count, "failed": failed_count},
        "obproxies": {"byStatus": by_status(&proxies), "notRunning": not_running},
    });
    Ok(Status { data, failed, running, problems })
}

fn print(context: &Context<'_>, Status { data, failed, running, .. }: &Status) -> Result<(), CliError> {
    let output = context.output;
    let value = |at: &str| text(data.pointer(at));
    let state = if data.pointer("/coordinator/ready") == Some(&Value::Bool(true)) { "ready" } else { "NOT READY" };
    output.fields([
        ("Coordinator", format!("{} {state}, {}", value("/coordinator/buildVersion"), value("/coordinator/url"))),
        ("Hosts", counts(data, "/hosts/byStatus")),
        ("Proxies", counts(data, "/obproxies/byStatus")),
        ("Tasks", format!("{} RUNNING, {} FAILED", value("/tasks/running"), value("/tasks/failed"))),
    ])?;
    output.section(data, "/hosts/offline", HOST_COLUMNS)?;
    output.section(data, "/obproxies/notRunning", PROXY_COLUMNS)?;
    for list in [failed, running] {
        if !list.is_empty() {
            output.text("\n")?;
            output.table(TASK_COLUMNS, list.iter().map(task_row))?;
        }
    }
    Ok(())
}

/// The newest tasks with a status, and how many there are.
async fn tasks(context: &Context<'_>, status: &str) -> Result<(Vec<Task>, u64), CliError> {
    let doing = "list the tasks";
    let filter = [("sort", "id,desc".to_owned()), ("status", status.to_owned())];
    let page = context.client.page(doing, TASKS, &filter, 1, TASKS_SHOWN).await?;
    let tasks = entries(&page).iter().map(|task| Task::read(doing, task)).collect::<Result<Vec<_>, _>>()?;
    let total = page.pointer("/page/totalElements").and_then(Value::as_u64);
    let count = total.unwrap_or(tasks.len() as u64);
    Ok((tasks, count))
}

/// The proxies of all clusters, each with the name of its own.
fn proxies(clusters: &Value) -> Vec<Value> {
    let of = |cluster: &Value| {
        let name = cluster.get("name").cloned().unwrap_or_default();
        let proxies = cluster.get("obproxies").map(entries).unwrap_or_default().to_vec();
        proxies.into_iter().map(move |mut proxy| {
            if let Some(proxy) = proxy.as_object_mut() {
                proxy.insert("cluster".into(), name.clone());
            }
            proxy
        })
    };
    entries(clusters).iter().flat_map(of).collect()
}

fn status_of(entry: &Value) -> &str {
    entry.get("status").and_then(Value::as_str).unwrap_or("UNKNOWN")
}

fn by_status(list: &[Value]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for entry in list {
        *counts.entry(status_of(entry)).or_insert(0) += 1;
    }
    counts
}

/// Such as "1 OFFLINE, 12 ONLINE".
fn counts(data: &Value, at: &str) -> String {
    let counts = data.pointer(at).and_then(Value::as_object).into_iter().flatten();
    let counts: Vec<_> = counts.map(|(status, count)| format!("{count} {status}")).collect();
    if counts.is_empty() { "none".into() } else { counts.join(", ") }
}
