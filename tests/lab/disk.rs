use crate::fleet::{Fleet, PACKAGE, UNIT, possible};
use serde_json::Value;

/// Puts a directory on a small disk of its own, together with what is in it. The agent is down meanwhile.
fn confine(fleet: &Fleet, host: &str, directory: &str, mebibytes: u32) {
    let size = format!("size={mebibytes}m");
    fleet.on(
        host,
        &format!(
            "systemctl stop oblet-agent; mkdir -p {directory} /root/aside; cp -a {directory}/. /root/aside/; \
             mount -t tmpfs -o {size} small {directory}; cp -a /root/aside/. {directory}/; \
             chmod --reference=/root/aside {directory}; chown --reference=/root/aside {directory}; \
             systemctl start oblet-agent",
        ),
    );
}

fn fill(fleet: &Fleet, host: &str, directory: &str) {
    fleet.on(host, &format!("dd if=/dev/zero of={directory}/filler bs=4096 2>/dev/null || test -s {directory}/filler"));
}

fn make_room(fleet: &Fleet, host: &str, directory: &str) {
    fleet.on(host, &format!("rm {directory}/filler"));
}

/// Retries once what failed for want of room; with room it has to end well.
async fn comes_through(fleet: &Fleet, id: i64) {
    let task = fleet.at_rest(id).await;
    if task["status"] == "FAILED" {
        fleet.must_post(&format!("/api/v2/tasks/instances/{id}/retry"), &Value::Null).await;
        fleet.succeeded(id).await;
    }
}

/// What a task says of its failures and waits, with the logs of its subtasks.
async fn said_of(fleet: &Fleet, id: i64) -> String {
    let task = fleet.task(id).await;
    let mut said = task.to_string();
    for subtask in task["subtasks"].as_array().unwrap() {
        if subtask["status"] == "FAILED" || subtask["status"] == "RUNNING" {
            let path = format!("/api/v2/tasks/instances/{id}/subtasks/{}/log", subtask["id"]);
            said += &fleet.rest().get(&path).await.unwrap().to_string();
        }
    }
    said
}

/// Three hosts, on each of them another disk is full: that of the agent's state, that of the instances, all of /var.
#[tokio::test(flavor = "multi_thread")]
async fn lab_full_disks_are_told_and_cost_one_retry_at_most() {
    if !possible() {
        return;
    }
    let fleet = Fleet::raise(3).await;
    fleet.upload_package("true").await;
    let cluster = fleet.create_cluster().await;
    let disks = [("h1", "/var/lib/oblet-agent", 96), ("h2", "/home/admin", 16), ("h3", "/var", 512)];
    for (host, directory, mebibytes) in disks {
        confine(&fleet, host, directory, mebibytes);
        fleet.wait_on(host, "systemctl is-active oblet-agent").await;
        fill(&fleet, host, directory);
    }
    let tasks = fleet.batch_add(cluster, &["h1", "h2", "h3"]).await;
    for ((host, directory, _), id) in disks.into_iter().zip(&tasks) {
        let tells =
            |said: &str| said.contains("No space left") || said.contains("DISK_FULL") || said.contains("bytes left");
        let deadline = std::time::Instant::now() + crate::fleet::PATIENCE;
        loop {
            let said = said_of(&fleet, *id).await;
            if tells(&said) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{host}: nobody tells that {directory} is full: {said}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        assert!(fleet.holds_on(host, "systemctl is-active oblet-agent"), "the agent of {host} lives on a full disk");
    }
    for ((host, directory, _), id) in disks.into_iter().zip(tasks) {
        make_room(&fleet, host, directory);
        comes_through(&fleet, id).await;
        assert_eq!(fleet.on(host, "rpm -q obproxy").trim(), PACKAGE);
        assert_eq!(fleet.property(host, UNIT, "ActiveState"), "active");
    }
}
