use crate::contract;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use futures_util::future::BoxFuture;
use oblet::{
    api::{ApiSettings, ApiState, ScrapeToken, Silence, TaskEngine},
    coordinator::{
        engine::{CommandError, Wait},
        enrolment::Enrolment,
        secrets::Vault,
        store::{
            Store,
            host::{self, HostDetails, HostStatus},
            now_micros,
            obproxy::{self, ObproxyStatus},
            task::{self, Draft, LoadedTask, TaskId},
            user,
        },
    },
    graph::{Command, Direction, Effect, Event, Failure, NodeIndex},
    rpc::v1::{AgentProcess, DescribeHostResponse},
    tls::CertificateAuthority,
};
use rpm::{BuildConfig, CompressionType, FileOptions, PackageBuilder};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::Write as _,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) const OBPROXY: &str = "obproxy-1.9.1.1-1919579.el7.x86_64.rpm";
pub(crate) const MAX_PACKAGE_BYTES: u64 = 2 << 20;
pub(crate) const SCRAPE_TOKEN: &str = "of-prometheus";
/// Whose reports the config service takes, besides those of the hosts.
pub(crate) const REPORTERS: &str = "198.51.100.128/25";
pub(crate) const PASSWORD: &str = "aaAA11._";

/// An agent that listens and does not answer.
pub(crate) const HUNG: &str = "203.0.113.9";

/// Takes notes, and writes the decisions of operators to the journal. Hosts in 198.51.100.0/24 are ARM machines, those in 203.0.113.0/24 do not answer, 192.0.2.13 is a defect.
pub(crate) struct NotingEngine {
    store: Store,
    pub(crate) woken: Mutex<Vec<i64>>,
    pub(crate) commits: watch::Sender<u64>,
    pub(crate) waits: Mutex<HashMap<NodeIndex, Wait>>,
    pub(crate) cut_off: Mutex<Vec<IpAddr>>,
    /// The highest that every agent has seen; that of the coordinator is 1.
    pub(crate) agent_epoch: AtomicU64,
}

impl TaskEngine for NotingEngine {
    fn epoch(&self) -> i64 {
        1
    }

    fn wake(&self, id: TaskId) {
        self.woken.lock().unwrap().push(id.0);
    }

    fn command<'a>(&'a self, id: TaskId, command: Command, by: &'a str) -> BoxFuture<'a, Result<(), CommandError>> {
        Box::pin(async move {
            let mut connection = self.store.readers().acquire().await.unwrap();
            let LoadedTask { state, .. } = task::load(&mut connection, id).await?;
            drop(connection);
            let event = state.decide(command, by)?;
            append(&self.store, id, vec![event]).await;
            Ok(())
        })
    }

    fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    fn waits(&self, _id: TaskId) -> HashMap<NodeIndex, Wait> {
        self.waits.lock().unwrap().clone()
    }

    fn describe_host<'a>(
        &'a self,
        address: IpAddr,
        _port: u16,
    ) -> BoxFuture<'a, Result<DescribeHostResponse, Silence>> {
        let text = address.to_string();
        assert!(text != "192.0.2.13", "a defect");
        let answer = if text.starts_with("203.0.113.") {
            Err(Silence { problem: "connection refused".into(), is_stopped: text != HUNG })
        } else {
            let architecture = if text.starts_with("198.51.100.") { "aarch64" } else { "x86_64" };
            Ok(DescribeHostResponse {
                agent_version: "0.1.0".into(),
                hostname: format!("host-{text}"),
                operating_system: "Debian GNU/Linux 12".into(),
                kernel_release: "6.1.0".into(),
                architecture: architecture.into(),
                metrics_port: 9100,
                epoch: self.agent_epoch.load(Ordering::Relaxed),
                agent_process: Some(AgentProcess {
                    pid: 17,
                    user: "root".into(),
                    command_line: "/usr/bin/oblet-agent --config x".into(),
                    ports: vec![9100, 62898],
                    program_dir: "/usr/bin".into(),
                    log_dir: "/var/lib/oblet-agent/logs".into(),
                    ..AgentProcess::default()
                }),
                ..DescribeHostResponse::default()
            })
        };
        Box::pin(async move { answer })
    }

    fn cut_off(&self, host: IpAddr) {
        self.cut_off.lock().unwrap().push(host);
    }

    fn is_ready(&self) -> bool {
        true
    }
}

fn dispatched(node: NodeIndex) -> Event {
    Event::Dispatched { node, attempt: 1, direction: Direction::Execute }
}

pub(crate) fn failure() -> Failure {
    Failure {
        reason: "PORT_IN_USE".into(),
        message: "port 2883 is in use".into(),
        causes: Vec::new(),
        next_move: "stop its owner, then retry".into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect: Effect::None,
    }
}

/// What the engine does with events.
async fn append(store: &Store, task: TaskId, events: Vec<Event>) {
    let mut transaction = store.begin().await.unwrap();
    let LoadedTask { mut state, next_sequence, .. } = task::load(&mut transaction, task).await.unwrap();
    let mut draft = Draft::new(&state);
    for event in events {
        draft.apply(&mut state, event).unwrap();
    }
    let append = draft.finish((task, 1, next_sequence), &state, now_micros());
    task::append(&mut transaction, &append).await.unwrap();
    transaction.commit().await.unwrap();
}

pub(crate) struct Lab {
    pub(crate) store: Store,
    pub(crate) engine: Arc<NotingEngine>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) directory: TempDir,
    router: Router,
    config_service: Router,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn data(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()["data"].clone()
    }

    /// The whole envelope, without what differs each time: `TIME` stands for every time of the data.
    pub(crate) fn envelope(&self) -> Value {
        let mut envelope = self.json();
        for member in ["timestamp", "duration", "traceId", "server"] {
            assert!(envelope.as_object_mut().unwrap().remove(member).is_some(), "{member} is missing: {}", self.text);
        }
        hide_times(&mut envelope);
        envelope
    }

    /// The text of the error and what to do next.
    #[track_caller]
    pub(crate) fn refusal(&self, status: u16, code: &str) -> (String, String) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let envelope = self.json();
        assert!(envelope["successful"] == false && envelope.get("data").is_none(), "{}", self.text);
        let text = |member: &str| envelope["error"][member].as_str().unwrap_or_default().to_owned();
        assert!(text("message").starts_with(&format!("{code}: ")), "{}", self.text);
        (text("message"), text("nextMove"))
    }
}

fn hide_times(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name.ends_with("Time") { *member = json!("TIME") } else { hide_times(member) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_times),
        _ => {}
    }
}

impl Lab {
    pub(crate) async fn new() -> Self {
        contract::prepare();
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store.db")).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        user::create(&mut transaction, "admin", &PASSWORD.into()).await.unwrap();
        transaction.commit().await.unwrap();
        std::fs::create_dir(directory.path().join("packages")).unwrap();
        let shutdown = CancellationToken::new();
        let engine = Arc::new(NotingEngine {
            store: store.clone(),
            woken: Mutex::default(),
            commits: watch::Sender::new(0),
            waits: Mutex::default(),
            cut_off: Mutex::default(),
            agent_epoch: AtomicU64::default(),
        });
        let state = api_state(directory.path(), &store, engine.clone(), &shutdown);
        let config_service = oblet::api::config_service_router(state.clone());
        Self { store, engine, shutdown, directory, router: oblet::api::router(state), config_service }
    }

    /// The config service of another coordinator, which has opened the store by itself.
    pub(crate) async fn other_config_service(&self) -> Router {
        let store = Store::open(&self.directory.path().join("store.db")).await.unwrap();
        let state = api_state(self.directory.path(), &store, self.engine.clone(), &self.shutdown);
        oblet::api::config_service_router(state)
    }

    pub(crate) fn config_service(&self) -> &Router {
        &self.config_service
    }

    /// A lab with the cluster "test" (1), two hosts (1 and 2) and the samples' package.
    pub(crate) async fn furnished() -> Self {
        let lab = Self::new().await;
        let made = lab.post("/api/v2/obproxy/clusters", json!({"name": "test", "obLinks": []})).await.data();
        lab.finish(&made).await;
        lab.have_hosts(&["192.0.2.1", "192.0.2.2"]).await;
        lab.upload(OBPROXY, &package("obproxy", "1.9.1.1", "1919579.el7", "x86_64")).await.data();
        lab
    }

    /// Lets all subtasks of a task succeed.
    pub(crate) async fn finish(&self, task: &Value) {
        self.finish_from(task, 0).await;
    }

    /// Lets the subtasks from one on succeed.
    pub(crate) async fn finish_from(&self, task: &Value, first: u32) {
        let nodes = u32::try_from(task["subtasks"].as_array().unwrap().len()).unwrap();
        let run = |node| {
            let (node, attempt) = (NodeIndex(node), 1);
            [dispatched(node), Event::Succeeded { node, attempt, effect: Effect::Done, output: Vec::new() }]
        };
        self.happens(task, (first..nodes).flat_map(run).collect()).await;
    }

    /// The same by another coordinator, of which this one is not told.
    pub(crate) async fn happens_elsewhere(&self, task: &Value, events: Vec<Event>) {
        append(&self.store, TaskId(task["id"].as_i64().unwrap()), events).await;
    }

    /// Lets the first subtask of a task run.
    pub(crate) async fn begin(&self, task: &Value) {
        self.happens(task, vec![dispatched(NodeIndex(0))]).await;
    }

    /// Lets a subtask that runs fail.
    pub(crate) async fn fail(&self, task: &Value, node: u32) {
        let ended = Event::Failed { node: NodeIndex(node), attempt: 1, failure: failure() };
        self.happens(task, vec![ended]).await;
    }

    /// Writes events to the journal of a task, as the engine does.
    pub(crate) async fn happens(&self, task: &Value, events: Vec<Event>) {
        self.happens_elsewhere(task, events).await;
        self.engine.commits.send_modify(|count| *count += 1);
    }

    /// Adds a proxy to host 2 and lets the second subtask of the task fail; answers the task.
    pub(crate) async fn failed_task(&self, failure: Failure) -> Value {
        let body = json!({"hostIds": [2], "sqlPort": 2883, "exporterPort": 2884, "version": OBPROXY});
        let made = self.post("/api/v2/obproxy/clusters/1/obproxies/batchAdd", body).await.data();
        let (first, second) = (NodeIndex(0), NodeIndex(1));
        let events = vec![
            dispatched(first),
            Event::Succeeded { node: first, attempt: 1, effect: Effect::None, output: Vec::new() },
            dispatched(second),
            Event::Failed { node: second, attempt: 1, failure },
        ];
        let id = &made["contents"][0]["id"];
        self.happens(&made["contents"][0], events).await;
        self.get(&format!("/api/v2/tasks/instances/{id}")).await.data()
    }

    /// Adds a proxy to the cluster "test" that runs; answers its id.
    pub(crate) async fn serving_proxy(&self, host: i64, port: i64) -> i64 {
        let body = json!({"hostIds": [host], "sqlPort": port, "exporterPort": port + 1, "version": OBPROXY});
        let made = self.post("/api/v2/obproxy/clusters/1/obproxies/batchAdd", body).await.data();
        self.finish(&made["contents"][0]).await;
        let id = made["contents"][0]["context"]["stringMap"]["obproxy_server_id"].as_str().unwrap().parse().unwrap();
        let mut transaction = self.store.begin().await.unwrap();
        assert!(obproxy::set_proxy_status(&mut transaction, id, ObproxyStatus::Running).await.unwrap());
        transaction.commit().await.unwrap();
        id
    }

    pub(crate) fn packages_dir(&self) -> PathBuf {
        self.directory.path().join("packages")
    }

    /// The answer as it comes, of which the body may never end.
    pub(crate) async fn respond(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The head of a request of the user of the lab.
    pub(crate) fn signed(method: &str, path: &str) -> axum::http::request::Builder {
        signed(method, path)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (method, uri) = (request.method().clone(), request.uri().to_string());
        let answer = answer_of(&self.router, request).await;
        let content_type = answer.headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap());
        contract::check(&method, &uri, answer.status, content_type, &answer.text);
        answer
    }

    /// Asks the config service, as obproxy does.
    pub(crate) async fn config(&self, query: &str) -> Answer {
        let request = Request::get(format!("/services?{query}")).body(Body::empty()).unwrap();
        answer_of(&self.config_service, request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(signed("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(signed("DELETE", path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        let request = signed("PATCH", path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    pub(crate) async fn post_text(&self, path: &str, body: String) -> Answer {
        self.send_text(path, &[], body).await
    }

    pub(crate) async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.send_text(path, headers, body.to_string()).await
    }

    pub(crate) async fn send_text(&self, path: &str, headers: &[(&str, &str)], body: String) -> Answer {
        let request = signed("POST", path).header(header::CONTENT_TYPE, "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value.as_bytes()));
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    pub(crate) async fn add_hosts(&self, addresses: &[&str]) -> Answer {
        let list: Vec<Value> = addresses.iter().map(|address| json!({"innerIpAddress": address})).collect();
        self.post("/api/v2/compute/hosts/batchCreate", json!({"hostBasicDataList": list, "sshPort": 22})).await
    }

    /// Hosts as their agents describe them, once they are prepared.
    pub(crate) async fn have_hosts(&self, addresses: &[&str]) {
        let mut transaction = self.store.begin().await.unwrap();
        for address in addresses {
            let ip = address.parse().unwrap();
            let details = HostDetails::default().told_by(&self.engine.describe_host(ip, 62898).await.unwrap());
            let host = host::insert(&mut transaction, ip, 62898, 9100, &details).await.unwrap();
            host::observe(&mut transaction, host.id, HostStatus::Available, &details).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }

    pub(crate) async fn upload(&self, name: &str, content: &[u8]) -> Answer {
        self.upload_to("", name, content).await
    }

    pub(crate) async fn upload_to(&self, query: &str, name: &str, content: &[u8]) -> Answer {
        let boundary = "part-of-a-form";
        let mut body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/x-rpm\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        let request = signed("POST", &format!("/api/v2/software-packages{query}"))
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"));
        self.send(request.body(Body::from(body)).unwrap()).await
    }
}

fn api_state(directory: &Path, store: &Store, engine: Arc<NotingEngine>, shutdown: &CancellationToken) -> ApiState {
    let authority = Arc::new(CertificateAuthority::load_or_create(directory).unwrap());
    let life = Duration::from_secs(3600);
    ApiState::new(ApiSettings {
        scrape_token: ScrapeToken::new(SCRAPE_TOKEN).unwrap(),
        store: store.clone(),
        rest_url: "https://192.0.2.250:8443".into(),
        enrolment: Arc::new(Enrolment::new(store.clone(), authority, life).unwrap()),
        vault: Arc::new(Vault::load_or_create(&directory.join("key")).unwrap()),
        packages_dir: directory.join("packages"),
        max_package_bytes: MAX_PACKAGE_BYTES,
        address: "192.0.2.250".into(),
        config_service_reporters: vec![REPORTERS.parse().unwrap()],
        config_url_base: "http://192.0.2.250:8080".into(),
        engine,
        registry: prometheus::Registry::new(),
        shutdown: shutdown.clone(),
    })
    .unwrap()
}

pub(crate) async fn answer_of(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 64 << 20).await.unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Answer { status: parts.status, headers: parts.headers, text }
}

fn signed(method: &str, path: &str) -> axum::http::request::Builder {
    signed_as("admin", PASSWORD, method, path)
}

pub(crate) fn signed_as(user: &str, password: &str, method: &str, path: &str) -> axum::http::request::Builder {
    let credentials = BASE64_STANDARD.encode(format!("{user}:{password}"));
    Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Basic {credentials}"))
}

pub(crate) fn package(name: &str, version: &str, release: &str, architecture: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    PackageBuilder::new(name, version, "Apache-2.0", architecture, "A package for tests")
        .using_config(BuildConfig::v4().compression(CompressionType::None))
        .release(release)
        .with_file_contents("#!/bin/sh\n", FileOptions::new(format!("/opt/{name}/run")))
        .unwrap()
        .build()
        .unwrap()
        .write(&mut bytes)
        .unwrap();
    bytes
}

/// A package of dpkg with nothing in it.
pub(crate) fn deb(name: &str, version: &str, architecture: &str) -> Vec<u8> {
    let control = format!("Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n");
    let mut tar = vec![0; 512];
    tar[..7].copy_from_slice(b"control");
    tar[124..135].copy_from_slice(format!("{:011o}", control.len()).as_bytes());
    tar.extend(control.as_bytes());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&tar).unwrap();
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", encoder.finish().unwrap()),
        ("data.tar.gz", b"nothing.".to_vec()),
    ] {
        writeln!(archive, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", content.len()).unwrap();
        archive.extend(content);
        archive.resize(archive.len().next_multiple_of(2), b'\n');
    }
    archive
}
