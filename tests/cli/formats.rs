//! How answers and errors are printed: tables, JSON, YAML, times, the width of a terminal.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::{
    fake::{Fake, oblet, page, tell},
    terminal::{COLUMNS, Terminal},
};

const HOSTS: &str = "GET /api/v2/compute/hosts";

fn host() -> Value {
    json!({
        "id": 1,
        "name": "node1.example",
        "alias": "db1",
        "description": "the first database host in the second rack of the third room",
        "innerIpAddress": "10.0.0.1",
        "status": "ONLINE",
        "hostAgentVersion": "0.1.0",
        "operatingSystem": "Debian GNU/Linux 12 (bookworm)",
        "operatingSystemRelease": "6.1.0-25-amd64",
        "architecture": "x86_64",
        "idcName": "hz1",
        "regionName": "hangzhou",
        "typeName": "large",
        "createTime": "2021-09-03T15:05:01.106+08:00",
    })
}

#[tokio::test]
async fn a_list_can_be_wide_or_yaml() {
    let fake = Fake::start().await.answers(HOSTS, page(json!([host()])));
    let mut told = String::new();
    for format in ["table", "wide", "yaml"] {
        told += &format!("{}\n\n", fake.run(&["host", "list", "-o", format]).await);
    }
    assert_snapshot!(told);
}

#[tokio::test]
async fn a_host_is_shown_with_its_system_and_its_place() {
    let fake = Fake::start().await.answers("GET /api/v2/compute/hosts/1", host());
    assert_snapshot!(fake.run(&["host", "show", "1"]).await);
}

#[tokio::test]
async fn an_error_has_the_format_of_the_data() {
    let error = json!({
        "code": 400,
        "message": "COM00400: The request is not valid",
        "subErrors": [{"field": "sqlPort", "message": "port 2883 is taken on host 2"}],
        "nextMove": "choose another port",
    });
    let add = "POST /api/v2/obproxy/clusters/1/obproxies/batchAdd";
    let fake = Fake::start().await.refuses(add, 400, error);
    let mut told = String::new();
    for line in [
        "obproxy add 1 --host 2 --version obproxy.rpm -o json",
        "obproxy add 1 --host 2 --version obproxy.rpm -o yaml",
        "host remove 2 -o json",
        "host remove -o json",
        "host remove --output=yaml",
    ] {
        told += &format!("{}\n\n", fake.run(&line.split(' ').collect::<Vec<_>>()).await);
    }
    assert_snapshot!(told);
}

#[tokio::test]
async fn a_program_that_reads_json_is_told_nothing_else() {
    let failed = json!({"id": 4, "name": "Install obproxy", "status": "FAILED", "subtasks": [
        {"id": 7, "name": "Install rpm", "status": "FAILED", "failure": {"message": "the disk is full"}},
    ]});
    let fake = Fake::start().await.answers("GET /api/v2/tasks/instances/4", failed);
    let output = fake.command(&["task", "watch", "4", "-o", "json"]).output().await.unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), &error["message"], &error["status"]),
        (Some(1), &json!("the task failed"), &Value::Null)
    );
    assert_eq!(error["details"][0]["taskId"], 4);
    assert!(error["details"][0]["report"].as_str().unwrap().contains("the disk is full"), "{error}");
}

#[tokio::test]
async fn free_text_is_wrapped_to_the_terminal_and_nothing_is_cut_elsewhere() {
    let event = json!({
        "id": 9, "user": "admin", "action": "host.create", "object": "host 1", "createTime": "2021-09-03T15:05:01.106+08:00",
        "detail": "10.0.0.1 with the agent on port 62898", "traceId": "0fda4c74b7a84932",
    });
    let fake = Fake::start().await.answers("GET /api/v2/audit/events", page(json!([event])));
    let args = ["audit", "list"];
    let (code, screen) = Terminal::start(fake.command(&args)).end().await;
    assert_eq!(code, 0);
    assert!(screen.lines().all(|line| line.chars().count() <= COLUMNS.into()), "{screen}");
    let piped = fake.run(&args).await;
    assert_snapshot!(format!("{screen}\n{piped}"));
}

#[tokio::test]
async fn a_flag_for_colours_takes_precedence_over_the_environment() {
    let fake = Fake::start().await.answers(HOSTS, page(json!([host()])));
    for (color, expected) in [("always", true), ("auto", false)] {
        let mut command = fake.command(&["host", "list", "--color", color]);
        let output = command.env("NO_COLOR", "1").output().await.unwrap();
        assert_eq!(output.stdout.contains(&0x1b), expected, "{color}");
    }
}

#[tokio::test]
async fn usage_errors_show_what_is_required_and_nothing_else() {
    let mut told = String::new();
    for line in [
        "obproxy create",
        "obproxy create p --version obproxy.rpm",
        "host add 10.0.0.1 --ttl 2h",
        "host add 10.0.0.1 --token --ttl soon",
        "task list --status lost",
        "task show x",
    ] {
        let args: Vec<_> = line.split(' ').collect();
        let output = oblet(&args).env("OBLET_TIMEOUT", "30").output().await.unwrap();
        told += &format!("{}\n\n", tell(&args, &output));
    }
    assert_snapshot!(told);
}
