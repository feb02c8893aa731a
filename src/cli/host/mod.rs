//! Hosts: what adds, shows and removes them. Their agents have a room of their own.

pub(super) mod args;
pub(super) mod places;

use serde_json::{Value, json};

use super::{
    agent::{self, enrolment},
    console::{
        error::CliError,
        output::Shape,
        table::{Column, column},
    },
    frame::{
        context::Context,
        kind::{HOST, HOSTS},
        resolve,
    },
    task::follow,
};
use args::{Host as Command, HostAdd};
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

/// Where tables find what the API tells in two members.
const SYSTEM: &str = "/system";

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Add(args) if args.token => {
            let dry_run = args.creation.run.dry_run;
            enrolment::invite(context, &args.addresses, &args.invitation, dry_run).await
        }
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
        Command::Agent { host } => agent::show(context, host).await,
        Command::RestartAgent(change) => agent::restart(context, change).await,
        Command::StopAgent(change) => agent::stop(context, change).await,
        Command::UpgradeAgent(upgrade) => agent::upgrade(context, upgrade).await,
        Command::ResetEpoch { host, consent, trial } => agent::reset_epoch(context, host, *consent, *trial).await,
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

/// Such as "Debian 12" for "Debian GNU/Linux 12 (bookworm)".
fn name_system(host: &mut Value) {
    let system = host.get("operatingSystem").and_then(Value::as_str).unwrap_or_default();
    let system = system.split(" (").next().unwrap_or_default().replace(" GNU/Linux", "");
    if let Some(host) = host.as_object_mut() {
        host.insert(SYSTEM.trim_start_matches('/').into(), json!(system));
    }
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
