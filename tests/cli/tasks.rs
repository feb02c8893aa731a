//! Commands that start tasks, and commands about tasks.

use insta::assert_snapshot;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::fake::{End, Fake, page};

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
pub(crate) fn task(id: u64, status: &str, steps: [&str; 4]) -> Value {
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

pub(crate) fn installing(id: u64) -> Value {
    task(id, "RUNNING", ["SUCCESSFUL", "RUNNING", "PENDING", "PENDING"])
}

fn done(id: u64) -> Value {
    task(id, "SUCCESSFUL", ["SUCCESSFUL"; 4])
}

pub(crate) fn failed(id: u64) -> Value {
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

pub(crate) fn instance(id: u64) -> String {
    format!("GET /api/v2/tasks/instances/{id}")
}

pub(crate) fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[tokio::test]
async fn added_hosts_are_followed_to_their_end() {
    let create = "POST /api/v2/compute/hosts/batchCreate";
    let made = json!({"contents": [fresh(33001), fresh(33002)]});
    let fake = Fake::start().await.answers(create, made.clone()).answers(create, made);
    let fake = fake.answers(&instance(33001), done(33001)).answers(&instance(33002), done(33002));
    let told = fake.run(&words("host add 10.0.0.1 10.0.0.2 --alias db")).await;
    let detached = fake.run(&words("host add 10.0.0.1 10.0.0.2 --detach")).await;
    assert_snapshot!(format!("{told}\n\n{detached}\n{}", fake.requests()));
}

#[tokio::test]
async fn agents_are_restarted_and_stopped_once_that_is_confirmed() {
    let compute = "POST /api/v2/compute/hosts";
    let fake = Fake::start().await.answers(&format!("{compute}/batchRestartAgents"), fresh(33001));
    let fake = fake.answers(&format!("{compute}/batchStopAgents"), fresh(33002));
    let restarted = fake.run(&words("host restart-agent 1 2 --detach --yes")).await;
    let unsure = fake.run(&words("host stop-agent 1 2 --detach")).await;
    let sure = fake.run(&words("host stop-agent 1 2 --detach --yes")).await;
    assert_snapshot!(format!("{restarted}\n\n{unsure}\n\n{sure}\n{}", fake.requests()));
}

#[tokio::test]
async fn agents_are_upgraded_by_files_that_are_uploaded_before() {
    const NAME: &str = "oblet-agent_0.1.0-2_amd64.deb";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(NAME);
    std::fs::write(&file, "content").unwrap();
    let upgrade = "POST /api/v2/compute/hosts/batchUpgradeAgents";
    let packages = "GET /api/v2/software-packages";
    let fake = Fake::start()
        .await
        .answers("GET /api/v2/compute/hosts", page(json!([{"id": 1}, {"id": 2}])))
        .answers(packages, page(json!([])))
        .answers(packages, page(json!([{"id": 7, "fileName": NAME}])))
        .answers("POST /api/v2/software-packages", json!({"id": 7}))
        .answers(upgrade, fresh(33001));
    let command = ["host", "upgrade-agent", "--package", file.to_str().unwrap()];
    let run = async |rest: &str| fake.run(&[command.to_vec(), words(rest)].concat()).await;
    let absent = run("--all --dry-run").await;
    let tried = run("--all --dry-run").await;
    let begun = run("2 1 --parallel 1 --detach --yes").await;
    let requests = fake.requests();
    // The boundary of an upload is another each time.
    let upgrades: Vec<_> = requests.lines().filter(|line| line.starts_with(upgrade)).collect();
    let told = format!("{absent}\n\n{tried}\n\n{begun}\n{}", upgrades.join("\n"));
    assert_snapshot!(told.replace(directory.path().to_str().unwrap(), "DIRECTORY"));
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
    let told = fake.run(&words("task list --status running --status Successful --limit 2")).await;
    assert_snapshot!(format!("{told}\n{}", fake.requests()));
}

#[tokio::test]
async fn a_failed_task_can_be_rolled_back_or_retried() {
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
        .answers(&format!("{path}/retry"), fresh(33002));
    let undo = fake.run(&words("task rollback 33002 --yes")).await;
    let retry = fake.run(&words("task retry 33002 --detach")).await;
    assert_snapshot!(format!("{undo}\n\n{retry}\n{}", fake.requests()));
}

#[tokio::test]
async fn a_dry_run_of_a_decision_shows_how_the_task_would_stand() {
    let path = "POST /api/v2/tasks/instances/33002";
    let mut after = task(33002, "RUNNING", ["SUCCESSFUL", "READY", "PENDING", "PENDING"]);
    after["operation"] = json!("RETRY");
    after["subtasks"][2]["operation"] = json!("RETRY");
    let mut fake = Fake::start().await;
    for verb in ["retry", "rollback", "cancel"] {
        fake = fake.answers(&format!("{path}/{verb}"), after.clone());
    }
    let mut told = fake.run(&words("task retry 33002 --dry-run")).await;
    for command in ["task rollback 33002 --dry-run -o name", "task cancel 33002 --dry-run -o name --quiet"] {
        told += &format!("\n\n{}", fake.run(&words(command)).await);
    }
    assert_snapshot!(format!("{told}\n{}", fake.requests()));
}

#[tokio::test]
async fn a_canceled_task_is_followed_until_it_is_at_rest() {
    let canceled = |status: &str, steps: [&str; 4]| {
        let mut task = task(33002, status, steps);
        task["operation"] = json!("CANCEL");
        task
    };
    let canceling = canceled("RUNNING", ["SUCCESSFUL", "CANCELING", "PENDING", "PENDING"]);
    let fake = Fake::start()
        .await
        .answers("POST /api/v2/tasks/instances/33002/cancel", canceling.clone())
        .answers(&instance(33002), canceling)
        .answers(&instance(33002), canceled("FAILED", ["SUCCESSFUL", "FAILED", "PENDING", "PENDING"]));
    let followed = fake.run(&words("task cancel 33002 --yes")).await;
    let detached = fake.run(&words("task cancel 33002 --detach -y")).await;
    assert_snapshot!(format!("{followed}\n\n{detached}"));
}

#[tokio::test]
async fn what_a_subtask_waits_for_is_shown() {
    let mut waiting = installing(33002);
    waiting["subtasks"][2]["waiting"] =
        json!({"for": "an answer of agent 10.0.0.2:62898", "until": "2021-09-03T17:25:08.004+08:00"});
    waiting["subtasks"][1]["waiting"] = json!({"for": "Install rpm by package and version (34807)"});
    let fake = Fake::start()
        .await
        .answers(&instance(33002), waiting.clone())
        .answers(&instance(33002), waiting.clone())
        .answers(&instance(33002), waiting)
        .answers(&instance(33002), done(33002));
    let shown = fake.run(&words("task show 33002")).await;
    let watched = fake.run(&words("task watch 33002")).await;
    assert_snapshot!(format!("{shown}\n\n{watched}"));
}

#[tokio::test]
async fn a_task_that_needs_an_operator_says_why_and_what_to_do() {
    let mut broken = task(33002, "FAILED", ["SUCCESSFUL", "RUNNING", "PENDING", "PENDING"]);
    broken["problem"] = json!("event 7 of its journal cannot be read");
    let fake = Fake::start()
        .await
        .answers(&instance(33002), broken.clone())
        .answers("GET /api/v2/tasks/instances", page(json!([broken])));
    let mut told = fake.run(&words("task list")).await;
    for command in ["task show 33002", "task watch 33002"] {
        told += &format!("\n\n{}", fake.run(&words(command)).await);
    }
    assert_snapshot!(told);
}

#[tokio::test]
async fn what_a_dead_task_has_reserved_is_released_once_that_is_confirmed() {
    let released = json!({"contents": [{"object": "host 2"}, {"object": "obproxy cluster 1"}]});
    let fake = Fake::start().await.answers("POST /api/v2/tasks/instances/33002/releaseLocks", released);
    let unsure = fake.run(&words("task unlock 33002")).await;
    assert_eq!(fake.requests(), "");
    let planned = fake.run(&words("task unlock 33002 --dry-run")).await;
    let sure = fake.run(&words("task unlock 33002 --yes")).await;
    assert_snapshot!(format!("{unsure}\n\n{planned}\n\n{sure}\n{}", fake.requests()));
}

#[tokio::test]
async fn a_request_whose_connection_broke_is_sent_again_with_its_key() {
    let fake = Fake::start()
        .await
        .streams(BATCH_ADD, "", End::Broken)
        .streams(BATCH_ADD, "", End::Broken)
        .answers(BATCH_ADD, json!({"contents": [fresh(33002)]}));
    let told = fake.run(&words(&format!("{ADD} --detach"))).await;
    let keys = fake.header("Idempotency-Key");
    assert!(keys.len() == 3 && keys[0].is_some() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_snapshot!(told);
}

#[tokio::test]
async fn each_request_has_a_key_of_its_own_or_that_of_the_operator() {
    let fake = Fake::start().await.answers(BATCH_ADD, json!({"contents": [fresh(33002)]}));
    for more in ["", "", " --idempotency-key change-17", " --idempotency-key a\u{e9}"] {
        let args = format!("{ADD} --detach{more}");
        fake.run(&words(&args)).await;
    }
    fake.run(&words(&format!("{ADD} --dry-run"))).await;
    let keys = fake.header("Idempotency-Key");
    assert!(keys[0].is_some() && keys[1].is_some() && keys[0] != keys[1], "{keys:?}");
    assert_eq!(keys[2..], [Some("change-17".into()), None]);
}

#[tokio::test]
async fn a_request_that_is_never_answered_tells_its_key() {
    let args = format!("{ADD} --detach --idempotency-key change-17");
    let fake = Fake::start().await.streams(BATCH_ADD, "", End::Broken);
    let output = fake.command(&words(&args)).output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), fake.header("Idempotency-Key").len()), (Some(6), 6));
    assert!(stderr.contains("add: --idempotency-key change-17\n"), "{stderr}");
}

#[tokio::test]
async fn a_reservation_is_told_with_its_holder_and_the_next_move() {
    let error = json!({
        "code": 7004,
        "message": "CMP07004: host 2 is reserved by task 4, Install obproxy, RUNNING since 2026-01-01T00:00:00.000Z",
        "nextMove": "wait until task 4 is over: oblet task watch 4",
    });
    let fake = Fake::start().await.refuses(BATCH_ADD, 409, error);
    assert_snapshot!(fake.run(&words(ADD)).await);
}

#[tokio::test]
async fn a_task_that_was_rolled_back_is_not_called_successful() {
    let mut undone = task(33002, "SUCCESSFUL", ["PENDING"; 4]);
    undone["operation"] = json!("ROLLBACK");
    let fake = Fake::start()
        .await
        .answers("GET /api/v2/tasks/instances", page(json!([undone])))
        .answers(&instance(33002), undone);
    let list = fake.run(&words("task list")).await;
    let shown = fake.run(&words("task show 33002")).await;
    assert!(list.contains("ROLLED BACK") && !list.contains("0/4"), "{list}");
    assert!(shown.contains("Status:      ROLLED BACK"), "{shown}");
}
