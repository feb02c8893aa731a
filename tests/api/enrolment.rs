//! Tokens, enrolment and revocation as a client of the REST API sees them.

use crate::support::{Answer, Lab};
use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode, header},
};
use oblet::{
    coordinator::store::agent::certificates::Standing,
    tls::{self, Requested},
};
use serde_json::{Value, json};
use std::net::SocketAddr;

const TOKENS: &str = "/api/v2/compute/hosts/enrolmentTokens";
const REVOKE: &str = "/api/v2/compute/hosts/revoke";

async fn token(lab: &Lab, host: &str) -> Value {
    let made = lab.post(TOKENS, json!({"innerIpAddressList": [host], "ttlSeconds": 60})).await.data();
    made["contents"][0].clone()
}

/// As a host does, which is no user.
async fn enroll(lab: &Lab, from: &str, token: &Value) -> Answer {
    let request_pem = Requested::generate().unwrap().request_pem;
    let body = json!({"token": token, "requestPem": request_pem, "time": jiff::Timestamp::now()});
    let source: SocketAddr = format!("{from}:40000").parse().unwrap();
    let request = Request::post("/api/v2/compute/hosts/enroll")
        .header(header::CONTENT_TYPE, "application/json")
        .extension(ConnectInfo(source));
    lab.send(request.body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn a_token_tells_all_that_a_host_needs_and_is_told_once() {
    let lab = Lab::new().await;
    let made = token(&lab, "192.0.2.1").await;
    assert_eq!(made["coordinatorUrl"], "https://192.0.2.250:8443");
    assert!(made["fingerprint"].as_str().unwrap().starts_with("sha256:"), "{made}");
    let listed = lab.get(TOKENS).await;
    assert!(!listed.text.contains(made["token"].as_str().unwrap()), "{}", listed.text);
    assert_eq!(listed.data()["contents"][0]["status"], "OPEN");
    let audited = lab.get("/api/v2/audit/events").await;
    assert!(!audited.text.contains(made["token"].as_str().unwrap()), "{}", audited.text);
    assert_eq!(audited.data()["contents"][0]["action"], "enrolmentToken.create");
}

#[tokio::test]
async fn a_host_is_enrolled_without_a_user_and_once() {
    let lab = Lab::new().await;
    let made = token(&lab, "192.0.2.1").await;
    let enrolled = enroll(&lab, "192.0.2.1", &made["token"]).await.data();
    assert_eq!(enrolled["address"], "192.0.2.1");
    let replay = enroll(&lab, "192.0.2.1", &made["token"]).await;
    assert_eq!(replay.status, StatusCode::CONFLICT);
    let error = replay.json()["error"].clone();
    assert!(error["message"].as_str().unwrap().contains(enrolled["serial"].as_str().unwrap()), "{error}");
    assert!(error["nextMove"].as_str().unwrap().contains("oblet host revoke"), "{error}");
    let used = lab.get(TOKENS).await.data()["contents"][0].clone();
    assert_eq!((&used["status"], &used["usedFrom"]), (&json!("USED"), &json!("192.0.2.1")));
    let certificate = lab.get("/api/v2/compute/hosts/certificates").await.data()["contents"][0].clone();
    assert_eq!((&certificate["status"], &certificate["serial"]), (&json!("ISSUED"), &enrolled["serial"]));
}

#[tokio::test]
async fn a_token_from_elsewhere_is_refused_with_both_addresses() {
    let lab = Lab::new().await;
    let made = token(&lab, "192.0.2.1").await;
    let stolen = enroll(&lab, "192.0.2.66", &made["token"]).await;
    assert_eq!(stolen.status, StatusCode::FORBIDDEN);
    assert!(stolen.text.contains("192.0.2.1,") && stolen.text.contains("192.0.2.66"), "{}", stolen.text);
    let refusal = lab.get("/api/v2/audit/events").await.data()["contents"][0].clone();
    assert_eq!((&refusal["action"], &refusal["object"]), (&json!("host.enroll.refuse"), &json!("host 192.0.2.1")));
    // As a listener for both families sees the right one.
    enroll(&lab, "[::ffff:192.0.2.1]", &made["token"]).await.data();
}

#[tokio::test]
async fn who_guesses_tokens_is_locked_out_by_address() {
    let lab = Lab::new().await;
    for _ in 0..10 {
        assert_eq!(enroll(&lab, "192.0.2.66", &json!("guess")).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(enroll(&lab, "192.0.2.66", &json!("guess")).await.status, StatusCode::TOO_MANY_REQUESTS);
    let made = token(&lab, "192.0.2.1").await;
    enroll(&lab, "192.0.2.1", &made["token"]).await.data();
}

#[tokio::test]
async fn a_revoked_token_is_worth_nothing_and_revoked_once() {
    let lab = Lab::new().await;
    let made = token(&lab, "192.0.2.1").await;
    let path = format!("{TOKENS}/{}", made["id"]);
    assert_eq!(lab.delete(&path).await.status, StatusCode::OK);
    assert_eq!(lab.delete(&path).await.status, StatusCode::CONFLICT);
    assert_eq!(lab.delete(&format!("{TOKENS}/99")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(enroll(&lab, "192.0.2.1", &made["token"]).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn revoking_a_host_cuts_it_off_and_kills_its_tokens() {
    let lab = Lab::furnished().await;
    let made = token(&lab, "192.0.2.1").await;
    let revoked = lab.post(REVOKE, json!({"hostId": 1})).await.data();
    assert_eq!(revoked["innerIpAddress"], "192.0.2.1");
    assert_eq!(*lab.engine.cut_off.lock().unwrap(), ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(enroll(&lab, "192.0.2.1", &made["token"]).await.status, StatusCode::CONFLICT);
    let fresh = token(&lab, "192.0.2.1").await;
    enroll(&lab, "192.0.2.1", &fresh["token"]).await.data();
}

#[tokio::test]
async fn a_host_that_nobody_knows_is_not_revoked() {
    let lab = Lab::new().await;
    for (body, status) in [
        (json!({"hostId": 7}), StatusCode::NOT_FOUND),
        (json!({"innerIpAddress": "192.0.2.9"}), StatusCode::NOT_FOUND),
        (json!({}), StatusCode::BAD_REQUEST),
        (json!({"hostId": 7, "innerIpAddress": "192.0.2.9"}), StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(lab.post(REVOKE, body.clone()).await.status, status, "{body}");
    }
    let made = token(&lab, "192.0.2.9").await;
    enroll(&lab, "192.0.2.9", &made["token"]).await.data();
    lab.post(REVOKE, json!({"innerIpAddress": "192.0.2.9"})).await.data();
}

#[tokio::test]
async fn a_host_that_was_removed_is_trusted_again_only_when_it_is_enrolled() {
    let lab = Lab::furnished().await;
    let address = "192.0.2.2".parse().unwrap();
    let trust = async || lab.store.trust(address).await.unwrap();
    let by_hand = tls::Fingerprint::of(b"made by hand");
    assert_eq!(trust().await.standing(by_hand), Standing::Trusted);
    let early = token(&lab, "192.0.2.2").await;

    let tried = lab.delete("/api/v2/compute/hosts/2?dryRun=true").await;
    assert_eq!((tried.status, trust().await.revocation.is_none()), (StatusCode::OK, true), "it was only tried");
    assert_eq!(lab.delete("/api/v2/compute/hosts/2").await.status, StatusCode::OK);
    assert!(trust().await.revocation.is_some(), "what the host has is worth nothing");
    assert_eq!(*lab.engine.cut_off.lock().unwrap(), [address], "its connection is not left to who has it next");
    assert_eq!(enroll(&lab, "192.0.2.2", &early["token"]).await.status, StatusCode::CONFLICT);
    lab.post(REVOKE, json!({"innerIpAddress": "192.0.2.2"})).await.data();

    let fresh = token(&lab, "192.0.2.2").await;
    let enrolled = enroll(&lab, "192.0.2.2", &fresh["token"]).await.data();
    let own = enrolled["certificatePem"].as_str().unwrap();
    let own = tls::CertificateFacts::of_pem(own.as_bytes()).unwrap().fingerprint;
    assert!(trust().await.revocation.is_none());
    assert_eq!((trust().await.standing(own), trust().await.standing(by_hand)), (Standing::FirstSeen, Standing::Other));
}

#[tokio::test]
async fn a_token_has_hosts_and_an_end() {
    let lab = Lab::new().await;
    for body in [
        json!({"innerIpAddressList": []}),
        json!({"innerIpAddressList": ["0.0.0.0"]}),
        json!({"innerIpAddressList": ["db1"]}),
        json!({"innerIpAddressList": ["192.0.2.1"], "ttlSeconds": 0}),
        json!({"innerIpAddressList": ["192.0.2.1"], "ttlSeconds": 604_801}),
    ] {
        assert_eq!(lab.post(TOKENS, body.clone()).await.status, StatusCode::BAD_REQUEST, "{body}");
    }
}
