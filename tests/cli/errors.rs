//! What an operator is told when a command fails, and the exit code a script sees.

use insta::assert_snapshot;
use serde_json::json;
use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

use crate::fake::{Fake, PASSWORD, oblet, page, tell};

const HOST: &str = "GET /api/v2/compute/hosts/2";

#[tokio::test]
async fn what_does_not_exist() {
    let fake = Fake::start().await;
    assert_snapshot!(fake.run(&["host", "show", "2"]).await);
}

#[tokio::test]
async fn what_an_older_coordinator_does_not_know() {
    let error = json!({"code": 10998, "message": "COM10998: there is nothing under this path"});
    let fake = Fake::start().await.refuses("GET /api/v2/compute/regions", 404, error);
    let told = fake.run(&["region", "list"]).await;
    assert!(told.contains("compare them with oblet version") && told.ends_with("exit 3"), "{told}");
}

#[tokio::test]
async fn a_wrong_password() {
    let fake = Fake::start().await;
    let args = ["host", "list"];
    let output = fake.command(&args).env("OBLET_PASSWORD", "wrong").output().await.unwrap();
    assert_snapshot!(fake.tell(&args, &output));
}

#[tokio::test]
async fn a_bad_request_is_told_field_by_field() {
    let error = json!({
        "code": 400,
        "message": "The request is not valid",
        "subErrors": [{"field": "sqlPort", "message": "port 2883 is taken on host 2"}, {"message": "no such package"}],
    });
    let fake = Fake::start().await.refuses("POST /api/v2/obproxy/clusters/1/obproxies/batchAdd", 400, error);
    assert_snapshot!(fake.run(&["obproxy", "add", "1", "--host", "2", "--version", "obproxy.rpm"]).await);
}

#[tokio::test]
async fn a_conflict() {
    let error = json!({"code": 7004, "message": "The host is in use", "target": "OBProxy001"});
    let fake = Fake::start().await.refuses("DELETE /api/v2/compute/hosts/2", 409, error);
    assert_snapshot!(fake.run(&["host", "remove", "2", "-y"]).await);
}

#[tokio::test]
async fn the_coordinators_own_advice_comes_first() {
    let error = json!({"code": 10007, "message": "TSK10007: task 7: the task is EXECUTE RUNNING",
        "nextMove": "wait until the task has come to rest"});
    let fake = Fake::start().await.refuses("POST /api/v2/tasks/instances/7/retry", 409, error);
    assert_snapshot!(fake.run(&["task", "retry", "7"]).await);
}

#[tokio::test]
async fn too_many_requests_tell_how_long_to_wait() {
    let error = json!({"code": 10003, "message": "IAM10003: too many logins wait to be checked"});
    let fake = Fake::start().await.refuses(HOST, 429, error).with_header("Retry-After", "7");
    assert_snapshot!(fake.run(&["host", "show", "2"]).await);
}

#[tokio::test]
async fn answers_of_something_else() {
    let fake = Fake::start().await.raw(HOST, 200, "<html>welcome</html>".into()).raw(HOST, 302, String::new()).raw(
        HOST,
        500,
        "oops".into(),
    );
    let mut told = String::new();
    for _ in 0..3 {
        told += &format!("{}\n\n", fake.run(&["host", "show", "2"]).await);
    }
    assert_snapshot!(told);
}

#[tokio::test]
async fn nobody_listens() {
    // Bound and not listened on: nobody else gets the port.
    let mute = tokio::net::TcpSocket::new_v4().unwrap();
    mute.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = mute.local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let args = ["host", "list"];
    let output = oblet(&args).env("OBLET_URL", &url).env("OBLET_PASSWORD", PASSWORD).output().await.unwrap();
    assert_snapshot!(tell(&args, &output).replace(&url, "http://COORDINATOR"));
}

#[tokio::test]
async fn nobody_answers() {
    // The kernel accepts the connection, nobody reads from it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let args = ["host", "list", "--timeout", "1"];
    let output = oblet(&args).env("OBLET_URL", &url).env("OBLET_PASSWORD", PASSWORD).output().await.unwrap();
    assert_snapshot!(tell(&args, &output));
}

#[tokio::test]
async fn settings_that_cannot_work() {
    let mut told = String::new();
    for (args, password) in [
        (&["host", "list"][..], ""),
        (&["host", "list", "--url", "http://ocp.example:8080"], PASSWORD),
        (&["host", "list", "--password-file", "/nonexistent/password"], ""),
        (&["task", "list", "--timeout", "0"], PASSWORD),
        (&["host", "list", "--context", "prod"], ""),
    ] {
        let output = oblet(args).env("OBLET_PASSWORD", password).output().await.unwrap();
        told += &format!("{}\n\n", tell(args, &output));
    }
    assert_snapshot!(told);
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let fake = Fake::start().await.answers("GET /api/v2/compute/hosts", page(json!([{"id": 1}])));
    for format in ["table", "json"] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = fake.command(&["host", "list", "-o", format]).stdout(writer).output().await.unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{format}");
    }
}
