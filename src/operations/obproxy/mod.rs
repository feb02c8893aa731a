//! What is done with proxies and their clusters.

pub(super) mod install;
pub(super) mod offline;

use crate::steps::{Instance, InstanceKind, StartObproxy};

/// What an agent looks after once the proxy is started.
fn instance(start: &StartObproxy, cluster_id: i64, server_id: i64) -> Instance {
    Instance {
        kind: InstanceKind::Obproxy,
        sql_port: start.sql_port,
        exporter_port: start.exporter_port,
        cluster_name: start.app_name.clone(),
        cluster_id,
        server_id,
    }
}
