//! OBProxy clusters: what creates and shows them. What changes them is in `change.rs`.

pub(super) mod args;
mod change;

use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;

use super::{
    console::{
        error::CliError,
        table::{Column, column},
    },
    frame::{
        args::{Trial, dry_run_query},
        context::Context,
        kind::{CLUSTER, CLUSTERS, HOST, PACKAGE},
        resolve,
    },
    rest::settings::read_secret,
    task::follow,
};
use args::{CreateArgs, Obproxy as Command, Parameter, Ports, RemoveArgs, RemoveClusterArgs, WorkMode};

/// The startup parameter in which a proxy is told the servers of its one OceanBase cluster.
const ROOT_SERVICE_LIST: &str = "rootservice_list";

const COLUMNS: &[Column] = &[
    column("ID", "/id"),
    column("NAME", "/name"),
    column("ADDRESS", "/address"),
    column("PORT", "/port"),
    column("MODE", "/workMode"),
    column("CREATED", "/createTime"),
    column("CREATOR", "/creatorName").wide(),
    column("CONFIG URL", "/configUrl").wide().free(),
];

const FIELDS: &[Column] = &[
    column("Cluster", "/id"),
    column("Name", "/name"),
    column("Address", "/address"),
    column("Port", "/port"),
    column("Mode", "/workMode"),
    column("Config URL", "/configUrl"),
    column("Creator", "/creatorName"),
    column("Created", "/createTime"),
];

const PROXIES: &[Column] = &[
    column("PROXY", "/id"),
    column("HOST", "/hostId"),
    column("ADDRESS", "/ip"),
    column("SQL PORT", "/sqlPort"),
    column("EXPORTER PORT", "/exporterPort"),
    column("RPC PORT", "/rpcPort"),
    column("VERSION", "/version"),
    column("STATUS", "/status"),
];

const LINKS: &[Column] = &[
    column("OB CLUSTER", "/clusterName"),
    column("OB CLUSTER ID", "/obClusterId"),
    column("USER", "/username"),
    column("STATUS", "/status"),
];

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Create(args) => {
            let doing = format!("create OBProxy cluster {}", args.name);
            let mut body = creation(args)?;
            let installation = match &args.version {
                // OCP's name of the port differs here.
                Some(version) => installation(context, &doing, &args.ports, "exportPort", &args.host, version).await?,
                None => json!({"hostIds": []}),
            };
            body.insert("obproxyInstallParam".into(), installation);
            follow::start(context, &args.creation, &doing, CLUSTERS, &Value::Object(body)).await
        }
        Command::Add(args) => {
            let doing = format!("add proxies to OBProxy cluster {}", args.cluster);
            let cluster = resolve::id(context, &doing, &CLUSTER, &args.cluster).await?;
            let path = format!("{CLUSTERS}/{cluster}/obproxies/batchAdd");
            let body = installation(context, &doing, &args.ports, "exporterPort", &args.host, &args.version).await?;
            follow::start(context, &args.creation, &doing, &path, &body).await
        }
        Command::SetAddress(args) => change::set_address(context, args).await,
        Command::AddLink(args) => change::add_links(context, args).await,
        Command::RemoveLink(args) => change::remove_link(context, args).await,
        Command::List => {
            let data = context.client.list("list the OBProxy clusters", CLUSTERS).await?;
            context.output.list(&data, COLUMNS, "/name")
        }
        Command::Show { cluster } => {
            let doing = format!("show OBProxy cluster {cluster}");
            let path = format!("{CLUSTERS}/{}", resolve::id(context, &doing, &CLUSTER, cluster).await?);
            let data = context.client.get(&doing, &path).await?;
            context.output.entry(&data, FIELDS, "/name")?;
            context.output.section(&data, "/obproxies", PROXIES)?;
            context.output.section(&data, "/obLinks", LINKS)
        }
        Command::Remove(args) => remove(context, args).await,
        Command::RemoveCluster(args) => remove_cluster(context, args).await,
    }
}

async fn remove(context: &Context<'_>, args: &RemoveArgs) -> Result<(), CliError> {
    let names: Vec<String> = args.proxies.iter().map(u64::to_string).collect();
    let noun = if names.len() == 1 { "proxy" } else { "proxies" };
    let doing = format!("remove {noun} {} of OBProxy cluster {}", names.join(", "), args.cluster);
    let cluster = resolve::id(context, &doing, &CLUSTER, &args.cluster).await?;
    let trial = Trial { dry_run: args.creation.run.dry_run };
    match &names[..] {
        [name] => context.confirm(args.removal.consent, trial, name, &doing)?,
        names => context.confirm(args.removal.consent, trial, names.len(), &doing)?,
    }
    let body = json!({
        "obproxyServerIds": args.proxies,
        "skipHostOperationServerIds": args.removal.skip_host,
        "keepLogs": !args.removal.remove_logs,
    });
    follow::start(context, &args.creation, &doing, &format!("{CLUSTERS}/{cluster}/servers/delete"), &body).await
}

async fn remove_cluster(context: &Context<'_>, args: &RemoveClusterArgs) -> Result<(), CliError> {
    let RemoveClusterArgs { cluster, removal, run } = args;
    let doing = format!("remove OBProxy cluster {cluster} and all its proxies");
    let path = format!("{CLUSTERS}/{}", resolve::id(context, &doing, &CLUSTER, cluster).await?);
    context.confirm(removal.consent, Trial { dry_run: run.dry_run }, cluster, &doing)?;
    let skipped = removal.skip_host.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let keep_logs = (!removal.remove_logs).to_string();
    let mut query = vec![("skipHostOperationServerIds", skipped.as_str()), ("keepLogs", &keep_logs)];
    query.extend(dry_run_query(run.dry_run));
    let answer = context.client.delete(&doing, &path, &query).await?;
    if run.dry_run {
        return follow::show_plan(context, &doing, &answer);
    }
    follow::follow_answer(context, run.detach, &doing, &answer).await
}

async fn installation(
    context: &Context<'_>,
    doing: &str,
    ports: &Ports,
    exporter_member: &str,
    hosts: &[String],
    package: &str,
) -> Result<Value, CliError> {
    let hosts = resolve::ids(context, doing, &HOST, hosts).await?;
    // The API takes the name of the file; whether there is such a package it says itself.
    let version = match package.parse::<u64>() {
        Ok(_) => resolve::entry(context, doing, &PACKAGE, package).await?.get("fileName").cloned(),
        Err(_) => Some(json!(package)),
    };
    let members = [
        ("hostIds", Some(json!(hosts))),
        ("sqlPort", Some(json!(ports.sql_port))),
        (exporter_member, Some(json!(ports.exporter_port))),
        ("rpcPort", ports.rpc_port.map(Into::into)),
        ("version", version),
    ];
    Ok(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

fn creation(args: &CreateArgs) -> Result<Map<String, Value>, CliError> {
    let work_mode = work_mode(args)?;
    let mut startup: Vec<_> = args.startup_parameter.iter().map(wire_parameter).collect();
    if work_mode == WorkMode::RsList {
        let servers: Vec<_> = args.rs_list.iter().map(SocketAddr::to_string).collect();
        startup.push(json!({"name": ROOT_SERVICE_LIST, "value": servers.join(";")}));
    }
    let mut body = Map::new();
    body.insert("name".into(), json!(args.name));
    body.insert("workMode".into(), json!(if work_mode == WorkMode::RsList { "RS_LIST" } else { "CONFIG_URL" }));
    body.insert("obLinks".into(), args.ob_link.iter().map(change::wire_link).collect());
    body.insert("startupParameters".into(), json!(startup));
    body.insert("parameters".into(), args.parameter.iter().map(wire_parameter).collect());
    if let Some(address) = &args.address {
        body.insert("address".into(), json!(address));
    }
    if let Some(port) = args.port {
        body.insert("port".into(), json!(port));
    }
    let passwords = [("password", &args.proxysys_password_file), ("proxyroPassword", &args.proxyro_password_file)];
    for (name, file) in passwords {
        if let Some(file) = file {
            body.insert(name.into(), json!(read_secret(file)?.expose_secret()));
        }
    }
    Ok(body)
}

fn wire_parameter(parameter: &Parameter) -> Value {
    json!({"name": parameter.name, "value": parameter.value})
}

/// A list of servers belongs to exactly one OceanBase cluster; with a config URL the proxies fetch it themselves.
fn work_mode(args: &CreateArgs) -> Result<WorkMode, CliError> {
    let given = if args.rs_list.is_empty() { WorkMode::ConfigUrl } else { WorkMode::RsList };
    let mode = args.work_mode.unwrap_or(given);
    let wrong = |message: &str, next: &str| Err(CliError::Usage { message: message.into(), next: next.into() });
    match (mode, args.rs_list.is_empty(), args.ob_link.len()) {
        (WorkMode::ConfigUrl, false, _) => {
            wrong("--rs-list does not go with work mode CONFIG_URL", "leave out --rs-list")
        }
        (WorkMode::RsList, true, _) => {
            wrong("work mode RS_LIST needs the OBServers of the OceanBase cluster", "name each with --rs-list IP:PORT")
        }
        (WorkMode::RsList, false, 0 | 2..) => {
            wrong("work mode RS_LIST needs exactly one OceanBase cluster", "name it with --ob-link NAME:OB_CLUSTER_ID")
        }
        (WorkMode::ConfigUrl, true, _) | (WorkMode::RsList, false, 1) => Ok(mode),
    }
}
