//! Hosts, packages, OBProxy clusters, targets: what is asked, and how it is printed.

use insta::assert_snapshot;
use serde_json::{Value, json};
use std::io::Write;

use crate::fake::{Fake, PASSWORD, oblet, page, tell};

const HOSTS: &str = "GET /api/v2/compute/hosts";

fn host(id: u64, status: &str) -> Value {
    json!({
        "id": id,
        "name": format!("db{id}"),
        "alias": "",
        "innerIpAddress": format!("10.0.0.{id}"),
        "status": status,
        "hostAgentVersion": "0.1.0",
        "hostAgentStatus": "AVAILABLE",
        "operatingSystem": "Anolis OS 8.9",
        "operatingSystemRelease": "4.19.91",
        "architecture": "x86_64",
        "createTime": "2021-09-03T15:05:01.106+08:00",
        "services": [{"name": "OBProxy001", "type": "OB_PROXY", "version": "1.9.1.1-1919579"}],
    })
}

#[tokio::test]
async fn a_list_is_a_table_or_json_or_names() {
    let hosts = page(json!([host(1, "ONLINE"), host(2, "OFFLINE")]));
    let fake = Fake::start().await.answers(HOSTS, hosts);
    let mut told = fake.run(&["host", "list"]).await;
    for args in [
        &["host", "list", "--no-headers"][..],
        &["host", "list", "-o", "name"],
        &["host", "list", "--color", "always"],
        &["host", "list", "-o", "json"],
    ] {
        told += &format!("\n\n{}", fake.run(args).await);
    }
    assert_snapshot!(told);
}

#[tokio::test]
async fn an_empty_list_prints_nothing_to_stdout() {
    let fake = Fake::start().await.answers(HOSTS, page(json!([])));
    assert_snapshot!(fake.run(&["host", "list"]).await);
}

#[tokio::test]
async fn all_pages_of_a_list_are_fetched() {
    let paged = |number: u64| {
        let page = json!({"number": number, "size": 2000, "totalElements": 2, "totalPages": 2});
        json!({"contents": [host(number, "ONLINE")], "page": page})
    };
    let fake = Fake::start().await.answers(HOSTS, paged(1)).answers(HOSTS, paged(2));
    let told = fake.run(&["host", "list", "-o", "name"]).await;
    assert_snapshot!(format!("{told}\n{}", fake.requests()));
}

#[tokio::test]
async fn a_host_is_shown_with_its_services() {
    let fake = Fake::start().await.answers("GET /api/v2/compute/hosts/2", host(2, "ONLINE"));
    assert_snapshot!(fake.run(&["host", "show", "2"]).await);
}

#[tokio::test]
async fn removing_wants_to_be_confirmed() {
    let fake = Fake::start().await.answers("DELETE /api/v2/compute/hosts/2", Value::Null);
    let unsure = fake.run(&["host", "remove", "2"]).await;
    assert_eq!(fake.requests(), "");
    let sure = fake.run(&["host", "remove", "2", "--yes"]).await;
    assert_snapshot!(format!("{unsure}\n\n{sure}\n{}", fake.requests()));
}

#[tokio::test]
async fn a_package_is_sent_as_a_form() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("obproxy-ce-4.3.1.0-4.el8.x86_64.rpm");
    std::fs::write(&path, "content of the package").unwrap();
    let package = json!({
        "id": 7,
        "fileName": "obproxy-ce-4.3.1.0-4.el8.x86_64.rpm",
        "type": "OBPROXY_INSTALL_PACKAGE",
        "version": "4.3.1.0",
        "buildNumber": "4.el8",
        "architecture": "x86_64",
        "size": 22,
        "sha1": "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
    });
    let fake = Fake::start()
        .await
        .answers("POST /api/v2/software-packages", package.clone())
        .answers("GET /api/v2/software-packages", page(json!([package])));
    let told = fake.run(&["package", "upload", path.to_str().unwrap()]).await;
    let told = told.replace(directory.path().to_str().unwrap(), "DIRECTORY");
    assert_snapshot!(format!("{told}\n\n{}", fake.run(&["package", "list"]).await));
    let tried = fake.run(&["package", "upload", path.to_str().unwrap(), "--dry-run"]).await;
    assert!(tried.contains("can be uploaded; nothing was stored") && tried.ends_with("exit 0"), "{tried}");
    let request = fake.requests();
    assert!(request.contains("POST /api/v2/software-packages?dryRun=true"), "{request}");
    let disposition = r#"form-data; name="file"; filename="obproxy-ce-4.3.1.0-4.el8.x86_64.rpm""#;
    assert!(request.contains(disposition) && request.contains("\r\n\r\ncontent of the package\r\n"), "{request}");
}

#[tokio::test]
async fn a_renamed_package_is_refused_with_both_names() {
    let directory = tempfile::tempdir().unwrap();
    let package =
        rpm::PackageBuilder::new("obproxy-ce", "4.3.1.0", "Apache-2.0", "x86_64", "a proxy").release("4.el8").build();
    let path = directory.path().join("proxy.rpm");
    package.unwrap().write_file(&path).unwrap();
    let fake = Fake::start().await;
    let told = fake.run(&["package", "upload", path.to_str().unwrap()]).await;
    assert_eq!(fake.requests(), "");
    assert_snapshot!(told.replace(directory.path().to_str().unwrap(), "DIRECTORY"));
}

#[tokio::test]
async fn a_cluster_is_shown_by_its_name() {
    let cluster = json!({
        "id": 1,
        "name": "OBProxy001",
        "address": "foo.bar",
        "port": 2883,
        "workMode": "CONFIG_URL",
        "creatorName": "admin",
        "createTime": "2021-09-03T15:05:01.106+08:00",
        "obproxies": [
            {"id": 2, "hostId": 2, "ip": "10.0.0.2", "sqlPort": 2883, "exporterPort": 2884,
                "version": "1.9.1.1-1919579", "status": "RUNNING"},
            {"id": 3, "hostId": 2, "ip": "10.0.0.2", "sqlPort": 2893, "exporterPort": 2894, "rpcPort": 2895,
                "version": "4.3.1.0-4", "status": "RUNNING"},
        ],
        "obLinks": [{"clusterName": "hooray", "obClusterId": 1, "username": "proxyro", "status": "RUNNING"}],
    });
    let fake = Fake::start()
        .await
        .answers("GET /api/v2/obproxy/clusters", page(json!([cluster.clone()])))
        .answers("GET /api/v2/obproxy/clusters/1", cluster);
    let list = fake.run(&["obproxy", "list"]).await;
    let shown = fake.run(&["obproxy", "show", "OBProxy001"]).await;
    let unknown = fake.run(&["obproxy", "show", "OBProxy002"]).await;
    assert_snapshot!(format!("{list}\n\n{shown}\n\n{unknown}"));
}

#[tokio::test]
async fn a_cluster_is_created_as_asked() {
    let task = json!({"id": 31257, "name": "Install obproxy", "status": "RUNNING", "subtasks": []});
    let fake = Fake::start().await.answers("POST /api/v2/obproxy/clusters", task);
    let mut secret = tempfile::NamedTempFile::new().unwrap();
    secret.write_all(b"Aa11+._bB\n").unwrap();
    let with_list = [
        "obproxy create OBProxy001 --detach --ob-link hooray:1 --rs-list 10.0.0.1:2881,10.0.0.2:2881 --host 1 2",
        "--version obproxy-4.3.1.0-4.el7.x86_64.rpm --parameter enable_proxy_scramble=True --address foo.bar",
        "--rpc-port 2895",
        "--startup-parameter obproxy_config_server_url= --proxyro-password-file",
    ]
    .join(" ");
    let mut args: Vec<_> = with_list.split(' ').collect();
    args.push(secret.path().to_str().unwrap());
    let told = fake.run(&args).await.replace(secret.path().to_str().unwrap(), "SECRET");
    let empty = fake.run(&["obproxy", "create", "OBProxy002", "--detach", "--ob-link", "hooray:1:ro"]).await;
    let wrong = fake.run(&["obproxy", "create", "OBProxy003", "--rs-list", "10.0.0.1:2881"]).await;
    assert_snapshot!(format!("{told}\n\n{empty}\n\n{wrong}\n\n{}", fake.requests()));
}

#[tokio::test]
async fn a_proxy_is_added_on_the_ports_that_were_asked_for() {
    let task = json!({"id": 31258, "name": "Install obproxy", "status": "RUNNING", "subtasks": []});
    let fake =
        Fake::start().await.answers("POST /api/v2/obproxy/clusters/1/obproxies/batchAdd", json!({"contents": [task]}));
    let add = "obproxy add 1 --host 2 --version obproxy-4.3.1.0-4.el7.x86_64.rpm --detach";
    let with_ports = format!("{add} --sql-port 2893 --exporter-port 2894 --rpc-port 2895");
    for line in [add, with_ports.as_str()] {
        fake.run(&line.split(' ').collect::<Vec<_>>()).await;
    }
    assert_snapshot!(fake.requests());
}

#[tokio::test]
async fn targets_are_those_of_service_discovery() {
    let targets = json!([
        {"targets": ["10.0.0.1:62899"], "labels": {"job": "oblet-agent", "host": "db1"}},
        {"targets": ["10.0.0.1:2884", "10.0.0.2:2884"], "labels": {"job": "obproxy"}},
    ]);
    let fake = Fake::start().await.raw("GET /api/v2/prometheus/targets", 200, targets.to_string());
    let table = fake.run(&["target", "list"]).await;
    let names = fake.run(&["target", "list", "-o", "name"]).await;
    assert_snapshot!(format!("{table}\n\n{names}"));
}

#[tokio::test]
async fn help_names_the_commands_and_the_exit_codes() {
    let output = oblet(&["--help"]).output().await.unwrap();
    assert_snapshot!(tell(&["--help"], &output));
}

#[tokio::test]
async fn completion_needs_no_coordinator() {
    for shell in ["bash", "zsh", "fish"] {
        let output = oblet(&["completion", shell]).output().await.unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("oblet"), "{shell}");
    }
}

#[tokio::test]
async fn the_password_may_come_from_a_file_or_from_standard_input() {
    let fake = Fake::start().await.answers(HOSTS, page(json!([host(1, "ONLINE")])));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{PASSWORD}").unwrap();
    for source in [file.path().to_str().unwrap(), "-"] {
        let mut command = oblet(&["host", "list", "-o", "name", "--url", &fake.url, "--password-file", source]);
        let output = command.stdin(file.reopen().unwrap()).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n", "{source}");
    }
}

#[tokio::test]
async fn the_agent_of_a_host_is_shown_with_its_process() {
    let process =
        json!({"id": 1, "pid": 17, "user": "root", "elapsedTime": 60, "startCommand": "/usr/bin/oblet-agent"});
    let agent = json!({
        "hostId": 2, "hostInnerIpAddress": "10.0.0.2", "status": "STARTED", "version": "0.1.0",
        "installHome": "/usr/bin", "logHome": "/var/lib/oblet-agent/logs", "processes": [process],
    });
    let fake = Fake::start().await.answers("GET /api/v2/compute/hosts/2/agent", agent);
    assert_snapshot!(fake.run(&["host", "agent", "2"]).await);
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_shown_and_has_an_exit_code_of_its_own() {
    for status in ["UNREACHABLE", "STOPPED"] {
        let agent = json!({"hostId": 2, "hostInnerIpAddress": "10.0.0.2", "status": status, "version": "0.1.0",
            "problem": "no answer within 30 s", "processes": []});
        let fake = Fake::start().await.answers("GET /api/v2/compute/hosts/2/agent", agent);
        let told = fake.run(&["host", "agent", "2"]).await;
        assert!(told.contains(&format!("Status:    {status}\nProblem:   no answer within 30 s")), "{told}");
        assert!(told.contains(&format!("error: the agent of host 2 is {status}")), "{told}");
        assert!(told.ends_with("exit 6"), "{told}");
        let data = fake.run(&["host", "agent", "2", "-o", "json"]).await;
        assert!(data.contains(&format!(r#""status": "{status}""#)) && data.ends_with("exit 6"), "{data}");
    }
}

#[tokio::test]
async fn an_epoch_is_raised_with_the_next_start_of_the_coordinator() {
    let epochs = json!({"agentEpoch": 1_795_284_400, "coordinatorEpoch": 1_795_284_387, "nextEpoch": 1_795_284_401});
    let fake = Fake::start().await.answers("POST /api/v2/compute/hosts/2/agent/resetEpoch", epochs);
    assert_snapshot!(fake.run(&["host", "reset-epoch", "2", "--yes"]).await);
}
