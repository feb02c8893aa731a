//! Bad input: each gets its status and its code in the envelope, and nothing is stored.

use crate::support::{Answer, Lab, MAX_PACKAGE_BYTES, OBPROXY, package};
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

const BATCH_ADD: &str = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    let envelope = answer.json();
    assert_eq!(envelope["successful"], false);
    assert_eq!(envelope["status"], status);
    assert!(envelope.get("data").is_none());
    for member in ["timestamp", "duration", "traceId", "server"] {
        assert!(envelope.get(member).is_some(), "{member} is missing");
    }
    let message = envelope["error"]["message"].as_str().unwrap();
    assert!(message.starts_with(code), "{message}");
    let digits: i64 = code.trim_start_matches(|c: char| c.is_ascii_alphabetic()).parse().unwrap();
    assert_eq!(envelope["error"]["code"], digits);
}

fn request() -> Value {
    json!({"hostIds": [1], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY})
}

fn with(member: &str, value: Value) -> Value {
    let mut request = request();
    request[member] = value;
    request
}

#[tokio::test]
async fn a_bad_installation_is_refused_and_nothing_is_stored() {
    let lab = Lab::furnished().await;
    lab.have_hosts(&["198.51.100.3"]).await;
    lab.upload("oceanbase-4.2.1.0-1.el7.x86_64.rpm", &package("oceanbase", "4.2.1.0", "1.el7", "x86_64")).await.data();
    let cases = [
        (with("hostIds", json!([1, 9])), 404, "CMP07005"),
        (with("hostIds", json!([1, 1])), 400, "COM10001"),
        (with("hostIds", json!([])), 400, "COM10001"),
        (with("hostIds", json!(["1; reboot"])), 400, "COM10001"),
        (with("hostIds", json!([1, 3])), 409, "CMP07025"),
        (with("sqlPort", json!(80)), 400, "COM10001"),
        (with("exporterPort", json!(70000)), 400, "COM10001"),
        (with("exporterPort", json!(2883)), 400, "COM10001"),
        (with("sqlPort", Value::Null), 400, "COM10001"),
        (with("version", json!("obproxy-9.9.9.9-1.el7.x86_64.rpm")), 404, "PKG10014"),
        (with("version", json!("oceanbase-4.2.1.0-1.el7.x86_64.rpm")), 400, "PKG10013"),
        (with("version", json!("../obproxy-1.9.1.1-1919579.el7.x86_64.rpm")), 400, "PKG10016"),
        (with("version", json!("obproxy;reboot-1-1.el7.x86_64.rpm")), 400, "PKG10016"),
        (with("surprise", json!(true)), 400, "COM10001"),
    ];
    for (body, status, code) in cases {
        let answer = lab.post(BATCH_ADD, body.clone()).await;
        assert!(answer.status.as_u16() == status, "{body}: {}", answer.text);
        assert_refused(&answer, status, code);
    }
    assert_refused(&lab.post("/api/v2/obproxy/clusters/7/obproxies/batchAdd", request()).await, 404, "ODP21001");

    let cluster = lab.get("/api/v2/obproxy/clusters/1").await.data();
    assert_eq!(cluster["obproxies"], json!([]));
    let tasks = lab.get("/api/v2/tasks/instances?clusterId=1").await.data();
    assert_eq!(tasks["page"]["totalElements"], 1, "the creation of the cluster only");
}

#[tokio::test]
async fn an_unknown_field_is_named() {
    let lab = Lab::furnished().await;
    let answer = lab.post(BATCH_ADD, with("surprise", json!(true))).await;
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("surprise"));
}

#[tokio::test]
async fn a_wrong_member_is_the_target_and_told_without_columns() {
    let lab = Lab::furnished().await;
    let error = lab.post(BATCH_ADD, with("sqlPort", json!(80))).await.json()["error"].take();
    assert_eq!(error["target"], "sqlPort");
    assert_eq!(error["message"], "COM10001: sqlPort: 80 is not allowed: a port lies between 1025 and 65535");
    for body in ["[]", "null", "7", "[[1], 2883, 2884, \"x\"]"] {
        let answer = lab.post_text(BATCH_ADD, body.into()).await;
        assert_refused(&answer, 400, "COM10003");
        assert!(answer.text.contains("the body must be a JSON object"), "{body}: {}", answer.text);
    }
}

/// Otherwise the client, who is still sending, sees a broken pipe instead of the answer.
#[tokio::test]
async fn a_body_is_read_to_its_end_although_it_is_refused() {
    let lab = Lab::new().await;
    let (sent, left) = (10, Arc::new(AtomicUsize::new(10)));
    let counter = Arc::clone(&left);
    let chunks = futures_util::stream::iter(0..sent).map(move |_| {
        counter.fetch_sub(1, Ordering::Relaxed);
        Ok::<_, std::io::Error>(vec![b'x'; 1 << 20])
    });
    let request = Request::post(BATCH_ADD).header(header::CONTENT_TYPE, "application/json");
    assert_refused(&lab.send(request.body(Body::from_stream(chunks)).unwrap()).await, 401, "IAM10000");
    assert_eq!(left.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_port_is_given_to_one_proxy_only() {
    let lab = Lab::furnished().await;
    lab.post(BATCH_ADD, request()).await.data();
    assert_refused(&lab.post(BATCH_ADD, request()).await, 409, "ODP21116");
    let mut crossed = with("sqlPort", json!(2884));
    crossed["exporterPort"] = json!(2885);
    assert_refused(&lab.post(BATCH_ADD, crossed).await, 409, "ODP21116");
}

#[tokio::test]
async fn bad_clusters_are_refused() {
    let lab = Lab::furnished().await;
    let path = "/api/v2/obproxy/clusters";
    let link = json!({"clusterName": "ob", "obClusterId": 1, "username": "proxyro"});
    let cases = [
        (json!({"name": "test", "obLinks": []}), 409, "COM10006"),
        (json!({"name": "a b", "obLinks": []}), 400, "COM10001"),
        (json!({"obLinks": []}), 400, "COM10001"),
        (json!({"name": "b", "obLinks": [], "password": "weak"}), 400, "ODP21106"),
        (json!({"name": "b", "obLinks": [link, link]}), 400, "COM10001"),
        (json!({"name": "b", "obLinks": [], "workMode": "RS_LIST"}), 400, "COM10001"),
        (json!({"name": "b", "obLinks": [link], "workMode": "RS_LIST"}), 400, "COM10001"),
        (json!({"name": "b", "obLinks": [], "parameters": [{"name": "x_password", "value": "s"}]}), 400, "COM10001"),
        (
            json!({"name": "b", "obLinks": [], "obproxyInstallParam": {
                "hostIds": [8], "sqlPort": 2883, "exportPort": 2884, "version": OBPROXY}}),
            404,
            "CMP07005",
        ),
    ];
    for (body, status, code) in cases {
        let answer = lab.post(path, body).await;
        assert_refused(&answer, status, code);
        assert!(!answer.text.contains("weak"), "{}", answer.text);
    }
    assert_eq!(lab.get(path).await.data()["page"]["totalElements"], 1);
}

#[tokio::test]
async fn bad_packages_are_refused_and_leave_no_file() {
    let lab = Lab::new().await;
    let good = package("obproxy", "1.9.1.1", "1919579.el7", "x86_64");
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let cases: [(&str, &[u8], u16, &str); 8] = [
        (OBPROXY, &good[..good.len() - 1], 400, "PKG10006"),
        (OBPROXY, &good[..200], 400, "PKG10006"),
        (OBPROXY, &flipped, 400, "PKG10006"),
        (OBPROXY, b"no package at all", 400, "PKG10006"),
        ("obproxy-1.9.1.2-1919579.el7.x86_64.rpm", &good, 400, "PKG10016"),
        ("obproxy.zip", &good, 400, "PKG10003"),
        ("../../obproxy-1.9.1.1-1919579.el7.x86_64.rpm", &good, 400, "PKG10016"),
        ("obproxy;reboot-1-1.x86_64.rpm", &good, 400, "PKG10016"),
    ];
    for (name, content, status, code) in cases {
        assert_refused(&lab.upload(name, content).await, status, code);
    }
    let long = lab.upload(OBPROXY, &vec![0; 3 << 20]).await;
    assert_refused(&long, 413, "COM10003");
    assert!(long.text.contains(&MAX_PACKAGE_BYTES.to_string()), "{}", long.text);
    assert_eq!(lab.get("/api/v2/software-packages").await.data()["page"]["totalElements"], 0);
    assert_eq!(std::fs::read_dir(lab.packages_dir()).unwrap().count(), 0);
}

#[tokio::test]
async fn hosts_are_added_all_or_none() {
    let lab = Lab::furnished().await;
    assert_refused(&lab.add_hosts(&["192.0.2.7", "192.0.2.7"]).await, 409, "CMP07001");
    assert_refused(&lab.add_hosts(&["192.0.2.7", "192.0.2.1"]).await, 409, "CMP07001");
    assert_refused(&lab.add_hosts(&["::ffff:192.0.2.1"]).await, 409, "CMP07001");
    assert_refused(&lab.add_hosts(&["192.0.2.7", "no address"]).await, 400, "COM10001");
    assert_refused(&lab.add_hosts(&["0.0.0.0"]).await, 400, "COM10001");
    assert_refused(&lab.add_hosts(&[]).await, 400, "COM10001");
    let several = lab.add_hosts(&["192.0.2.7", "192.0.2.2", "192.0.2.1", "192.0.2.7"]).await.json();
    let named: Vec<_> = several["error"]["subErrors"].as_array().unwrap().iter().map(|one| &one["field"]).collect();
    assert_eq!(named, ["192.0.2.2", "192.0.2.1", "192.0.2.7"]);
    assert_eq!(lab.get("/api/v2/compute/hosts").await.data()["page"]["totalElements"], 2);
}

#[tokio::test]
async fn what_is_no_proper_request_is_answered_in_the_envelope() {
    let lab = Lab::furnished().await;
    assert_refused(&lab.post_text(BATCH_ADD, format!("\"{}\"", "x".repeat(10 << 20))).await, 413, "COM10003");
    assert_refused(&lab.post_text(BATCH_ADD, "{\"hostIds\": [".into()).await, 400, "COM10003");
    assert_refused(&lab.get("/api/v2/nothing").await, 404, "COM10998");
    assert_refused(&lab.delete("/api/v2/obproxy/clusters").await, 405, "COM10008");
    assert_refused(&lab.get("/api/v2/obproxy/clusters/x").await, 400, "COM10001");
    assert_refused(&lab.get("/api/v2/tasks/instances?status=LOST").await, 400, "COM10001");
    assert_refused(&lab.get("/api/v2/tasks/instances?size=5000").await, 400, "COM10001");
    assert_refused(&lab.get("/api/v2/tasks/instances?sort=name,asc").await, 400, "COM10011");
    assert_refused(&lab.get("/api/v2/tasks/instances/999").await, 404, "TSK10001");
    let request = request().to_string();
    let text = lab.get("/api/v2/info").await;
    assert_eq!(text.status, StatusCode::OK);
    let plain = Request::post(BATCH_ADD)
        .header(header::AUTHORIZATION, "Basic YWRtaW46YWFBQTExLl8=")
        .header(header::CONTENT_TYPE, "text/plain");
    assert_refused(&lab.send(plain.body(Body::from(request)).unwrap()).await, 415, "COM10003");
}

#[tokio::test]
async fn a_defect_costs_one_request() {
    let lab = Lab::new().await;
    lab.add_hosts(&["192.0.2.13", "192.0.2.14"]).await.data();
    assert_refused(&lab.get("/api/v2/compute/hosts/1/agent").await, 500, "COM10999");
    lab.get("/api/v2/compute/hosts/2/agent").await.data();
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_then_locked() {
    let lab = Lab::furnished().await;
    let try_with = |credentials: Option<&'static str>| {
        let mut request = Request::post(BATCH_ADD).header(header::CONTENT_TYPE, "application/json");
        if let Some(credentials) = credentials {
            request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
        }
        request.body(Body::from(request_text())).unwrap()
    };
    let none = lab.send(try_with(None)).await;
    assert_refused(&none, 401, "IAM10000");
    assert!(none.headers[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic"));
    for _ in 0..10 {
        // admin:wrong
        assert_refused(&lab.send(try_with(Some("YWRtaW46d3Jvbmc="))).await, 401, "IAM10004");
    }
    assert_refused(&lab.send(try_with(Some("YWRtaW46d3Jvbmc="))).await, 429, "IAM10003");
    let mut connection = lab.store.readers().acquire().await.unwrap();
    let proxies = oblet::coordinator::store::obproxy::all_proxies(&mut connection).await.unwrap();
    assert_eq!(proxies, []);
}

fn request_text() -> String {
    request().to_string()
}
