//! Packages: lists that are narrowed, and removals that somebody stands in the way of.

use insta::assert_snapshot;
use serde_json::json;

use crate::fake::{Fake, page};

#[tokio::test]
async fn a_list_is_narrowed_by_the_coordinator() {
    let package = json!({"id": 7, "fileName": "obproxy-ce-4.3.1.0-4.el8.x86_64.rpm", "type": "OBPROXY_INSTALL_PACKAGE",
        "version": "4.3.1.0", "buildNumber": "4", "operatingSystem": "el8", "architecture": "x86_64", "size": 22});
    let fake = Fake::start().await.answers("GET /api/v2/software-packages", page(json!([package])));
    let mut told = String::new();
    for line in [
        "package list --keyword obproxy-ce -o wide",
        "package list --type OBPROXY_INSTALL_PACKAGE,OB_SERVER_INSTALL_PACKAGE --version 4.3.1.0 -o name",
        "package list --os el7 --os el8 --arch x86_64,aarch64 -o name",
    ] {
        told += &format!("{}\n\n", fake.run(&line.split(' ').collect::<Vec<_>>()).await);
    }
    assert_snapshot!(told + &fake.requests());
}

#[tokio::test]
async fn an_unknown_type_is_refused_with_those_that_are_known() {
    let error = json!({"code": 10001, "target": "type", "message": "COM10001: type: \"rpm\" is not one of \
        OB_SERVER_INSTALL_PACKAGE, OCP_AGENT_INSTALL_PACKAGE, OBPROXY_INSTALL_PACKAGE, OB_BACKUP_AGENT_INSTALL_PACKAGE"});
    let fake = Fake::start().await.refuses("GET /api/v2/software-packages", 400, error);
    assert_snapshot!(fake.run(&["package", "list", "--type", "rpm"]).await);
}

#[tokio::test]
async fn a_package_in_use_stays_and_its_users_are_told() {
    let error = json!({
        "code": 10007,
        "message": "PKG10007: obproxy-1.9.1.1-1919579.el7.x86_64 is in use by proxy 1, task 33001",
        "subErrors": [
            {"field": "proxy 1", "message": "RUNNING in OBProxy cluster shop, on host 2 (10.0.0.12)"},
            {"field": "task 33001", "message": "Install obproxy, FAILED"},
        ],
        "nextMove": "keep the package as long as a proxy uses it",
    });
    let fake = Fake::start().await.refuses("DELETE /api/v2/software-packages/8", 409, error);
    let refused = fake.run(&["package", "remove", "8", "--yes"]).await;
    let as_data = fake.run(&["package", "remove", "8", "--yes", "-o", "json"]).await;
    assert_snapshot!(format!("{refused}\n\n{as_data}"));
}
