//! A store that an older coordinator left.

use crate::lab::{Lab, PACKAGE, possible};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

const STORE: &str = include_str!("../state/coordinator-v12.sql");
const UNFINISHED: i64 = 2;

/// The older store, with what belongs to this lab in its places.
async fn older_store(lab: &Lab, present: &mut SqliteConnection) -> String {
    let (sha1, sha256, size): (String, String, i64) =
        sqlx::query_as("SELECT sha1, sha256, size_bytes FROM packages").fetch_one(&mut *present).await.unwrap();
    let (secrets,): (String,) =
        sqlx::query_as("SELECT secrets FROM obproxy_clusters WHERE id = 1").fetch_one(&mut *present).await.unwrap();
    let (password_hash,): (String,) =
        sqlx::query_as("SELECT password_hash FROM users").fetch_one(&mut *present).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    [
        ("@ADDRESS@", lab.hosts[0].address.to_string()),
        // The port for metrics, which would be open on the addresses of other tests as well.
        ("2884", lab.hosts[0].exporter_port.to_string()),
        ("@DISPATCHED_AT@", now.to_string()),
        ("@PASSWORD_HASH@", password_hash),
        ("@SECRETS@", secrets),
        ("@SHA1@", sha1),
        ("@SHA256@", sha256),
        ("@SIZE_BYTES@", size.to_string()),
    ]
    .iter()
    .fold(STORE.to_owned(), |store, (place, value)| store.replace(place, value))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_an_older_coordinator_is_taken_up_with_its_unfinished_task() {
    if !possible() {
        return;
    }
    let mut lab = Lab::start(1).await;
    lab.set_up(json!({})).await;
    lab.coordinator.as_mut().unwrap().stop();
    let path = lab.directory.path().join("coordinator/state/coordinator.db");
    let mut present = SqliteConnection::connect(&lab.store_url()).await.unwrap();
    let store = older_store(&lab, &mut present).await;
    present.close().await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        // The last two are gone already, if the store was closed well.
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    let mut older = SqliteConnection::connect(&lab.store_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(store)).execute(&mut older).await.unwrap();
    older.close().await.unwrap();

    lab.start_coordinator();
    lab.connect().await;
    let list = lab.get("/api/v2/tasks/instances?size=10").await.unwrap();
    assert_eq!(list["data"]["contents"].as_array().map(Vec::len), Some(3), "{list:#}");
    let packages = lab.get("/api/v2/software-packages?version=1.9.1.1&operatingSystem=el7").await.unwrap();
    assert_eq!(packages["data"]["page"]["totalElements"], 1, "its columns are newer than it is: {packages:#}");
    let task = lab.finished(UNFINISHED).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
    assert_eq!(lab.hosts[0].packages().trim(), PACKAGE);
    assert_eq!(lab.hosts[0].processes().len(), 1);
    assert_eq!(lab.hosts[0].count_in_logs("scriptlet ran once"), 1);
}
