//! The config service that proxies in CONFIG_URL mode ask for their clusters. It has a format of its own and no
//! passwords, because obproxy can send none.
//!
//! obproxy appends `&VersionOnly=true` and fetches the whole document only if the version changed; it insists on
//! `Message` being "successful" and on `Success` being true. Parameters that are not known are ignored.

use crate::{
    api::frame::{envelope::ocp_time, extract::Params, state::ApiState, trace::TraceId},
    coordinator::store::{
        StoreError, now_micros,
        obproxy::{self, Cluster},
    },
    telemetry::chain,
};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Serves `/services`, on a listener of its own if the operator wants it so.
pub fn config_service_router(state: ApiState) -> Router {
    Router::new().route("/services", get(services).post(services)).with_state(state)
}

async fn services(State(state): State<ApiState>, params: Params) -> Response {
    let trace = TraceId::random();
    let answer = match params.text("Action") {
        Some("GetObProxyConfig") => proxy_config(&state, &params).await,
        Some(other) => Err((StatusCode::NOT_FOUND, format!("the action {other:?} is not known"))),
        None => Err((StatusCode::BAD_REQUEST, "the parameter Action is missing".to_owned())),
    };
    let (status, message, data) = match answer {
        Ok(data) => (StatusCode::OK, "successful".to_owned(), data),
        Err((status, message)) => (status, message, Value::Null),
    };
    let envelope = json!({
        "Code": status.as_u16(),
        "Message": message,
        "Success": status.is_success(),
        "Data": data,
        "Trace": trace.as_str(),
        "Server": state.settings.address,
        "Time": ocp_time(now_micros()),
    });
    (status, Json(envelope)).into_response()
}

async fn proxy_config(state: &ApiState, params: &Params) -> Result<Value, (StatusCode, String)> {
    let name = params
        .text("ObproxyClusterName")
        .ok_or_else(|| (StatusCode::BAD_REQUEST, "the parameter ObproxyClusterName is missing".to_owned()))?;
    let cluster = find(state, name).await.map_err(|error| {
        tracing::error!(error = chain(&error), "the config service cannot read the store");
        (StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be read".to_owned())
    })?;
    let cluster = cluster.ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no proxy cluster {name:?}")))?;
    let mut document = document(&cluster, &state.settings.config_url_base);
    let version = version(&document);
    if params.text("VersionOnly") == Some("true") {
        return Ok(json!({ "Version": version }));
    }
    if let Some(members) = document.as_object_mut() {
        members.insert("Version".to_owned(), json!(version));
    }
    Ok(document)
}

async fn find(state: &ApiState, name: &str) -> Result<Option<Cluster>, StoreError> {
    let mut connection = state.store().readers().acquire().await?;
    obproxy::by_name(&mut connection, name).await
}

fn document(cluster: &Cluster, base: &str) -> Value {
    let url =
        |region: &str| format!("{base}/services?Action=ObRootServiceInfo&User_ID=alibaba&UID=admin&ObRegion={region}");
    let links: Vec<Value> = cluster
        .ob_links
        .iter()
        .map(|link| {
            let name = link.cluster_name.as_str();
            json!({ "ObRegion": name, "ObRootServiceInfoUrl": url(name) })
        })
        .collect();
    json!({
        "ObProxyBinUrl": "",
        // obproxy wants the members; without a meta database it does without what it would find there.
        "ObProxyDatabaseInfo": { "DataBase": "", "MetaDataBase": url("none"), "User": "", "Password": "" },
        "ObRootServiceInfoUrlList": links,
    })
}

/// The same for the same document, whoever answers.
fn version(document: &Value) -> String {
    Sha256::digest(document.to_string()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
