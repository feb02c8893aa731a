//! Packages: lists that are narrowed, and removals that somebody stands in the way of.

use crate::support::{Lab, OBPROXY, deb, failure, package};
use serde_json::{Value, json};

const PACKAGES: &str = "/api/v2/software-packages";
const AGENT: &str = "oblet-agent_0.1.0-2_amd64.deb";

/// Five packages, oldest first.
async fn stocked() -> Lab {
    let lab = Lab::furnished().await;
    for (name, version, release, architecture) in [
        ("obproxy", "1.9.1.1", "1919579.el7", "aarch64"),
        ("obproxy-ce", "4.3.1.0", "4.el8", "x86_64"),
        ("oceanbase", "4.2.1.0", "1.el7", "x86_64"),
    ] {
        let file = format!("{name}-{version}-{release}.{architecture}.rpm");
        lab.upload(&file, &package(name, version, release, architecture)).await.data();
    }
    lab.upload(AGENT, &deb("oblet-agent", "0.1.0-2", "amd64")).await.data();
    lab
}

async fn ids(lab: &Lab, query: &str) -> Vec<i64> {
    let page = lab.get(&format!("{PACKAGES}?{query}")).await.data();
    page["contents"].as_array().unwrap().iter().map(|package| package["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn a_list_is_narrowed_by_repeated_and_by_joined_parameters() {
    let lab = stocked().await;
    let (proxy, server, agent) = ("OBPROXY_INSTALL_PACKAGE", "OB_SERVER_INSTALL_PACKAGE", "OCP_AGENT_INSTALL_PACKAGE");
    let cases = [
        (String::new(), &[5, 4, 3, 2, 1][..]),
        (format!("type={server}"), &[4]),
        (format!("type={server},{agent}"), &[5, 4]),
        (format!("type={server}&type={agent}"), &[5, 4]),
        (format!("type={server},{server}&type={agent},{proxy}"), &[5, 4, 3, 2, 1]),
        ("type=OB_BACKUP_AGENT_INSTALL_PACKAGE".into(), &[]),
        ("type=".into(), &[5, 4, 3, 2, 1]),
        ("version=4.3.1.0,4.2.1.0".into(), &[4, 3]),
        ("version=4.3.1.0&version=0.1.0".into(), &[5, 3]),
        ("version=4.3".into(), &[]),
        ("operatingSystem=el8".into(), &[3]),
        ("operatingSystem=el7,el8".into(), &[4, 3, 2, 1]),
        ("architecture=aarch64&architecture=amd64".into(), &[5, 2]),
        ("keyword=obproxy".into(), &[3, 2, 1]),
        ("keyword=%25".into(), &[]),
        (format!("keyword=1.9&type={proxy}&version=1.9.1.1&operatingSystem=el7&architecture=x86_64"), &[1]),
        (format!("type={proxy}&sort=id,asc"), &[1, 2, 3]),
        (format!("type={proxy}&size=2"), &[3, 2]),
        (format!("type={proxy}&size=2&page=2"), &[1]),
        (format!("type={proxy}&size=2&page=3"), &[]),
        ("page=9223372036854775807".into(), &[]),
    ];
    for (query, expected) in cases {
        assert_eq!(ids(&lab, &query).await, expected, "{query}");
    }
    let answer = lab.get(&format!("{PACKAGES}?operatingSystem=el8&size=2")).await;
    let mut envelope = answer.envelope();
    let entry = envelope["data"]["contents"][0].as_object_mut().unwrap();
    for digest in ["sha1", "sha256", "size"] {
        assert!(entry.remove(digest).is_some(), "{digest}");
    }
    let expected = json!({
        "data": {
            "contents": [{
                "id": 3, "name": "obproxy-ce", "fileName": "obproxy-ce-4.3.1.0-4.el8.x86_64.rpm", "extension": "rpm",
                "type": proxy, "version": "4.3.1.0", "buildNumber": "4", "operatingSystem": "el8",
                "architecture": "x86_64", "createTime": "TIME",
            }],
            "page": {"number": 1, "size": 2, "totalElements": 1, "totalPages": 1},
        },
        "successful": true, "status": 200,
    });
    assert_eq!(envelope, expected);
}

#[tokio::test]
async fn a_bad_filter_is_refused() {
    let lab = stocked().await;
    let (message, _) = lab.get(&format!("{PACKAGES}?type=RPM")).await.refusal(400, "COM10001");
    assert_eq!(
        message,
        "COM10001: type: \"RPM\" is not one of OB_SERVER_INSTALL_PACKAGE, OCP_AGENT_INSTALL_PACKAGE, \
         OBPROXY_INSTALL_PACKAGE, OB_BACKUP_AGENT_INSTALL_PACKAGE"
    );
    let many = |name: &str| format!("{name}={}", vec!["x"; 101].join(","));
    let (versions, systems, architectures) = (many("version"), many("operatingSystem"), many("architecture"));
    for query in [
        "type=obproxy_install_package",
        "type=OBPROXY_INSTALL_PACKAGE,RPM",
        "type=OBPROXY_INSTALL_PACKAGE&type=1",
        &versions,
        &systems,
        &architectures,
        "page=0",
        "page=-1",
        "page=x",
        "page=9223372036854775808",
        "size=0",
        "size=2001",
        "size=ten",
    ] {
        let answer = lab.get(&format!("{PACKAGES}?{query}")).await;
        let (name, _) = query.split_once('=').unwrap();
        answer.refusal(400, "COM10001");
        assert_eq!(answer.json()["error"]["target"], name, "{}", answer.text);
    }
    lab.get(&format!("{PACKAGES}?sort=name,asc")).await.refusal(400, "COM10011");
    let most = vec!["x"; 100].join(",");
    assert_eq!(ids(&lab, &format!("version={most}&operatingSystem={most}&architecture={most}")).await, [0_i64; 0]);
}

#[tokio::test]
async fn a_package_of_proxies_stays_and_they_are_named() {
    let lab = stocked().await;
    let failed = lab.failed_task(failure()).await;
    let task = &failed["id"];
    let answer = lab.delete(&format!("{PACKAGES}/1")).await;
    let name = "obproxy-1.9.1.1-1919579.el7.x86_64";
    let expected = json!({
        "error": {
            "code": 10007,
            "message": format!("PKG10007: {name} is in use by proxy 1, task {task}"),
            "subErrors": [
                {"field": "proxy 1", "message": "CREATING in OBProxy cluster test, on host 2 (192.0.2.2)"},
                {"field": format!("task {task}"), "message": "Install obproxy, FAILED"},
            ],
            "nextMove": "keep the package as long as a proxy uses it",
        },
        "successful": false, "status": 409,
    });
    assert_eq!(answer.envelope(), expected);

    // More of them than are named.
    let body = |port: i64| json!({"hostIds": [1], "sqlPort": port, "exporterPort": port + 1, "version": OBPROXY});
    for number in 0..12 {
        let path = "/api/v2/obproxy/clusters/1/obproxies/batchAdd";
        let made = lab.post(path, body(3000 + 10 * number)).await.data()["contents"][0].take();
        lab.finish(&made).await;
    }
    let answer = lab.delete(&format!("{PACKAGES}/1")).await;
    let (message, _) = answer.refusal(409, "PKG10007");
    let proxies: Vec<String> = (1..=9).map(|id| format!("proxy {id}")).collect();
    let expected = format!("PKG10007: {name} is in use by {}, task {task} and others", proxies.join(", "));
    assert_eq!(message, expected);
    assert_eq!(answer.json()["error"]["subErrors"].as_array().unwrap().len(), 10);
    // The same version for other machines is another package.
    lab.delete(&format!("{PACKAGES}/2")).await.data();
    assert_eq!(ids(&lab, "keyword=obproxy-1.9").await, [1]);
}

#[tokio::test]
async fn a_package_that_an_unfinished_task_needs_stays_until_the_task_is_done() {
    let lab = stocked().await;
    let upgrade = async || {
        let body = json!({"hostIds": [1, 2], "packages": [5], "parallel": 1});
        lab.post("/api/v2/compute/hosts/batchUpgradeAgents", body).await.data()
    };
    let refused = async |tasks: &str, status: &str| {
        let answer = lab.delete(&format!("{PACKAGES}/5")).await;
        let (message, next) = answer.refusal(409, "PKG10007");
        assert_eq!(message, format!("PKG10007: {AGENT} is in use by {tasks}"));
        assert_eq!(next, "wait until the tasks are SUCCESSFUL; retry those that are FAILED, or roll them back");
        assert_eq!(answer.json()["error"]["subErrors"][0]["message"], format!("Upgrade OCP agent, {status}"));
    };
    let task = upgrade().await;
    let name = format!("task {}", task["id"]);
    refused(&name, "RUNNING").await;
    lab.begin(&task).await;
    lab.fail(&task, 0).await;
    refused(&name, "FAILED").await;
    // Also while it is undone: what it left on its hosts may have to be compared with the package.
    lab.post(&format!("/api/v2/tasks/instances/{}/rollback", task["id"]), json!({})).await.data();
    refused(&name, "RUNNING").await;
    let second = upgrade().await;
    refused(&format!("{name}, task {}", second["id"]), "RUNNING").await;
    lab.finish(&second).await;
    refused(&name, "RUNNING").await;
    // What nobody needs can go meanwhile.
    lab.delete(&format!("{PACKAGES}/4")).await.data();

    let mut transaction = lab.store.begin().await.unwrap();
    let done = sqlx::query("UPDATE tasks SET status = 'SUCCESSFUL' WHERE id = ?").bind(task["id"].as_i64().unwrap());
    done.execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    lab.delete(&format!("{PACKAGES}/5")).await.data();
    assert_eq!(ids(&lab, "").await, [3, 2, 1]);
}

#[tokio::test]
async fn what_cannot_be_removed_is_refused_and_stays() {
    let lab = stocked().await;
    let path = |id: &str| format!("{PACKAGES}/{id}");
    for id in ["x", "1.5", "9223372036854775808", "1,2", "%20"] {
        lab.delete(&path(id)).await.refusal(400, "COM10001");
    }
    for id in ["0", "-1", "6", "9223372036854775807"] {
        let (message, _) = lab.delete(&path(id)).await.refusal(404, "PKG10014");
        assert_eq!(message, format!("PKG10014: the package {id} does not exist"));
    }
    lab.delete(&path("1?force=true")).await.refusal(400, "COM10001");
    lab.delete(&path("1?dryRun=1")).await.refusal(400, "COM10001");
    lab.delete(&path("1?dryRun=true&dryRun=false")).await.refusal(400, "COM10001");
    lab.delete(PACKAGES).await.refusal(405, "COM10008");
    let nothing: Value = lab.delete(&path("1?dryRun=true")).await.envelope();
    assert_eq!(nothing, json!({"successful": true, "status": 200}));
    assert_eq!(ids(&lab, "").await, [5, 4, 3, 2, 1]);
    assert_eq!(lab.delete(&path("1")).await.envelope(), nothing);
    lab.delete(&path("1")).await.refusal(404, "PKG10014");
}
