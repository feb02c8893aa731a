//! Those who guess passwords, and pages that use those of others.

use crate::support::{Answer, Lab};
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use serde_json::json;

const HOSTS: &str = "/api/v2/compute/hosts";

async fn login(lab: &Lab, user: &str, password: &str) -> Answer {
    let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let request = Request::get(HOSTS).header(header::AUTHORIZATION, format!("Basic {credentials}"));
    lab.send(request.body(Body::empty()).unwrap()).await
}

fn retry_after(answer: &Answer) -> u64 {
    answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_burst_of_guesses_waits_in_a_short_queue_and_is_locked_out_by_its_address() {
    let lab = Lab::new().await;
    let mut failed = 0;
    let mut refused = 0;
    while failed < 50 {
        let guesses = (0..64).map(async |number| login(&lab, &format!("invented{number}"), "guess").await);
        for answer in join_all(guesses).await {
            match answer.status {
                StatusCode::UNAUTHORIZED => failed += 1,
                StatusCode::TOO_MANY_REQUESTS => {
                    refused += 1;
                    assert!((1..=300).contains(&retry_after(&answer)), "{answer:?}");
                }
                _ => panic!("{}", answer.text),
            }
        }
        assert!(refused >= 8, "32 of 64 may wait for their check, and some that come later: {refused}");
    }
    assert!(failed <= 51, "what waited when the address was locked was not checked: {failed}");
    let answer = login(&lab, "admin", "guess").await;
    assert_eq!(answer.status, 429, "{}", answer.text);
    assert!(answer.json()["error"]["message"].as_str().unwrap().starts_with("IAM10003"), "{}", answer.text);
    assert!(retry_after(&answer) > 200);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let lab = Lab::furnished().await;
    let path = format!("{HOSTS}/1/agent/restart");
    let send = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(Lab::signed(method, path), |request, (name, value)| request.header(*name, *value));
        lab.send(request.body(Body::empty()).unwrap()).await
    };
    for headers in [
        &[("sec-fetch-site", "cross-site"), ("host", "coordinator")][..],
        &[("origin", "https://evil.example"), ("host", "coordinator")],
        &[("origin", "null"), ("host", "coordinator")],
    ] {
        for (method, path) in [("POST", path.as_str()), ("DELETE", "/api/v2/compute/hosts/2")] {
            let answer = send(method, path, headers).await;
            assert_eq!(answer.status, 403, "{method} {headers:?}: {}", answer.text);
        }
        send("GET", HOSTS, headers).await.data();
    }
    assert_eq!(lab.get(HOSTS).await.data()["page"]["totalElements"], json!(2));
    assert_eq!(lab.engine.woken.lock().unwrap().len(), 1, "the creation of the cluster only");
    send("POST", &path, &[("origin", "https://coordinator:8443"), ("host", "coordinator:8443")]).await.data();
}
