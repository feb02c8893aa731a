//! Changes of OBProxy clusters: what is asked, how it is printed, and what is refused.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::fake::{Fake, page};

const CLUSTER: &str = "/api/v2/obproxy/clusters/7";

fn cluster() -> Value {
    json!({"id": 7, "name": "shop", "address": "db.example", "port": 2883, "workMode": "CONFIG_URL",
        "creatorName": "admin", "createTime": "2021-09-03T15:05:01.106+08:00"})
}

async fn told(fake: &Fake, lines: &[&str]) -> String {
    let mut told = String::new();
    for line in lines {
        told += &format!("{}\n\n", fake.run(&line.split(' ').collect::<Vec<_>>()).await);
    }
    told + &fake.requests()
}

#[tokio::test]
async fn an_address_is_set_and_removed() {
    let fake = Fake::start().await.answers(&format!("PATCH {CLUSTER}"), cluster());
    let lines = [
        "obproxy set-address 7 --address db.example --port 2883",
        "obproxy set-address 7 --no-address -o name",
        "obproxy set-address 7 --address db.example --no-port --dry-run",
        "obproxy set-address 7",
        "obproxy set-address 7 --port 0",
        "obproxy set-address 7 --address db.example --no-address",
    ];
    assert_snapshot!(told(&fake, &lines).await);
}

#[tokio::test]
async fn links_are_added_and_removed() {
    let fake = Fake::start()
        .await
        .answers("GET /api/v2/obproxy/clusters", page(json!([cluster()])))
        .answers(&format!("POST {CLUSTER}/obLinks/batchAdd"), Value::Null)
        .answers(&format!("DELETE {CLUSTER}/obLinks/hooray"), Value::Null);
    let lines = [
        "obproxy add-link shop hooray:1 other:2:ro@sys",
        "obproxy add-link 7 hooray:1 -o json",
        "obproxy add-link 7 hooray:1 --dry-run",
        "obproxy remove-link shop hooray",
        "obproxy remove-link shop hooray --yes",
        "obproxy remove-link 7 hooray --dry-run",
        "obproxy add-link 7",
        "obproxy add-link 7 hooray",
        "obproxy remove-link 7 ../../7",
    ];
    assert_snapshot!(told(&fake, &lines).await);
}

#[tokio::test]
async fn a_refused_change_is_told_with_its_reason_and_the_next_move() {
    let started = json!({
        "code": 21010,
        "message": "ODP21010: the work mode of shop is RS_LIST: its 2 proxies were told the OceanBase cluster and its \
            servers when they were started, so the link cannot change while there are proxies",
        "target": "obLinks",
        "nextMove": "create another OBProxy cluster for the other OceanBase cluster",
    });
    let taken = json!({
        "code": 10006,
        "message": "COM10006: links have names and ids of their own: hooray:2",
        "target": "obLinks",
        "subErrors": [
            {"field": "hooray:2", "message": "the name or the id is that of the link to hooray, id 1, as proxyro"},
        ],
        "nextMove": "nothing was changed; to change a link, remove it and add it again",
    });
    let reserved = json!({
        "code": 21010,
        "message": "ODP21010: obproxy cluster 7 is reserved by task 33001, Install obproxy, RUNNING since \
            2026-01-01T00:00:00.000Z",
        "nextMove": "wait until task 33001 has ended: oblet task watch 33001",
    });
    let fake = Fake::start()
        .await
        .refuses(&format!("DELETE {CLUSTER}/obLinks/hooray"), 409, started)
        .refuses(&format!("POST {CLUSTER}/obLinks/batchAdd"), 409, taken)
        .refuses(&format!("PATCH {CLUSTER}"), 409, reserved);
    let lines = [
        "obproxy remove-link 7 hooray --yes",
        "obproxy add-link 7 hooray:2",
        "obproxy set-address 7 --no-port",
        "obproxy remove-link 7 absent --yes",
    ];
    assert_snapshot!(told(&fake, &lines).await);
}
