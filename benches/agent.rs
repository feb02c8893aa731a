//! What the agent costs, as ratios against floors that are measured in the same run:
//! a check step against a bare gRPC call with the same bytes, installations of a small and a large package against a bare
//! `rpm` of the same file, a process scan against a bare read of the command lines, and what an idle agent takes from its
//! host.
//!
//! Prints a table and writes `target/bench/results.json`. Machines are noisy: rounds of a thing and its floor take turns.

#![allow(clippy::print_stdout, reason = "a benchmark talks to its caller")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a benchmark may fail loudly")]

#[path = "../tests/support/ports.rs"]
mod ports;

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use oblet::{
    coordinator::agents::{Agent, AgentAddress, AgentPool},
    graph::Direction,
    rpc::v1,
    steps::{AgentStep, CheckCommands, CheckProcesses, InstallPackage, fingerprint},
    tls::{self, CertificateAuthority, Identity, Role},
};
use prost::Message as _;
use serde_json::{Value, json};
use sha2::Digest as _;
use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
};
use uuid::Uuid;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ECHO: &str = "OBLET_BENCH_ECHO";
const ROUNDS: usize = 20;
const CALLS_PER_ROUND: usize = 200;
/// What the agent has answered to a check, for the floor to answer the same.
const ANSWER: &str = "answer";
const SMALL_INSTALLS: usize = 15;
const LARGE_INSTALLS: usize = 7;
const SMALL_BYTES: usize = 8 << 10;
const LARGE_BYTES: usize = 50 << 20;
const SMALL_AIM_MILLIS: f64 = 10.0;
const DUMMY_PROCESSES: usize = 430;

fn main() {
    tls::install_crypto_provider();
    if let Ok(directory) = env::var(ECHO) {
        return echo_server(Path::new(&directory));
    }
    // `cargo test` runs benches too, to see that they start; a measurement is asked for by `cargo bench`.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let results = runtime.block_on(measure());
    report(&results);
}

/// The floor: what tonic makes of the request, and the answer that the agent has given once.
#[derive(Clone)]
struct Echo(Arc<v1::SubmitResponse>);

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "oblet.agent.v1.AgentService";
}

impl tonic::server::UnaryService<v1::SubmitRequest> for Echo {
    type Response = v1::SubmitResponse;
    type Future = std::future::Ready<Result<Response<v1::SubmitResponse>, Status>>;

    fn call(&mut self, _request: Request<v1::SubmitRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(v1::SubmitResponse::clone(&self.0))))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(echo, request).await)
        })
    }
}

/// A bare tonic server with the same TLS.
#[tokio::main(flavor = "current_thread")]
async fn echo_server(directory: &Path) {
    let answer = fs::read(directory.join(ANSWER)).unwrap();
    let echo = Echo(Arc::new(v1::SubmitResponse::decode(&*answer).unwrap()));
    let listener = tokio::net::TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let identity = agent_identity(directory);
    let tls = tonic::transport::ServerTlsConfig::new()
        .identity(tonic::transport::Identity::from_pem(&identity.certificate_pem, &*identity.key_pem))
        .client_ca_root(tonic::transport::Certificate::from_pem(&identity.ca_pem));
    let server = tonic::transport::Server::builder().tls_config(tls).unwrap();
    let parent_is_gone = async {
        let mut byte = [0];
        let wait = tokio::task::spawn_blocking(move || std::io::stdin().read(&mut byte));
        let _ = wait.await;
    };
    server.clone().add_service(echo).serve_with_incoming_shutdown(incoming, parent_is_gone).await.unwrap();
}

fn agent_identity(directory: &Path) -> Identity {
    Identity::read(&directory.join("ca.pem"), &directory.join("agent.pem"), &directory.join("agent.key")).unwrap()
}

/// A process that ends with the benchmark.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Bench {
    directory: tempfile::TempDir,
    agent: Agent,
    agent_process: Process,
    echo: v1::agent_service_client::AgentServiceClient<tonic::transport::Channel>,
    _echo_process: Process,
}

fn check() -> AgentStep {
    AgentStep::CheckCommands(CheckCommands { commands: vec!["ls".parse().unwrap()] })
}

impl Bench {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let authority = CertificateAuthority::load_or_create(path).unwrap();
        authority.issue(Role::Agent, "agent", &[LOCALHOST]).unwrap().write(path, "agent").unwrap();
        let (certificate, key) =
            authority.issue(Role::Coordinator, "bench", &[]).unwrap().write(path, "coordinator").unwrap();
        let identity = Identity::read(&path.join("ca.pem"), &certificate, &key).unwrap();

        let port = ports::own();
        fs::create_dir_all(path.join("root")).unwrap();
        let agent_process = Command::new(env!("CARGO_BIN_EXE_oblet-agent"))
            .args([
                "--listen",
                &format!("127.0.0.1:{port}"),
                "--metrics-listen",
                &format!("127.0.0.1:{}", ports::own()),
            ])
            .args(["--rpm-scriptlets", "true", "--rpm-dependencies", "false", "--log-filter", "warn"])
            .arg("--state-dir")
            .arg(path.join("state"))
            .arg("--root-dir")
            .arg(path.join("root"))
            .arg("--tls-ca")
            .arg(path.join("ca.pem"))
            .arg("--tls-certificate")
            .arg(path.join("agent.pem"))
            .arg("--tls-key")
            .arg(path.join("agent.key"))
            .spawn()
            .unwrap();
        let agent_process = Process(agent_process);

        let address = AgentAddress(SocketAddr::new(LOCALHOST, port));
        let agent = AgentPool::new(&identity).unwrap().agent(address);
        let deadline = Instant::now() + Duration::from_secs(20);
        while agent.describe_host().await.is_err() {
            assert!(Instant::now() < deadline, "the agent does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let answer = agent.submit(submit_request(&check(), Direction::Execute, Uuid::now_v7(), None)).await.unwrap();
        fs::write(path.join(ANSWER), answer.encode_to_vec()).unwrap();

        let mut echo_process = Command::new(env::current_exe().unwrap())
            .env(ECHO, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(echo_process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let echo_address = format!("https://127.0.0.1:{}", line.trim());
        let tls = tonic::transport::ClientTlsConfig::new()
            .identity(tonic::transport::Identity::from_pem(&identity.certificate_pem, &*identity.key_pem))
            .ca_certificate(tonic::transport::Certificate::from_pem(&identity.ca_pem))
            .domain_name(LOCALHOST.to_string());
        let channel = tonic::transport::Endpoint::from_shared(echo_address)
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .tcp_nodelay(true)
            .connect_lazy();

        let echo = v1::agent_service_client::AgentServiceClient::new(channel);
        Self { directory, agent, agent_process, echo, _echo_process: Process(echo_process) }
    }

    async fn submit(&self, step: &AgentStep) -> v1::SubmitResponse {
        self.submit_as(step, Direction::Execute, Uuid::now_v7(), None).await
    }

    async fn submit_as(
        &self,
        step: &AgentStep,
        direction: Direction,
        id: Uuid,
        undoes: Option<Uuid>,
    ) -> v1::SubmitResponse {
        self.agent.submit(submit_request(step, direction, id, undoes)).await.unwrap()
    }

    /// Submits and watches to the end, as the coordinator does.
    async fn carry_out(&self, step: &AgentStep, direction: Direction, undoes: Option<Uuid>) -> Uuid {
        let id = Uuid::now_v7();
        self.submit_as(step, direction, id, undoes).await;
        let key = v1::OperationKey { operation_id: id.to_string(), attempt: 1 };
        let request = v1::WatchRequest { key: Some(key), after_sequence: 0, log_offset: 0 };
        let mut stream = self.agent.watch(request).await.unwrap();
        loop {
            let item = stream.message().await.unwrap().unwrap().item;
            if let Some(v1::watch_response::Item::Event(v1::Event { outcome: Some(outcome), .. })) = item {
                assert_eq!(outcome.result(), v1::Result::Succeeded, "{outcome:?}");
                return id;
            }
        }
    }
}

fn submit_request(step: &AgentStep, direction: Direction, id: Uuid, undoes: Option<Uuid>) -> v1::SubmitRequest {
    v1::SubmitRequest {
        key: Some(v1::OperationKey { operation_id: id.to_string(), attempt: 1 }),
        epoch: 1,
        fingerprint: fingerprint(step, direction),
        direction: match direction {
            Direction::Execute => v1::Direction::Execute.into(),
            Direction::Undo => v1::Direction::Undo.into(),
        },
        step: Some(step.into()),
        undoes_operation_id: undoes.map(|id| id.to_string()).unwrap_or_default(),
        ..Default::default()
    }
}

async fn measure() -> Vec<Value> {
    let mut results = {
        let _one = OneProcessor::take();
        check_step(&Bench::start().await).await
    };
    let bench = Bench::start().await;
    results.extend(idle(&bench).await);
    results.push(process_check(&bench).await);
    results.extend(install(&bench).await);
    results
}

/// This thread and what it starts share one processor. Where the system puts caller and server decides otherwise, by the
/// time that an idle processor takes to wake up, whether a call takes 50 or 120 us.
struct OneProcessor(CpuSet);

impl OneProcessor {
    fn take() -> Self {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let first = (0..CpuSet::count()).find(|processor| all.is_set(*processor).unwrap()).unwrap();
        let mut one = CpuSet::new();
        one.set(first).unwrap();
        sched_setaffinity(Pid::from_raw(0), &one).unwrap();
        Self(all)
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        sched_setaffinity(Pid::from_raw(0), &self.0).unwrap();
    }
}

/// Waits until the process has needed no processor for a second; answers the ticks that it has needed by then.
async fn at_rest(pid: u32) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = cpu_ticks(pid);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ticks = cpu_ticks(pid);
        if ticks == before {
            return ticks;
        }
        assert!(Instant::now() < deadline, "the agent does not come to rest");
        before = ticks;
    }
}

async fn idle(bench: &Bench) -> Vec<Value> {
    let pid = bench.agent_process.0.id();
    let before = at_rest(pid).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let ticks = cpu_ticks(pid) - before;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = resident.split_whitespace().next().unwrap().parse().unwrap();
    vec![
        result("agent idle resident memory", kib / 1024.0, "MiB", 4.3, 10.0 / 4.3),
        json!({"name": "agent idle processor time in 10 s", "value": ticks, "unit": "ticks", "floor": 0, "ratio": null,
            "aim": 0, "met": ticks == 0}),
    ]
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn check_step(bench: &Bench) -> Vec<Value> {
    let step = check();
    let request = || submit_request(&step, Direction::Execute, Uuid::now_v7(), None);
    let mut echo_client = bench.echo.clone();
    let (mut steps, mut echoes) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for _ in 0..CALLS_PER_ROUND {
            let begin = Instant::now();
            echo_client.submit(request()).await.unwrap();
            echoes.push(begin.elapsed());
        }
        for _ in 0..CALLS_PER_ROUND {
            let begin = Instant::now();
            bench.agent.submit(request()).await.unwrap();
            steps.push(begin.elapsed());
        }
        if round == 0 {
            // Connections and caches are warm from here on.
            steps.clear();
            echoes.clear();
        }
    }
    let micros = |times: &mut Vec<Duration>, share: f64| quantile(times, share).as_secs_f64() * 1e6;
    vec![
        result("check step p50", micros(&mut steps, 0.5), "us", micros(&mut echoes, 0.5), 1.3),
        result("check step p99", micros(&mut steps, 0.99), "us", micros(&mut echoes, 0.99), 1.3),
    ]
}

async fn process_check(bench: &Bench) -> Value {
    // Long command lines, as database hosts have them.
    let argument = "x".repeat(1500);
    let dummies: Vec<Process> = (0..DUMMY_PROCESSES)
        .map(|_| Process(Command::new("sleep").args(["600"]).env("OBLET_BENCH", &argument).spawn().unwrap()))
        .collect();
    let keyword = "no-process-is-called-like-this".parse().unwrap();
    let step = AgentStep::CheckProcesses(CheckProcesses { keywords: vec![keyword] });
    let (mut steps, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        let begin = Instant::now();
        read_command_lines();
        floors.push(begin.elapsed());
        let begin = Instant::now();
        bench.submit(&step).await;
        steps.push(begin.elapsed());
    }
    drop(dummies);
    let millis = |times: &mut Vec<Duration>| quantile(times, 0.5).as_secs_f64() * 1e3;
    result("process check over 500 processes p50", millis(&mut steps), "ms", millis(&mut floors), 2.0)
}

fn read_command_lines() {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            std::hint::black_box(fs::read(entry.path().join("cmdline")).unwrap_or_default());
        }
    }
}

async fn install(bench: &Bench) -> Vec<Value> {
    if Command::new("rpm").arg("--version").output().is_err() {
        println!("install: skipped, there is no rpm on this machine");
        return Vec::new();
    }
    let (small, bare_small) = installations(bench, SMALL_BYTES, SMALL_INSTALLS).await;
    let (large, bare_large) = installations(bench, LARGE_BYTES, LARGE_INSTALLS).await;
    let more = small - bare_small;
    vec![
        json!({"name": "install of 8 KiB p50, above bare rpm", "value": rounded(more), "unit": "ms",
            "floor": rounded(bare_small), "ratio": null, "aim": SMALL_AIM_MILLIS, "met": more <= SMALL_AIM_MILLIS}),
        result("install of 50 MiB p50", large, "ms", bare_large, 1.05),
    ]
}

/// Medians in milliseconds, of the agent and of a bare rpm.
async fn installations(bench: &Bench, bytes: usize, rounds: usize) -> (f64, f64) {
    let path = &bench.directory.path().join(bytes.to_string());
    fs::create_dir(path).unwrap();
    let program = path.join("program");
    // Nothing that could be compressed, on its way or by a file system.
    let mut random = fs::File::open("/dev/urandom").unwrap().take(bytes as u64);
    std::io::copy(&mut random, &mut fs::File::create(&program).unwrap()).unwrap();
    let options =
        oblet_standins::package::Options { scriptlet: None, ..oblet_standins::package::Options::new(&program, path) };
    let file = oblet_standins::package::build(&options).unwrap();
    let digest: String =
        sha2::Sha256::digest(fs::read(&file).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    bench.agent.put_package(&file, &name, &digest, |_, _| {}).await.unwrap();
    let step =
        AgentStep::InstallPackage(InstallPackage { package: name.parse().unwrap(), sha256: digest.parse().unwrap() });

    let bare = BareRoot::new(&path.join("bare"));
    let (mut steps, mut floors) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let begin = Instant::now();
        bare.rpm(&["-U"], Some(&file));
        let floor = begin.elapsed();
        bare.rpm(&["-e", "obproxy"], None);
        let begin = Instant::now();
        let id = bench.carry_out(&step, Direction::Execute, None).await;
        let installed = begin.elapsed();
        bench.carry_out(&step, Direction::Undo, Some(id)).await;
        if round > 0 {
            floors.push(floor);
            steps.push(installed);
        }
    }
    let millis = |times: &mut Vec<Duration>| quantile(times, 0.5).as_secs_f64() * 1e3;
    (millis(&mut steps), millis(&mut floors))
}

/// The same installation by hand.
struct BareRoot(PathBuf);

impl BareRoot {
    fn new(path: &Path) -> Self {
        let root = Self(path.into());
        fs::create_dir_all(path.join("var/lib/rpm")).unwrap();
        root.rpm(&["--initdb"], None);
        root
    }

    fn rpm(&self, arguments: &[&str], file: Option<&Path>) {
        let mut command = Command::new("rpm");
        command.arg("--dbpath").arg(self.0.join("var/lib/rpm")).args(arguments);
        if let Some(file) = file {
            let relocation = format!("/opt={}", self.0.join("opt").display());
            command.args(["--nodeps", "--badreloc", "--relocate", &relocation]).arg(file);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn quantile(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * share) as usize]
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn result(name: &str, value: f64, unit: &str, floor: f64, aim: f64) -> Value {
    let ratio = value / floor;
    json!({"name": name, "value": rounded(value), "unit": unit, "floor": rounded(floor), "ratio": rounded(ratio),
        "aim": rounded(aim), "met": ratio <= aim})
}

fn report(results: &[Value]) {
    println!("{:<40} {:>10} {:<6} {:>10} {:>7} {:>7}  met", "what", "value", "unit", "floor", "ratio", "aim");
    for line in results {
        let text = |key: &str| match &line[key] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        println!(
            "{:<40} {:>10} {:<6} {:>10} {:>7} {:>7}  {}",
            text("name"),
            text("value"),
            text("unit"),
            text("floor"),
            text("ratio"),
            text("aim"),
            text("met")
        );
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&directory).unwrap();
    let mut file = fs::File::create(directory.join("results.json")).unwrap();
    writeln!(file, "{}", serde_json::to_string_pretty(results).unwrap()).unwrap();
}
