//! A host that begins with nothing: token, enrolment, renewal while a connection goes on, revocation, and back in.

use crate::{
    lab::{Lab, PATIENCE, possible, wait_for},
    tokens::{ask_for, connect, enroll_command, shown},
};
use hyper_util::rt::TokioIo;
use oblet::{
    agent::enroll::{EnrollError, Enrolled},
    rpc::v1::{self, agent_service_client::AgentServiceClient},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint;

/// Short enough to see a renewal, long enough for the rest.
const LIFE_SECONDS: u32 = 20;

/// A lab of one host without certificates.
async fn bare() -> Lab {
    let mut lab = Lab::prepare(1);
    fs::remove_dir_all(lab.hosts[0].directory.join("tls")).unwrap();
    lab.configure_coordinator(&format!("agent_certificate_seconds = {LIFE_SECONDS}"));
    lab.start_coordinator();
    lab.connect_coordinator().await;
    lab
}

fn host(lab: &Lab) -> IpAddr {
    lab.hosts[0].address.into()
}

fn file(lab: &Lab, name: &str) -> PathBuf {
    lab.hosts[0].directory.join("tls").join(name)
}

/// The token for the host of the lab, with what is to be told beside it.
async fn token(lab: &Lab, more: Value) -> Value {
    let mut body = json!({"innerIpAddressList": [host(lab)], "ttlSeconds": 600});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, answer) = lab.post("/api/v2/compute/hosts/enrolmentTokens", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"]["contents"][0].clone()
}

/// Runs the line of the token on the host, with its token on standard input.
fn run_line(lab: &Lab, made: &Value, more: &[&str]) -> Output {
    let line = enroll_command(&lab.hosts[0], made, "-");
    let mut child = Command::new(&line[0])
        .args(&line[1..])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", made["token"].as_str().unwrap()).unwrap();
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn coordinator_log(lab: &Lab) -> String {
    fs::read_to_string(lab.directory.path().join("coordinator/coordinator.log")).unwrap()
}

/// Calls over this one connection, and over no other when it is lost.
async fn client(stream: TlsStream<TcpStream>) -> AgentServiceClient<tonic::transport::Channel> {
    let mut once = Some(TokioIo::new(stream));
    let only = tower::service_fn(move |_: tonic::transport::Uri| {
        let stream = once.take().ok_or_else(|| std::io::Error::other("the connection was lost"));
        async move { stream }
    });
    let channel = Endpoint::from_static("http://agent").connect_with_connector(only).await.unwrap();
    AgentServiceClient::new(channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_enrolled_renewed_cut_off_and_taken_back() {
    if !possible() {
        return;
    }
    let mut lab = bare().await;
    let made = token(&lab, json!({})).await;
    let output = run_line(&lab, &made, &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("systemctl enable --now oblet-agent"), "{told}");
    assert_eq!(fs::metadata(file(&lab, "agent.key")).unwrap().permissions().mode() & 0o777, 0o600);
    lab.assert_nowhere(made["token"].as_str().unwrap());
    let again = run_line(&lab, &made, &[]);
    assert!(stderr(&again).contains("--force"), "{}", stderr(&again));

    lab.hosts[0].start_agent();
    lab.connect().await;
    let cluster = lab.set_up(json!({})).await;
    let stream = connect(&lab, lab.hosts[0].address).await;
    let first = shown(&stream);
    let mut before = client(stream).await;
    before.describe_host(v1::DescribeHostRequest {}).await.unwrap();
    let certificate = fs::read(file(&lab, "agent.pem")).unwrap();
    wait_for("a renewal", || fs::read(file(&lab, "agent.pem")).unwrap() != certificate).await;
    wait_for("its record", || coordinator_log(&lab).contains("the certificate of an agent is renewed")).await;
    assert_ne!(shown(&connect(&lab, lab.hosts[0].address).await), first, "whoever comes is shown the other");
    before.describe_host(v1::DescribeHostRequest {}).await.expect("the connection goes on");

    // A task that is under way on a silent host ends because of the trust, not of the silence.
    lab.hosts[0].agent.as_ref().unwrap().pause();
    let id = lab.batch_add(cluster).await[0];
    let (status, answer) = lab.post("/api/v2/compute/hosts/revoke", &json!({"hostId": 1})).await;
    assert_eq!(status, 200, "{answer}");
    let task = lab.finished(id).await;
    assert_eq!(task["status"], "FAILED", "{task:#}");
    assert!(task.to_string().contains(&format!("host {} is revoked", host(&lab))), "{task:#}");
    lab.hosts[0].agent.as_ref().unwrap().resume();
    let renewals = coordinator_log(&lab).matches("the certificate of an agent is renewed").count();

    let fresh = token(&lab, json!({})).await;
    let output = run_line(&lab, &fresh, &["--force"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        coordinator_log(&lab).matches("the certificate of an agent is renewed").count(),
        renewals,
        "nobody renews what is revoked"
    );
    lab.hosts[0].agent.as_mut().unwrap().stop();
    lab.hosts[0].start_agent();
    let (status, answer) = lab.post(&format!("/api/v2/tasks/instances/{id}/retry"), &json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let task = lab.finished(id).await;
    assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
}

/// As the host with this clock would ask.
async fn ask(lab: &Lab, made: &Value, hours: i64) -> Result<Enrolled, EnrollError> {
    ask_for(made, host(lab), &lab.hosts[0].directory.join("tls"), hours).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_is_told_on_both_sides_and_leaves_the_token_to_its_host() {
    let lab = bare().await;
    let made = token(&lab, json!({})).await;
    let address = host(&lab);

    let stolen = run_line(&lab, &made, &["--address", &lab.listen.ip().to_string()]);
    assert_eq!(stolen.status.code(), Some(1));
    let refused = format!("the token is for {address}, and came from {}", lab.listen.ip());
    assert!(stderr(&stolen).contains(&refused), "{}", stderr(&stolen));
    assert!(coordinator_log(&lab).contains(&refused));

    let mut wrong = made.clone();
    wrong["fingerprint"] = format!("sha256:{}", "0".repeat(64)).into();
    let stranger = run_line(&lab, &wrong, &[]);
    assert!(stderr(&stranger).contains("no certificate with the fingerprint sha256:0000"), "{}", stderr(&stranger));

    for hours in [-1, 1] {
        let error = ask(&lab, &made, hours).await.unwrap_err();
        let told = format!("{} {}", oblet::telemetry::chain(&error), error.next_move());
        assert!(told.contains("the clocks differ too much") && told.contains("chronyc"), "{hours}: {told}");
    }
    assert!(coordinator_log(&lab).contains("the clocks differ too much"));
    let error = ask(&lab, &made, -3).await.unwrap_err();
    let told = oblet::telemetry::chain(&error);
    assert!(told.contains("not valid at this host's time"), "before anything is asked: {told}");

    let expired = token(&lab, json!({"ttlSeconds": 1})).await;
    let deadline = Instant::now() + PATIENCE;
    let newest =
        async || lab.get("/api/v2/compute/hosts/enrolmentTokens").await.unwrap()["data"]["contents"][0].clone();
    while newest().await["status"] != "EXPIRED" {
        assert!(Instant::now() < deadline, "the token does not expire");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let late = run_line(&lab, &expired, &[]);
    assert!(stderr(&late).contains("the token expired"), "{}", stderr(&late));

    assert!(!file(&lab, "agent.pem").exists(), "nobody has a certificate yet");
    ask(&lab, &made, 0).await.unwrap();
    let replay = run_line(&lab, &made, &["--force"]);
    assert!(stderr(&replay).contains(&format!("from {address}, for the certificate")), "{}", stderr(&replay));
    assert!(coordinator_log(&lab).contains("the token was used"));

    let events = lab.get("/api/v2/audit/events?size=100").await.unwrap()["data"]["contents"].clone();
    let count = |action: &str| events.as_array().unwrap().iter().filter(|event| event["action"] == action).count();
    assert_eq!(count("host.enroll"), 1);
    assert!(count("host.enroll.refuse") >= 5, "{events:#}");
}
