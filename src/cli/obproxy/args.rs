use clap::{Args, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use crate::cli::frame::{
    args::{Consent, Creation, Run, Trial},
    values::{cluster_name, port},
};

/// The account with which proxies log in to an OceanBase cluster.
const PROXY_USER: &str = "proxyro";

#[derive(Debug, Subcommand)]
pub(crate) enum Obproxy {
    /// Create an OBProxy cluster, with proxies on the given hosts
    Create(Box<CreateArgs>),
    /// Add a proxy on each of the given hosts to a cluster
    Add(AddArgs),
    /// Change the address and the port at which applications reach a cluster
    SetAddress(AddressArgs),
    /// Connect a cluster to more OceanBase clusters
    AddLink(AddLinkArgs),
    /// Disconnect a cluster from an OceanBase cluster
    RemoveLink(RemoveLinkArgs),
    /// List the clusters
    List,
    /// Show a cluster and its proxies
    Show {
        /// Id or name of the cluster
        cluster: String,
    },
    /// Remove proxies from a cluster: stop them, uninstall what oblet installed, and forget them
    Remove(RemoveArgs),
    /// Remove a cluster with all its proxies
    RemoveCluster(RemoveClusterArgs),
}

/// What is removed of a proxy.
#[derive(Debug, Args)]
pub(crate) struct Removal {
    /// Ids of proxies whose hosts are gone: forget them without asking their agents
    #[arg(long, value_name = "PROXY", num_args = 1.., value_delimiter = ',')]
    pub(crate) skip_host: Vec<u64>,
    /// Remove the logs, too [default: they stay on the host, in PORT.removed-TIME beside the directory of the proxy]
    #[arg(long)]
    pub(crate) remove_logs: bool,
    #[command(flatten)]
    pub(crate) consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Id or name of the cluster
    pub(crate) cluster: String,
    /// Ids of the proxies
    #[arg(value_name = "PROXY", required = true)]
    pub(crate) proxies: Vec<u64>,
    #[command(flatten)]
    pub(crate) removal: Removal,
    #[command(flatten)]
    pub(crate) creation: Creation,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveClusterArgs {
    /// Id or name of the cluster
    pub(crate) cluster: String,
    #[command(flatten)]
    pub(crate) removal: Removal,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the cluster
    pub(crate) name: String,
    /// Address at which applications reach the cluster
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// Port at which applications reach the cluster
    #[arg(long, value_parser = port())]
    pub(crate) port: Option<u16>,
    /// How the proxies find their OBServers [default: RS_LIST with --rs-list, else CONFIG_URL]
    #[arg(long, value_enum)]
    pub(crate) work_mode: Option<WorkMode>,
    /// OceanBase cluster to connect to, as proxyro unless USER is given; repeat it for several
    #[arg(long, value_name = "NAME:OB_CLUSTER_ID[:USER]")]
    pub(crate) ob_link: Vec<ObLink>,
    /// OBServer of the OceanBase cluster, with its SQL port; repeat it for several
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',')]
    pub(crate) rs_list: Vec<SocketAddr>,
    /// Parameter of the proxies; repeat it for several
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) parameter: Vec<Parameter>,
    /// Startup parameter of the proxies; repeat it for several
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) startup_parameter: Vec<Parameter>,
    /// File with the password of the proxies' administrator (proxysys), "-" for standard input [default: random]
    #[arg(long, value_name = "FILE")]
    pub(crate) proxysys_password_file: Option<PathBuf>,
    /// File with the password of proxyro, with which the proxies log in to the OceanBase cluster, "-" for standard
    /// input [default: random]
    #[arg(long, value_name = "FILE")]
    pub(crate) proxyro_password_file: Option<PathBuf>,
    /// Ids, addresses or aliases of the hosts on which to install a proxy
    #[arg(long, value_name = "HOST", num_args = 1.., value_delimiter = ',', requires = "version")]
    pub(crate) host: Vec<String>,
    #[command(flatten)]
    pub(crate) ports: Ports,
    /// File name or id of the uploaded package to install
    #[arg(long, value_name = "PACKAGE", requires = "host")]
    pub(crate) version: Option<String>,
    #[command(flatten)]
    pub(crate) creation: Creation,
}

#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Id or name of the cluster
    pub(crate) cluster: String,
    /// Ids, addresses or aliases of the hosts on which to install a proxy
    #[arg(long, value_name = "HOST", num_args = 1.., value_delimiter = ',', required = true)]
    pub(crate) host: Vec<String>,
    #[command(flatten)]
    pub(crate) ports: Ports,
    /// File name or id of the uploaded package to install
    #[arg(long, value_name = "PACKAGE")]
    pub(crate) version: String,
    #[command(flatten)]
    pub(crate) creation: Creation,
}

/// What is not given stays as it is.
#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = true, args = ["address", "no_address", "port", "no_port"])]
pub(crate) struct AddressArgs {
    /// Id or name of the cluster
    pub(crate) cluster: String,
    /// Address at which applications reach the cluster
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// Remove the address
    #[arg(long, conflicts_with = "address")]
    pub(crate) no_address: bool,
    /// Port at which applications reach the cluster
    #[arg(long, value_parser = port())]
    pub(crate) port: Option<u16>,
    /// Remove the port
    #[arg(long, conflicts_with = "port")]
    pub(crate) no_port: bool,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct AddLinkArgs {
    /// Id or name of the cluster
    pub(crate) cluster: String,
    /// OceanBase clusters to connect to, as proxyro unless USER is given
    #[arg(required = true, num_args = 1.., value_name = "NAME:OB_CLUSTER_ID[:USER]")]
    pub(crate) links: Vec<ObLink>,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveLinkArgs {
    /// Id or name of the cluster
    pub(crate) cluster: String,
    /// Name of the OceanBase cluster
    #[arg(value_parser = cluster_name)]
    pub(crate) ob_cluster: String,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct Ports {
    /// SQL port of the proxies
    #[arg(long, default_value_t = 2883, value_parser = port(), value_name = "PORT")]
    pub(crate) sql_port: u16,
    /// Port of the proxies' metrics
    #[arg(long, default_value_t = 2884, value_parser = port(), value_name = "PORT")]
    pub(crate) exporter_port: u16,
    /// RPC port of the proxies, from version 4.3 on [default: the coordinator's, 2885]
    #[arg(long, value_parser = port(), value_name = "PORT")]
    pub(crate) rpc_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WorkMode {
    #[value(name = "RS_LIST")]
    RsList,
    #[value(name = "CONFIG_URL")]
    ConfigUrl,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObLink {
    pub(crate) cluster: String,
    pub(crate) id: u64,
    pub(crate) user: String,
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
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) value: String,
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
