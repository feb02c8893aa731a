//! The description that is checked in is that of the program. `UPDATE_OPENAPI=1` writes it anew.

use crate::support::Lab;
use serde_json::Value;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

#[test]
fn the_checked_in_description_is_current() {
    let text = format!("{}\n", oblet::api::openapi().to_pretty_json().unwrap());
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(PATH, &text).unwrap();
    }
    let checked_in = std::fs::read_to_string(PATH).unwrap();
    assert!(checked_in == text, "docs/openapi.json is old: run this test with UPDATE_OPENAPI=1");
}

#[tokio::test]
async fn the_description_is_served_without_a_password() {
    let lab = Lab::new().await;
    let request = axum::http::Request::get("/api/openapi.json").body(axum::body::Body::empty()).unwrap();
    let described: Value = lab.send(request).await.json();
    let paths = described["paths"].as_object().unwrap();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                let name = response["$ref"].as_str().and_then(|name| name.strip_prefix("#/components/responses/"));
                let response = name.map_or(response, |name| &described["components"]["responses"][name]);
                assert!(response["description"].is_string(), "{method} {path} {status} has no description");
            }
        }
    }
    for path in ["/api/v2/obproxy/clusters/{id}/obproxies/batchAdd", "/api/v2/software-packages", "/metrics"] {
        assert!(paths.contains_key(path), "{path}");
    }
}
