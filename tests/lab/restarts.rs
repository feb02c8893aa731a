use crate::fleet::{Fleet, UNIT, possible};
use serde_json::Value;

/// The agent may go and come back in every way there is; the proxy and its clients do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn lab_a_proxy_and_its_clients_outlive_the_agent() {
    if !possible() {
        return;
    }
    let fleet = Fleet::with_proxies(1).await;
    let pid = fleet.proxy_pid("h1");
    let mut client = fleet.client("h1");
    let package = fleet.agent_package(2, "h1");
    let agent_pid = || fleet.property("h1", "oblet-agent.service", "MainPID");
    let ways = [
        ("a restart", "systemctl restart oblet-agent".to_owned()),
        ("kill -9", "kill -KILL $(systemctl show --property=MainPID --value oblet-agent)".to_owned()),
        ("an upgrade of its package", format!("dpkg --install {package}")),
        ("an erase and a new installation", {
            format!("dpkg --remove oblet-agent && dpkg --install {package} && systemctl enable --now oblet-agent")
        }),
    ];
    for (way, line) in ways {
        let before = agent_pid();
        fleet.on("h1", &line);
        let is_back = || fleet.holds_on("h1", "systemctl is-active oblet-agent") && agent_pid() != before;
        fleet.wait(&format!("the agent after {way}"), is_back).await;
        assert_eq!(fleet.proxy_pid("h1"), pid, "the proxy after {way}");
        assert!(
            !client.query("SHOW PROXYCONFIG LIKE 'proxy_mem_limited'").unwrap().is_empty(),
            "the client after {way}"
        );
        let metrics = fleet.on("h1", "curl -sS http://127.0.0.1:62899/metrics");
        let up = metrics.lines().find(|line| line.starts_with("oblet_instance_up{")).unwrap_or_default();
        assert!(up.ends_with(" 1"), "the agent knows its proxy after {way}: {up:?}");
    }
    assert_eq!(fleet.property("h1", UNIT, "NRestarts"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_the_coordinator_restarts_and_stops_an_agent_and_its_host_starts_it_again() {
    if !possible() {
        return;
    }
    let fleet = Fleet::raise(1).await;
    let agent_pid = || fleet.property("h1", "oblet-agent.service", "MainPID");
    let before = agent_pid();
    let task = fleet.must_post("/api/v2/compute/hosts/1/agent/restart", &Value::Null).await;
    fleet.succeeded(task["id"].as_i64().unwrap()).await;
    assert_ne!(agent_pid(), before);

    let task = fleet.must_post("/api/v2/compute/hosts/1/agent/stop", &Value::Null).await;
    fleet.succeeded(task["id"].as_i64().unwrap()).await;
    assert_eq!(fleet.property("h1", "oblet-agent.service", "ActiveState"), "inactive");
    let host = fleet.rest().get("/api/v2/compute/hosts/1").await.unwrap();
    assert_eq!(host["data"]["status"], "OFFLINE");

    fleet.on("h1", "systemctl start oblet-agent");
    let agent = fleet.rest().get("/api/v2/compute/hosts/1/agent").await.unwrap();
    assert_eq!(agent["data"]["status"], "STARTED", "{agent:#}");
}
