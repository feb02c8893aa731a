//! Hosts' agents: what is done to them, and how hosts are enrolled and revoked.

pub(super) mod args;
pub(super) mod enrolment;

use serde_json::{Value, json};

use super::{
    console::{
        error::CliError,
        output::{Shape, entries},
        table::{Column, column},
    },
    frame::{
        args::{Consent, Trial, dry_run_query},
        context::Context,
        kind::{HOST, HOSTS},
        resolve,
    },
    package,
    task::follow,
};
use args::{AgentUpgrade, AgentsChange};

const AGENT: &[Column] = &[
    column("Host", "/hostId"),
    column("Address", "/hostInnerIpAddress"),
    column("Status", "/status"),
    column("Problem", "/problem"),
    column("Version", "/version"),
    column("Program", "/installHome"),
    column("Logs", "/logHome"),
];

const PROCESSES: &[Column] = &[
    column("PROCESS", "/id"),
    column("PID", "/pid"),
    column("USER", "/user"),
    column("SECONDS", "/elapsedTime"),
    column("COMMAND", "/startCommand").free(),
];

const EPOCHS: &[Column] = &[
    column("Epoch of the agent", "/agentEpoch"),
    column("Epoch of the coordinator", "/coordinatorEpoch"),
    column("Epoch after its restart", "/nextEpoch"),
];

pub(crate) async fn show(context: &Context<'_>, host: &str) -> Result<(), CliError> {
    let doing = format!("show the agent of host {host}");
    let id = resolve::id(context, &doing, &HOST, host).await?;
    let data = context.client.get(&doing, &format!("{HOSTS}/{id}/agent")).await?;
    context.output.entry(&data, AGENT, "/hostId")?;
    context.output.section(&data, "/processes", PROCESSES)?;
    match data.get("status").and_then(Value::as_str) {
        // A script that waits for an agent asks for nothing but the exit code.
        Some(status @ ("STOPPED" | "UNREACHABLE")) => {
            Err(CliError::AgentSilent(format!("the agent of host {host} is {status}")))
        }
        _ => Ok(()),
    }
}

pub(crate) async fn restart(context: &Context<'_>, agents: &AgentsChange) -> Result<(), CliError> {
    change(context, agents, "restart", "batchRestartAgents").await
}

pub(crate) async fn stop(context: &Context<'_>, agents: &AgentsChange) -> Result<(), CliError> {
    change(context, agents, "stop", "batchStopAgents").await
}

/// `call` is the API's name for what an operator calls `verb`.
async fn change(
    context: &Context<'_>,
    AgentsChange { hosts, consent, creation }: &AgentsChange,
    verb: &str,
    call: &str,
) -> Result<(), CliError> {
    let doing = match hosts.as_slice() {
        [host] => format!("{verb} the agent of host {host}"),
        hosts => format!("{verb} the agents of hosts {}", hosts.join(", ")),
    };
    let ids = resolve::ids(context, &doing, &HOST, hosts).await?;
    context.confirm_many(*consent, creation.run.dry_run, hosts, &doing)?;
    let path = format!("{HOSTS}/{call}");
    follow::start(context, creation, &doing, &path, &json!({"hostIds": ids})).await
}

/// A dry run uploads nothing, so its packages have to be uploaded already.
pub(crate) async fn upgrade(context: &Context<'_>, upgrade: &AgentUpgrade) -> Result<(), CliError> {
    let doing = match (upgrade.all, upgrade.hosts.as_slice()) {
        (true, _) => "upgrade the agents of all hosts".to_owned(),
        (false, [host]) => format!("upgrade the agent of host {host}"),
        (false, hosts) => format!("upgrade the agents of hosts {}", hosts.join(", ")),
    };
    let (ids, names) = if upgrade.all {
        let hosts = context.client.list(&doing, HOSTS).await?;
        let ids: Vec<u64> = entries(&hosts).iter().filter_map(|host| host.get("id")?.as_u64()).collect();
        let names = ids.iter().map(u64::to_string).collect();
        (ids, names)
    } else {
        (resolve::ids(context, &doing, &HOST, &upgrade.hosts).await?, upgrade.hosts.clone())
    };
    context.confirm_many(upgrade.consent, upgrade.creation.run.dry_run, &names, &doing)?;
    let mut packages = Vec::new();
    for file in &upgrade.packages {
        packages.push(package::take(context, &doing, file, upgrade.creation.run.dry_run).await?);
    }
    let body = json!({"hostIds": ids, "packages": packages, "parallel": upgrade.parallel});
    let path = format!("{HOSTS}/batchUpgradeAgents");
    follow::start(context, &upgrade.creation, &doing, &path, &body).await
}

/// The agent forgets nothing: the coordinator's epochs go on above that of the agent.
pub(crate) async fn reset_epoch(
    context: &Context<'_>,
    host: &str,
    consent: Consent,
    trial: Trial,
) -> Result<(), CliError> {
    let doing = format!("raise the coordinator's epoch above that of the agent of host {host}");
    let id = resolve::id(context, &doing, &HOST, host).await?;
    context.confirm(consent, trial, host, &doing)?;
    let path = format!("{HOSTS}/{id}/agent/resetEpoch");
    let data = context.client.post(&doing, &path, dry_run_query(trial.dry_run), Some(&json!({}))).await?;
    if trial.dry_run {
        context.dry_run_note(&doing);
    } else {
        context.output.note("Restart the coordinator for this to take effect: systemctl restart oblet-coordinator");
    }
    match context.output.shape() {
        Shape::Table | Shape::Data => context.output.entry(&data, EPOCHS, ""),
        Shape::Name => context.output.names([id.to_string()]),
    }
}
