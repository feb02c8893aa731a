//! The config service: observers report to it where their cluster is, and proxies in work mode CONFIG_URL ask it. It has a
//! format of its own, that of OCP and ob-configserver, and no passwords, because neither program can send one (R5).
//!
//!  1. Everybody may read. Whoever may report decides where the users of every proxy take their passwords, so that is for
//!     the observers that [`reporters`] admits.
//!  2. Of a stranger nothing is read but the head of his request.
//!  3. A report that changes nothing is compared with the store and not written.
//!  4. A change and its entry in the audit log are written in one transaction.

mod answers;
mod report;
mod reporters;

use crate::{
    api::frame::{cross_site, error::ApiError, extract::Params, state::ApiState, trace::TraceId},
    coordinator::store::{
        StoreError,
        audit::{self, Change},
        now_micros, obproxy,
        root_servers::{self, MOST_CLUSTERS, ObCluster, Recorded, RootServers},
    },
    telemetry::chain,
};
use answers::Documents;
use axum::{
    Extension, Json, Router,
    body::{Bytes, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use report::{Report, Target};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// What obproxy (G2) and observer (R4) take for a success.
const SUCCESSFUL: &str = "successful";
/// Of a report: some hundred servers with room to spare.
const MOST_BODY_BYTES: usize = 64 << 10;
/// For the body of a report. Observers give up after four seconds (R2).
const BODY_PATIENCE: Duration = Duration::from_secs(5);
/// Who the audit log says changed something: whoever reports has no user.
const CHANGED_BY: &str = "(config service)";

/// Serves `/services`, on a listener of its own if the operator wants it so. Serve it with
/// `into_make_service_with_connect_info::<SocketAddr>()`, or no report is accepted.
pub fn config_service_router(state: ApiState) -> Router {
    Router::new().route("/services", any(services)).with_state(state)
}

/// Why a request is not answered as it was meant.
struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = chain(&error), "the config service cannot use the store");
        match error {
            StoreError::DiskFull(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "the store's disk is full"),
            StoreError::Busy => Self::new(StatusCode::SERVICE_UNAVAILABLE, "too much is being written"),
            StoreError::Sql(_) | StoreError::Migrate(_) | StoreError::File { .. } | StoreError::Damaged { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be used")
            }
        }
    }
}

async fn services(
    State(state): State<ApiState>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    params: Result<Params, ApiError>,
    request: Request,
) -> Response {
    let (began, trace) = (Instant::now(), TraceId::random());
    // Which nobody has reported from.
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Extension(ConnectInfo(peer))| peer.ip());
    // A page in a browser on one of the hosts has the address of that host.
    let is_own = cross_site::is_own(request.headers(), request.uri());
    let service = Service { state: &state, trace: &trace, peer: peer.to_canonical(), is_own };
    let answer = match params {
        Ok(params) => service.answer(&params, request).await,
        Err(_unreadable) => Err(Refusal::bad("the query cannot be read")),
    };
    let (status, message, data) = match answer {
        Ok(data) => (StatusCode::OK, SUCCESSFUL.to_owned(), data),
        Err(Refusal { status, message }) => (status, message, Value::Null),
    };
    let envelope = json!({
        "Code": status.as_u16(),
        "Message": message,
        "Success": status.is_success(),
        "Data": data,
        "Trace": trace.as_str(),
        "Server": state.settings.address,
        "Cost": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    (status, Json(envelope)).into_response()
}

/// A request and what it is answered with.
struct Service<'a> {
    state: &'a ApiState,
    trace: &'a TraceId,
    peer: IpAddr,
    /// It is not sent for a page of another site.
    is_own: bool,
}

impl Service<'_> {
    async fn answer(&self, params: &Params, request: Request) -> Result<Value, Refusal> {
        let method = request.method().clone();
        let reads = matches!(method, Method::GET | Method::HEAD);
        let asks = reads || method == Method::POST;
        let Some(action) = params.text("Action") else {
            return Err(Refusal::bad("the parameter Action is missing"));
        };
        let documents = Documents { state: self.state };
        match action {
            "ObRootServiceInfo" if reads => documents.root_servers(&Target::of(params)?).await,
            "ObRootServiceInfo" if method == Method::POST => self.report(params, request).await,
            "ObRootServiceInfo" if method == Method::DELETE => self.forget(params).await,
            "ObIDCRegionInfo" if asks => documents.data_centres(&Target::of(params)?).await,
            "GetObProxyConfig" if asks => documents.proxy_config(params).await,
            "GetObRootServiceInfoUrlTemplate" if asks => documents.url_template(params).await,
            "ObRootServiceInfo" | "ObIDCRegionInfo" | "GetObProxyConfig" | "GetObRootServiceInfoUrlTemplate" => {
                let text = format!("the action {action} does not support the method {method}");
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text))
            }
            other => Err(Refusal::new(StatusCode::NOT_FOUND, format!("the action {other:?} is not known"))),
        }
    }

    async fn report(&self, params: &Params, request: Request) -> Result<Value, Refusal> {
        self.admit_peer().await?;
        let answer = self.admitted_report(params, request).await;
        if let Err(Refusal { message, .. }) = &answer {
            // Observers tell their own logs only that the report failed.
            tracing::warn!(peer = %self.peer, message, trace_id = %self.trace, "a report was refused");
        }
        answer
    }

    async fn admitted_report(&self, params: &Params, request: Request) -> Result<Value, Refusal> {
        let target = Target::of(params)?;
        let body = body(request).await?;
        let report = Report::read(&target, &body, now_micros())?;
        let mut connection = self.state.store().readers().acquire().await.map_err(StoreError::from)?;
        let known = root_servers::of_name(&mut connection, &report.name).await?;
        let links = obproxy::linked_ids(&mut connection, &report.name).await?;
        let report = report.of_a_known_cluster(self.peer, &known, &links)?;
        match known.iter().find(|list| list.cluster == report.cluster) {
            Some(before) if before.says_the_same(&report) => return Ok(json!(SUCCESSFUL)),
            Some(before) if before.reported_at > report.reported_at => return Err(stale(&report, before.reported_at)),
            Some(_) | None => {}
        }
        reporters::admit_servers(&mut connection, &self.state.settings.config_service_reporters, &report).await?;
        drop(connection);
        answers::check_size(&known, &report)?;
        self.store(&report).await
    }

    async fn store(&self, report: &RootServers) -> Result<Value, Refusal> {
        let mut transaction = self.state.store().begin().await?;
        let before = match root_servers::record(&mut transaction, report).await? {
            Recorded::Stored { before } => before,
            // Another observer or coordinator was faster.
            Recorded::Unchanged => return Ok(json!(SUCCESSFUL)),
            Recorded::Stale { newest } => return Err(stale(report, newest)),
            Recorded::Full => {
                let text = format!(
                    "{MOST_CLUSTERS} clusters have reported, and no more are kept: remove one that is gone with a \
                     DELETE of its ObRootServiceInfo"
                );
                return Err(Refusal::new(StatusCode::CONFLICT, text));
            }
        };
        let old = before.map_or_else(|| "none".to_owned(), |before| before.to_string());
        let new = report.to_string();
        let peer = self.peer;
        let detail = format!("reported by {peer}: {new}; before: {old}");
        self.audit(&mut transaction, "cluster.rootServers", &report.cluster, &detail).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        let cluster = &report.cluster;
        tracing::info!(%cluster, %peer, old, new, trace_id = %self.trace, "the servers of a cluster have changed");
        Ok(json!(SUCCESSFUL))
    }

    async fn forget(&self, params: &Params) -> Result<Value, Refusal> {
        self.admit_peer().await?;
        let cluster = Target::of(params)?.to_forget()?;
        let mut connection = self.state.store().readers().acquire().await.map_err(StoreError::from)?;
        let is_stored = root_servers::get(&mut connection, &cluster).await?.is_some();
        drop(connection);
        // As often as it is asked for: a DELETE whose answer was lost is sent again (R9).
        if !is_stored {
            return Ok(json!(SUCCESSFUL));
        }
        let mut transaction = self.state.store().begin().await?;
        let Some(before) = root_servers::delete(&mut transaction, &cluster).await? else {
            return Ok(json!(SUCCESSFUL));
        };
        let (old, peer) = (before.to_string(), self.peer);
        let detail = format!("asked for by {peer}; before: {old}");
        self.audit(&mut transaction, "cluster.rootServers.delete", &cluster, &detail).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        tracing::info!(%cluster, %peer, old, trace_id = %self.trace, "the servers of a cluster were removed");
        Ok(json!(SUCCESSFUL))
    }

    async fn admit_peer(&self) -> Result<(), Refusal> {
        if !self.is_own {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "the request comes from a page of another site"));
        }
        let mut connection = self.state.store().readers().acquire().await.map_err(StoreError::from)?;
        let admitted =
            reporters::admit_peer(&mut connection, &self.state.settings.config_service_reporters, self.peer).await;
        if let Err(Refusal { message, .. }) = &admitted {
            // Strangers can send as many as they like.
            tracing::debug!(peer = %self.peer, message, "a report was refused");
        }
        admitted
    }

    async fn audit(
        &self,
        connection: &mut sqlx::AnyConnection,
        action: &str,
        cluster: &ObCluster,
        detail: &str,
    ) -> Result<(), StoreError> {
        let object = cluster.to_string();
        let change = Change { user: CHANGED_BY, action, object: &object, detail, trace_id: self.trace.as_str() };
        audit::write(connection, &[change]).await
    }
}

fn stale(report: &RootServers, newest: i64) -> Refusal {
    let text = format!(
        "the report is older than the one that is stored: its timestamp is {}, that of the stored one {newest}",
        report.reported_at
    );
    Refusal::new(StatusCode::CONFLICT, text)
}

async fn body(request: Request) -> Result<Bytes, Refusal> {
    let whole = tokio::time::timeout(BODY_PATIENCE, to_bytes(request.into_body(), MOST_BODY_BYTES)).await;
    whole.map_or_else(
        |_elapsed| Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
        |read| {
            let text = format!("the body cannot be read; it has at most {MOST_BODY_BYTES} bytes");
            read.map_err(|_cut| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text))
        },
    )
}
