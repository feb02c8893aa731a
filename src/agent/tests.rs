//! The whole agent over mutual TLS, on a simulated host.

use super::{
    Agent, AgentError, Settings,
    operation::{Key, Order, Phase},
    runner::simulated::{Behaviour, PASSWORD, Simulated, check, damage, install, order, refresh, sync_parameters},
    start,
};
use crate::{
    coordinator::agents::{AgentAddress, AgentPool},
    rpc::{
        fault_reason,
        v1::{self, agent_service_client::AgentServiceClient, watch_response::Item},
    },
    tls::{CallerTls, Identity, Role, install_crypto_provider, testing::issue},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Code, Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

type Client = AgentServiceClient<Channel>;

struct Lab {
    directory: tempfile::TempDir,
    carrier: Arc<Simulated>,
}

struct Running {
    agent: Agent,
    client: Client,
    shutdown: DropGuard,
}

impl Running {
    async fn stop(self) {
        drop(self.client);
        drop(self.shutdown);
        self.agent.wait().await.unwrap();
    }
}

async fn connect(address: SocketAddr, identity: &Identity) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new()
        .identity(tonic::transport::Identity::from_pem(&identity.certificate_pem, &*identity.key_pem))
        .ca_certificate(tonic::transport::Certificate::from_pem(&identity.ca_pem))
        .domain_name(address.ip().to_string());
    Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(tls)?
        .connect_timeout(Duration::from_secs(30))
        .connect()
        .await
}

impl Lab {
    fn new(behaviour: Behaviour) -> Self {
        install_crypto_provider();
        Self { directory: tempfile::tempdir().unwrap(), carrier: Simulated::new(behaviour) }
    }

    async fn start(&self) -> Running {
        let settings = Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            metrics_port: 62899,
            state_dir: self.directory.path().join("state"),
            root_dir: "/".into(),
            identity: issue(self.directory.path(), Role::Agent),
            identity_paths: None,
            reflection: true,
            retention: Duration::from_secs(3600),
            log_limit_bytes: 1 << 30,
            grace: Duration::from_secs(5),
        };
        let shutdown = CancellationToken::new();
        let agent = start(settings, self.carrier.clone(), self.carrier.clone(), shutdown.clone()).await.unwrap();
        let channel = connect(agent.address(), &issue(self.directory.path(), Role::Coordinator)).await.unwrap();
        Running { agent, client: Client::new(channel), shutdown: shutdown.drop_guard() }
    }
}

fn wire_key(key: Key) -> Option<v1::OperationKey> {
    Some(v1::OperationKey { operation_id: key.operation_id.to_string(), attempt: key.attempt })
}

fn request(order: &Order) -> v1::SubmitRequest {
    v1::SubmitRequest {
        key: wire_key(order.key),
        epoch: order.epoch,
        fingerprint: order.fingerprint.clone(),
        direction: v1::Direction::Execute.into(),
        step: Some((&order.step).into()),
        secrets: order
            .secrets
            .iter()
            .map(|(name, value)| v1::Secret { name: name.into(), value: value.into() })
            .collect(),
        ..Default::default()
    }
}

async fn collect(client: &mut Client, key: Key, after_sequence: u64, log_offset: u64) -> (Vec<v1::Event>, Vec<u8>) {
    let watch = v1::WatchRequest { key: wire_key(key), after_sequence, log_offset };
    let mut stream = client.watch(watch).await.unwrap().into_inner();
    let (mut events, mut log) = (Vec::new(), Vec::new());
    while let Some(response) = stream.message().await.unwrap() {
        match response.item.unwrap() {
            Item::Event(event) => events.push(event),
            Item::Log(chunk) => {
                assert_eq!(chunk.offset, log_offset + log.len() as u64);
                log.extend(chunk.data);
            }
            Item::Heartbeat(_) => {}
        }
    }
    (events, log)
}

#[tokio::test]
async fn an_operation_is_watched_to_its_end_and_acknowledged() {
    let lab = Lab::new(Behaviour::Succeed);
    let mut running = lab.start().await;
    let order = order(install());
    let accepted = running.client.submit(request(&order)).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(accepted.phase(), v1::Phase::Accepted);

    let (events, log) = collect(&mut running.client, order.key, 0, 0).await;
    let phases: Vec<_> = events.iter().map(v1::Event::phase).collect();
    assert_eq!(phases, [v1::Phase::Accepted, v1::Phase::Starting, v1::Phase::Running, v1::Phase::Finished]);
    assert_eq!(log, b"begin\nend\n");
    let outcome = events[3].outcome.clone().unwrap();
    assert_eq!((outcome.result(), outcome.effect()), (v1::Result::Succeeded, v1::Effect::Done));

    let acknowledge = v1::AcknowledgeRequest { key: wire_key(order.key), epoch: 1, more: Vec::new() };
    running.client.acknowledge(acknowledge).await.unwrap();
    let got = running.client.get(v1::GetRequest { key: wire_key(order.key) }).await.unwrap().into_inner();
    let got = got.operation.unwrap();
    assert_eq!((got.phase(), got.log_bytes, got.outcome), (v1::Phase::Acknowledged, 10, Some(outcome)));
    let list = v1::ListOperationsRequest { unfinished_only: true, ..Default::default() };
    assert!(running.client.list_operations(list).await.unwrap().into_inner().operations.is_empty());
    running.stop().await;
}

fn that_waits(order: &Order, wait: Duration) -> v1::SubmitRequest {
    v1::SubmitRequest { wait: wait.try_into().ok(), ..request(order) }
}

#[tokio::test]
async fn an_answer_that_may_wait_carries_the_outcome_and_the_log() {
    let lab = Lab::new(Behaviour::Succeed);
    let mut running = lab.start().await;
    let order = order(install());
    // Asked again, it answers the same; and a wait that is too long is cut.
    for wait in [Duration::from_secs(1), Duration::from_secs(3600)] {
        let answer = running.client.submit(that_waits(&order, wait)).await.unwrap().into_inner();
        let operation = answer.operation.unwrap();
        assert_eq!((operation.phase(), operation.log_bytes), (v1::Phase::Finished, 10));
        assert_eq!(operation.outcome.unwrap().result(), v1::Result::Succeeded);
        assert_eq!(answer.log, b"begin\nend\n");
    }
    assert_eq!(lab.carrier.calls().len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn an_answer_waits_no_longer_than_it_may_and_than_the_agent_runs() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let mut running = lab.start().await;
    let order = order(install());
    let answer = running.client.submit(that_waits(&order, Duration::from_millis(20))).await.unwrap().into_inner();
    assert_eq!(answer.operation.unwrap().outcome, None);
    assert!(answer.log.is_empty());

    let mut client = running.client.clone();
    let waiting = that_waits(&order, Duration::from_secs(1));
    let waiting = tokio::spawn(async move { client.submit(waiting).await });
    running.stop().await;
    // Refused, lost or answered without an outcome: in each case the coordinator asks again.
    if let Ok(answer) = waiting.await.unwrap() {
        assert_eq!(answer.into_inner().operation.unwrap().outcome, None);
    }
}

#[tokio::test]
async fn one_call_acknowledges_many_and_passes_over_those_that_are_not_known() {
    let lab = Lab::new(Behaviour::Succeed);
    let mut running = lab.start().await;
    let orders = [order(install()), order(refresh()), order(install())];
    for order in &orders[..2] {
        running.client.submit(that_waits(order, Duration::from_secs(1))).await.unwrap();
    }
    let acknowledge = |orders: &[Order]| v1::AcknowledgeRequest {
        key: wire_key(orders[0].key),
        epoch: 1,
        more: orders[1..].iter().filter_map(|order| wire_key(order.key)).collect(),
    };
    let [first, second, unknown] = orders;
    let answer = running.client.acknowledge(acknowledge(&[unknown.clone(), first.clone(), second.clone()])).await;
    assert!(answer.unwrap().into_inner().more_read);
    for order in [&first, &second] {
        let got = running.client.get(v1::GetRequest { key: wire_key(order.key) }).await.unwrap().into_inner();
        assert_eq!(got.operation.unwrap().phase(), v1::Phase::Acknowledged);
    }
    let alone = running.client.acknowledge(acknowledge(&[unknown])).await.unwrap_err();
    assert_eq!(alone.code(), Code::NotFound);
    let many: Vec<Order> = std::iter::repeat_with(|| first.clone()).take(257).collect();
    assert_eq!(running.client.acknowledge(acknowledge(&many)).await.unwrap_err().code(), Code::InvalidArgument);
    running.stop().await;
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart_of_the_agent() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let mut running = lab.start().await;
    let order = order(install());
    running.client.submit(request(&order)).await.unwrap();
    let watch = v1::WatchRequest { key: wire_key(order.key), ..Default::default() };
    let mut stream = running.client.watch(watch).await.unwrap().into_inner();
    let (mut sequence, mut offset, mut phase) = (0, 0, v1::Phase::Unspecified);
    while phase != v1::Phase::Running || offset == 0 {
        match stream.message().await.unwrap().unwrap().item.unwrap() {
            Item::Event(event) => (sequence, phase) = (event.sequence, event.phase()),
            Item::Log(chunk) => offset += chunk.data.len() as u64,
            Item::Heartbeat(_) => {}
        }
    }
    running.stop().await;
    // The stream told that it did not end: a coordinator asks again.
    let told = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended as if the operation were over"),
            Err(status) => break status,
        }
    };
    assert_eq!(told.code(), Code::Unavailable);

    lab.carrier.behave(Behaviour::Succeed);
    let mut running = lab.start().await;
    let (events, log) = collect(&mut running.client, order.key, sequence, offset).await;
    assert!(events.iter().all(|event| event.sequence > sequence));
    assert_eq!(events.last().unwrap().phase(), v1::Phase::Finished);
    assert!(String::from_utf8(log).unwrap().ends_with("begin\nend\n"));
    let (events, log) = collect(&mut running.client, order.key, events.last().unwrap().sequence, 1 << 40).await;
    assert!(events.is_empty() && log.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn wrong_requests_are_refused_with_every_field_that_is_wrong() {
    let lab = Lab::new(Behaviour::Succeed);
    let mut running = lab.start().await;
    let good = request(&order(sync_parameters()));
    let fields = |status: &Status| {
        use tonic_types::StatusExt as _;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        violations.into_iter().map(|violation| violation.field).collect::<Vec<_>>()
    };
    let cases: Vec<(v1::SubmitRequest, &[&str])> = vec![
        (v1::SubmitRequest { key: None, ..good.clone() }, &["key"]),
        (
            v1::SubmitRequest {
                key: Some(v1::OperationKey { operation_id: "../x".into(), attempt: 0 }),
                epoch: u64::MAX,
                ..good.clone()
            },
            &["key.attempt", "key.operation_id", "epoch"],
        ),
        (v1::SubmitRequest { fingerprint: "0".into(), secrets: vec![], ..good.clone() }, &["fingerprint", "secrets"]),
        (v1::SubmitRequest { direction: 0, ..good.clone() }, &["direction"]),
        (v1::SubmitRequest { step: None, ..good.clone() }, &["step"]),
        (v1::SubmitRequest { timeout: Some(prost_types::Duration::default()), ..good.clone() }, &["timeout"]),
        (v1::SubmitRequest { undoes_operation_id: "x".into(), ..good.clone() }, &["undoes_operation_id"]),
        (v1::SubmitRequest { wait: Some(prost_types::Duration { seconds: -1, nanos: 0 }), ..good.clone() }, &["wait"]),
    ];
    for (request, expected) in cases {
        let status = running.client.submit(request).await.unwrap_err();
        assert_eq!(fields(&status), expected);
        assert!(!format!("{status:?}").contains(PASSWORD));
    }
    assert!(!format!("{good:?}").contains(PASSWORD));
    assert!(lab.carrier.calls().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn refusals_carry_their_reason() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let mut running = lab.start().await;
    let first = Order { epoch: 2, ..order(refresh()) };
    running.client.submit(request(&first)).await.unwrap();
    let told = |status: Status| (status.code(), fault_reason(&status).unwrap());

    let locked = running.client.submit(request(&Order { epoch: 2, ..order(refresh()) })).await.unwrap_err();
    assert_eq!(told(locked), (Code::Aborted, "LOCKED".into()));
    let stale = running.client.submit(request(&order(install()))).await.unwrap_err();
    assert_eq!(told(stale), (Code::FailedPrecondition, "STALE_EPOCH".into()));
    let other = request(&Order { epoch: 2, key: first.key, ..order(install()) });
    assert_eq!(told(running.client.submit(other).await.unwrap_err()), (Code::AlreadyExists, "OTHER_CONTENT".into()));
    let unknown = v1::GetRequest { key: wire_key(order(install()).key) };
    assert_eq!(told(running.client.get(unknown).await.unwrap_err()), (Code::NotFound, "NOT_FOUND".into()));
    let cancel = v1::CancelRequest { key: wire_key(first.key), epoch: 2 };
    let canceled = running.client.cancel(cancel).await.unwrap().into_inner().operation.unwrap();
    assert_eq!(canceled.outcome.unwrap().result(), v1::Result::Canceled);
    running.stop().await;
}

#[tokio::test]
async fn an_agent_whose_journal_failed_stops_and_says_unknown() {
    let lab = Lab::new(Behaviour::Succeed);
    let mut running = lab.start().await;
    damage(&lab.directory.path().join("state"), "DROP TABLE events").await;
    let status = running.client.submit(request(&order(install()))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(matches!(running.agent.wait().await, Err(AgentError::Journal(_))));
    assert!(lab.carrier.calls().is_empty());
}

#[tokio::test]
async fn checks_and_descriptions_are_answered() {
    let lab = Lab::new(Behaviour::Succeed);
    let mut running = lab.start().await;
    let checked = running.client.submit(request(&order(check()))).await.unwrap().into_inner();
    assert_eq!(checked.log, b"begin\nend\n");
    assert_eq!(checked.operation.unwrap().phase(), v1::Phase::Finished);
    running.client.submit(request(&Order { epoch: 9, ..order(refresh()) })).await.unwrap();

    let host = running.client.describe_host(v1::DescribeHostRequest {}).await.unwrap().into_inner();
    assert!(host.cpu_count > 0 && host.memory_bytes > 0 && host.memory_available_bytes > 0);
    assert!(!host.hostname.is_empty() && !host.kernel_release.is_empty() && !host.architecture.is_empty());
    assert_eq!(host.boot_id.len(), 36);
    assert_eq!(host.disks.len(), 2);
    assert_eq!((host.epoch, host.metrics_port, host.config_generation), (9, 62899, 3));
    assert_eq!(host.instances.len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn health_says_serving() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let lab = Lab::new(Behaviour::Succeed);
    let running = lab.start().await;
    let identity = issue(lab.directory.path(), Role::Coordinator);
    let channel = connect(running.agent.address(), &identity).await.unwrap();
    let request = HealthCheckRequest { service: "oblet.agent.v1.AgentService".into() };
    let answer = HealthClient::new(channel).check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    running.stop().await;
}

#[tokio::test]
async fn strangers_do_not_get_in() {
    let lab = Lab::new(Behaviour::Succeed);
    let running = lab.start().await;
    let address = running.agent.address();
    let ask = |channel: Channel| async move {
        Client::new(channel).describe_host(v1::DescribeHostRequest {}).await.map(drop)
    };

    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await;
    if let Ok(channel) = plain {
        assert!(ask(channel).await.is_err(), "a client without TLS got in");
    }
    // A certificate of another authority, by a client that trusts ours.
    let elsewhere = tempfile::tempdir().unwrap();
    let ours = issue(lab.directory.path(), Role::Coordinator);
    let foreign = Identity { ca_pem: ours.ca_pem.clone(), ..issue(elsewhere.path(), Role::Coordinator) };
    // An agent must not command another agent.
    let agent = issue(lab.directory.path(), Role::Agent);
    for identity in [foreign, agent] {
        // TLS 1.3 tells a client only with its first read that it was refused.
        if let Ok(channel) = connect(address, &identity).await {
            assert!(ask(channel).await.is_err(), "a stranger got in");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn replaced_certificates_are_shown_to_whoever_comes_and_cut_off_nobody() {
    let lab = Lab::new(Behaviour::Succeed);
    let mut running = lab.start().await;
    let address = running.agent.address();
    let elsewhere = tempfile::tempdir().unwrap();
    let (agent, caller) = (issue(elsewhere.path(), Role::Agent), issue(elsewhere.path(), Role::Coordinator));
    assert!(connect(address, &caller).await.is_err(), "the agent is not known to another authority yet");

    running.agent.tls().replace(&agent).unwrap();
    let channel = connect(address, &caller).await.unwrap();
    Client::new(channel).describe_host(v1::DescribeHostRequest {}).await.unwrap();
    running.client.describe_host(v1::DescribeHostRequest {}).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_pool_calls_with_the_identity_of_the_moment() {
    let lab = Lab::new(Behaviour::Succeed);
    let running = lab.start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let tls = CallerTls::new(&issue(elsewhere.path(), Role::Coordinator)).unwrap();
    let pool = AgentPool::over(tls.clone());
    let agent = pool.agent(AgentAddress(running.agent.address()));
    agent.describe_host().await.unwrap_err();
    tls.replace(&issue(lab.directory.path(), Role::Coordinator)).unwrap();
    agent.describe_host().await.unwrap();
    running.stop().await;
}

/// Clients of Python and older ones of the shell ask by the name that the protocol had before it was v1.
#[tokio::test]
async fn both_versions_of_reflection_list_the_service() {
    use tonic_reflection::pb::{v1, v1alpha};
    let lab = Lab::new(Behaviour::Succeed);
    let running = lab.start().await;
    let channel = connect(running.agent.address(), &issue(lab.directory.path(), Role::Coordinator)).await.unwrap();
    let name = "oblet.agent.v1.AgentService";

    let asked = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::iter([asked])).await.unwrap().into_inner();
    assert!(format!("{:?}", answers.message().await.unwrap()).contains(name));

    let asked = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(tokio_stream::iter([asked])).await.unwrap().into_inner();
    assert!(format!("{:?}", answers.message().await.unwrap()).contains(name));
}
