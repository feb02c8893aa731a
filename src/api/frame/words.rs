//! Members and parameters that are one of a few words: the description of the API lists them, as the code has them.

use crate::{
    coordinator::store::{
        agent::certificates::CertificateStatus,
        host::HostStatus,
        obproxy::{ClusterMode, ObproxyStatus},
        package::PackageKind,
    },
    graph::{Operation, SubtaskStatus, TaskStatus},
};
use std::borrow::Cow;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, Type},
    },
};

/// Of a token: a list also says that one has expired, which its row does not.
pub(in crate::api) enum ListedTokenStatus {}
/// Of an agent that was asked.
pub(in crate::api) enum AgentStatus {}
/// Of a process of an agent.
pub(in crate::api) enum ProcessStatus {}
/// Of an agent, as its host was last seen.
pub(in crate::api) enum HostAgentStatus {}
/// Of a proxy, whether a task changes it.
pub(in crate::api) enum OperateStatus {}

macro_rules! described {
    ($($name:ident => $texts:expr),+ $(,)?) => {
        $(
            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new().schema_type(Type::String).enum_values(Some($texts.iter().copied())).into()
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    stringify!($name).into()
                }
            }
        )+
    };
}

described! {
    HostStatus => HostStatus::TEXTS,
    HostAgentStatus => ["AVAILABLE", "OFFLINE"],
    AgentStatus => ["STARTED", "STOPPED", "UNREACHABLE"],
    ProcessStatus => ["STARTED", "STOPPED"],
    CertificateStatus => CertificateStatus::TEXTS,
    ListedTokenStatus => ["OPEN", "USED", "REVOKED", "EXPIRED"],
    ClusterMode => ClusterMode::TEXTS,
    ObproxyStatus => ObproxyStatus::TEXTS,
    OperateStatus => ["NORMAL", "OPERATING"],
    PackageKind => PackageKind::TEXTS,
    TaskStatus => TaskStatus::TEXTS,
    SubtaskStatus => SubtaskStatus::TEXTS,
    Operation => Operation::TEXTS,
}

#[cfg(test)]
mod tests {
    use crate::coordinator::store::agent::enrolment_tokens::TokenStatus;
    use serde_json::Value;

    /// Members and parameters of these names, wherever they stand, that are texts of which all are possible.
    fn unlimited(value: &Value, place: &str, found: &mut Vec<String>) {
        let is_word = |name: &str| name.ends_with("tatus") || name == "operation" || name == "workMode";
        let is_free = |schema: &Value| schema["type"].to_string().contains("string") && schema["enum"].is_null();
        match value {
            Value::Object(object) => {
                for (name, member) in object {
                    if is_word(name) && is_free(member) {
                        found.push(format!("{place}/{name}"));
                    }
                    unlimited(member, &format!("{place}/{name}"), found);
                }
                let is_filter = object.get("name").and_then(Value::as_str).is_some_and(is_word);
                if is_filter && object.get("schema").is_some_and(|schema| is_free(&schema["items"])) {
                    found.push(place.to_owned());
                }
            }
            Value::Array(items) => items.iter().for_each(|item| unlimited(item, place, found)),
            _ => {}
        }
    }

    #[test]
    fn every_status_and_operation_is_described_by_its_words() {
        let described = serde_json::to_value(crate::api::openapi()).unwrap();
        let mut found = Vec::new();
        unlimited(&described, "", &mut found);
        assert!(found.is_empty(), "{found:#?}");
        let listed = described["components"]["schemas"]["ListedTokenStatus"]["enum"].as_array().unwrap();
        assert!(TokenStatus::TEXTS.iter().all(|text| listed.contains(&(*text).into())), "{listed:?}");
    }
}
