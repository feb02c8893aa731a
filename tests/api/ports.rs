//! The ports of proxies: which a version has, and that nobody gets one that is taken.

use crate::support::{Answer, Lab, OBPROXY, package};
use oblet::{
    coordinator::store::task::{self, TaskId},
    steps::{AgentStep, Step},
};
use serde_json::{Value, json};

const CLUSTERS: &str = "/api/v2/obproxy/clusters";
const BATCH_ADD: &str = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";
/// Of a version with a port for RPC.
const NEWER: &str = "obproxy-4.3.1.0-4.el7.x86_64.rpm";

async fn lab() -> Lab {
    let lab = Lab::furnished().await;
    lab.upload(NEWER, &package("obproxy", "4.3.1.0", "4.el7", "x86_64")).await.data();
    lab
}

fn request(version: &str, sql: u16, exporter: u16, rpc: Option<u16>) -> Value {
    let mut body = json!({"hostIds": [1], "sqlPort": sql, "exporterPort": exporter, "version": version});
    if let Some(port) = rpc {
        body["rpcPort"] = json!(port);
    }
    body
}

/// Adds a proxy; answers its task once that is done.
async fn added(lab: &Lab, body: Value) -> Value {
    let task = lab.post(BATCH_ADD, body).await.data()["contents"][0].take();
    lab.finish(&task).await;
    task
}

/// In earnest and as a trial.
async fn both(lab: &Lab, body: Value) -> [Answer; 2] {
    [lab.post(BATCH_ADD, body.clone()).await, lab.post(&format!("{BATCH_ADD}?dryRun=true"), body).await]
}

async fn rpc_ports(lab: &Lab, cluster: i64) -> Vec<Value> {
    let cluster = lab.get(&format!("{CLUSTERS}/{cluster}")).await.data();
    cluster["obproxies"].as_array().unwrap().iter().map(|proxy| proxy["rpcPort"].clone()).collect()
}

#[tokio::test]
async fn a_host_has_room_for_a_second_proxy_with_other_ports() {
    let lab = lab().await;
    added(&lab, request(NEWER, 2883, 2884, None)).await;
    let trial = lab.post(&format!("{BATCH_ADD}?dryRun=true"), request(NEWER, 2893, 2894, Some(2895))).await;
    assert_eq!(trial.status, 200, "{}", trial.text);
    let second = added(&lab, request(NEWER, 2893, 2894, Some(2895))).await;
    added(&lab, request(OBPROXY, 2903, 2904, None)).await;
    assert_eq!(rpc_ports(&lab, 1).await, [json!(2885), json!(2895), Value::Null]);

    let mut connection = lab.store.readers().acquire().await.unwrap();
    let task = task::load(&mut connection, TaskId(second["id"].as_i64().unwrap())).await.unwrap();
    let started = task.record.plan.nodes.iter().find_map(|node| match &node.step {
        Step::Agent(AgentStep::StartObproxy(step)) => step.rpc_port,
        _ => None,
    });
    assert_eq!(started.unwrap().get(), 2895);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_owner() {
    let lab = lab().await;
    added(&lab, request(NEWER, 2883, 2884, None)).await;
    let cases = [
        (request(NEWER, 2883, 2894, Some(2895)), "proxy 1 (CREATING) has port 2883 of host 1"),
        (request(NEWER, 2884, 2894, Some(2895)), "proxy 1 (CREATING) has port 2884 of host 1"),
        (request(NEWER, 2893, 2885, Some(2895)), "proxy 1 (CREATING) has port 2885 of host 1"),
        (request(NEWER, 2893, 2894, Some(2883)), "proxy 1 (CREATING) has port 2883 of host 1"),
        (request(NEWER, 2893, 2894, None), "proxy 1 (CREATING) has port 2885 of host 1"),
        (request(OBPROXY, 2885, 2894, None), "proxy 1 (CREATING) has port 2885 of host 1"),
        (request(NEWER, 2893, 2894, Some(62898)), "the agent has port 62898 of host 1"),
        (request(NEWER, 2893, 9100, Some(2895)), "the agent has port 9100 of host 1"),
    ];
    for (body, why) in cases {
        for answer in both(&lab, body.clone()).await {
            assert_eq!(answer.status, 409, "{body}: {}", answer.text);
            let error = &answer.json()["error"];
            assert_eq!(error["message"], format!("ODP21116: {why}"), "{body}");
            assert_eq!(error["nextMove"], "choose other ports");
        }
    }
    assert_eq!(rpc_ports(&lab, 1).await.len(), 1);
}

#[tokio::test]
async fn ports_that_do_not_go_together_are_refused() {
    let lab = lab().await;
    let cases = [
        (
            request(OBPROXY, 2883, 2884, Some(2885)),
            "rpcPort",
            "obproxy 1.9.1.1 has no port for RPC",
            "leave rpcPort out",
        ),
        (request(OBPROXY, 2883, 2883, None), "exporterPort", "2883 is the sqlPort already", ""),
        (request(NEWER, 2883, 2884, Some(2884)), "rpcPort", "2884 is the exporterPort already", ""),
        (
            request(NEWER, 2885, 2884, None),
            "rpcPort",
            "2885 is the sqlPort already",
            "choose another sqlPort, or give an rpcPort, which is 2885 if it is absent",
        ),
        (request(NEWER, 2883, 2884, Some(80)), "rpcPort", "80 is not allowed: a port lies between 1025 and 65535", ""),
    ];
    for (body, member, why, next) in cases {
        for answer in both(&lab, body.clone()).await {
            assert_eq!(answer.status, 400, "{body}: {}", answer.text);
            let error = &answer.json()["error"];
            assert_eq!(error["target"], member);
            assert_eq!(error["message"], format!("COM10001: {member}: {why}"));
            assert_eq!(error["nextMove"].as_str().unwrap_or_default(), next);
        }
    }
}

#[tokio::test]
async fn a_cluster_is_created_with_the_ports_that_were_asked_for() {
    let lab = lab().await;
    let mut body = json!({"name": "second", "obLinks": [], "obproxyInstallParam": {
        "hostIds": [1, 2], "sqlPort": 2883, "exportPort": 2884, "rpcPort": 2886, "version": NEWER}});
    lab.post(CLUSTERS, body.clone()).await.data();
    assert_eq!(rpc_ports(&lab, 2).await, [2886, 2886]);

    body["obproxyInstallParam"]["clientToken"] = json!("12345678");
    let misplaced = lab.post(CLUSTERS, body).await;
    assert_eq!(misplaced.status, 400, "a token in there would not keep the request from being carried out twice");
    assert_eq!(misplaced.json()["error"]["target"], "obproxyInstallParam.clientToken");
}
