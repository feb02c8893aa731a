//! What is kept of a request is bounded, and the description of the API says by what.

use crate::support::Lab;
use serde_json::{Value, json};

const CREATE_HOSTS: &str = "/api/v2/compute/hosts/batchCreate?dryRun=true";
const DELETE_HOSTS: &str = "/api/v2/compute/hosts/batchDelete?dryRun=true";
const CLUSTERS: &str = "/api/v2/obproxy/clusters?dryRun=true";
const ENROL: &str = "/api/v2/compute/hosts/enroll";

/// What the description says of a member of a request.
fn described(schema: &str, member: &str, what: &str) -> u64 {
    let described = serde_json::to_value(oblet::api::openapi()).unwrap();
    let member = &described["components"]["schemas"][schema]["properties"][member];
    member[what].as_u64().unwrap_or_else(|| panic!("{schema}: no {what} in {member}"))
}

#[tokio::test]
async fn what_is_longer_than_described_is_refused_by_name() {
    let lab = Lab::new().await;
    let host = |members: Value| {
        let mut body = json!({"hostBasicDataList": [{"innerIpAddress": "192.0.2.1"}]});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body
    };
    let cluster = |member: &str, value: Value| {
        let mut body = json!({"name": "shop", "obLinks": []});
        body[member] = value;
        body
    };
    let link = |number: u64| json!({"clusterName": format!("ob{number}"), "obClusterId": 1, "username": "u"});
    let parameter = |number: u64| json!({"name": format!("parameter_{number}"), "value": "1"});
    let text = |length: u64| "ü".repeat(usize::try_from(length).unwrap());
    let ascii = |length: u64| "u".repeat(usize::try_from(length).unwrap());
    let enrol =
        |token: String, request: String| json!({"token": token, "requestPem": request, "time": "2026-01-01T00:00:00Z"});
    type Body<'a> = &'a dyn Fn(u64) -> Value;
    let cases: [(&str, &str, &str, &str, Body); 11] = [
        ("BatchCreate", "alias", "maxLength", CREATE_HOSTS, &|length| host(json!({"alias": text(length)}))),
        ("BatchCreate", "kind", "maxLength", CREATE_HOSTS, &|length| host(json!({"kind": text(length)}))),
        ("BatchCreate", "description", "maxLength", CREATE_HOSTS, &|length| host(json!({"description": text(length)}))),
        (
            "HostBasicData",
            "serialNumber",
            "maxLength",
            CREATE_HOSTS,
            &|length| json!({"hostBasicDataList": [{"innerIpAddress": "192.0.2.1", "serialNumber": text(length)}]}),
        ),
        (
            "BatchDelete",
            "hostIdList",
            "maxItems",
            DELETE_HOSTS,
            &|count| json!({"hostIdList": (1..=count).collect::<Vec<_>>()}),
        ),
        ("CreateCluster", "obLinks", "maxItems", CLUSTERS, &|count| cluster("obLinks", (0..count).map(link).collect())),
        ("CreateCluster", "parameters", "maxItems", CLUSTERS, &|count| {
            cluster("parameters", (0..count).map(parameter).collect())
        }),
        ("CreateCluster", "startupParameters", "maxItems", CLUSTERS, &|count| {
            cluster("startupParameters", (0..count).map(parameter).collect())
        }),
        ("ObLinkParam", "username", "maxLength", CLUSTERS, &|length| {
            cluster("obLinks", json!([{"clusterName": "ob", "obClusterId": 1, "username": text(length)}]))
        }),
        ("EnrolRequest", "token", "maxLength", ENROL, &|length| enrol(text(length), String::new())),
        ("EnrolRequest", "requestPem", "maxLength", ENROL, &|length| enrol("t".into(), ascii(length))),
    ];
    for (schema, member, what, path, body) in cases {
        let most = described(schema, member, what);
        let fits = lab.post(path, body(most)).await;
        assert_ne!(fits.status, 400, "{member}: {}", fits.text);
        let refused = lab.post(path, body(most + 1)).await;
        assert_eq!(refused.status, 400, "{member}: {}", refused.text);
        assert!(refused.text.contains(&format!("{member}: ")), "{member}: {}", refused.text);
    }
}

#[tokio::test]
async fn a_text_that_could_steer_a_terminal_is_refused() {
    let lab = Lab::new().await;
    for member in ["alias", "kind", "description"] {
        let mut body = json!({"hostBasicDataList": [{"innerIpAddress": "192.0.2.1"}]});
        body[member] = "\u{9b}31m".into();
        let refused = lab.post(CREATE_HOSTS, body).await;
        assert_eq!(refused.status, 400, "{member}: {}", refused.text);
    }
}

#[test]
fn ports_of_requests_are_described_with_both_ends() {
    for (schema, members) in [
        ("BatchCreate", &["mgragentPort", "monagentPort", "sshPort"][..]),
        ("CreateCluster", &["port"]),
        ("InstallParam", &["sqlPort", "exporterPort", "rpcPort"]),
    ] {
        for member in members {
            assert_eq!(described(schema, member, "maximum"), 65_535);
            assert!(described(schema, member, "minimum") <= 1025);
        }
    }
}
