pub(super) mod args;
pub(super) mod places;

use serde_json::{Value, json};

use super::{
    agent::enrolment,
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
use args::{AgentUpgrade, AgentsChange, Host as Command, HostAdd};
use places::{HOST_TYPE, IDC};

const COLUMNS: &[Column] = &[
    column("ID", "/id"),
    column("ALIAS", "/alias"),
    column("ADDRESS", "/innerIpAddress"),
    column("STATUS", "/status"),
    column("AGENT", "/hostAgentVersion"),
    column("SYSTEM", SYSTEM),
    column("ARCH", "/architecture"),
    column("NAME", "/name").wide(),
    column("IDC", "/idcName").wide(),
    column("REGION", "/regionName").wide(),
    column("TYPE", "/typeName").wide(),
    column("KERNEL", "/operatingSystemRelease").wide(),
    column("CREATED", "/createTime").wide(),
    column("DESCRIPTION", "/description").wide().free(),
];

const FIELDS: &[Column] = &[
    column("Host", "/id"),
    column("Name", "/name"),
    column("Alias", "/alias"),
    column("Description", "/description"),
    column("Address", "/innerIpAddress"),
    column("IDC", "/idcName"),
    column("Region", "/regionName"),
    column("Type", "/typeName"),
    column("Status", "/status"),
    column("System", SYSTEM),
    column("Kernel", "/operatingSystemRelease"),
    column("Architecture", "/architecture"),
    column("Agent", "/hostAgentVersion"),
    column("Agent status", "/hostAgentStatus"),
    column("Created", "/createTime"),
];

const SERVICES: &[Column] = &[column("SERVICE", "/name"), column("TYPE", "/type"), column("VERSION", "/version")];

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

/// Where tables find what the API tells in two members.
const SYSTEM: &str = "/system";

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Add(args) if args.token => enrolment::invite(context, args).await,
        Command::Revoke(args) => enrolment::revoke(context, args).await,
        Command::Token(command) => enrolment::token(context, command).await,
        Command::Certificates => enrolment::certificates(context).await,
        Command::Add(args) => {
            let path = format!("{HOSTS}/batchCreate");
            let body = creation(context, args).await?;
            follow::start(context, &args.creation, "add the hosts", &path, &body).await
        }
        Command::List => {
            let mut data = context.client.list("list the hosts", HOSTS).await?;
            if context.output.shape() == Shape::Table
                && let Some(hosts) = data.get_mut("contents").and_then(Value::as_array_mut)
            {
                hosts.iter_mut().for_each(name_system);
            }
            context.output.list(&data, COLUMNS, "/id")
        }
        Command::Show { host } => show(context, host).await,
        Command::Remove { host, consent, trial } => {
            let doing = format!("remove host {host}");
            let id = resolve::id(context, &doing, &HOST, host).await?;
            context.remove(&doing, &HOST, id, host, *consent, *trial).await
        }
        Command::Agent { host } => agent(context, host).await,
        Command::RestartAgent(change) => {
            change_agents(context, change, "restart", &format!("{HOSTS}/batchRestartAgents")).await
        }
        Command::StopAgent(change) => change_agents(context, change, "stop", &format!("{HOSTS}/batchStopAgents")).await,
        Command::UpgradeAgent(upgrade) => upgrade_agents(context, upgrade).await,
        Command::ResetEpoch { host, consent, trial } => reset_epoch(context, host, *consent, *trial).await,
    }
}

/// The agent forgets nothing: the coordinator's epochs go on above that of the agent.
async fn reset_epoch(context: &Context<'_>, host: &str, consent: Consent, trial: Trial) -> Result<(), CliError> {
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

async fn show(context: &Context<'_>, host: &str) -> Result<(), CliError> {
    let doing = format!("show host {host}");
    let id = resolve::id(context, &doing, &HOST, host).await?;
    let mut data = context.client.get(&doing, &format!("{HOSTS}/{id}")).await?;
    if context.output.shape() == Shape::Table {
        name_system(&mut data);
    }
    context.output.entry(&data, FIELDS, "/id")?;
    context.output.section(&data, "/services", SERVICES)
}

async fn agent(context: &Context<'_>, host: &str) -> Result<(), CliError> {
    let doing = format!("show the agent of host {host}");
    let id = resolve::id(context, &doing, &HOST, host).await?;
    let data = context.client.get(&doing, &format!("{HOSTS}/{id}/agent")).await?;
    context.output.entry(&data, AGENT, "/hostId")?;
    context.output.section(&data, "/processes", PROCESSES)
}

/// Such as "Debian 12" for "Debian GNU/Linux 12 (bookworm)".
fn name_system(host: &mut Value) {
    let system = host.get("operatingSystem").and_then(Value::as_str).unwrap_or_default();
    let system = system.split(" (").next().unwrap_or_default().replace(" GNU/Linux", "");
    if let Some(host) = host.as_object_mut() {
        host.insert(SYSTEM.trim_start_matches('/').into(), json!(system));
    }
}

async fn change_agents(
    context: &Context<'_>,
    AgentsChange { hosts, consent, creation }: &AgentsChange,
    verb: &str,
    path: &str,
) -> Result<(), CliError> {
    let doing = match hosts.as_slice() {
        [host] => format!("{verb} the agent of host {host}"),
        hosts => format!("{verb} the agents of hosts {}", hosts.join(", ")),
    };
    let ids = resolve::ids(context, &doing, &HOST, hosts).await?;
    context.confirm_many(*consent, creation.run.dry_run, hosts, &doing)?;
    follow::start(context, creation, &doing, path, &json!({"hostIds": ids})).await
}

/// A dry run uploads nothing, so its packages have to be uploaded already.
async fn upgrade_agents(context: &Context<'_>, upgrade: &AgentUpgrade) -> Result<(), CliError> {
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

async fn creation(context: &Context<'_>, args: &HostAdd) -> Result<Value, CliError> {
    let hosts: Vec<_> = args.addresses.iter().map(|address| json!({"innerIpAddress": address})).collect();
    let id = async |kind, name: &Option<String>| match name {
        Some(name) => resolve::id(context, "add the hosts", kind, name).await.map(Some),
        None => Ok(None),
    };
    let members = [
        ("hostBasicDataList", Some(json!(hosts))),
        ("mgragentPort", Some(json!(args.agent_port))),
        ("monagentPort", Some(json!(args.metrics_port))),
        ("alias", args.alias.clone().map(Value::from)),
        ("description", args.description.clone().map(Value::from)),
        ("idcId", id(&IDC, &args.idc).await?.map(Value::from)),
        ("typeId", id(&HOST_TYPE, &args.host_type).await?.map(Value::from)),
    ];
    Ok(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_has_the_name_that_people_use() {
        for (told, expected) in [
            ("Debian GNU/Linux 12 (bookworm)", "Debian 12"),
            ("Anolis OS 8.9", "Anolis OS 8.9"),
            ("Linux", "Linux"),
            ("", ""),
        ] {
            let mut host = json!({"operatingSystem": told});
            name_system(&mut host);
            assert_eq!(host["system"], expected);
        }
    }
}
