//! A database process that an agent looks after.

use super::{
    fields::{FieldViolation, Fields},
    values::{ClusterName, Port},
};
use crate::rpc::v1;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceKind {
    Obproxy,
    Observer,
}

impl InstanceKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Obproxy => "obproxy",
            Self::Observer => "observer",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub kind: InstanceKind,
    pub sql_port: Port,
    pub exporter_port: Port,
    pub cluster_name: ClusterName,
    /// Ids at the coordinator.
    pub cluster_id: i64,
    pub server_id: i64,
}

impl Instance {
    pub(super) fn to_message(&self) -> v1::Instance {
        v1::Instance {
            kind: self.kind.as_str().into(),
            sql_port: self.sql_port.into(),
            exporter_port: self.exporter_port.into(),
            cluster_name: self.cluster_name.to_string(),
            cluster_id: self.cluster_id,
            server_id: self.server_id,
        }
    }

    /// The field `instance` of a message.
    pub(super) fn from_message(message: Option<v1::Instance>, fields: Fields) -> Result<Self, FieldViolation> {
        let field = "instance";
        let message = fields.given(field, message)?;
        let kind = match message.kind.as_str() {
            "obproxy" => InstanceKind::Obproxy,
            "observer" => InstanceKind::Observer,
            other => return Err(fields.wrong(field, format!("kind {other:?} is neither obproxy nor observer"))),
        };
        Ok(Self {
            kind,
            sql_port: fields.port(field, message.sql_port)?,
            exporter_port: fields.port(field, message.exporter_port)?,
            cluster_name: fields.one(field, message.cluster_name)?,
            cluster_id: message.cluster_id,
            server_id: message.server_id,
        })
    }
}
