//! Enrolment of hosts: what is asked, and how it is printed.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::fake::{Fake, page};

#[tokio::test]
async fn a_token_is_printed_as_the_line_to_run_on_its_host() {
    let made = |host: &str, token: &str| {
        json!({
            "id": 1, "innerIpAddress": host, "token": token, "expireTime": "2021-09-03T16:05:01.106+08:00",
            "coordinatorUrl": "https://10.0.0.250:8443", "fingerprint": "sha256:00ff",
        })
    };
    let tokens = "POST /api/v2/compute/hosts/enrolmentTokens";
    let both = json!({"contents": [made("10.0.0.1", "t0ken-1"), made("10.0.0.2", "t0ken-2")]});
    let fake = Fake::start().await.answers(tokens, json!({"contents": [made("10.0.0.1", "t0ken-1")]}));
    let fake = fake.answers(tokens, both);
    let mut told = fake.run(&["host", "add", "--token", "10.0.0.1", "--ttl", "1d"]).await;
    let more = ["--ttl", "30m", "--any-source", "--coordinator", "https://gateway:8443"];
    told += "\n\n";
    told += &fake.run(&[&["host", "add", "--token", "10.0.0.1", "10.0.0.2"][..], &more].concat()).await;
    told += "\n\n";
    told += &fake.run(&[&["host", "add", "--token", "10.0.0.1", "-o", "json"][..], &more].concat()).await;
    assert_snapshot!(format!("{told}\n{}", fake.requests()));
}

/// A script reads the URL from the data, so it has to be the one that was asked for there too.
#[tokio::test]
async fn data_of_tokens_name_the_coordinator_that_was_asked_for() {
    let made =
        json!({"id": 1, "innerIpAddress": "10.0.0.1", "token": "t", "coordinatorUrl": "https://10.0.0.250:8443"});
    let tokens = "POST /api/v2/compute/hosts/enrolmentTokens";
    let fake = Fake::start().await.answers(tokens, json!({"contents": [made]}));
    for format in ["json", "yaml"] {
        let args = ["host", "add", "--token", "10.0.0.1", "--coordinator", "https://gateway:8443", "-o", format];
        let told = fake.run(&args).await;
        assert!(told.contains("https://gateway:8443") && !told.contains("10.0.0.250"), "{told}");
    }
}

#[tokio::test]
async fn a_dry_run_makes_no_token_and_prints_no_command() {
    let made = json!({"innerIpAddress": "10.0.0.1", "coordinatorUrl": "https://10.0.0.250:8443", "expireTime": "T"});
    let tokens = "POST /api/v2/compute/hosts/enrolmentTokens";
    let fake = Fake::start().await.answers(tokens, json!({"contents": [made]}));
    let told = fake.run(&["host", "add", "--token", "10.0.0.1", "--dry-run"]).await;
    assert!(!told.contains("oblet-agent enroll") && told.contains("Nothing was changed"), "{told}");
    assert!(fake.requests().starts_with("POST /api/v2/compute/hosts/enrolmentTokens?dryRun=true"));
}

#[tokio::test]
async fn revoking_a_host_wants_to_be_confirmed_and_tells_the_way_back() {
    let revoked = json!({"hostId": 2, "innerIpAddress": "10.0.0.2"});
    let path = "POST /api/v2/compute/hosts/revoke";
    let fake = Fake::start().await.answers(path, revoked.clone()).answers(path, revoked.clone()).answers(path, revoked);
    let mut told = fake.run(&["host", "revoke", "10.0.0.2"]).await;
    assert_eq!(fake.requests(), "");
    for args in [
        &["host", "revoke", "10.0.0.2", "--yes"][..],
        &["host", "revoke", "2", "--dry-run"],
        &["host", "revoke", "2", "-y", "-o", "name"],
    ] {
        told += &format!("\n\n{}", fake.run(args).await);
    }
    assert_snapshot!(format!("{told}\n{}", fake.requests()));
}

#[tokio::test]
async fn tokens_and_certificates_are_listed() {
    let token = json!({"id": 1, "innerIpAddress": "10.0.0.1", "status": "OPEN", "creator": "admin", "expireTime": "T"});
    let certificate = json!({
        "serial": "4a01", "innerIpAddress": "10.0.0.1", "hostId": 1, "status": "CURRENT", "issueTime": "T0",
        "expireTime": "T1",
    });
    let fake = Fake::start()
        .await
        .answers("GET /api/v2/compute/hosts/enrolmentTokens", page(json!([token])))
        .answers("GET /api/v2/compute/hosts/certificates", page(json!([certificate])))
        .answers("DELETE /api/v2/compute/hosts/enrolmentTokens/1", Value::Null);
    let mut told = fake.run(&["host", "token", "list"]).await;
    for args in [&["host", "certificates"][..], &["host", "token", "revoke", "1", "--yes"]] {
        told += &format!("\n\n{}", fake.run(args).await);
    }
    assert_snapshot!(format!("{told}\n{}", fake.requests()));
}
