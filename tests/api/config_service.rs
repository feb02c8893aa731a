//! The config service: what observers may report, and what proxies are told.

use crate::support::{Answer, Lab, answer_of};
use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request},
};
use oblet::coordinator::store::now_micros;
use serde_json::{Value, json};
use std::{collections::HashSet, net::SocketAddr};

/// A host of the lab.
const OBSERVER: &str = "192.0.2.1";
const REPORT: &str = "Action=ObRootServiceInfo&ObCluster=ob&version=2&ObClusterId=1";

/// A lab with two hosts, and two proxy clusters: one that links to the clusters ob (1) and other (7), and one that links to
/// ob (2).
async fn lab() -> Lab {
    let lab = Lab::new().await;
    lab.have_hosts(&["192.0.2.1", "192.0.2.2"]).await;
    link(&lab, "test", &[("ob", 1), ("other", 7)]).await;
    link(&lab, "standby", &[("ob", 2)]).await;
    lab
}

/// Creates a proxy cluster with links.
async fn link(lab: &Lab, name: &str, clusters: &[(&str, i64)]) {
    let link = |(name, id): &(&str, i64)| json!({"clusterName": name, "obClusterId": id, "username": "proxyro"});
    let links: Value = clusters.iter().map(link).collect();
    lab.post("/api/v2/obproxy/clusters", json!({"name": name, "obLinks": links})).await.data();
}

fn now() -> i64 {
    now_micros()
}

/// What the leader of the RootService of ob (1) sends, in the order of its members (R3).
fn body(timestamp: i64) -> Value {
    json!({
        "ObRegion": "ob",
        "ObCluster": "ob",
        "ObRegionId": 1,
        "ObClusterId": 1,
        "Type": "PRIMARY",
        "timestamp": timestamp,
        "RsList": [
            {"address": "192.0.2.1:2882", "role": "LEADER", "sql_port": 2881},
            {"address": "192.0.2.2:2882", "role": "FOLLOWER", "sql_port": 2881},
        ],
        "ReadonlyRsList": [{"address": "198.51.100.200:2882", "role": "FOLLOWER", "sql_port": 2881}],
    })
}

/// The same with another member, or another member of its first server.
fn with(path: &str, value: Value) -> Value {
    let mut body = body(now());
    *body.pointer_mut(path).unwrap() = value;
    body
}

fn request(peer: &str, method: &Method, query: &str, body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(format!("/services?{query}"));
    let request = request.header("content-type", "application/json");
    let mut request = request.body(Body::from(body.to_owned())).unwrap();
    let peer: SocketAddr = format!("{peer}:40000").parse().unwrap();
    request.extensions_mut().insert(ConnectInfo(peer));
    request
}

async fn send(service: &Router, peer: &str, method: Method, query: &str, body: &Value) -> Answer {
    answer_of(service, request(peer, &method, query, &body.to_string())).await
}

async fn report(lab: &Lab, query: &str, body: &Value) -> Answer {
    send(lab.config_service(), OBSERVER, Method::POST, query, body).await
}

async fn forget(lab: &Lab, query: &str) -> Answer {
    send(lab.config_service(), OBSERVER, Method::DELETE, query, &Value::Null).await
}

/// The envelope without what differs from answer to answer.
fn envelope(answer: &Answer) -> Value {
    let mut envelope = answer.json();
    assert_eq!(envelope["Code"], answer.status.as_u16(), "{envelope}");
    let members = envelope.as_object_mut().unwrap();
    let trace = members.remove("Trace").unwrap();
    let is_id = |text: &str| text.len() == 16 && text.chars().all(|c| c.is_ascii_hexdigit());
    assert!(is_id(trace.as_str().unwrap()), "{trace}");
    assert_eq!(members.remove("Server").unwrap(), "192.0.2.250");
    assert!(members.remove("Cost").unwrap().as_u64().unwrap() < 60_000);
    envelope
}

fn success(data: &Value) -> Value {
    json!({"Code": 200, "Message": "successful", "Success": true, "Data": data})
}

/// Status and message of a refusal.
fn refusal(answer: &Answer) -> (u16, String) {
    let envelope = envelope(answer);
    assert_eq!((&envelope["Success"], &envelope["Data"]), (&json!(false), &Value::Null), "{envelope}");
    (answer.status.as_u16(), envelope["Message"].as_str().unwrap().to_owned())
}

/// What is told of ob, from both ways to ask.
async fn told(lab: &Lab) -> Value {
    envelope(&lab.config("Action=ObRootServiceInfo&ObRegion=ob&version=2").await)
}

/// Refuses a document that obproxy would refuse (G2 to G5), and answers its clusters with their URLs.
fn as_obproxy(answer: &Answer) -> Vec<(String, String)> {
    let envelope = answer.json();
    assert!(answer.status.is_success() && envelope["Message"] == "successful" && envelope["Success"] == true);
    let data = &envelope["Data"];
    let text = |value: &Value| {
        let text = value.as_str().unwrap_or_else(|| panic!("{value} is no text: {data}"));
        assert!(!text.is_empty(), "{data}");
        text.to_owned()
    };
    assert!(text(&data["Version"]).len() <= 32);
    text(&data["ObProxyBinUrl"]);
    for member in ["DataBase", "MetaDataBase", "User", "Password"] {
        text(&data["ObProxyDatabaseInfo"][member]);
    }
    let mut clusters: Vec<(String, String)> = Vec::new();
    for entry in data["ObRootServiceInfoUrlList"].as_array().into_iter().flatten() {
        clusters.push((text(&entry["ObRegion"]), text(&entry["ObRootServiceInfoUrl"])));
    }
    for name in data["ObClusterList"].as_array().into_iter().flatten() {
        // What follows the name is cut off (G11).
        let template = text(&data["ObRootServiceInfoUrlTemplate"]);
        let (before, _) = template.split_once("${ObRegion}").unwrap();
        clusters.push((text(name), format!("{before}{}", text(name))));
    }
    let names: HashSet<_> = clusters.iter().map(|(name, _)| name).collect();
    assert!(names.len() == clusters.len() && !names.is_empty(), "{data}");
    clusters
}

#[tokio::test]
async fn a_report_is_told_to_proxies_as_it_came() {
    let lab = lab().await;
    assert_eq!(refusal(&lab.config("Action=ObRootServiceInfo&ObRegion=ob").await).0, 404);
    let first = body(now());
    assert_eq!(envelope(&report(&lab, REPORT, &first).await), success(&json!("successful")));
    // As obproxy asks: without an id for the list, with one for a single cluster (G6).
    assert_eq!(told(&lab).await, success(&json!([first])));
    for query in [
        "ObRegion=ob&version=2&ObRegionId=1",
        "ObCluster=ob&version=2&ObClusterId=1",
        "ObCluster=ob",
        "ObRegion=ob&version=1",
    ] {
        let answer = lab.config(&format!("Action=ObRootServiceInfo&User_ID=alibaba&UID=admin&{query}")).await;
        assert_eq!(envelope(&answer), success(&first), "{query}");
    }
    for query in ["ObRegion=OB", "ObRegion=ob&ObRegionId=2", "ObRegion=ob&version=2&ObRegionId=2"] {
        assert_eq!(refusal(&lab.config(&format!("Action=ObRootServiceInfo&{query}")).await).0, 404, "{query}");
    }
}

#[tokio::test]
async fn of_the_clusters_of_a_name_the_primary_is_told_to_whoever_wants_one() {
    let lab = lab().await;
    let mut standby = with("/Type", json!("STANDBY"));
    standby["ObClusterId"] = json!(2);
    standby["ObRegionId"] = json!(2);
    let primary = body(now() - 1_000_000);
    for (query, body) in [("Action=ObRootServiceInfo&version=2&ObClusterId=2", &standby), (REPORT, &primary)] {
        assert_eq!(envelope(&report(&lab, query, body).await), success(&json!("successful")));
    }
    assert_eq!(told(&lab).await, success(&json!([primary, standby])));
    for version in ["", "&version=1"] {
        let one = lab.config(&format!("Action=ObRootServiceInfo&ObRegion=ob{version}")).await;
        assert_eq!(envelope(&one), success(&primary));
    }
    let second = lab.config("Action=ObRootServiceInfo&ObRegion=ob&version=2&ObRegionId=2").await;
    assert_eq!(envelope(&second), success(&standby));
}

/// Observers before version 2 know no ids and no types.
#[tokio::test]
async fn a_report_without_an_id_is_of_the_only_cluster_of_its_name() {
    let lab = lab().await;
    let old = |name: &str| {
        let server = json!({"address": "192.0.2.1:2882", "role": "LEADER", "sql_port": 2881});
        json!({"ObRegion": name, "RsList": [server], "timestamp": now()})
    };
    let answer = report(&lab, "Action=ObRootServiceInfo&ObRegion=other", &old("other")).await;
    assert_eq!(envelope(&answer), success(&json!("successful")));
    let told = lab.config("Action=ObRootServiceInfo&ObRegion=other").await.json();
    assert_eq!((&told["Data"]["ObClusterId"], &told["Data"]["Type"]), (&json!(7), &json!("PRIMARY")));
    let (status, message) = refusal(&report(&lab, "Action=ObRootServiceInfo&ObRegion=ob", &old("ob")).await);
    assert!(status == 400 && message.contains("ObClusterId is missing"), "{message}");
}

#[tokio::test]
async fn the_documents_are_such_as_obproxy_takes() {
    let lab = lab().await;
    let cluster = lab.get("/api/v2/obproxy/clusters/1").await.data();
    let (_, query) = cluster["configUrl"].as_str().unwrap().split_once('?').unwrap();
    let url = |name: &str| {
        let base = "http://192.0.2.250:8080/services?Action=ObRootServiceInfo";
        (name.to_owned(), format!("{base}&User_ID=alibaba&UID=admin&ObRegion={name}"))
    };
    // Its own links in their order, whether the clusters have reported or not.
    assert_eq!(as_obproxy(&lab.config(query).await), [url("ob"), url("other")]);
    let template = query.replace("GetObProxyConfig", "GetObRootServiceInfoUrlTemplate");
    let names = as_obproxy(&lab.config(&template).await).into_iter().map(|(name, url)| {
        let query = url.split_once('?').unwrap().1.to_owned();
        assert_eq!(query, format!("Action=ObRootServiceInfo&ObRegion={name}"));
        name
    });
    assert_eq!(names.collect::<Vec<_>>(), ["ob", "other"]);
    // Where they are told to ask, the report is.
    let first = body(now());
    report(&lab, REPORT, &first).await;
    for (name, url) in as_obproxy(&lab.config(query).await) {
        let answer = lab.config(&format!("{}&version=2", url.split_once('?').unwrap().1)).await;
        assert_eq!(answer.status.is_success(), name == "ob");
    }
}

#[tokio::test]
async fn the_document_of_url_templates_has_all_its_members() {
    let lab = lab().await;
    let answer = envelope(&lab.config("Action=GetObRootServiceInfoUrlTemplate&ObproxyClusterName=test").await);
    let base = "http://192.0.2.250:8080";
    let list = format!("{base}/services?Action=ObRootServiceInfo");
    let document = json!({
        "ObProxyBinUrl": format!("{base}/client?Action=GetObProxy"),
        "ObProxyDatabaseInfo": {
            "DataBase": "none",
            "MetaDataBase": format!("{list}&User_ID=alibaba&UID=admin&ObRegion=none"),
            "User": "none",
            "Password": "none",
        },
        "ObClusterList": ["ob", "other"],
        "ObRootServiceInfoUrlTemplate": format!("{list}&ObRegion=${{ObRegion}}"),
        "ObRootServiceInfoUrlTemplateV2":
            format!("{list}&version=2&ObCluster=${{ObCluster}}&ObClusterId=${{OBClusterId}}"),
        "Version": answer["Data"]["Version"],
    });
    assert_eq!(answer, success(&document));
}

#[tokio::test]
async fn a_version_changes_exactly_when_its_document_does() {
    let lab = lab().await;
    let mut versions = HashSet::new();
    for action in ["GetObProxyConfig", "GetObRootServiceInfoUrlTemplate"] {
        for name in ["test", "standby"] {
            let query = format!("Action={action}&Unknown=1&ObproxyClusterName={name}");
            let whole = envelope(&lab.config(&query).await);
            for method in [Method::GET, Method::POST] {
                let again = send(lab.config_service(), "203.0.113.1", method.clone(), &query, &json!({})).await;
                assert_eq!(envelope(&again), whole);
                let only = format!("{query}&VersionOnly=true");
                let only = send(lab.config_service(), "203.0.113.1", method, &only, &json!({})).await;
                assert_eq!(envelope(&only), success(&json!({"Version": whole["Data"]["Version"]})));
            }
            // The servers of a cluster are no part of the document.
            report(&lab, REPORT, &body(now())).await;
            assert_eq!(envelope(&lab.config(&query).await), whole);
            assert!(versions.insert(whole["Data"]["Version"].as_str().unwrap().to_owned()));
            assert_eq!(envelope(&forget(&lab, REPORT).await), success(&json!("successful")));
        }
    }
}

#[tokio::test]
async fn a_proxy_of_no_proxy_cluster_is_told_of_all_clusters_that_have_reported() {
    let lab = lab().await;
    for (action, list) in
        [("GetObProxyConfig", "ObRootServiceInfoUrlList"), ("GetObRootServiceInfoUrlTemplate", "ObClusterList")]
    {
        let query = format!("Action={action}");
        assert_eq!(lab.config(&query).await.json()["Data"][list], json!([]));
        let mut other = body(now());
        for (member, value) in [
            ("ObCluster", json!("other")),
            ("ObRegion", json!("other")),
            ("ObClusterId", json!(7)),
            ("ObRegionId", json!(7)),
        ] {
            other[member] = value;
        }
        assert!(report(&lab, "Action=ObRootServiceInfo&version=2", &other).await.status.is_success());
        let one = lab.config(&query).await;
        assert!(report(&lab, REPORT, &body(now())).await.status.is_success());
        let both = lab.config(&query).await;
        let names: Vec<String> = as_obproxy(&both).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["ob", "other"]);
        assert_ne!(one.json()["Data"]["Version"], both.json()["Data"]["Version"]);
        for query in [REPORT, "Action=ObRootServiceInfo&ObCluster=other&version=2&ObClusterId=7"] {
            assert!(forget(&lab, query).await.status.is_success());
        }
    }
    let unknown = lab.config("Action=GetObRootServiceInfoUrlTemplate&ObproxyClusterName=none").await;
    assert_eq!(refusal(&unknown).0, 404);
}

#[tokio::test]
async fn a_cluster_that_has_reported_has_no_data_centres() {
    let lab = lab().await;
    assert_eq!(refusal(&lab.config("Action=ObIDCRegionInfo&ObRegion=ob").await).0, 404);
    report(&lab, REPORT, &body(now())).await;
    let one = json!({"ObRegion": "ob", "ObRegionId": 1, "IDCList": [], "ReadonlyRsList": ""});
    for (query, data) in [("", &one), ("&version=2&ObRegionId=1", &one), ("&version=2", &json!([one]))] {
        for method in [Method::GET, Method::POST] {
            let query = format!("Action=ObIDCRegionInfo&User_ID=alibaba&UID=admin&ObRegion=ob{query}");
            let answer = send(lab.config_service(), "203.0.113.1", method, &query, &json!({})).await;
            assert_eq!(envelope(&answer), success(data), "{query}");
        }
    }
}

#[tokio::test]
async fn nobody_reports_but_observers_that_are_known() {
    let lab = lab().await;
    let service = lab.config_service();
    // Nobody else, whatever he sends and claims.
    for peer in ["203.0.113.1", "198.51.100.1", "127.0.0.1", "[::1]", "0.0.0.0", "192.0.2.3"] {
        for (method, body) in [(Method::POST, body(now())), (Method::POST, json!("x")), (Method::DELETE, Value::Null)] {
            let mut request = request(peer, &method, REPORT, &body.to_string());
            for header in ["x-forwarded-for", "x-real-ip", "forwarded"] {
                request.headers_mut().insert(header, OBSERVER.parse().unwrap());
            }
            let (status, message) = refusal(&answer_of(service, request).await);
            let address = peer.trim_matches(['[', ']']);
            let told = message.starts_with(&format!("{address} may not report"));
            assert!(status == 403 && told && message.contains("config_service_reporters"), "{message}");
        }
    }
    let unseen = Request::post(format!("/services?{REPORT}")).body(Body::from(body(now()).to_string())).unwrap();
    assert_eq!(refusal(&answer_of(service, unseen).await).0, 403);
    let mut page = request(OBSERVER, &Method::POST, REPORT, &body(now()).to_string());
    page.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    assert_eq!(refusal(&answer_of(service, page).await).0, 403);
    assert_eq!(refusal(&lab.config("Action=ObRootServiceInfo&ObRegion=ob").await).0, 404);

    // A host, also as a listener for both families sees it, and an address that the setting names.
    let mut time = now();
    for peer in [OBSERVER, "[::ffff:192.0.2.2]", "198.51.100.200"] {
        time += 1;
        let answer = send(service, peer, Method::POST, REPORT, &body(time)).await;
        assert_eq!(envelope(&answer), success(&json!("successful")), "{peer}");
    }
    lab.post("/api/v2/compute/hosts/revoke", json!({"hostId": 1})).await.data();
    for method in [Method::POST, Method::DELETE] {
        let (status, message) = refusal(&send(service, OBSERVER, method, REPORT, &body(now())).await);
        assert!(status == 403 && message.contains("was revoked"), "{message}");
    }
}

#[tokio::test]
async fn only_clusters_with_links_and_servers_that_are_known_are_reported() {
    let lab = lab().await;
    let mut unlinked = with("/ObClusterId", json!(3));
    unlinked["ObRegionId"] = json!(3);
    let (status, message) = refusal(&report(&lab, "Action=ObRootServiceInfo&ObCluster=ob&version=2", &unlinked).await);
    assert!(status == 403 && message.contains("clusterName ob and obClusterId 3"), "{message}");
    for path in ["/RsList/1/address", "/ReadonlyRsList/0/address"] {
        let (status, message) = refusal(&report(&lab, REPORT, &with(path, json!("203.0.113.66:2882"))).await);
        assert!(status == 403 && message.contains("names 203.0.113.66, which may not report itself"), "{message}");
    }
    assert_eq!(told(&lab).await["Code"], 404);
    // A cluster that was stored may report without a link.
    report(&lab, REPORT, &body(now())).await;
    let mut transaction = lab.store.begin().await.unwrap();
    assert!(oblet::coordinator::store::obproxy::delete(&mut transaction, 1).await.unwrap());
    transaction.commit().await.unwrap();
    let standby = with("/Type", json!("STANDBY"));
    assert_eq!(envelope(&report(&lab, REPORT, &standby).await), success(&json!("successful")));
    assert_eq!(told(&lab).await, success(&json!([standby])));
    forget(&lab, REPORT).await;
    assert_eq!(refusal(&report(&lab, REPORT, &standby).await).0, 403);
}

#[tokio::test]
async fn a_bad_report_is_refused_by_what_is_wrong_with_it() {
    let lab = lab().await;
    let server = |number: usize| json!({"address": format!("192.0.2.1:{}", 3000 + number), "role": "FOLLOWER", "sql_port": 2881});
    let many: Value = (0..70).map(server).collect();
    for (path, value, told) in [
        ("/ObCluster", json!("a b"), "ObCluster: \"a b\" is not allowed"),
        ("/ObCluster", json!("other"), "two different names of a cluster are given: ob and other"),
        ("/ObRegion", json!(""), "ObRegion: \"\" is not allowed"),
        ("/ObRegion", json!(7), "the body: invalid type"),
        ("/ObClusterId", json!(2), "two different ids of a cluster are given: 1 and 2"),
        ("/ObRegionId", json!(-1), "ObRegionId: -1 is not allowed"),
        ("/ObRegionId", json!(4_294_901_760_i64), "ObRegionId: 4294901760 is not allowed"),
        ("/ObRegionId", json!(1.5), "the body: invalid type"),
        ("/Type", json!("LEADER"), "Type: \"LEADER\" is not one of PRIMARY, STANDBY"),
        ("/Type", json!(""), "Type is missing"),
        ("/timestamp", Value::Null, "timestamp is missing"),
        ("/timestamp", json!(0), "timestamp: 0 is not a time"),
        ("/timestamp", json!(now() + 600_000_000), "more than five minutes ahead"),
        ("/timestamp", json!(i64::MAX), "more than five minutes ahead"),
        ("/RsList", json!([]), "RsList has no server"),
        ("/RsList", json!({}), "the body: invalid type"),
        ("/RsList", many, "a report has at most 64 servers; this one has 71"),
        ("/RsList/0", json!({"role": "LEADER"}), "the body: missing field `address`"),
        ("/RsList/0/address", json!("192.0.2.1"), "RsList[0].address: \"192.0.2.1\" is not allowed"),
        ("/RsList/0/address", json!("db1:2882"), "RsList[0].address: \"db1:2882\" is not allowed"),
        ("/RsList/0/address", json!("192.0.2.1:80"), "RsList[0].address: 80 is not allowed"),
        ("/RsList/0/address", json!("0.0.0.0:2882"), "it is not the address of a server"),
        ("/RsList/0/address", json!("[ff02::1]:2882"), "it is not the address of a server"),
        ("/RsList/0/address", json!("255.255.255.255:2882"), "it is not the address of a server"),
        ("/RsList/0/address", json!("192.0.2.2:2882"), "RsList[1].address: 192.0.2.2:2882 is named twice"),
        (
            "/ReadonlyRsList/0/address",
            json!("192.0.2.1:2882"),
            "ReadonlyRsList[0].address: 192.0.2.1:2882 is named twice",
        ),
        ("/RsList/0/role", json!("leader"), "RsList[0].role: \"leader\" is not one of LEADER, FOLLOWER"),
        ("/RsList/0/sql_port", json!(65536), "RsList[0].sql_port: 65536 is not allowed"),
        ("/RsList/1/sql_port", json!(22), "RsList[1].sql_port: 22 is not allowed"),
    ] {
        let (status, message) = refusal(&report(&lab, REPORT, &with(path, value.clone())).await);
        assert!(status == 400 && message.contains(told), "{path} {value}: {message}");
    }
    for (query, told) in [
        ("Action=ObRootServiceInfo&ObRegion=a%20b", "ObRegion: \"a b\" is not allowed"),
        ("Action=ObRootServiceInfo&ObCluster=ob&ObClusterId=x", "ObClusterId: \"x\" is not a number"),
        ("Action=ObRootServiceInfo&ObCluster=ob&version=3", "version: \"3\" is neither 1 nor 2"),
        ("Action=ObRootServiceInfo&ObCluster=other&ObClusterId=7", "two different names"),
        ("version=2", "the parameter Action is missing"),
    ] {
        let (status, message) = refusal(&report(&lab, query, &body(now())).await);
        assert!(status == 400 && message.contains(told), "{query}: {message}");
    }
    let service = lab.config_service();
    for (text, status, told) in [
        ("", 400, "the body must be a JSON object"),
        ("[\"ob\"]", 400, "the body must be a JSON object"),
        ("{\"ObRegion\": ", 400, "the body: EOF"),
        (&format!("{{\"x\": \"{}\"}}", "x".repeat(65536)), 413, "at most 65536 bytes"),
    ] {
        let answer = refusal(&answer_of(service, request(OBSERVER, &Method::POST, REPORT, text)).await);
        assert!(answer.0 == status && answer.1.contains(told), "{answer:?}");
    }
    let (status, message) = refusal(&lab.config("Action=ObRootServiceInfo&version=2").await);
    assert!(status == 400 && message.contains("ObCluster or ObRegion is missing"), "{message}");
    for action in ["Nonsense", "getobproxyconfig", "%FF", "%1b"] {
        let (status, message) = refusal(&report(&lab, &format!("Action={action}"), &body(now())).await);
        assert!(status == 404 && !message.contains(char::is_control), "{message}");
    }
    assert_eq!(refusal(&forget(&lab, "Action=GetObProxyConfig").await).0, 405);
    assert_eq!(refusal(&send(service, OBSERVER, Method::PUT, REPORT, &body(now())).await).0, 405);
    assert_eq!(told(&lab).await["Code"], 404);
    assert!(!lab.get("/api/v2/audit/events").await.text.contains("config service"));
}

#[tokio::test]
async fn an_older_report_does_not_replace_a_newer_one() {
    let lab = lab().await;
    let newest = now();
    let first = body(newest);
    report(&lab, REPORT, &first).await;
    let mut moved = body(newest - 1);
    moved["RsList"].as_array_mut().unwrap().pop();
    let (status, message) = refusal(&report(&lab, REPORT, &moved).await);
    assert!(status == 409 && message.contains("older than the one that is stored"), "{message}");
    assert_eq!(told(&lab).await, success(&json!([first])));
    moved["timestamp"] = json!(newest + 1);
    assert_eq!(envelope(&report(&lab, REPORT, &moved).await), success(&json!("successful")));
    assert_eq!(told(&lab).await, success(&json!([moved])));
}

#[tokio::test]
async fn a_report_that_changes_nothing_is_not_written() {
    let lab = lab().await;
    let first = body(now());
    report(&lab, REPORT, &first).await;
    forget(&lab, "Action=ObRootServiceInfo&ObCluster=other&version=2&ObClusterId=7").await;
    let written = || std::fs::read(lab.directory.path().join("store.db-wal")).unwrap();
    let before = written();
    for ahead in [0, 1, 1000, -1] {
        let mut again = body(now() + ahead);
        again["RsList"].as_array_mut().unwrap().reverse();
        again["unknown"] = json!({"ignored": true});
        assert_eq!(envelope(&report(&lab, REPORT, &again).await), success(&json!("successful")));
    }
    // Nor is what is refused.
    report(&lab, REPORT, &with("/RsList/0/sql_port", json!(22))).await;
    forget(&lab, "Action=ObRootServiceInfo&ObCluster=other&version=2&ObClusterId=7").await;
    let mut stale = body(now() - 600_000_000);
    stale["Type"] = json!("STANDBY");
    assert_eq!(report(&lab, REPORT, &stale).await.status, 409);
    assert!(written() == before, "something was written");
    assert_eq!(told(&lab).await, success(&json!([first])));
}

#[tokio::test]
async fn a_cluster_is_removed_with_its_id_only_and_every_change_is_in_the_audit_log() {
    let lab = lab().await;
    report(&lab, REPORT, &body(now())).await;
    report(&lab, REPORT, &with("/RsList/1/sql_port", json!(2891))).await;
    for (query, told) in [
        ("Action=ObRootServiceInfo&ObCluster=ob&version=2", "ObClusterId is missing"),
        ("Action=ObRootServiceInfo&ObCluster=ob&ObClusterId=1", "with version=2 only"),
        ("Action=ObRootServiceInfo&version=2&ObClusterId=1", "ObCluster or ObRegion is missing"),
    ] {
        let (status, message) = refusal(&forget(&lab, query).await);
        assert!(status == 400 && message.contains(told), "{message}");
    }
    for _ in 0..2 {
        assert_eq!(envelope(&forget(&lab, REPORT).await), success(&json!("successful")));
        assert_eq!(told(&lab).await["Code"], 404);
    }
    let events = lab.get("/api/v2/audit/events").await.data();
    let events: Vec<_> =
        events["contents"].as_array().unwrap().iter().filter(|event| event["user"] == "(config service)").collect();
    let told: Vec<_> =
        events.iter().map(|event| format!("{} {}: {}", event["action"], event["object"], event["detail"])).collect();
    let list = |port: u16| {
        format!(
            "PRIMARY 192.0.2.1:2882 (SQL 2881) LEADER, 192.0.2.2:2882 (SQL {port}) FOLLOWER, \
             198.51.100.200:2882 (SQL 2881, read only) FOLLOWER"
        )
    };
    let (first, second) = (list(2881), list(2891));
    let object = "\"OceanBase cluster ob (1)\"";
    let expected = [
        format!("\"cluster.rootServers.delete\" {object}: \"asked for by 192.0.2.1; before: {second}\""),
        format!("\"cluster.rootServers\" {object}: \"reported by 192.0.2.1: {second}; before: {first}\""),
        format!("\"cluster.rootServers\" {object}: \"reported by 192.0.2.1: {first}; before: none\""),
    ];
    assert_eq!(told, expected);
    assert!(events.iter().all(|event| event["traceId"].as_str().is_some_and(|trace| trace.len() == 16)));
}

#[tokio::test]
async fn coordinators_that_share_a_store_tell_the_same() {
    let lab = lab().await;
    let other = lab.other_config_service().await;
    let newest = now();
    // The observers of a cluster report to whichever they reach, in any order.
    let reports = (0..16).map(|number| {
        let service = if number % 2 == 0 { lab.config_service() } else { &other };
        let mut report = body(newest - (number * 7) % 16);
        report["RsList"][0]["sql_port"] = json!(3000 + (number * 7) % 16);
        async move { send(service, OBSERVER, Method::POST, REPORT, &report).await.status.as_u16() }
    });
    let statuses = futures_util::future::join_all(reports).await;
    assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    for service in [lab.config_service(), &other] {
        let query = "Action=ObRootServiceInfo&ObRegion=ob&version=2&ObRegionId=1";
        let answer = envelope(&send(service, "203.0.113.1", Method::GET, query, &Value::Null).await);
        assert_eq!(
            (&answer["Data"]["timestamp"], &answer["Data"]["RsList"][0]["sql_port"]),
            (&json!(newest), &json!(3000))
        );
    }
    let config = "Action=GetObProxyConfig&ObproxyClusterName=test";
    let answers =
        [lab.config_service(), &other].map(|service| send(service, "203.0.113.1", Method::GET, config, &Value::Null));
    let [one, another] = answers;
    assert_eq!(envelope(&one.await), envelope(&another.await));
}

/// A proxy reads no more than 16 KiB.
#[tokio::test]
async fn a_name_has_no_more_servers_than_a_proxy_reads() {
    let lab = Lab::new().await;
    lab.have_hosts(&["192.0.2.1"]).await;
    for id in 1..=9 {
        link(&lab, &format!("proxies-{id}"), &[("ob", id)]).await;
    }
    let server = |number: usize| json!({"address": format!("192.0.2.1:{}", 3000 + number), "role": "FOLLOWER", "sql_port": 2881});
    let servers: Value = (0..64).map(server).collect();
    let mut statuses = Vec::new();
    for id in 1..=9 {
        let report =
            json!({"ObCluster": "ob", "ObClusterId": id, "Type": "STANDBY", "timestamp": now(), "RsList": servers});
        let answer =
            send(lab.config_service(), OBSERVER, Method::POST, "Action=ObRootServiceInfo&version=2", &report).await;
        statuses.push(answer.status.as_u16());
        let told = lab.config("Action=ObRootServiceInfo&ObRegion=ob&version=2").await;
        assert!(told.status.is_success() && told.text.len() <= 16 << 10);
    }
    assert!(statuses.starts_with(&[200, 200, 200]) && statuses.ends_with(&[409]), "{statuses:?}");
}
