//! Requests that carry a key can be sent again, and are carried out once.

use crate::support::{Answer, Lab, OBPROXY};
use oblet::coordinator::store::{now_micros, requests};
use serde_json::{Value, json};

const CLUSTERS: &str = "/api/v2/obproxy/clusters";
const BATCH_ADD: &str = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";

fn body() -> Value {
    json!({"hostIds": [1, 2], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY})
}

fn with(mut body: Value, member: &str, value: impl Into<Value>) -> Value {
    body[member] = value.into();
    body
}

async fn keyed(lab: &Lab, path: &str, key: &str, body: Value) -> Answer {
    lab.post_with(path, &[("Idempotency-Key", key)], body).await
}

async fn tasks(lab: &Lab) -> Value {
    lab.get("/api/v2/tasks/instances").await.data()["page"]["totalElements"].take()
}

#[tokio::test]
async fn the_same_request_again_is_answered_as_the_first_time_and_makes_nothing() {
    let lab = Lab::furnished().await;
    let first = keyed(&lab, BATCH_ADD, "k", body()).await.data();
    lab.begin(&first["contents"][0]).await;
    let reordered = format!(r#"{{ "version": "{OBPROXY}", "exporterPort":2884, "sqlPort":2883,"hostIds":[1,2]}}"#);
    let again = lab.send_text(BATCH_ADD, &[("Idempotency-Key", "k")], reordered).await.data();
    assert_eq!(again, first);
    assert_eq!(tasks(&lab).await, 3, "the creation of the cluster, and two proxies");

    let cluster = json!({"name": "second", "obLinks": [], "password": "aaAA11.._"});
    let first = keyed(&lab, CLUSTERS, "c", cluster.clone()).await.data();
    assert_eq!(keyed(&lab, CLUSTERS, "c", cluster).await.data(), first);
    assert_eq!(tasks(&lab).await, 4);
}

#[tokio::test]
async fn a_client_token_is_the_same_key() {
    let lab = Lab::furnished().await;
    let first = lab.post(BATCH_ADD, with(body(), "clientToken", "token-of-a-client")).await.data();
    let again = keyed(&lab, BATCH_ADD, "token-of-a-client", body()).await.data();
    assert_eq!(again, first);
    let both = keyed(&lab, BATCH_ADD, "token-of-a-client", with(body(), "clientToken", "token-of-a-client")).await;
    assert_eq!(both.data(), first);
    let differing = keyed(&lab, BATCH_ADD, "another-token", with(body(), "clientToken", "token-of-a-client")).await;
    assert_eq!(differing.status, 400, "{}", differing.text);
    assert_eq!(differing.json()["error"]["target"], "clientToken");
}

#[tokio::test]
async fn a_key_serves_one_request_only() {
    let lab = Lab::furnished().await;
    let made = keyed(&lab, BATCH_ADD, "k", body()).await.data();
    for (path, body) in
        [(BATCH_ADD, with(body(), "sqlPort", 3883)), (CLUSTERS, json!({"name": "second", "obLinks": []}))]
    {
        let answer = keyed(&lab, path, "k", body).await;
        assert_eq!(answer.status, 409, "{}", answer.text);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        let used = format!("task {}, Install obproxy", made["contents"][0]["id"]);
        assert!(message.starts_with("COM10003") && message.contains(&used), "{message}");
    }
}

#[tokio::test]
async fn what_was_refused_leaves_no_key_and_a_dry_run_neither() {
    let lab = Lab::furnished().await;
    assert_eq!(keyed(&lab, BATCH_ADD, "k", with(body(), "hostIds", json!([9]))).await.status, 404);
    let planned = keyed(&lab, &format!("{BATCH_ADD}?dryRun=true"), "k", body()).await.data();
    assert!(planned["contents"][0].get("id").is_none());
    let made = keyed(&lab, BATCH_ADD, "k", body()).await.data();
    assert!(made["contents"][0]["id"].is_i64());
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused() {
    let lab = Lab::furnished().await;
    let long = "k".repeat(192);
    for key in ["", "two words", &long, "ключ"] {
        let answer = keyed(&lab, BATCH_ADD, key, body()).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["target"]),
            (400, &json!("Idempotency-Key")),
            "{key}"
        );
    }
    let twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    assert_eq!(lab.post_with(BATCH_ADD, &twice, body()).await.status, 400);
    for token in [json!("short"), json!("t".repeat(65)), json!(12_345_678)] {
        assert_eq!(lab.post(BATCH_ADD, with(body(), "clientToken", token.clone())).await.status, 400, "{token}");
    }
    assert_eq!(tasks(&lab).await, 1);
}

#[tokio::test]
async fn the_same_request_sent_at_the_same_time_is_carried_out_once() {
    let lab = Lab::furnished().await;
    let answers = futures_util::future::join_all((0..8).map(|_| keyed(&lab, BATCH_ADD, "k", body()))).await;
    let first = answers[0].data();
    assert!(answers.iter().all(|answer| answer.data() == first));
    assert_eq!(tasks(&lab).await, 3);
}

#[tokio::test]
async fn passwords_cannot_be_guessed_from_what_is_remembered_and_old_keys_are_forgotten() {
    let lab = Lab::furnished().await;
    let cluster = json!({"name": "second", "obLinks": [], "password": "aaAA11.._"});
    keyed(&lab, CLUSTERS, "k", cluster.clone()).await.data();
    let query = sqlx::query_scalar::<_, String>("SELECT fingerprint FROM idempotent_requests");
    let fingerprint = query.fetch_one(lab.store.readers()).await.unwrap();
    assert_eq!(fingerprint.len(), 64);
    let other = Lab::furnished().await;
    keyed(&other, CLUSTERS, "k", cluster).await.data();
    let query = sqlx::query_scalar::<_, String>("SELECT fingerprint FROM idempotent_requests");
    let of_another_vault = query.fetch_one(other.store.readers()).await.unwrap();
    assert_ne!(fingerprint, of_another_vault, "a digest without a key would be the same");

    let mut transaction = lab.store.begin().await.unwrap();
    assert_eq!(requests::expire(&mut transaction, now_micros() - 60_000_000).await.unwrap(), 0);
    assert_eq!(requests::expire(&mut transaction, now_micros() + 1).await.unwrap(), 1);
}
