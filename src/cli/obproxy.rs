use clap::{Args, ValueEnum};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use super::{
    Context,
    args::{Creation, Obproxy as Command, port},
    error::CliError,
    follow,
    output::{Column, entries},
    settings::read_secret,
};

const CLUSTERS: &str = "api/v2/obproxy/clusters";
/// The startup parameter in which a proxy is told the servers of its one OceanBase cluster.
const ROOT_SERVICE_LIST: &str = "rootservice_list";
/// The account with which proxies look into an OceanBase cluster.
const PROXY_USER: &str = "proxyro";

const COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("NAME", "/name"),
    ("ADDRESS", "/address"),
    ("PORT", "/port"),
    ("MODE", "/workMode"),
    ("CREATED", "/createTime"),
];

const FIELDS: &[Column] = &[
    ("Cluster", "/id"),
    ("Name", "/name"),
    ("Address", "/address"),
    ("Port", "/port"),
    ("Mode", "/workMode"),
    ("Config URL", "/configUrl"),
    ("Creator", "/creatorName"),
    ("Created", "/createTime"),
];

const PROXIES: &[Column] = &[
    ("PROXY", "/id"),
    ("HOST", "/hostId"),
    ("ADDRESS", "/ip"),
    ("SQL PORT", "/sqlPort"),
    ("EXPORTER PORT", "/exporterPort"),
    ("RPC PORT", "/rpcPort"),
    ("VERSION", "/version"),
    ("STATUS", "/status"),
];

const LINKS: &[Column] =
    &[("OB CLUSTER", "/clusterName"), ("OB CLUSTER ID", "/obClusterId"), ("USER", "/username"), ("STATUS", "/status")];

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    name: String,
    /// Address at which applications reach the cluster
    #[arg(long)]
    address: Option<String>,
    /// Port at which applications reach the cluster
    #[arg(long, value_parser = port())]
    port: Option<u16>,
    /// Where the proxies learn their servers from; RS_LIST if --rs-list is given, else CONFIG_URL
    #[arg(long, value_enum)]
    work_mode: Option<WorkMode>,
    /// An OceanBase cluster to connect to; the user is proxyro unless given; may be repeated
    #[arg(long, value_name = "NAME:OB_CLUSTER_ID[:USER]")]
    ob_link: Vec<ObLink>,
    /// A server of the OceanBase cluster, with its SQL port; may be repeated
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',')]
    rs_list: Vec<SocketAddr>,
    /// A parameter of the proxies; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    parameter: Vec<Parameter>,
    /// A parameter with which the proxies are started; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    startup_parameter: Vec<Parameter>,
    /// File with the password for the proxies' administrator (proxysys), "-" for standard input
    #[arg(long, value_name = "FILE")]
    proxysys_password_file: Option<PathBuf>,
    /// File with the password with which the proxies connect to the OceanBase cluster, "-" for standard input
    #[arg(long, value_name = "FILE")]
    proxyro_password_file: Option<PathBuf>,
    /// Hosts on which to install a proxy
    #[arg(long, value_name = "ID", num_args = 1.., value_delimiter = ',', requires = "version")]
    host: Vec<u64>,
    #[command(flatten)]
    ports: Ports,
    /// File name of the package to install
    #[arg(long, value_name = "FILE", requires = "host")]
    version: Option<String>,
    #[command(flatten)]
    creation: Creation,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Id or name of the cluster
    cluster: String,
    /// Hosts on which to install a proxy
    #[arg(long, value_name = "ID", num_args = 1.., value_delimiter = ',', required = true)]
    host: Vec<u64>,
    #[command(flatten)]
    ports: Ports,
    /// File name of the package to install
    #[arg(long, value_name = "FILE")]
    version: String,
    #[command(flatten)]
    creation: Creation,
}

#[derive(Debug, Args)]
struct Ports {
    /// Port on which the proxies take SQL
    #[arg(long, default_value_t = 2883, value_parser = port(), value_name = "PORT")]
    sql_port: u16,
    /// Port on which the proxies serve metrics
    #[arg(long, default_value_t = 2884, value_parser = port(), value_name = "PORT")]
    exporter_port: u16,
    /// Port on which proxies from version 4.3 on take RPC; the coordinator's default if it is not given
    #[arg(long, value_parser = port(), value_name = "PORT")]
    rpc_port: Option<u16>,
}

impl Ports {
    fn installation(&self, exporter_member: &str, hosts: &[u64], version: &str) -> Value {
        let members = [
            ("hostIds", Some(json!(hosts))),
            ("sqlPort", Some(json!(self.sql_port))),
            (exporter_member, Some(json!(self.exporter_port))),
            ("rpcPort", self.rpc_port.map(Into::into)),
            ("version", Some(json!(version))),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorkMode {
    #[value(name = "RS_LIST")]
    RsList,
    #[value(name = "CONFIG_URL")]
    ConfigUrl,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ObLink {
    cluster: String,
    id: u64,
    user: String,
}

impl FromStr for ObLink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let (cluster, id) = (parts.next().unwrap_or_default(), parts.next().and_then(|id| id.parse().ok()));
        let user = parts.next().unwrap_or(PROXY_USER);
        match id {
            Some(id) if !cluster.is_empty() && !user.is_empty() => {
                Ok(Self { cluster: cluster.into(), id, user: user.into() })
            }
            _ => Err("it does not have the form NAME:OB_CLUSTER_ID[:USER], such as hooray:1".into()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Parameter {
    name: String,
    value: String,
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.into(), value: value.into() }),
            _ => Err("it does not have the form NAME=VALUE".into()),
        }
    }
}

pub(crate) async fn run(context: &Context<'_>, command: &Command) -> Result<(), CliError> {
    match command {
        Command::Create(args) => {
            let doing = format!("create the obproxy cluster {}", args.name);
            follow::start(context, &args.creation, &doing, CLUSTERS, &creation(args)?).await
        }
        Command::Add(args) => {
            let doing = format!("add proxies to the obproxy cluster {}", args.cluster);
            let path = format!("{CLUSTERS}/{}/obproxies/batchAdd", cluster_id(context, &doing, &args.cluster).await?);
            let body = args.ports.installation("exporterPort", &args.host, &args.version);
            follow::start(context, &args.creation, &doing, &path, &body).await
        }
        Command::List => {
            let data = context.client.list("list the obproxy clusters", CLUSTERS).await?;
            context.output.list(&data, COLUMNS, "/name")
        }
        Command::Show { cluster } => {
            let doing = format!("show the obproxy cluster {cluster}");
            let path = format!("{CLUSTERS}/{}", cluster_id(context, &doing, cluster).await?);
            let data = context.client.get(&doing, &path).await?;
            context.output.entry(&data, FIELDS, "/name")?;
            context.output.section(&data, "/obproxies", PROXIES)?;
            context.output.section(&data, "/obLinks", LINKS)
        }
    }
}

/// A number is an id; everything else is looked up as a name.
async fn cluster_id(context: &Context<'_>, doing: &str, cluster: &str) -> Result<u64, CliError> {
    if let Ok(id) = cluster.parse() {
        return Ok(id);
    }
    let clusters = context.client.list(doing, CLUSTERS).await?;
    let named = entries(&clusters).iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some(cluster));
    named.and_then(|entry| entry.get("id")).and_then(Value::as_u64).ok_or_else(|| CliError::NotFound {
        doing: doing.into(),
        cause: format!("no obproxy cluster is called {cluster}"),
        next: "see what there is with: oblet obproxy list".into(),
    })
}

fn creation(args: &CreateArgs) -> Result<Value, CliError> {
    let work_mode = work_mode(args)?;
    let mut startup: Vec<_> = args.startup_parameter.iter().map(wire_parameter).collect();
    if work_mode == WorkMode::RsList {
        let servers: Vec<_> = args.rs_list.iter().map(SocketAddr::to_string).collect();
        startup.push(json!({"name": ROOT_SERVICE_LIST, "value": servers.join(";")}));
    }
    let links = args.ob_link.iter();
    let links = links.map(|link| json!({"clusterName": link.cluster, "obClusterId": link.id, "username": link.user}));
    let mut body = Map::new();
    body.insert("name".into(), json!(args.name));
    body.insert("workMode".into(), json!(if work_mode == WorkMode::RsList { "RS_LIST" } else { "CONFIG_URL" }));
    body.insert("obLinks".into(), links.collect());
    body.insert("startupParameters".into(), json!(startup));
    body.insert("parameters".into(), args.parameter.iter().map(wire_parameter).collect());
    let installation = match &args.version {
        // OCP's name of the port differs here.
        Some(version) => args.ports.installation("exportPort", &args.host, version),
        None => json!({"hostIds": []}),
    };
    body.insert("obproxyInstallParam".into(), installation);
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
    Ok(Value::Object(body))
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
            wrong("proxies with a config URL take no list of servers", "leave out --rs-list")
        }
        (WorkMode::RsList, true, _) => {
            wrong("work mode RS_LIST needs the servers of the OceanBase cluster", "name each with --rs-list IP:PORT")
        }
        (WorkMode::RsList, false, 0 | 2..) => {
            wrong("work mode RS_LIST needs exactly one OceanBase cluster", "name it with --ob-link NAME:OB_CLUSTER_ID")
        }
        (WorkMode::ConfigUrl, true, _) | (WorkMode::RsList, false, 1) => Ok(mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_a_cluster_its_id_and_perhaps_a_user() {
        let link = |cluster: &str, id, user: &str| ObLink { cluster: cluster.into(), id, user: user.into() };
        assert_eq!("hooray:1".parse(), Ok(link("hooray", 1, "proxyro")));
        assert_eq!("hooray:1:ro@sys".parse(), Ok(link("hooray", 1, "ro@sys")));
        for bad in ["", "hooray", "hooray:", "hooray:x", ":1", "hooray:1:"] {
            assert!(bad.parse::<ObLink>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_may_hold_the_equals_sign_and_may_be_empty() {
        let parameter = |name: &str, value: &str| Parameter { name: name.into(), value: value.into() };
        assert_eq!("a=b=c".parse(), Ok(parameter("a", "b=c")));
        assert_eq!("a=".parse(), Ok(parameter("a", "")));
        assert!("=b".parse::<Parameter>().is_err());
    }
}
