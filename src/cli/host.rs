use serde_json::{Value, json};

use super::{
    Context,
    args::{AgentUpgrade, Host as Command, HostAdd},
    enrolment,
    error::CliError,
    follow,
    output::Column,
    package,
};

const HOSTS: &str = "api/v2/compute/hosts";

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("ALIAS", "/alias"),
    ("ADDRESS", "/innerIpAddress"),
    ("STATUS", "/status"),
    ("AGENT", "/hostAgentVersion"),
    ("SYSTEM", "/operatingSystemRelease"),
    ("ARCH", "/architecture"),
];

const FIELDS: &[Column] = &[
    ("Host", "/id"),
    ("Name", "/name"),
    ("Alias", "/alias"),
    ("Description", "/description"),
    ("Address", "/innerIpAddress"),
    ("Status", "/status"),
    ("System", "/operatingSystem"),
    ("Release", "/operatingSystemRelease"),
    ("Architecture", "/architecture"),
    ("Agent", "/hostAgentVersion"),
    ("Agent status", "/hostAgentStatus"),
    ("Created", "/createTime"),
];

const SERVICES: &[Column] = &[("SERVICE", "/name"), ("TYPE", "/type"), ("VERSION", "/version")];

const AGENT: &[Column] = &[
    ("Host", "/hostId"),
    ("Address", "/hostInnerIpAddress"),
    ("Status", "/status"),
    ("Problem", "/problem"),
    ("Version", "/version"),
    ("Program", "/installHome"),
    ("Logs", "/logHome"),
];

const PROCESSES: &[Column] = &[
    ("PROCESS", "/id"),
    ("PID", "/pid"),
    ("USER", "/user"),
    ("SECONDS", "/elapsedTime"),
    ("COMMAND", "/startCommand"),
];

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Add(args) if args.token => enrolment::invite(context, args).await,
        Command::Revoke(args) => enrolment::revoke(context, args).await,
        Command::Token(command) => enrolment::token(context, command).await,
        Command::Certificates => enrolment::certificates(context).await,
        Command::Add(args) => {
            let path = format!("{HOSTS}/batchCreate");
            follow::start(context, &args.creation, "add the hosts", &path, &creation(args)).await
        }
        Command::List => {
            let data = context.client.list("list the hosts", HOSTS).await?;
            context.output.list(&data, COLUMNS, "/id")
        }
        Command::Show { id } => {
            let data = context.client.get(&format!("show host {id}"), &format!("{HOSTS}/{id}")).await?;
            context.output.entry(&data, FIELDS, "/id")?;
            context.output.section(&data, "/services", SERVICES)
        }
        Command::Remove(removal) => {
            let what = format!("host {}", removal.id);
            let doing = format!("remove {what}");
            context.confirm(removal.yes, removal.id, &doing)?;
            context.client.delete(&doing, &format!("{HOSTS}/{}", removal.id)).await?;
            context.removed(removal.id, &what)
        }
        Command::Agent { id } => {
            let data =
                context.client.get(&format!("show the agent of host {id}"), &format!("{HOSTS}/{id}/agent")).await?;
            context.output.entry(&data, AGENT, "/hostId")?;
            context.output.section(&data, "/processes", PROCESSES)
        }
        Command::RestartAgent { ids, creation } => {
            let path = format!("{HOSTS}/batchRestartAgents");
            follow::start(context, creation, "restart the agents", &path, &json!({"hostIds": ids})).await
        }
        Command::UpgradeAgent(upgrade) => upgrade_agents(context, upgrade).await,
        Command::StopAgent { ids, yes, creation } => {
            let list: Vec<_> = ids.iter().map(u64::to_string).collect();
            let doing = format!("stop the agents of the hosts {}", list.join(", "));
            if !creation.run.dry_run {
                // The last one named stands for all.
                context.confirm(*yes, ids.last().copied().unwrap_or_default(), &doing)?;
            }
            let path = format!("{HOSTS}/batchStopAgents");
            follow::start(context, creation, &doing, &path, &json!({"hostIds": ids})).await
        }
    }
}

/// A trial uploads nothing, so its packages have to be there.
async fn upgrade_agents(context: &Context<'_>, upgrade: &AgentUpgrade) -> Result<(), CliError> {
    let ids = if upgrade.all {
        let hosts = context.client.list("list the hosts", HOSTS).await?;
        let ids = hosts.get("contents").and_then(Value::as_array).into_iter().flatten();
        ids.filter_map(|host| host.get("id")?.as_u64()).collect()
    } else {
        upgrade.ids.clone()
    };
    let mut packages = Vec::new();
    for file in &upgrade.packages {
        packages.push(if upgrade.creation.run.dry_run {
            package::find(context, file).await?
        } else {
            package::upload(context, file).await?.get("id").cloned().unwrap_or_default()
        });
    }
    let body = json!({"hostIds": ids, "packages": packages, "parallel": upgrade.parallel});
    let path = format!("{HOSTS}/batchUpgradeAgents");
    follow::start(context, &upgrade.creation, "upgrade the agents", &path, &body).await
}

fn creation(args: &HostAdd) -> Value {
    let hosts: Vec<_> = args.addresses.iter().map(|address| json!({"innerIpAddress": address})).collect();
    let mut body = json!({
        "hostBasicDataList": hosts,
        "mgragentPort": args.agent_port,
        "monagentPort": args.metrics_port,
    });
    for (name, value) in [("alias", &args.alias), ("description", &args.description)] {
        if let (Some(body), Some(value)) = (body.as_object_mut(), value) {
            body.insert(name.into(), json!(value));
        }
    }
    body
}
