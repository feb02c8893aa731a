//! Regions, data centres, types of hosts, and hosts that are added to them.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::fake::{Fake, page};

const REGIONS: &str = "/api/v2/compute/regions";
const IDCS: &str = "/api/v2/compute/idcs";
const TYPES: &str = "/api/v2/compute/hostTypes";

#[tokio::test]
async fn places_and_types_are_listed_added_and_removed() {
    let region = json!({"id": 1, "name": "hangzhou", "description": "east"});
    let idc = json!({"id": 2, "name": "hz1", "description": "", "region": region});
    let kind = json!({"id": 3, "name": "large", "description": ""});
    let fake = Fake::start()
        .await
        .answers(&format!("GET {REGIONS}"), page(json!([region])))
        .answers(&format!("POST {REGIONS}"), region)
        .answers(&format!("DELETE {REGIONS}/1"), Value::Null)
        .answers(&format!("GET {IDCS}"), page(json!([idc])))
        .answers(&format!("POST {IDCS}"), idc)
        .answers(&format!("DELETE {IDCS}/2"), Value::Null)
        .answers(&format!("GET {TYPES}"), page(json!([kind])))
        .answers(&format!("POST {TYPES}"), kind)
        .answers(&format!("DELETE {TYPES}/3"), Value::Null);
    let mut told = String::new();
    for line in [
        "region add hangzhou --description east",
        "region list",
        "idc add hz1 --region hangzhou",
        "idc list",
        "idc remove hz1",
        "idc remove hz1 --yes",
        "region remove 1 --yes -o json",
        "host-type add large --dry-run",
        "host-type list -o name",
        "host-type remove large --dry-run",
    ] {
        told += &format!("{}\n\n", fake.run(&line.split(' ').collect::<Vec<_>>()).await);
    }
    assert_snapshot!(told + &fake.requests());
}

#[tokio::test]
async fn a_host_is_added_to_a_data_centre_and_a_type() {
    let task = json!({"id": 33001, "name": "Prepare host", "status": "RUNNING"});
    let fake = Fake::start()
        .await
        .answers(&format!("GET {IDCS}"), page(json!([{"id": 2, "name": "hz1"}])))
        .answers(&format!("GET {TYPES}"), page(json!([{"id": 3, "name": "large"}])))
        .answers("POST /api/v2/compute/hosts/batchCreate", json!({"contents": [task]}));
    fake.run(&["host", "add", "10.0.0.1", "--idc", "hz1", "--type", "large", "--detach"]).await;
    let unknown = fake.run(&["host", "add", "10.0.0.1", "--idc", "hz9"]).await;
    assert_snapshot!(format!("{}\n\n{unknown}", fake.requests()));
}
