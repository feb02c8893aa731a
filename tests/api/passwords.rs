//! Passwords of users.

use crate::support::{Lab, PASSWORD, SCRAPE_TOKEN, signed_as};
use axum::{
    body::Body,
    http::{Request, header},
};
use oblet::coordinator::{offline, store::user};
use serde_json::json;

const PATH: &str = "/api/v2/profiles/me/changePassword";

async fn status(lab: &Lab, password: &str) -> u16 {
    let request = signed_as("admin", password, "GET", "/api/v2/compute/hosts").body(Body::empty()).unwrap();
    lab.send(request).await.status.as_u16()
}

#[tokio::test]
async fn a_user_changes_the_password_and_the_old_one_opens_nothing_more() {
    let lab = Lab::new().await;
    assert_eq!(status(&lab, PASSWORD).await, 200);
    for (current, new, expected) in [
        ("wrong", "long enough", 401),
        (PASSWORD, "short", 400),
        (PASSWORD, "with a \u{7} bell", 400),
        (PASSWORD, PASSWORD, 400),
    ] {
        let refused = lab.post(PATH, json!({"currentPassword": current, "newPassword": new})).await;
        assert_eq!(refused.status, expected, "{}", refused.text);
        assert!(!refused.text.contains(new) && !refused.text.contains(PASSWORD), "{}", refused.text);
    }
    let new = "päss: wörd 1";
    assert_eq!(lab.post(PATH, json!({"currentPassword": PASSWORD, "newPassword": new})).await.status, 200);
    // The check of the old one is remembered under the old hash only.
    assert_eq!((status(&lab, PASSWORD).await, status(&lab, new).await), (401, 200));
    let request = signed_as("admin", new, "GET", "/api/v2/audit/events?size=1").header(header::ACCEPT, "*/*");
    let audit = lab.send(request.body(Body::empty()).unwrap()).await.data();
    assert_eq!(
        (&audit["contents"][0]["action"], &audit["contents"][0]["object"]),
        (&json!("user.password"), &json!("user admin"))
    );
}

#[tokio::test]
async fn an_administrator_of_the_host_sets_a_lost_password() {
    let lab = Lab::new().await;
    let directory = tempfile::tempdir().unwrap();
    let set = async |name: &str, password: &str| {
        offline::set_password(directory.path(), name, &password.into()).await.map_err(|error| error.to_string())
    };
    let absent = set("admin", "long enough").await.unwrap_err();
    assert!(absent.contains("holds no store"), "{absent}");
    std::os::unix::fs::symlink(lab.directory.path().join("store.db"), directory.path().join("coordinator.db")).unwrap();
    assert!(set("nobody", "long enough").await.unwrap_err().contains("no user nobody"));
    assert!(set("admin", "short").await.is_err());
    set("admin", "long enough").await.unwrap();
    assert_eq!((status(&lab, PASSWORD).await, status(&lab, "long enough").await), (401, 200));
    let mut reader = lab.store.readers().acquire().await.unwrap();
    assert_eq!(user::count(&mut reader).await.unwrap(), 1);
}

#[tokio::test]
async fn the_token_of_prometheus_opens_the_list_of_targets_and_nothing_else() {
    let lab = Lab::furnished().await;
    let ask = async |method: &str, path: &str, token: &str| {
        let request =
            Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        lab.send(request.body(Body::empty()).unwrap()).await.status.as_u16()
    };
    let targets = "/api/v2/prometheus/targets";
    assert_eq!(ask("GET", &format!("{targets}?job=obproxy"), SCRAPE_TOKEN).await, 200);
    assert_eq!(ask("GET", targets, "guess").await, 401);
    assert_eq!(ask("GET", "/api/v2/compute/hosts", SCRAPE_TOKEN).await, 401);
    assert_eq!(ask("DELETE", "/api/v2/compute/hosts/1", SCRAPE_TOKEN).await, 401);
}
