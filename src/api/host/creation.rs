//! `POST /api/v2/compute/hosts/batchCreate`
//!
//! Unlike OCP, which installs its agent over SSH, the agent of a host has to run already. The task checks it, and makes
//! the host AVAILABLE; its rollback makes the host unknown again.

use super::places;
use crate::{
    api::{
        frame::{
            envelope::{Contents, Envelope, ErrorEnvelope, Reply},
            error::{ApiError, SubError},
            limits::check_text,
            once::Keyed,
            query::DryRun,
            requester::Requester,
            state::ApiState,
        },
        task::{
            self,
            view::{self, TaskInstance},
        },
    },
    coordinator::store::{
        StoreError,
        host::{self, HostDetails, places::PlaceKind},
        task::TaskRecord,
    },
    operations::{HostToPrepare, prepare_host},
};
use axum::extract::State;
use serde::Deserialize;
use sqlx::AnyConnection;
use std::{collections::HashSet, net::IpAddr};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(create))
}

const MAX_HOSTS: usize = 50;
const LONGEST_KIND: usize = 64;
const LONGEST_ALIAS: usize = 64;
const LONGEST_DESCRIPTION: usize = 1000;
const LONGEST_SERIAL_NUMBER: usize = 128;
const DEFAULT_AGENT_PORT: u16 = 62898;
const DEFAULT_METRICS_PORT: u16 = 62899;
const DEFAULT_KIND: &str = "DEDICATED_PHYSICAL_MACHINE";

/// Hosts to add. Fields for OCP's SSH access are accepted and ignored.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BatchCreate {
    /// At most 50.
    #[schema(min_items = 1, max_items = 50)]
    host_basic_data_list: Vec<HostBasicData>,
    #[schema(maximum = 65535)]
    ssh_port: Option<u16>,
    #[schema(max_length = 64)]
    kind: Option<String>,
    #[schema(max_length = 64)]
    alias: Option<String>,
    #[schema(max_length = 1000)]
    description: Option<String>,
    /// Port of the agent's gRPC service; default 62898.
    #[serde(alias = "mgrAgentPort")]
    #[schema(minimum = 1, maximum = 65535)]
    mgragent_port: Option<u16>,
    /// Port of the agent's metrics; by default the port that the agent reports.
    #[serde(alias = "monAgentPort")]
    #[schema(minimum = 1, maximum = 65535)]
    monagent_port: Option<u16>,
    /// OCP's name for the header `Idempotency-Key`: 8 to 64 characters.
    #[serde(rename = "clientToken")]
    #[schema(min_length = 8, max_length = 64)]
    _client_token: Option<String>,
    #[serde(rename = "publishPorts")]
    _publish_ports: Option<serde_json::Value>,
    /// Id of the data centre of the hosts.
    idc_id: Option<i64>,
    /// Id of the host type.
    type_id: Option<i64>,
    #[serde(rename = "credentialId")]
    _credential_id: Option<i64>,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HostBasicData {
    #[schema(value_type = String, example = "192.0.2.1")]
    inner_ip_address: IpAddr,
    #[schema(max_length = 128)]
    serial_number: Option<String>,
}

impl HostBasicData {
    /// One host has one address, however it is written.
    fn address(&self) -> IpAddr {
        self.inner_ip_address.to_canonical()
    }
}

/// A host that is to be known: where its agent answers, and what the operator says of it.
pub(super) struct NewHost {
    pub(super) inner_ip: IpAddr,
    pub(super) agent_port: u16,
    /// None: what the agent says.
    pub(super) metrics_port: Option<u16>,
    pub(super) details: HostDetails,
    pub(super) idc_id: Option<i64>,
    pub(super) type_id: Option<i64>,
}

impl BatchCreate {
    fn check(&self) -> Result<(), ApiError> {
        if self.host_basic_data_list.is_empty() || self.host_basic_data_list.len() > MAX_HOSTS {
            let why = format_args!("1 to {MAX_HOSTS} hosts are added at a time");
            return Err(ApiError::invalid("hostBasicDataList", why));
        }
        if self.mgragent_port == Some(0) || self.monagent_port == Some(0) {
            return Err(ApiError::invalid("mgragentPort, monagentPort", "a port lies between 1 and 65535"));
        }
        for (field, text, most) in [
            ("kind", &self.kind, LONGEST_KIND),
            ("alias", &self.alias, LONGEST_ALIAS),
            ("description", &self.description, LONGEST_DESCRIPTION),
        ] {
            check_text(field, text.as_deref(), most)?;
        }
        for host in &self.host_basic_data_list {
            check_text("serialNumber", host.serial_number.as_deref(), LONGEST_SERIAL_NUMBER)?;
        }
        let mut addresses = self.host_basic_data_list.iter().map(HostBasicData::address);
        match addresses.find(|ip| ip.is_unspecified() || ip.is_multicast()) {
            Some(ip) => Err(ApiError::invalid("innerIpAddress", format_args!("{ip} is not the address of a host"))),
            None => Ok(()),
        }
    }

    /// Tells of every host that cannot be added because it is there already.
    async fn check_unknown(&self, connection: &mut AnyConnection) -> Result<(), ApiError> {
        let mut seen = HashSet::new();
        let mut taken = Vec::new();
        for ip in self.host_basic_data_list.iter().map(HostBasicData::address) {
            let why = match host::by_ip(connection, ip).await? {
                Some(host) => format!("the host {ip} exists already as host {} ({})", host.id, host.status),
                None if !seen.insert(ip) => format!("the host {ip} is named twice"),
                None => continue,
            };
            taken.push(SubError { field: ip.to_string(), message: why });
        }
        let Some(first) = taken.first() else { return Ok(()) };
        Err(ApiError::conflict("CMP07001", first.message.clone())
            .with_sub_errors(taken)
            .advise("leave it out, and name each host once; see the hosts with: oblet host list"))
    }

    fn host(&self, host: &HostBasicData) -> NewHost {
        NewHost {
            inner_ip: host.address(),
            agent_port: self.mgragent_port.unwrap_or(DEFAULT_AGENT_PORT),
            metrics_port: self.monagent_port,
            details: HostDetails {
                alias: self.alias.clone().unwrap_or_default(),
                description: self.description.clone().unwrap_or_default(),
                serial_number: host.serial_number.clone().unwrap_or_default(),
                kind: self.kind.clone().unwrap_or_else(|| DEFAULT_KIND.to_owned()),
                ssh_port: self.ssh_port,
                ..HostDetails::default()
            },
            idc_id: self.idc_id,
            type_id: self.type_id,
        }
    }
}

/// Adds hosts on which an agent is running. Creates one task per host.
#[utoipa::path(
    post, path = "/api/v2/compute/hosts/batchCreate", tag = "hosts", operation_id = "createHosts",
    params(DryRun, ("Idempotency-Key" = Option<String>, Header, description = "If the request is repeated with the same key, it returns the same tasks.")),
    request_body = BatchCreate,
    responses(
        (status = 200, description = "Done.", body = Envelope<Contents<TaskInstance>>), (status = 400, description = "A field is missing or wrong.", body = ErrorEnvelope),
        (status = 409, description = "A host exists already or is listed twice, or the key was used for another request.", body = ErrorEnvelope),
    ),
)]
async fn create(
    State(state): State<ApiState>,
    requester: Requester,
    DryRun(dry_run): DryRun,
    Keyed { body, once }: Keyed<BatchCreate>,
) -> Result<Reply<Contents<TaskInstance>>, ApiError> {
    body.check()?;
    let mut transaction = state.store().begin().await?;
    if !dry_run && let Some(made) = once.made(&state, &mut transaction).await? {
        return Ok(Reply(Contents { contents: made.into_iter().map(view::again).collect::<Result<_, _>>()? }));
    }
    body.check_unknown(&mut transaction).await?;
    places::check(&mut transaction, PlaceKind::Idc, "idcId", body.idc_id).await?;
    places::check(&mut transaction, PlaceKind::HostType, "typeId", body.type_id).await?;
    let mut records = Vec::with_capacity(body.host_basic_data_list.len());
    for host in &body.host_basic_data_list {
        records.push(add(&state, &mut transaction, &requester, body.host(host)).await?);
    }
    once.remember(&mut transaction, &records).await?;
    if dry_run {
        transaction.rollback().await.map_err(StoreError::from)?;
        return Ok(Reply(Contents { contents: records.iter().map(view::planned).collect() }));
    }
    task::commit_and_wake(&state, transaction, &records).await?;
    Ok(Reply(Contents { contents: records.iter().map(view::created).collect() }))
}

/// Writes the host, which is not known yet, down as NEW, and makes the task that prepares it. The caller commits, which
/// wakes the task.
pub(super) async fn add(
    state: &ApiState,
    connection: &mut AnyConnection,
    requester: &Requester,
    host: NewHost,
) -> Result<TaskRecord, ApiError> {
    let NewHost { inner_ip, agent_port, metrics_port, details, idc_id, type_id } = host;
    let shown_port = metrics_port.unwrap_or(DEFAULT_METRICS_PORT);
    let host = host::insert(connection, inner_ip, agent_port, shown_port, &details).await?;
    if idc_id.is_some() || type_id.is_some() {
        host::set_place(connection, host.id, idc_id, type_id).await?;
    }
    let plan = prepare_host(HostToPrepare { host_id: host.id, inner_ip, agent_port, metrics_port })
        .map_err(|error| ApiError::internal(&error))?;
    let record = task::create(state, connection, &plan, requester).await?;
    let detail = format!("{inner_ip}, by task {}", record.id);
    requester.audit(connection, "host.add", &format!("host {}", host.id), &detail).await?;
    Ok(record)
}
