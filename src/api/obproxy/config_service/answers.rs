//! What proxies are told of clusters.

use super::{Refusal, report::Target};
use crate::{
    api::frame::{extract::Params, state::ApiState},
    coordinator::store::{
        StoreError, obproxy,
        root_servers::{self, ClusterRole, RootServer, RootServers},
    },
};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// For all clusters of a name, with room for the envelope below the 16 KiB of obproxy (G9).
const MOST_LIST_BYTES: usize = 15 << 10;

/// Reads for everybody.
pub(super) struct Documents<'a> {
    pub(super) state: &'a ApiState,
}

impl Documents<'_> {
    /// The servers of a cluster, or of all clusters of a name.
    pub(super) async fn root_servers(&self, target: &Target) -> Result<Value, Refusal> {
        self.shaped(target, view).await
    }

    /// oblet knows no data centres of observers: every cluster that has reported has none (R11).
    pub(super) async fn data_centres(&self, target: &Target) -> Result<Value, Refusal> {
        self.shaped(target, |list| {
            let (name, id) = (list.cluster.name.as_str(), list.cluster.id.get());
            json!({ "ObRegion": name, "ObRegionId": id, "IDCList": [], "ReadonlyRsList": "" })
        })
        .await
    }

    /// One object or a list of them (R9).
    async fn shaped(&self, target: &Target, view: fn(&RootServers) -> Value) -> Result<Value, Refusal> {
        let name = target.name()?;
        let mut connection = self.state.store().readers().acquire().await.map_err(StoreError::from)?;
        let mut lists = root_servers::of_name(&mut connection, name).await?;
        lists.retain(|list| target.id.is_none_or(|id| id == list.cluster.id));
        let newest_primary = |list: &&RootServers| (list.role == ClusterRole::Primary, list.reported_at);
        match lists.iter().max_by_key(newest_primary) {
            None => {
                let which = target.id.map_or_else(String::new, |id| format!(" with the id {id}"));
                let text = format!("no OceanBase cluster {name}{which} has reported its servers");
                Err(Refusal::new(StatusCode::NOT_FOUND, text))
            }
            Some(primary) if target.is_single() => Ok(view(primary)),
            Some(_) => Ok(lists.iter().map(view).collect()),
        }
    }

    pub(super) async fn proxy_config(&self, params: &Params) -> Result<Value, Refusal> {
        let names = self.names(params).await?;
        let urls: Vec<Value> =
            names.iter().map(|name| json!({ "ObRegion": name, "ObRootServiceInfoUrl": self.url(name) })).collect();
        Ok(self.versioned(params, &json!({ "ObRootServiceInfoUrlList": urls })))
    }

    pub(super) async fn url_template(&self, params: &Params) -> Result<Value, Refusal> {
        let names = self.names(params).await?;
        let base = format!("{}/services?Action=ObRootServiceInfo", self.state.settings.config_url_base);
        let own = json!({
            "ObClusterList": names,
            // obproxy cuts off what follows the name (G11).
            "ObRootServiceInfoUrlTemplate": format!("{base}&ObRegion=${{ObRegion}}"),
            "ObRootServiceInfoUrlTemplateV2":
                format!("{base}&version=2&ObCluster=${{ObCluster}}&ObClusterId=${{OBClusterId}}"),
        });
        Ok(self.versioned(params, &own))
    }

    /// The clusters that a proxy is told of: those that its proxy cluster links to, the first of which is its default
    /// (G5). A proxy that names no proxy cluster is none of oblet's, and is told what ob-configserver would tell it: of
    /// all clusters that have reported (G13).
    async fn names(&self, params: &Params) -> Result<Vec<String>, Refusal> {
        let mut connection = self.state.store().readers().acquire().await.map_err(StoreError::from)?;
        let Some(name) = params.text("ObproxyClusterName") else {
            return Ok(root_servers::names(&mut connection).await?);
        };
        let cluster = obproxy::by_name(&mut connection, name).await?;
        let cluster = cluster
            .ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no proxy cluster {name:?}")))?;
        // A proxy cluster has one link to a name, and obproxy insists on it (G5).
        Ok(cluster.ob_links.into_iter().map(|link| link.cluster_name.into()).collect())
    }

    fn url(&self, name: &str) -> String {
        let base = &self.state.settings.config_url_base;
        format!("{base}/services?Action=ObRootServiceInfo&User_ID=alibaba&UID=admin&ObRegion={name}")
    }

    /// The document of these members and those that all have, or its version only.
    fn versioned(&self, params: &Params, own: &Value) -> Value {
        let base = &self.state.settings.config_url_base;
        let mut document = json!({
            // No part of the document may be empty (G3, G4). Nothing is fetched from here: the agent installs the
            // program, and switches the meta database off (enable_metadb_used).
            "ObProxyBinUrl": format!("{base}/client?Action=GetObProxy"),
            "ObProxyDatabaseInfo":
                { "DataBase": "none", "MetaDataBase": self.url("none"), "User": "none", "Password": "none" },
        });
        if let (Some(document), Some(own)) = (document.as_object_mut(), own.as_object()) {
            document.extend(own.clone());
        }
        let version = version(&document);
        if params.text("VersionOnly") == Some("true") {
            return json!({ "Version": version });
        }
        if let Some(members) = document.as_object_mut() {
            members.insert("Version".to_owned(), json!(version));
        }
        document
    }
}

/// The same for the same document, whoever answers, in the 32 characters that obproxy has room for (G3).
fn version(document: &Value) -> String {
    Sha256::digest(document.to_string()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn view(list: &RootServers) -> Value {
    let server = |server: &RootServer| {
        json!({
            "address": server.address.to_string(),
            "role": server.role.as_str(),
            "sql_port": server.sql_port.get(),
        })
    };
    let servers = |list: &[RootServer]| list.iter().map(server).collect::<Value>();
    let (name, id) = (list.cluster.name.as_str(), list.cluster.id.get());
    json!({
        "ObRegion": name,
        "ObCluster": name,
        "ObRegionId": id,
        "ObClusterId": id,
        "Type": list.role.as_str(),
        "timestamp": list.reported_at,
        "RsList": servers(&list.servers),
        "ReadonlyRsList": servers(&list.readonly_servers),
    })
}

/// Refuses a report with which the answer about its name would be too long for a proxy.
pub(super) fn check_size(known: &[RootServers], report: &RootServers) -> Result<(), Refusal> {
    let others = known.iter().filter(|list| list.cluster != report.cluster);
    let answer: Value = others.chain([report]).map(view).collect();
    if answer.to_string().len() <= MOST_LIST_BYTES {
        return Ok(());
    }
    let name = &report.cluster.name;
    let text = format!(
        "the servers of all clusters named {name} take more than {MOST_LIST_BYTES} bytes, which is more than obproxy \
         reads: remove clusters that are gone with a DELETE of their ObRootServiceInfo"
    );
    Err(Refusal::new(StatusCode::CONFLICT, text))
}
