use crate::fleet::{Fleet, PACKAGE, SQL_PORT, UNIT, possible};

#[tokio::test(flavor = "multi_thread")]
async fn lab_packages_units_and_enrolment_bring_a_proxy_to_three_hosts() {
    if !possible() {
        return;
    }
    let fleet = Fleet::with_proxies(3).await;
    for host in fleet.hosts() {
        assert_eq!(fleet.on(host, "rpm -q obproxy").trim(), PACKAGE);
        assert_eq!(fleet.property(host, UNIT, "ActiveState"), "active");
        assert_eq!(fleet.property(host, UNIT, "UnitFileState"), "enabled");
        let pid = fleet.proxy_pid(host);
        let process = fleet.on(host, &format!("ps -o ppid=,user= -p {pid}"));
        assert_eq!(
            process.split_whitespace().collect::<Vec<_>>(),
            ["1", "admin"],
            "PID 1 owns it, the run user runs it"
        );
        let cgroup = fleet.on(host, &format!("cat /proc/{pid}/cgroup"));
        assert!(cgroup.contains(UNIT), "{cgroup}");
        // What a process really gets is bounded by what PID 1 itself may have on the machine.
        let limits =
            ["LimitNOFILE", "LimitNPROC", "LimitCORE", "LimitSTACK"].map(|name| fleet.property(host, UNIT, name));
        assert_eq!(limits, ["655350", "655360", "infinity", "20971520"]);
        let shown = fleet.on(host, &format!("systemctl show {UNIT}; systemctl cat {UNIT}; cat /proc/{pid}/cmdline"));
        assert!(!shown.contains("aaBB22"), "a password is seen in {shown}");
        assert!(!fleet.client(host).query("SHOW PROXYCONFIG LIKE 'proxy_mem_limited'").unwrap().is_empty());
    }
    let targets = fleet.rest().get("/api/v2/prometheus/targets").await.unwrap().to_string();
    for host in fleet.hosts() {
        assert!(targets.contains(&format!("{}:{}", fleet.address(host), SQL_PORT + 1)), "{targets}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lab_services_are_confined_and_their_state_is_private() {
    if !possible() {
        return;
    }
    let fleet = Fleet::raise(1).await;
    assert_eq!(fleet.on("h0", "ps -o user= -C oblet-coordinator").trim(), "oblet-coordinator");
    assert_eq!(fleet.on("h0", "stat -c '%a %U' /var/lib/oblet-coordinator").trim(), "700 oblet-coordinator");
    assert!(fleet.on("h1", "stat -c '%a %U' /etc/oblet-agent/agent.key").starts_with("600 root"));
    for (host, unit) in [("h0", "oblet-coordinator.service"), ("h1", "oblet-agent.service")] {
        assert!(fleet.property(host, unit, "WatchdogUSec").contains(|digit: char| digit.is_ascii_digit()));
        assert_eq!(fleet.on(host, &format!("systemd-analyze verify --man=no {unit} 2>&1")).trim(), "");
    }
    let exposure = fleet.on("h0", "systemd-analyze security --threshold=19 oblet-coordinator.service | tail -1");
    assert!(exposure.contains("OK"), "{exposure}");
}
