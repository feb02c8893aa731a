//! Clients that hang up: the server drops their requests wherever those wait. What was committed by then takes effect.

use crate::support::{Lab, package};
use axum::{
    body::Body,
    http::{Request, header},
};
use oblet::coordinator::store::agent::certificates;
use serde_json::{Value, json};
use sqlx::Row as _;
use std::{
    collections::BTreeSet,
    future::poll_fn,
    net::IpAddr,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

const CLUSTERS: &str = "/api/v2/obproxy/clusters";
const ROUNDS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

fn post(path: &str, body: &Value) -> Request<Body> {
    let request = Lab::signed("POST", path).header(header::CONTENT_TYPE, "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

/// Drops the request where it waits after it went on `steps` times; answers whether it was answered before.
async fn hang_up_after(lab: &Lab, steps: u32, request: Request<Body>) -> bool {
    let mut answer = pin!(lab.respond(request));
    let mut left = steps;
    poll_fn(|context| match answer.as_mut().poll(context) {
        Poll::Ready(response) => {
            assert!(response.status().is_success(), "{response:?}");
            Poll::Ready(true)
        }
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Hangs up at every place where such a request can wait: at how many it does depends on how fast the store answers.
/// Requests are numbered; answers how many there were.
async fn hang_up_everywhere(lab: &Lab, request: impl AsyncFn(u32) -> Request<Body>) -> u32 {
    let mut number = 0;
    for _ in 0..ROUNDS {
        for steps in 0.. {
            number += 1;
            if hang_up_after(lab, steps, request(number).await).await {
                break;
            }
        }
    }
    number
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn numbers(lab: &Lab, query: &'static str) -> BTreeSet<i64> {
    let rows = sqlx::query(query).fetch_all(lab.store.readers()).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_task_that_was_committed_is_driven_wherever_its_client_hangs_up() {
    let lab = Lab::furnished().await;
    hang_up_everywhere(&lab, async |number| {
        post(CLUSTERS, &json!({"name": format!("cluster{number}"), "obLinks": []}))
    })
    .await;
    // Who writes next waits for all that was being written.
    lab.store.begin().await.unwrap().rollback().await.unwrap();
    until("every task is driven", async || {
        let woken: BTreeSet<i64> = lab.engine.woken.lock().unwrap().iter().copied().collect();
        numbers(&lab, "SELECT id FROM tasks").await.is_subset(&woken)
    })
    .await;
}

#[tokio::test]
async fn a_host_that_was_revoked_is_cut_off_wherever_the_client_hangs_up() {
    let lab = Lab::new().await;
    let address = |number: u32| IpAddr::from((0xc612_0000 + number).to_be_bytes());
    let count = hang_up_everywhere(&lab, async |number| {
        lab.have_hosts(&[&address(number).to_string()]).await;
        post("/api/v2/compute/hosts/revoke", &json!({"innerIpAddress": address(number)}))
    })
    .await;
    lab.store.begin().await.unwrap().rollback().await.unwrap();
    for host in (1..=count).map(address) {
        let mut connection = lab.store.readers().acquire().await.unwrap();
        if certificates::revocation(&mut connection, host).await.unwrap().is_some() {
            until("the host is cut off", async || lab.engine.cut_off.lock().unwrap().contains(&host)).await;
        }
    }
}

#[tokio::test]
async fn a_decision_that_is_in_the_audit_log_is_carried_out_wherever_the_client_hangs_up() {
    let lab = Lab::new().await;
    hang_up_everywhere(&lab, async |number| {
        let body = json!({"name": format!("cluster{number}"), "obLinks": []});
        let task = lab.post(CLUSTERS, body).await.data();
        lab.begin(&task).await;
        post(&format!("/api/v2/tasks/instances/{}/cancel", task["id"]), &json!({}))
    })
    .await;
    lab.store.begin().await.unwrap().rollback().await.unwrap();
    until("every decision is carried out", async || {
        let decided = "SELECT CAST(substr(object, 6) AS INTEGER) FROM audit_events WHERE action = 'task.cancel'";
        let canceled = "SELECT id FROM tasks WHERE operation = 'CANCEL'";
        numbers(&lab, decided).await == numbers(&lab, canceled).await
    })
    .await;
}

#[tokio::test]
async fn every_file_of_a_package_has_its_row_wherever_the_client_hangs_up() {
    let lab = Lab::new().await;
    hang_up_everywhere(&lab, async |number| {
        let (version, boundary) = (format!("1.9.{number}"), "part");
        let name = format!("obproxy-{version}-1.el7.x86_64.rpm");
        let head =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
        let file = package("obproxy", &version, "1.el7", "x86_64");
        let body = [head.as_bytes(), &file, format!("\r\n--{boundary}--\r\n").as_bytes()].concat();
        let request = Lab::signed("POST", "/api/v2/software-packages")
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"));
        request.body(Body::from(body)).unwrap()
    })
    .await;
    until("files and rows agree", async || {
        let rows = sqlx::query("SELECT sha256 FROM packages").fetch_all(lab.store.readers()).await.unwrap();
        let rows: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let files = std::fs::read_dir(lab.packages_dir()).unwrap();
        let files: BTreeSet<String> = files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        !rows.is_empty() && rows == files
    })
    .await;
}

#[tokio::test]
async fn the_same_request_again_wakes_a_task_that_still_runs() {
    let lab = Lab::new().await;
    let body = || json!({"name": "one", "obLinks": []});
    let keyed = async || lab.post_with(CLUSTERS, &[("Idempotency-Key", "k")], body()).await.data();
    let task = keyed().await;
    let woken = || std::mem::take(&mut *lab.engine.woken.lock().unwrap());
    assert_eq!(woken().len(), 1);
    assert_eq!(keyed().await["id"], task["id"]);
    assert_eq!(woken(), [task["id"].as_i64().unwrap()]);
    lab.finish(&task).await;
    keyed().await;
    assert!(woken().is_empty(), "it has come to rest");
}
