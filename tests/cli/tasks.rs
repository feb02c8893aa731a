//! Commands that start tasks, and commands about tasks.

use insta::assert_snapshot;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::fake::{Fake, page};

/// The steps of the task, and ids as unordered as the API's.
const STEPS: [(u64, &str, u64); 4] = [
    (34799, "Prepare obproxy install", 300),
    (34807, "Install rpm by package and version", 3600),
    (34798, "Start obproxy process", 600),
    (34805, "Finish node", 0),
];

const ADD: &str = "obproxy add 1 --host 2 --version obproxy-1.9.1.1-1919579.el7.x86_64.rpm";
const BATCH_ADD: &str = "POST /api/v2/obproxy/clusters/1/obproxies/batchAdd";

/// A task whose steps are in the given states.
fn task(id: u64, status: &str, steps: [&str; 4]) -> Value {
    let mut subtasks: Vec<_> = STEPS
        .iter()
        .enumerate()
        .map(|(position, (id, name, timeout))| {
            let upstreams: Vec<_> = position.checked_sub(1).map(|before| STEPS[before].0).into_iter().collect();
            json!({
                "id": id,
                "name": name,
                "operation": "EXECUTE",
                "runTime": 1,
                "status": steps[position],
                "timeout": timeout,
                "upstreams": upstreams,
            })
        })
        .collect();
    subtasks.reverse();
    let mut task = json!({
        "creator": {"id": 100, "name": "admin"},
        "hostId": id - 33000,
        "id": id,
        "name": "Install obproxy",
        "operation": "EXECUTE",
        "startTime": "2021-09-03T16:25:08.004+08:00",
        "status": status,
        "subtasks": subtasks,
    });
    if status != "RUNNING" {
        task["finishTime"] = json!("2021-09-03T16:26:13.004+08:00");
    }
    task
}

fn fresh(id: u64) -> Value {
    task(id, "RUNNING", ["READY", "PENDING", "PENDING", "PENDING"])
}

fn installing(id: u64) -> Value {
    task(id, "RUNNING", ["SUCCESSFUL", "RUNNING", "PENDING", "PENDING"])
}

fn done(id: u64) -> Value {
    task(id, "SUCCESSFUL", ["SUCCESSFUL"; 4])
}

fn failed(id: u64) -> Value {
    let mut task = task(id, "FAILED", ["SUCCESSFUL", "FAILED", "PENDING", "PENDING"]);
    let step = &mut task["subtasks"][2];
    step["runTime"] = json!(2);
    step["operation"] = json!("RETRY");
    step["failure"] = json!({
        "host": "10.0.0.2",
        "reason": "DISK_FULL",
        "message": "the package does not fit on the disk",
        "causes": ["rpm ended with code 1"],
        "nextMove": "free 80 MiB in /home, then retry the task",
        "exitCode": 1,
        "logTail": ["Preparing...", "\u{1b}[31minstalling package needs 80MB on the /home filesystem"],
        "effect": "nothing was changed",
    });
    task
}

fn instance(id: u64) -> String {
    format!("GET /api/v2/tasks/instances/{id}")
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[tokio::test]
async fn adding_a_proxy_is_followed_to_its_end() {
    let fake = Fake::start()
        .await
        .answers(BATCH_ADD, json!({"contents": [fresh(33002)]}))
        .answers(&instance(33002), fresh(33002))
        .answers(&instance(33002), installing(33002))
        .answers(&instance(33002), installing(33002))
        .answers(&instance(33002), done(33002));
    let told = fake.run(&words(ADD)).await;
    let request = fake.requests();
    assert_snapshot!(format!("{told}\n{}", request.lines().next().unwrap()));
}

#[tokio::test]
async fn the_task_of_each_host_is_followed() {
    let add = format!("{ADD} -o json --quiet");
    let fake = Fake::start()
        .await
        .answers(BATCH_ADD, json!({"contents": [fresh(33002), fresh(33003)]}))
        .answers(&instance(33002), installing(33002))
        .answers(&instance(33002), done(33002))
        .answers(&instance(33003), done(33003));
    let output = fake.command(&words(&add)).output().await.unwrap();
    let data: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(data, json!({"contents": [done(33002), done(33003)]}));
    assert!(output.stderr.is_empty() && output.status.success());
}

#[tokio::test]
async fn detaching_prints_the_id_alone() {
    let fake = Fake::start().await.answers(BATCH_ADD, json!({"contents": [fresh(33002)]}));
    assert_snapshot!(fake.run(&words(&format!("{ADD} --detach"))).await);
}

#[tokio::test]
async fn a_dry_run_prints_the_steps() {
    let fake = Fake::start().await.answers(BATCH_ADD, json!({"contents": [fresh(33002)]}));
    let told = fake.run(&words(&format!("{ADD} --dry-run"))).await;
    assert!(fake.requests().contains("batchAdd?dryRun=true"));
    assert_snapshot!(told);
}

#[tokio::test]
async fn a_failure_is_told_with_its_cause_and_the_next_move() {
    let fake = Fake::start()
        .await
        .answers(&instance(33002), failed(33002))
        .answers(&instance(33003), installing(33003))
        .answers(&instance(33003), done(33003));
    assert_snapshot!(fake.run(&["task", "watch", "33002", "33003"]).await);
}

#[tokio::test]
async fn a_coordinator_that_is_away_for_a_moment_is_waited_for() {
    let away = json!({"code": 0, "message": "the coordinator is shutting down"});
    let fake = Fake::start()
        .await
        .answers(&instance(33002), installing(33002))
        .refuses(&instance(33002), 503, away)
        .raw(&instance(33002), 502, "<html>bad gateway</html>".into())
        .answers(&instance(33002), done(33002));
    assert_snapshot!(fake.run(&["task", "watch", "33002"]).await);
}

#[tokio::test]
async fn ctrl_c_leaves_the_task_alone_and_tells_the_way_back() {
    let fake = Fake::start().await.answers(&instance(33002), installing(33002));
    let args = ["task", "watch", "33002"];
    let child = fake.command(&args).spawn().unwrap();
    // With the second question the first answer, and so the signal handler, is in place.
    fake.wait_for(&instance(33002), 2).await;
    kill(Pid::from_raw(child.id().unwrap() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_snapshot!(fake.tell(&args, &output));
}

#[tokio::test]
async fn a_task_is_shown_in_the_order_of_its_steps() {
    let fake = Fake::start().await.answers(&instance(33002), failed(33002));
    assert_snapshot!(fake.run(&["task", "show", "33002"]).await);
}

#[tokio::test]
async fn tasks_are_listed_newest_first() {
    let tasks = page(json!([installing(33003), done(33002)]));
    let fake = Fake::start().await.answers("GET /api/v2/tasks/instances", tasks);
    let told = fake.run(&words("task list --status RUNNING --status SUCCESSFUL --limit 2")).await;
    assert_snapshot!(format!("{told}\n{}", fake.requests()));
}

#[tokio::test]
async fn logs_are_printed_as_they_are() {
    let log = |id: u64| format!("{}/subtasks/{id}/log", instance(33002));
    let fake = Fake::start()
        .await
        .answers(&instance(33002), failed(33002))
        .answers(&log(34799), json!({"log": "############{EXECUTE}{2021-09-03T16:25:08}############\nready\n"}))
        .answers(&log(34807), json!({"log": "############{EXECUTE}{2021-09-03T16:25:09}############\nno space"}));
    let one = fake.run(&["task", "log", "33002", "34807"]).await;
    let all = fake.run(&["task", "log", "33002"]).await;
    assert_snapshot!(format!("{one}\n\n{all}"));
}

#[tokio::test]
async fn a_failed_task_can_be_rolled_back_retried_and_passed_over() {
    let path = "POST /api/v2/tasks/instances/33002";
    let undone = |status: &str, steps: [&str; 4]| {
        let mut task = task(33002, status, steps);
        task["operation"] = json!("ROLLBACK");
        task["subtasks"].as_array_mut().unwrap().iter_mut().for_each(|step| step["operation"] = json!("ROLLBACK"));
        task
    };
    let fake = Fake::start()
        .await
        .answers(&format!("{path}/rollback"), undone("RUNNING", ["SUCCESSFUL", "READY", "PENDING", "PENDING"]))
        .answers(&instance(33002), undone("RUNNING", ["SUCCESSFUL", "RUNNING", "PENDING", "PENDING"]))
        .answers(&instance(33002), undone("RUNNING", ["RUNNING", "PENDING", "PENDING", "PENDING"]))
        .answers(&instance(33002), undone("SUCCESSFUL", ["PENDING"; 4]))
        .answers(&format!("{path}/retry"), fresh(33002))
        .answers(&format!("{path}/subtasks/34807/skip"), Value::Null)
        .answers(&format!("{path}/subtasks/34807/cancel"), Value::Null);
    let mut told = fake.run(&words("task rollback 33002")).await;
    for command in ["task retry 33002 --detach", "task skip 33002 34807", "task cancel 33002 34807"] {
        told += &format!("\n\n{}", fake.run(&words(command)).await);
    }
    assert_snapshot!(format!("{told}\n{}", fake.requests()));
}
