use crate::fleet::{Fleet, UNIT, possible};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Where the programs of the previous version are.
fn previous() -> PathBuf {
    let built = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/previous.sh")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    String::from_utf8(built.stdout).unwrap().trim().into()
}

fn put(fleet: &Fleet, program: &Path, host: &str) {
    fleet.lab(&["put", program.to_str().unwrap(), host]);
}

/// A certificate by hand, as the previous version knows no other way.
fn certify(fleet: &Fleet, host: &str) {
    let address = fleet.address(host);
    let issue = format!(
        "/root/oblet-coordinator certificate --state-dir /var/lib/oblet-coordinator --role agent --name {host} \
         --address {address} --out /root/{host}"
    );
    fleet.on("h0", &issue);
    fleet.on(host, "mkdir -p -m 0700 /etc/oblet-agent; useradd --create-home admin");
    for file in ["ca.pem", "agent.pem", "agent.key"] {
        let content = fleet.on("h0", &format!("cat /root/{host}/{file}"));
        fleet.on(host, &format!("umask 077; cat >/etc/oblet-agent/{file} <<'END'\n{content}END"));
    }
    let config = format!("address = \"{address}\"\nrun_user = \"admin\"\n");
    fleet.on(host, &format!("cat >/etc/oblet-agent/agent.toml <<'END'\n{config}END"));
}

/// First the coordinator is of the previous version and one of its agents is newer, then it is itself upgraded and one
/// of its agents is older, then that agent is upgraded while its proxy serves.
#[tokio::test(flavor = "multi_thread")]
async fn lab_versions_work_side_by_side_in_either_order() {
    if !possible() {
        return;
    }
    let previous = previous();
    let mut fleet = Fleet::boot(2);
    put(&fleet, &previous.join("oblet-coordinator"), "h0");
    put(&fleet, &previous.join("oblet-agent"), "h1");
    fleet.on("h0", "mkdir -m 0700 /var/lib/oblet-coordinator");
    certify(&fleet, "h1");
    certify(&fleet, "h2");
    let start = format!(
        "systemd-run --quiet --unit=previous-coordinator /root/oblet-coordinator --advertise-addresses {} \
         --initial-password-file /var/lib/oblet-coordinator/initial-password",
        fleet.address("h0")
    );
    fleet.on("h0", &start);
    // Its database processes live in its own control group.
    fleet.on(
        "h1",
        "systemd-run --quiet --unit=previous-agent --property=KillMode=process /root/oblet-agent \
         --config /etc/oblet-agent/agent.toml",
    );
    let package = fleet.agent_package(1, "h2");
    fleet.on("h2", &format!("dpkg --force-confold --install {package}; systemctl enable --now oblet-agent"));
    fleet.wait_on("h0", "nc -z 127.0.0.1 8443").await;
    let ca = fleet.on("h0", "cat /var/lib/oblet-coordinator/tls/ca.pem");
    let password = fleet.on("h0", "cat /var/lib/oblet-coordinator/initial-password");
    fleet.connect(&ca, &password);

    let hosts: Vec<_> = fleet.hosts().iter().map(|host| json!({"innerIpAddress": fleet.address(host)})).collect();
    fleet.wait_on("h1", "nc -z 127.0.0.1 62898").await;
    fleet.must_post("/api/v2/compute/hosts/batchCreate", &json!({"hostBasicDataList": hosts})).await;
    fleet.upload_package("true").await;
    let cluster = fleet.create_cluster().await;
    for id in fleet.batch_add(cluster, &["h2"]).await {
        fleet.succeeded(id).await;
    }
    assert_eq!(fleet.property("h2", UNIT, "ActiveState"), "active");

    fleet.on("h0", "systemctl stop previous-coordinator");
    fleet.lab(&["coordinator"]);
    for id in fleet.batch_add(cluster, &["h1"]).await {
        fleet.succeeded(id).await;
    }
    let mut client = fleet.client("h1");
    let proxy = |fleet: &Fleet| fleet.on("h1", "pgrep --oldest obproxy");
    let before = proxy(&fleet);

    fleet.on("h1", "systemctl stop previous-agent");
    let package = fleet.agent_package(1, "h1");
    fleet.on("h1", &format!("dpkg --force-confold --install {package}; systemctl enable --now oblet-agent"));
    let known = "curl -sS http://127.0.0.1:62899/metrics | grep '^oblet_instance_up{.* 1$'";
    fleet.wait_on("h1", known).await;
    assert_eq!(proxy(&fleet), before);
    assert!(!client.query("SHOW PROXYCONFIG LIKE 'proxy_mem_limited'").unwrap().is_empty());
}
