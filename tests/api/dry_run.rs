//! `dryRun=true`: everything is checked and answered as in earnest, and nothing changes.

use crate::support::{Answer, Lab, OBPROXY, PASSWORD, failure, package};
use serde_json::{Value, json};
use sqlx::Row as _;
use std::{collections::BTreeMap, sync::atomic::Ordering};

const UNKNOWN: &str = "obproxy-1.9.1.9-7.el7.x86_64.rpm";

/// Every operation that changes something, by its id; an upload, which is no JSON, is looked at apart, and a host that
/// enrols has no use for a trial.
fn operations() -> Vec<String> {
    let described = serde_json::to_value(oblet::api::openapi()).unwrap();
    let mut found = Vec::new();
    for (path, operations) in described["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let takes = operation["parameters"].as_array().is_some_and(|list| {
                list.iter().any(|parameter| parameter["name"] == "dryRun" && parameter["in"] == "query")
            });
            let id = operation["operationId"].as_str().unwrap();
            assert_eq!(takes, method != "get" && id != "enrollHost", "{method} {path}");
            if takes && id != "uploadPackage" {
                found.push(id.to_owned());
            }
        }
    }
    found.sort_unstable();
    found
}

/// A lab in which every operation is possible, with a request for each.
async fn lab() -> (Lab, BTreeMap<&'static str, (&'static str, String, Value)>) {
    let lab = Lab::furnished().await;
    lab.have_hosts(&["192.0.2.3"]).await;
    lab.upload("obproxy-1.9.2.0-1.el7.x86_64.rpm", &package("obproxy", "1.9.2.0", "1.el7", "x86_64")).await.data();
    let agent = "oblet-agent-0.1.0-2.x86_64.rpm";
    lab.upload(agent, &package("oblet-agent", "0.1.0", "2", "x86_64")).await.data();
    let tokens = json!({"innerIpAddressList": ["192.0.2.3"]});
    lab.post("/api/v2/compute/hosts/enrolmentTokens", tokens).await.data();
    lab.have_hosts(&["192.0.2.4"]).await;
    let spare = lab.serving_proxy(4, 2883).await;
    let empty = lab.post("/api/v2/obproxy/clusters", json!({"name": "spare", "obLinks": []})).await.data();
    lab.finish(&empty).await;
    let failed = lab.failed_task(failure()).await;
    let proxies = |host: i64| json!({"hostIds": [host], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY});
    let batch_add = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";
    let running = lab.post(batch_add, proxies(3)).await.data()["contents"][0].take();
    lab.begin(&running).await;
    let links = "/api/v2/obproxy/clusters/1/obLinks";
    let link = |name: &str, id: i64| json!({"clusterName": name, "obClusterId": id, "username": "proxyro"});
    lab.post(&format!("{links}/batchAdd"), json!([link("first", 1)])).await.data();
    let task = |task: &Value, verb: &str| format!("/api/v2/tasks/instances/{}/{verb}", task["id"]);
    let subtask =
        |of: &Value, index: usize, verb: &str| task(of, &format!("subtasks/{}/{verb}", of["subtasks"][index]["id"]));
    let nothing = || json!({});
    let compute = |kind: &str| format!("/api/v2/compute/{kind}");
    let place = async |kind: &str, body: Value| lab.post(&compute(kind), body).await.data()["id"].as_i64().unwrap();
    let regions = [place("regions", json!({"name": "north"})).await, place("regions", json!({"name": "south"})).await];
    let idc = place("idcs", json!({"name": "cellar", "regionId": regions[0]})).await;
    let host_type = place("hostTypes", json!({"name": "large"})).await;
    lab.engine.agent_epoch.store(2, Ordering::Relaxed);
    let password = json!({"currentPassword": PASSWORD, "newPassword": "long enough"});
    let requests = BTreeMap::from([
        ("addObLinks", ("POST", format!("{links}/batchAdd"), json!([link("second", 2)]))),
        ("changeObproxyCluster", ("PATCH", "/api/v2/obproxy/clusters/1".into(), json!({"address": "db.example"}))),
        ("deleteObLink", ("DELETE", format!("{links}/first"), nothing())),
        ("addObproxies", ("POST", batch_add.to_owned(), proxies(1))),
        ("cancelSubtask", ("POST", subtask(&running, 0, "cancel"), nothing())),
        ("changePassword", ("POST", "/api/v2/profiles/me/changePassword".into(), password)),
        ("createHostType", ("POST", compute("hostTypes"), json!({"name": "small"}))),
        ("createIdc", ("POST", compute("idcs"), json!({"name": "attic", "regionId": regions[0]}))),
        ("createRegion", ("POST", compute("regions"), json!({"name": "west"}))),
        ("deleteHostType", ("DELETE", compute(&format!("hostTypes/{host_type}")), nothing())),
        ("deleteIdc", ("DELETE", compute(&format!("idcs/{idc}")), nothing())),
        ("deleteRegion", ("DELETE", compute(&format!("regions/{}", regions[1])), nothing())),
        ("resetHostAgentEpoch", ("POST", compute("hosts/1/agent/resetEpoch"), nothing())),
        ("cancelTask", ("POST", task(&running, "cancel"), nothing())),
        (
            "createEnrolmentTokens",
            (
                "POST",
                "/api/v2/compute/hosts/enrolmentTokens".into(),
                json!({"innerIpAddressList": ["192.0.2.1"], "anySource": true}),
            ),
        ),
        (
            "createHosts",
            (
                "POST",
                "/api/v2/compute/hosts/batchCreate".into(),
                json!({"hostBasicDataList": [{"innerIpAddress": "192.0.2.9"}]}),
            ),
        ),
        ("createObproxyCluster", ("POST", "/api/v2/obproxy/clusters".into(), json!({"name": "second", "obLinks": []}))),
        ("deleteHost", ("DELETE", "/api/v2/compute/hosts/1".into(), nothing())),
        ("deleteHosts", ("POST", "/api/v2/compute/hosts/batchDelete".into(), json!({"hostIdList": [1]}))),
        ("deleteObproxies", ("DELETE", format!("/api/v2/obproxy/clusters/1/obproxies/{spare}"), nothing())),
        ("deleteObproxyCluster", ("DELETE", "/api/v2/obproxy/clusters/2".into(), nothing())),
        (
            "deleteObproxyServers",
            ("POST", "/api/v2/obproxy/clusters/1/servers/delete".into(), json!({"obproxyServerIds": [spare]})),
        ),
        ("deletePackage", ("DELETE", "/api/v2/software-packages/2".into(), nothing())),
        ("releaseTaskLocks", ("POST", task(&failed, "releaseLocks"), nothing())),
        ("restartHostAgent", ("POST", "/api/v2/compute/hosts/1/agent/restart".into(), nothing())),
        ("restartHostAgentProcess", ("POST", "/api/v2/compute/hosts/1/agent/processes/1/restart".into(), nothing())),
        ("restartHostAgents", ("POST", "/compute/hosts/batchRestartAgents".into(), json!({"hostIds": [1, 2]}))),
        ("retrySubtask", ("POST", subtask(&failed, 1, "retry"), nothing())),
        ("retryTask", ("POST", task(&failed, "retry"), nothing())),
        ("revokeEnrolmentToken", ("DELETE", "/api/v2/compute/hosts/enrolmentTokens/1".into(), nothing())),
        ("revokeHost", ("POST", "/api/v2/compute/hosts/revoke".into(), json!({"hostId": 3}))),
        ("rollBackTask", ("POST", task(&failed, "rollback"), nothing())),
        ("skipSubtask", ("POST", subtask(&failed, 1, "skip"), nothing())),
        ("stopHostAgent", ("POST", "/api/v2/compute/hosts/1/agent/stop".into(), nothing())),
        ("stopHostAgentProcess", ("POST", "/api/v2/compute/hosts/1/agent/processes/1/stop".into(), nothing())),
        (
            "upgradeHostAgents",
            ("POST", "/api/v2/compute/hosts/batchUpgradeAgents".into(), json!({"hostIds": [1, 2], "packages": [3]})),
        ),
        ("stopHostAgents", ("POST", "/compute/hosts/batchStopAgents".into(), json!({"hostIds": [1]}))),
    ]);
    (lab, requests)
}

async fn send(lab: &Lab, method: &str, path: &str, body: &Value) -> Answer {
    match method {
        "DELETE" => lab.delete(path).await,
        "PATCH" => lab.patch(path, body.clone()).await,
        _ => lab.post(path, body.clone()).await,
    }
}

#[tokio::test]
async fn every_operation_can_be_tried_and_changes_nothing() {
    let (lab, requests) = lab().await;
    assert_eq!(requests.keys().copied().collect::<Vec<_>>(), operations());
    let files = lab.packages_dir().read_dir().unwrap().count();
    assert!(files >= 2, "{files}");
    let woken = lab.engine.woken.lock().unwrap().clone();
    // Changes as soon as another connection has committed anything.
    let mut reader = lab.store.readers().acquire().await.unwrap();
    let before: i64 = sqlx::query("PRAGMA data_version").fetch_one(&mut *reader).await.unwrap().get(0);
    let answer = lab.upload_to("?dryRun=true", UNKNOWN, &package("obproxy", "1.9.1.9", "7.el7", "x86_64")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let planned = answer.data();
    assert_eq!((&planned["fileName"], planned.get("id"), planned.get("createTime")), (&json!(UNKNOWN), None, None));
    let after: i64 = sqlx::query("PRAGMA data_version").fetch_one(&mut *reader).await.unwrap().get(0);
    assert_eq!(after, before, "an upload wrote something");
    for (id, (method, path, body)) in &requests {
        let path = format!("{path}?dryRun=true");
        let answer = send(&lab, method, &path, body).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text);
        let after: i64 = sqlx::query("PRAGMA data_version").fetch_one(&mut *reader).await.unwrap().get(0);
        assert_eq!(after, before, "{id} wrote something");
    }
    assert_eq!(*lab.engine.woken.lock().unwrap(), woken, "no engine was told of anything");
    assert_eq!(lab.packages_dir().read_dir().unwrap().count(), files, "no file of a package came or went");
    drop(reader);

    for id in ["addObLinks", "changeObproxyCluster", "createHosts", "deleteObLink", "deletePackage"] {
        let (method, path, body) = &requests[id];
        let answer = send(&lab, method, path, body).await;
        assert_eq!(answer.status, 200, "{id} is still possible: {}", answer.text);
    }
}

#[tokio::test]
async fn a_tried_decision_answers_the_task_as_it_would_stand() {
    let (lab, requests) = lab().await;
    let tried = |id: &str| format!("{}?dryRun=true", requests[id].1);
    let statuses = |task: &Value| {
        let of =
            |index: usize| format!("{} {}", task["subtasks"][index]["operation"], task["subtasks"][index]["status"]);
        (of(0).replace('"', ""), of(1).replace('"', ""))
    };
    let retried = lab.post(&tried("retryTask"), json!({})).await.data();
    assert_eq!((&retried["operation"], &retried["status"]), (&json!("RETRY"), &json!("RUNNING")));
    assert_eq!(statuses(&retried), ("EXECUTE SUCCESSFUL".into(), "RETRY READY".into()));
    assert_eq!(retried["subtasks"][1]["runTime"], 2);
    assert!(retried.get("finishTime").is_none());

    let taken_back = lab.post(&tried("rollBackTask"), json!({})).await.data();
    assert_eq!(statuses(&taken_back), ("ROLLBACK SUCCESSFUL".into(), "ROLLBACK READY".into()));
    let canceled = lab.post(&tried("cancelTask"), json!({})).await.data();
    assert_eq!(canceled["operation"], "CANCEL");
    assert_eq!(canceled["subtasks"][0]["status"], "CANCELING");
    assert_eq!(lab.post(&tried("skipSubtask"), json!({})).await.data()["status"], "SUCCESSFUL");
    assert_eq!(lab.post(&tried("cancelSubtask"), json!({})).await.data()["status"], "CANCELING");
}

#[tokio::test]
async fn what_would_be_refused_is_refused_when_it_is_tried() {
    let (lab, requests) = lab().await;
    let of_running = requests["cancelTask"].1.replace("cancel", "rollback");
    let of_failed = requests["retryTask"].1.replace("retry", "cancel");
    for path in [of_running, of_failed, requests["cancelTask"].1.replace("cancel", "releaseLocks")] {
        let answer = lab.post(&format!("{path}?dryRun=true"), json!({})).await;
        assert_eq!(answer.status, 409, "{path}: {}", answer.text);
        assert!(answer.text.contains("TSK10007"), "{}", answer.text);
    }
    assert_eq!(lab.delete("/api/v2/compute/hosts/2?dryRun=true").await.status, 409);
    assert_eq!(lab.delete("/api/v2/software-packages/1?dryRun=true").await.status, 409);
    assert_eq!(lab.delete("/api/v2/compute/hosts/9?dryRun=true").await.status, 404);
    assert_eq!(lab.upload_to("?dryRun=true", UNKNOWN, b"no package").await.status, 400);
    let stored = lab.packages_dir().join(
        lab.get("/api/v2/software-packages?keyword=1.9.1.1").await.data()["contents"][0]["sha256"].as_str().unwrap(),
    );
    let same = std::fs::read(stored.join(OBPROXY)).unwrap();
    let known = lab.upload_to("?dryRun=true", OBPROXY, &same).await.data();
    assert_eq!(known["id"], 1, "it is there already");
    let known = json!({"hostBasicDataList": [{"innerIpAddress": "192.0.2.1"}]});
    assert_eq!(lab.post("/api/v2/compute/hosts/batchCreate?dryRun=true", known).await.status, 409);
}
