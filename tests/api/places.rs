//! Regions, IDCs and types of hosts.

use crate::support::Lab;
use serde_json::{Value, json};

const COMPUTE: &str = "/api/v2/compute";

async fn make(lab: &Lab, kind: &str, body: Value) -> i64 {
    lab.post(&format!("{COMPUTE}/{kind}"), body).await.data()["id"].as_i64().unwrap()
}

#[tokio::test]
async fn a_host_stands_where_it_was_said_to_stand() {
    let lab = Lab::new().await;
    let region = make(&lab, "regions", json!({"name": "north", "description": "by the sea"})).await;
    let idc = make(&lab, "idcs", json!({"name": "cellar", "description": "dry", "regionId": region})).await;
    let of_type = make(&lab, "hostTypes", json!({"name": "large"})).await;
    let host = json!({
        "hostBasicDataList": [{"innerIpAddress": "192.0.2.7"}], "idcId": idc, "typeId": of_type,
    });
    let made = lab.post(&format!("{COMPUTE}/hosts/batchCreate"), host).await.data();
    lab.finish(&made["contents"][0]).await;
    let host = lab.get(&format!("{COMPUTE}/hosts/1")).await.data();
    let expected = json!({
        "idcId": idc, "idcName": "cellar", "idcDescription": "dry",
        "regionId": region, "regionName": "north", "regionDescription": "by the sea",
        "typeId": of_type, "typeName": "large", "typeDescription": "",
    });
    for (member, value) in expected.as_object().unwrap() {
        assert_eq!(host[member], *value, "{member}");
    }
    let listed = lab.get(&format!("{COMPUTE}/idcs")).await.data();
    assert_eq!(
        listed["contents"],
        json!([{
            "id": idc, "name": "cellar", "description": "dry",
            "region": {"id": region, "name": "north", "description": "by the sea"},
        }])
    );
    for (kind, id) in [("idcs", idc), ("hostTypes", of_type), ("regions", region)] {
        let refused = lab.delete(&format!("{COMPUTE}/{kind}/{id}")).await;
        assert_eq!(refused.status, 409, "{}", refused.text);
        assert!(refused.text.contains("is used by 1"), "{}", refused.text);
    }
}

#[tokio::test]
async fn proxies_are_counted_by_the_data_centres_of_their_hosts() {
    let lab = Lab::furnished().await;
    let region = make(&lab, "regions", json!({"name": "north"})).await;
    let idc = make(&lab, "idcs", json!({"name": "cellar", "regionId": region})).await;
    let mut rows = lab.store.begin().await.unwrap();
    oblet::coordinator::store::host::set_place(&mut rows, 1, Some(idc), None).await.unwrap();
    rows.commit().await.unwrap();
    let proxies = json!({"hostIds": [1, 2], "sqlPort": 2883, "exportPort": 2884, "version": "obproxy-1.9.1.1-1919579"});
    lab.post("/api/v2/obproxy/clusters/1/obproxies/batchAdd", proxies).await.data();
    let cluster = lab.get("/api/v2/obproxy/clusters/1").await.data();
    assert_eq!(cluster["topo"], json!([{"idcName": "cellar", "count": 1}]));
    assert_eq!(
        (&cluster["obproxies"][0]["idcName"], &cluster["obproxies"][1]["idcName"]),
        (&json!("cellar"), &Value::Null)
    );
}

#[tokio::test]
async fn what_a_place_is_called_is_checked_and_unused_ones_can_be_removed() {
    let lab = Lab::new().await;
    let region = make(&lab, "regions", json!({"name": "north"})).await;
    for (kind, body, status) in [
        ("regions", json!({"name": "north"}), 409),
        ("regions", json!({"name": ""}), 400),
        ("regions", json!({"name": " north"}), 400),
        ("regions", json!({"name": "a\u{7}b"}), 400),
        ("regions", json!({"name": "n".repeat(65)}), 400),
        ("regions", json!({"name": "south", "description": "d".repeat(1001)}), 400),
        ("regions", json!({"name": "south", "regionId": region}), 400),
        ("idcs", json!({"name": "cellar"}), 400),
        ("idcs", json!({"name": "cellar", "regionId": 77}), 400),
    ] {
        let answer = lab.post(&format!("{COMPUTE}/{kind}"), body).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    let unknown = json!({"hostBasicDataList": [{"innerIpAddress": "192.0.2.7"}], "idcId": region});
    let refused = lab.post(&format!("{COMPUTE}/hosts/batchCreate"), unknown).await;
    assert_eq!(refused.status, 400, "a region is no IDC: {}", refused.text);
    assert_eq!(lab.get(&format!("{COMPUTE}/idcs/{region}")).await.status, 404);

    let path = format!("{COMPUTE}/regions/{region}");
    assert_eq!(lab.delete(&format!("{path}?dryRun=true")).await.status, 200);
    assert_eq!(lab.get(&path).await.data()["name"], "north");
    assert_eq!(lab.delete(&path).await.status, 200);
    assert_eq!(lab.delete(&path).await.status, 404);
    let planned = lab.post(&format!("{COMPUTE}/hostTypes?dryRun=true"), json!({"name": "large"})).await;
    assert_eq!(planned.data(), json!({"name": "large", "description": ""}));
    assert_eq!(lab.get(&format!("{COMPUTE}/hostTypes")).await.data()["page"]["totalElements"], 0);
}
