use crate::fleet::{Fleet, UNIT, possible};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Command};

/// The scriptlet of the database package waits for a file, so that an installation lasts as long as the test wants.
const GATE: &str = "touch /root/begun; for i in $(seq 1200); do [ -e /root/go ] && exit 0; sleep 0.1; done; exit 1";

impl Fleet {
    async fn upload_agent(&self, release: u8) -> Vec<Value> {
        let mut ids = Vec::new();
        for name in
            [format!("oblet-agent_0.1.0-{release}_amd64.deb"), format!("oblet-agent-0.1.0-{release}.x86_64.rpm")]
        {
            ids.push(self.upload_file(&self.packages().join(name)).await);
        }
        ids
    }

    async fn upload_file(&self, file: &std::path::Path) -> Value {
        self.rest().upload(file).await;
        let name = file.file_name().unwrap().to_str().unwrap();
        let known = self.rest().get("/api/v2/software-packages?size=100").await.unwrap();
        let known = known["data"]["contents"].as_array().unwrap().clone();
        known.iter().find(|package| package["fileName"] == name).unwrap()["id"].clone()
    }

    async fn upgrade_agents(&self, hosts: &[i64], packages: &[Value]) -> i64 {
        let body = json!({"hostIds": hosts, "packages": packages, "parallel": 1});
        let data = self.must_post("/api/v2/compute/hosts/batchUpgradeAgents", &body).await;
        data["id"].as_i64().unwrap()
    }
}

/// A package of the next release whose program never gets ready.
fn broken_package(fleet: &Fleet) -> PathBuf {
    let tree = fleet.directory.join("broken");
    let good = fleet.packages().join("oblet-agent_0.1.0-2_amd64.deb");
    let broken = fleet.directory.join("oblet-agent_0.1.0-3_amd64.deb");
    let line = format!(
        "dpkg-deb --raw-extract {good} {tree} && sed -i 's/^Version: .*/Version: 0.1.0-3/' {tree}/DEBIAN/control && \
         printf '#!/bin/sh\nexec sleep 600\n' >{tree}/usr/bin/oblet-agent && \
         dpkg-deb -Zgzip --root-owner-group --build {tree} {broken}",
        good = good.display(),
        tree = tree.display(),
        broken = broken.display(),
    );
    let made = Command::new("bash").args(["-euc", &line]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    broken
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_agents_are_upgraded_in_the_middle_of_the_work_of_others_and_fall_back_if_they_must() {
    if !possible() {
        return;
    }
    // h2 has its agent from an rpm, the others from a deb.
    let fleet = Fleet::raise_with(3, &[("OBLET_LAB_RPM_HOSTS", "h2")]).await;
    fleet.upload_package(GATE).await;
    let cluster = fleet.create_cluster().await;
    fleet.on("h1", "touch /root/go");
    for id in fleet.batch_add(cluster, &["h1"]).await {
        fleet.succeeded(id).await;
    }
    let (proxy, mut client) = (fleet.proxy_pid("h1"), fleet.client("h1"));
    let installing = fleet.batch_add(cluster, &["h3"]).await;
    fleet.wait_on("h3", "test -e /root/begun").await;

    let packages = fleet.upload_agent(2).await;
    let task = fleet.upgrade_agents(&[1, 2], &packages).await;
    fleet.succeeded(task).await;
    assert_eq!(fleet.on("h1", "dpkg-query --show --showformat '${Version}' oblet-agent"), "0.1.0-2");
    assert_eq!(fleet.on("h2", "rpm -q oblet-agent").trim(), "oblet-agent-0.1.0-2.x86_64");
    for host in ["h1", "h2"] {
        assert_eq!(fleet.property(host, "oblet-agent.service", "ActiveState"), "active");
    }
    fleet.on("h3", "touch /root/go");
    for id in installing {
        fleet.succeeded(id).await;
    }

    let agent = fleet.property("h2", "oblet-agent.service", "MainPID");
    let broken = fleet.upload_file(&broken_package(&fleet)).await;
    let task = fleet.upgrade_agents(&[1, 3], &[broken]).await;
    let failed = fleet.at_rest(task).await;
    assert_eq!(failed["status"], "FAILED");
    assert!(failed.to_string().contains("ROLLED_BACK"), "{failed:#}");
    assert_eq!(fleet.property("h1", "oblet-agent.service", "ActiveState"), "active", "the program from before serves");
    assert_eq!(fleet.on("h3", "dpkg-query --show --showformat '${Version}' oblet-agent"), "0.1.0-1", "no second host");
    assert_eq!(fleet.property("h2", "oblet-agent.service", "MainPID"), agent);
    fleet.must_post(&format!("/api/v2/tasks/instances/{task}/rollback"), &json!({})).await;
    fleet.succeeded(task).await;

    assert_eq!(fleet.proxy_pid("h1"), proxy);
    assert_eq!(fleet.property("h1", UNIT, "NRestarts"), "0");
    assert!(!client.query("SHOW PROXYCONFIG LIKE 'proxy_mem_limited'").unwrap().is_empty());
}

/// The plug is pulled when the broken program lies in its place, and nothing of the exchange lives on.
#[tokio::test(flavor = "multi_thread")]
async fn lab_an_agent_that_cannot_serve_after_a_power_cut_is_put_back_by_its_guard() {
    if !possible() {
        return;
    }
    let fleet = Fleet::raise(1).await;
    let broken = fleet.upload_file(&broken_package(&fleet)).await;
    let task = fleet.upgrade_agents(&[1], &[broken]).await;
    fleet.wait_on("h1", "[ \"$(head -c 2 /usr/bin/oblet-agent)\" = '#!' ]").await;
    fleet.lab(&["plug", "h1"]);
    fleet.lab(&["boot", "h1"]);
    let failed = fleet.at_rest(task).await;
    assert!(failed["status"] == "FAILED" && failed.to_string().contains("ROLLED_BACK"), "{failed:#}");
    assert_eq!(fleet.property("h1", "oblet-agent.service", "ActiveState"), "active", "the guard has put it back");
    assert!(!fleet.holds_on("h1", "ls /etc/systemd/system/oblet-agent-guard.service"), "and is gone");
}
