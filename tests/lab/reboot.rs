use crate::fleet::{Fleet, UNIT, possible};

#[tokio::test(flavor = "multi_thread")]
async fn lab_after_a_reboot_everything_comes_back_by_itself() {
    if !possible() {
        return;
    }
    let fleet = Fleet::with_proxies(2).await;
    let before = fleet.property("h1", UNIT, "InvocationID");
    fleet.lab(&["off", "h1"]);
    fleet.lab(&["boot", "h1"]);
    fleet.wait_on("h1", "systemctl is-active oblet-agent").await;
    fleet.wait_on("h1", &format!("systemctl is-active {UNIT}")).await;
    assert_ne!(fleet.property("h1", UNIT, "InvocationID"), before);
    assert!(!fleet.client("h1").query("SHOW PROXYCONFIG LIKE 'proxy_mem_limited'").unwrap().is_empty());
    let instance_is_up = "curl -sS http://127.0.0.1:62899/metrics | grep '^oblet_instance_up{.* 1$'";
    fleet.wait_on("h1", instance_is_up).await;
    let proxies = fleet.rest().get("/api/v2/obproxy/clusters/1").await.unwrap();
    assert_eq!(proxies["data"]["obproxies"].as_array().map(Vec::len), Some(2), "{proxies:#}");
}

/// The plug is pulled while rpm is at work: the task waits for the host and ends well once it is back.
#[tokio::test(flavor = "multi_thread")]
async fn lab_a_task_goes_on_after_its_host_lost_its_power() {
    if !possible() {
        return;
    }
    let fleet = Fleet::raise(2).await;
    // The first run of the scriptlet lasts until somebody lets it go; the plug is pulled before.
    let scriptlet = "if [ ! -e /root/seen ]; then touch /root/seen; sync; sleep 120; fi";
    fleet.upload_package(scriptlet).await;
    let cluster = fleet.create_cluster().await;
    let tasks = fleet.batch_add(cluster, &["h1"]).await;
    fleet.wait_on("h1", "test -e /root/seen").await;
    fleet.lab(&["plug", "h1"]);
    for id in &tasks {
        fleet.misses(*id, "h1").await;
    }
    fleet.lab(&["boot", "h1"]);
    for id in tasks {
        fleet.succeeded(id).await;
    }
    assert_eq!(fleet.property("h1", UNIT, "ActiveState"), "active");
}
