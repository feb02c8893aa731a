//! What destroys, interrupts or undoes is asked for: on a terminal by a question, elsewhere by --yes.

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::{fake::Fake, terminal::Terminal};

/// Each with the request that it leads to.
const COMMANDS: [(&str, &str); 14] = [
    ("task rollback 4", "POST /api/v2/tasks/instances/4/rollback"),
    ("task cancel 4", "POST /api/v2/tasks/instances/4/cancel"),
    ("task unlock 4", "POST /api/v2/tasks/instances/4/releaseLocks"),
    ("subtask skip 4 7", "POST /api/v2/tasks/instances/4/subtasks/7/skip"),
    ("subtask cancel 4 7", "POST /api/v2/tasks/instances/4/subtasks/7/cancel"),
    ("host remove 2", "DELETE /api/v2/compute/hosts/2"),
    ("host revoke 2", "POST /api/v2/compute/hosts/revoke"),
    ("host stop-agent 2", "POST /api/v2/compute/hosts/batchStopAgents"),
    ("host restart-agent 2", "POST /api/v2/compute/hosts/batchRestartAgents"),
    ("host upgrade-agent 2 --package 8", "POST /api/v2/compute/hosts/batchUpgradeAgents"),
    ("host reset-epoch 2", "POST /api/v2/compute/hosts/2/agent/resetEpoch"),
    ("package remove 8", "DELETE /api/v2/software-packages/8"),
    ("obproxy remove-link 7 hooray", "DELETE /api/v2/obproxy/clusters/7/obLinks/hooray"),
    ("host token revoke 5", "DELETE /api/v2/compute/hosts/enrolmentTokens/5"),
];

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

async fn coordinator() -> Fake {
    let task = json!({"id": 4, "name": "Install obproxy", "status": "RUNNING"});
    let subtask = json!({"id": 7, "name": "Install rpm", "status": "FAILED"});
    let released = json!({"contents": []});
    let mut fake = Fake::start().await;
    for (line, request) in COMMANDS {
        let answer = match line.split(' ').next() {
            Some("task") if line.contains("unlock") => released.clone(),
            Some("task") => task.clone(),
            Some("subtask") => subtask.clone(),
            _ if line.contains("-agent") => task.clone(),
            _ => Value::Null,
        };
        fake = fake.answers(request, answer);
    }
    fake
}

#[tokio::test]
async fn without_a_terminal_nothing_is_sent() {
    let fake = coordinator().await;
    let mut told = String::new();
    for (line, _) in COMMANDS {
        told += &format!("{}\n\n", fake.run(&words(line)).await);
    }
    assert_eq!(fake.requests(), "");
    assert_snapshot!(told);
}

#[tokio::test]
async fn a_dry_run_needs_no_consent_and_says_so_to_the_coordinator() {
    let fake = coordinator().await;
    for (line, request) in COMMANDS {
        let told = fake.run(&words(&format!("{line} --dry-run"))).await;
        assert!(told.ends_with("--- exit 0"), "{told}");
        let (method, path) = request.split_once(' ').unwrap();
        let last = fake.requests().lines().last().unwrap().to_owned();
        assert!(last.starts_with(&format!("{method} {path}?dryRun=true")), "{line}: {last}");
    }
}

#[tokio::test]
async fn with_consent_it_is_sent() {
    let fake = coordinator().await;
    for (line, request) in COMMANDS {
        // Those that start a task would follow it.
        let detach = if line.contains("-agent") || line.starts_with("task ") && !line.contains("unlock") {
            " --detach"
        } else {
            ""
        };
        let told = fake.run(&words(&format!("{line} --yes{detach}"))).await;
        assert!(told.ends_with("--- exit 0"), "{told}");
        assert!(fake.requests().lines().last().unwrap().starts_with(request), "{line}");
    }
}

#[tokio::test]
async fn on_a_terminal_the_name_has_to_be_repeated() {
    let fake = coordinator().await;
    let mut terminal = Terminal::start(fake.command(&["host", "remove", "2"]));
    terminal.expect("Type 2 to remove host 2: ");
    terminal.types("3\n");
    let (code, told) = terminal.end().await;
    assert_eq!((code, fake.requests().as_str()), (2, ""));
    assert!(told.contains("cannot remove host 2; not confirmed (type 2, or use --yes)"), "{told}");

    let mut terminal = Terminal::start(fake.command(&["host", "stop-agent", "2", "7", "--detach"]));
    terminal.expect("Type 2 to stop the agents of hosts 2, 7 (2 hosts): ");
    terminal.types("2\n");
    let (code, told) = terminal.end().await;
    assert_eq!(code, 0, "{told}");
    assert!(fake.requests().contains(r#"{"hostIds":[2,7]}"#));
}
