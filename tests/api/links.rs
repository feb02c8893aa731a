//! Changes of a proxy cluster that start no task: its address, and its links to OceanBase clusters.

use crate::support::{Lab, OBPROXY};
use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};

const CLUSTERS: &str = "/api/v2/obproxy/clusters";
const CLUSTER: &str = "/api/v2/obproxy/clusters/1";
const LINKS: &str = "/api/v2/obproxy/clusters/1/obLinks";
const ADD: &str = "/api/v2/obproxy/clusters/1/obLinks/batchAdd";
const CONFIG: &str = "Action=GetObProxyConfig&ObproxyClusterName=test";

fn link(name: &str, id: i64) -> Value {
    json!({"clusterName": name, "obClusterId": id, "username": "proxyro"})
}

fn links(numbers: std::ops::Range<i64>) -> Value {
    numbers.map(|number| link(&format!("ob{number}"), number)).collect()
}

/// Action and detail of every change so far, newest first.
async fn audit(lab: &Lab) -> Vec<String> {
    let page = lab.get("/api/v2/audit/events?size=200").await.data();
    let text = |event: &Value, member: &str| event[member].as_str().unwrap().to_owned();
    let told = page["contents"].as_array().unwrap().iter();
    let told = told.filter(|event| text(event, "object").starts_with("obproxy cluster"));
    told.map(|event| format!("{}: {}", text(event, "action"), text(event, "detail"))).collect()
}

/// A proxy on a host, as far as the store knows.
async fn add_proxy(lab: &Lab, cluster: i64) -> Value {
    let body = json!({"hostIds": [1], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY});
    lab.post(&format!("{CLUSTERS}/{cluster}/obproxies/batchAdd"), body).await.data()["contents"][0].take()
}

/// A cluster in work mode RS_LIST, with the id 2.
async fn rs_list(lab: &Lab) {
    let body = json!({"name": "listed", "obLinks": [link("ob", 1)], "workMode": "RS_LIST",
        "startupParameters": [{"name": "rootservice_list", "value": "192.0.2.8:2881"}]});
    let made = lab.post(CLUSTERS, body).await.data();
    lab.finish(&made).await;
}

#[tokio::test]
async fn an_address_is_changed_kept_and_removed() {
    let lab = Lab::furnished().await;
    let answer = lab.patch(CLUSTER, json!({"address": "db.example", "port": 2883})).await;
    let expected = json!({
        "data": {
            "id": 1, "name": "test", "address": "db.example", "port": 2883, "workMode": "CONFIG_URL",
            "configUrl": "http://192.0.2.250:8080/services?Action=GetObProxyConfig&User_ID=alibaba&UID=admin&ObproxyClusterName=test",
            "parameterVersion": 1, "creatorId": 100, "creatorName": "admin", "createTime": "TIME", "updateTime": "TIME",
            "obLinks": [], "startupParameters": [], "parameters": [], "versions": [], "topo": [], "obproxies": [],
        },
        "successful": true, "status": 200,
    });
    assert_eq!(answer.envelope(), expected);
    let changed = answer.data();
    assert_ne!(changed["updateTime"], changed["createTime"]);
    assert_eq!(lab.get(CLUSTER).await.data(), changed);
    assert_eq!(lab.patch(CLUSTER, json!({"port": 2883})).await.data(), changed, "nothing is new");

    let kept = lab.patch(CLUSTER, json!({"port": 3306})).await.data();
    assert_eq!((&kept["address"], &kept["port"]), (&json!("db.example"), &json!(3306)));
    let removed = lab.patch(CLUSTER, json!({"address": null})).await.data();
    assert_eq!((removed.get("address"), &removed["port"]), (None, &json!(3306)));
    // As at the creation: an empty address is none, and so is port 0.
    lab.patch(CLUSTER, json!({"address": "db.example"})).await.data();
    let removed = lab.patch(CLUSTER, json!({"address": "", "port": 0})).await.data();
    assert_eq!((removed.get("address"), removed.get("port")), (None, None));

    let tried = lab.patch(&format!("{CLUSTER}?dryRun=true"), json!({"address": "tried.example"})).await.data();
    assert_eq!(tried["address"], "tried.example");
    assert_eq!(lab.get(CLUSTER).await.data(), removed);
    let expected = [
        "obproxyCluster.update: test, from db.example, port 3306 to no address, no port",
        "obproxyCluster.update: test, from no address, port 3306 to db.example, port 3306",
        "obproxyCluster.update: test, from db.example, port 3306 to no address, port 3306",
        "obproxyCluster.update: test, from db.example, port 2883 to db.example, port 3306",
        "obproxyCluster.update: test, from no address, no port to db.example, port 2883",
        "obproxyCluster.create: test, by task 1",
    ];
    assert_eq!(audit(&lab).await, expected);
}

#[tokio::test]
async fn a_bad_address_is_refused_and_nothing_is_changed() {
    let lab = Lab::furnished().await;
    let before = lab.get(CLUSTER).await.data();
    let cases = [
        (json!({}), "COM10001"),
        (json!({"address": "two words"}), "COM10001"),
        (json!({"address": "bell\u{7}"}), "COM10001"),
        (json!({"address": "x".repeat(256)}), "COM10001"),
        (json!({"address": 7}), "COM10001"),
        (json!({"port": 65536}), "COM10001"),
        (json!({"port": -1}), "COM10001"),
        (json!({"port": "2883"}), "COM10001"),
        (json!({"port": 28.5}), "COM10001"),
        (json!({"address": "db.example", "surprise": true}), "COM10001"),
        (json!({"name": "other"}), "COM10001"),
        (json!([["db.example", 2883]]), "COM10003"),
        (json!(null), "COM10003"),
    ];
    for (body, code) in cases {
        lab.patch(CLUSTER, body).await.refusal(400, code);
    }
    let good = json!({"address": "db.example"});
    lab.patch(&format!("{CLUSTERS}/x"), good.clone()).await.refusal(400, "COM10001");
    lab.patch(&format!("{CLUSTER}?dryrun=true"), good.clone()).await.refusal(400, "COM10001");
    lab.patch(&format!("{CLUSTERS}/9"), good.clone()).await.refusal(404, "ODP21001");
    let plain = Lab::signed("PATCH", CLUSTER).header(header::CONTENT_TYPE, "text/plain");
    lab.send(plain.body(Body::from(good.to_string())).unwrap()).await.refusal(415, "COM10003");
    let unsigned = Request::patch(CLUSTER).header(header::CONTENT_TYPE, "application/json");
    lab.send(unsigned.body(Body::from(good.to_string())).unwrap()).await.refusal(401, "IAM10000");
    let foreign = Lab::signed("PATCH", CLUSTER).header("sec-fetch-site", "cross-site");
    lab.send(foreign.body(Body::from(good.to_string())).unwrap()).await.refusal(403, "COM10003");
    assert_eq!(lab.get(CLUSTER).await.data(), before);
    assert_eq!(audit(&lab).await.len(), 1);
}

#[tokio::test]
async fn links_are_added_and_removed_and_proxies_learn_of_it_at_once() {
    let lab = Lab::furnished().await;
    let config = async || lab.config(CONFIG).await.json()["Data"].take();
    let regions = |config: &Value| -> Vec<Value> {
        let urls = config["ObRootServiceInfoUrlList"].as_array().unwrap().iter();
        urls.map(|url| url["ObRegion"].clone()).collect()
    };
    let nothing = json!({"successful": true, "status": 200});
    let before = config().await;
    let mut with_id_of_ocp = link("ob2", 2);
    with_id_of_ocp["clusterId"] = json!(77);
    let answer = lab.post(ADD, json!([link("ob1", 1), with_id_of_ocp])).await;
    assert_eq!(answer.envelope(), nothing);
    let added = config().await;
    assert_eq!(regions(&added), ["ob1", "ob2"]);
    assert_ne!(added["Version"], before["Version"]);
    let cluster = lab.get(CLUSTER).await.data();
    assert_eq!(cluster["obLinks"], json!([link("ob1", 1), link("ob2", 2)]));
    assert_eq!(cluster["parameterVersion"], 1);
    assert_ne!(cluster["updateTime"], cluster["createTime"]);

    let answer = lab.delete(&format!("{LINKS}/ob1")).await;
    assert_eq!(answer.envelope(), nothing);
    let removed = config().await;
    assert_eq!(regions(&removed), ["ob2"]);
    assert_ne!(removed["Version"], added["Version"]);
    lab.delete(&format!("{LINKS}/ob2")).await.data();
    assert_eq!(config().await["Version"], before["Version"]);
    let expected = [
        "obproxyCluster.removeLink: test, to ob2, id 2, as proxyro",
        "obproxyCluster.removeLink: test, to ob1, id 1, as proxyro",
        "obproxyCluster.addLink: test, to ob2, id 2, as proxyro",
        "obproxyCluster.addLink: test, to ob1, id 1, as proxyro",
        "obproxyCluster.create: test, by task 1",
    ];
    assert_eq!(audit(&lab).await, expected);
}

/// A client that got no answer repeats its request.
#[tokio::test]
async fn a_link_that_is_there_already_is_not_added_again() {
    let lab = Lab::furnished().await;
    lab.post(ADD, links(1..3)).await.data();
    let before = lab.get(CLUSTER).await.data();
    lab.post(ADD, links(1..3)).await.data();
    assert_eq!(lab.get(CLUSTER).await.data(), before);
    assert_eq!(audit(&lab).await.len(), 3);
    lab.post(ADD, links(2..4)).await.data();
    assert_eq!(lab.get(CLUSTER).await.data()["obLinks"], links(1..4));
    assert_eq!(audit(&lab).await.len(), 4);
}

#[tokio::test]
async fn links_with_names_or_ids_of_others_are_refused_all_together() {
    let lab = Lab::furnished().await;
    lab.post(ADD, links(1..3)).await.data();
    let answer = lab.post(ADD, json!([link("new", 9), link("ob1", 7), link("other", 2), link("new", 9)])).await;
    let expected = json!({
        "error": {
            "code": 10006,
            "message": "COM10006: links have names and ids of their own: ob1:7, other:2, new:9",
            "target": "obLinks",
            "subErrors": [
                {"field": "ob1:7", "message": "the name or the id is that of the link to ob1, id 1, as proxyro"},
                {"field": "other:2", "message": "the name or the id is that of the link to ob2, id 2, as proxyro"},
                {"field": "new:9", "message": "the name or the id is given twice"},
            ],
            "nextMove": "nothing was changed; to change a link, remove it and add it again",
        },
        "successful": false, "status": 409,
    });
    assert_eq!(answer.envelope(), expected);
    let mut other_user = link("ob1", 1);
    other_user["username"] = json!("another");
    for body in [
        json!([other_user]),
        json!([link("a", 3), link("a", 4)]),
        json!([link("a", 3), link("b", 3)]),
        json!([link("a", 3), link("a", 3)]),
    ] {
        lab.post(ADD, body).await.refusal(409, "COM10006");
    }
    assert_eq!(lab.get(CLUSTER).await.data()["obLinks"], links(1..3));
    assert_eq!(audit(&lab).await.len(), 3);
}

#[tokio::test]
async fn bad_links_are_refused_and_nothing_is_changed() {
    let lab = Lab::furnished().await;
    let with = |member: &str, value: Value| {
        let mut bad = link("ob2", 2);
        bad[member] = value;
        json!([link("ob1", 1), bad])
    };
    let cases = [
        (json!([]), "COM10001"),
        (links(0..101), "COM10001"),
        (with("clusterName", json!("a b")), "COM10001"),
        (with("clusterName", json!("../ob")), "COM10001"),
        (with("clusterName", json!("o".repeat(65))), "COM10001"),
        (with("clusterName", Value::Null), "COM10001"),
        (with("obClusterId", json!("2")), "COM10001"),
        (with("obClusterId", json!(2.5)), "COM10001"),
        (with("username", json!("")), "COM10001"),
        (with("username", json!("u".repeat(129))), "COM10001"),
        (with("username", json!("\u{1b}[31m")), "COM10001"),
        (with("surprise", json!(true)), "COM10001"),
        (json!([{"clusterName": "ob1", "username": "proxyro"}]), "COM10001"),
        (json!([["ob1", 1, "proxyro", null]]), "COM10001"),
        (json!([link("ob1", 1), 7]), "COM10001"),
        (link("ob1", 1), "COM10003"),
        (json!("ob1"), "COM10003"),
    ];
    for (body, code) in cases {
        lab.post(ADD, body).await.refusal(400, code);
    }
    let wrong = lab.post(ADD, with("clusterName", json!("a b"))).await.json();
    assert_eq!(wrong["error"]["target"], "[1].clusterName");
    lab.post_text(ADD, "[{".into()).await.refusal(400, "COM10003");
    lab.post(&format!("{ADD}?dryRun=maybe"), links(1..2)).await.refusal(400, "COM10001");
    lab.post(&format!("{CLUSTERS}/9/obLinks/batchAdd"), links(1..2)).await.refusal(404, "ODP21001");
    let long = format!("[{}]", " ".repeat(1 << 20));
    lab.post_text(ADD, long).await.refusal(413, "COM10003");
    assert_eq!(lab.get(CLUSTER).await.data()["obLinks"], json!([]));

    // A hundred in all, however they came.
    lab.post(ADD, links(0..60)).await.data();
    let (message, _) = lab.post(ADD, links(60..101)).await.refusal(400, "COM10001");
    assert_eq!(message, "COM10001: obLinks: a proxy cluster has at most 100 links; it has 60 and would have 101");
    lab.post(ADD, links(60..100)).await.data();
    assert_eq!(lab.get(CLUSTER).await.data()["obLinks"], links(0..100));
    // All of them again, of which none is new.
    lab.post(ADD, links(0..100)).await.data();
}

#[tokio::test]
async fn what_is_no_link_is_not_removed() {
    let lab = Lab::furnished().await;
    lab.post(ADD, links(1..3)).await.data();
    let (message, next) = lab.delete(&format!("{LINKS}/ob9")).await.refusal(404, "ODP21011");
    assert_eq!(message, "ODP21011: the OBProxy cluster test has no link to \"ob9\"");
    assert_eq!(next, "see its links with: oblet obproxy show test");
    for name in ["OB1", "ob", "ob1%20", "%2e%2e%2fob1", "ob1%2fob2", "ob1,ob2", "*", "1", "%00", "%1b%5b31m"] {
        let answer = lab.delete(&format!("{LINKS}/{name}")).await;
        answer.refusal(404, "ODP21011");
        assert!(!answer.text.contains('\u{1b}'), "{}", answer.text);
    }
    lab.delete(&format!("{LINKS}/%ff")).await.refusal(400, "COM10001");
    lab.delete(&format!("{CLUSTERS}/x/obLinks/ob1")).await.refusal(400, "COM10001");
    lab.delete(&format!("{CLUSTERS}/9/obLinks/ob1")).await.refusal(404, "ODP21001");
    lab.delete(&format!("{LINKS}/ob1?force=true")).await.refusal(400, "COM10001");
    lab.delete(&format!("{LINKS}/")).await.refusal(404, "COM10998");
    lab.delete(LINKS).await.refusal(404, "COM10998");
    assert_eq!(lab.get(CLUSTER).await.data()["obLinks"], links(1..3));
    lab.delete(&format!("{LINKS}/ob1")).await.data();
    lab.delete(&format!("{LINKS}/ob1")).await.refusal(404, "ODP21011");
}

#[tokio::test]
async fn a_cluster_that_a_task_has_for_itself_is_not_changed() {
    let lab = Lab::furnished().await;
    let body = json!({"name": "second", "obLinks": [link("ob1", 1)]});
    let task = lab.post(CLUSTERS, body).await.data();
    let second = format!("{CLUSTERS}/2");
    let all = async || {
        [
            lab.patch(&second, json!({"port": 3306})).await,
            lab.post(&format!("{second}/obLinks/batchAdd"), json!([link("ob2", 2)])).await,
            lab.delete(&format!("{second}/obLinks/ob1")).await,
        ]
    };
    for answer in all().await {
        let (message, next) = answer.refusal(409, "ODP21010");
        assert!(message.starts_with("ODP21010: obproxy cluster 2 is reserved by task "), "{message}");
        assert_eq!(next, format!("wait until task {0} has ended: oblet task watch {0}", task["id"]));
    }
    lab.finish(&task).await;
    for answer in all().await {
        answer.data();
    }
    // Adding a proxy reserves the cluster together with others.
    add_proxy(&lab, 1).await;
    lab.patch(CLUSTER, json!({"port": 3306})).await.data();
    lab.post(ADD, links(1..2)).await.data();
    lab.delete(&format!("{LINKS}/ob1")).await.data();
}

#[tokio::test]
async fn the_link_of_a_listed_cluster_stays_while_it_has_proxies() {
    let lab = Lab::furnished().await;
    rs_list(&lab).await;
    let (add, remove) = (format!("{CLUSTERS}/2/obLinks/batchAdd"), format!("{CLUSTERS}/2/obLinks/ob"));
    let (message, next) = lab.post(&add, json!([link("second", 2)])).await.refusal(409, "ODP21010");
    assert!(message.ends_with("listed is RS_LIST: it has one link to an OceanBase cluster, and no more"), "{message}");
    assert_eq!(next, "remove its link first, or create another OBProxy cluster");

    // A name that was misspelt is corrected, and no proxy is added in between.
    lab.delete(&remove).await.data();
    let body = json!({"hostIds": [1], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY});
    let install = format!("{CLUSTERS}/2/obproxies/batchAdd");
    let (message, next) = lab.post(&install, body).await.refusal(409, "ODP21010");
    assert!(message.contains("the OBProxy cluster listed takes no proxies: "), "{message}");
    assert_eq!(next, "add its link first: oblet obproxy add-link listed NAME:OB_CLUSTER_ID");
    lab.post(&add, json!([link("second", 2), link("third", 3)])).await.refusal(409, "ODP21010");
    lab.post(&add, json!([link("ob", 2)])).await.data();

    let proxy = add_proxy(&lab, 2).await;
    for _ in 0..2 {
        for answer in [lab.post(&add, json!([link("second", 3)])).await, lab.delete(&remove).await] {
            let (message, next) = answer.refusal(409, "ODP21010");
            let expected = "ODP21010: the work mode of listed is RS_LIST: its 1 proxy was told the OceanBase cluster and its \
                            servers when they were started, so the link cannot change while there are proxies";
            assert_eq!(message, expected);
            assert_eq!(next, "create another OBProxy cluster for the other OceanBase cluster");
        }
        lab.post(&add, json!([link("ob", 2)])).await.data();
        if lab.get(&format!("/api/v2/tasks/instances/{}", proxy["id"])).await.data()["status"] == "RUNNING" {
            lab.finish(&proxy).await;
        }
    }
    assert_eq!(lab.get(&format!("{CLUSTERS}/2")).await.data()["obLinks"], json!([link("ob", 2)]));
    lab.patch(&format!("{CLUSTERS}/2"), json!({"address": "db.example"})).await.data();
}
