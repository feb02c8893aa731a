//! A coordinator of its own, as a process of its own, and what it took to add a proxy to every host of a fleet.

use crate::hosts::{self, Hosts};
use oblet::tls::CertificateAuthority;
use serde_json::{Value, json};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(300);
/// Bounds of the two requests.
const HOSTS_PER_CREATE: usize = 50;
const HOSTS_PER_ADD: usize = 200;

pub(crate) struct Fleet {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) authority: CertificateAuthority,
    pub(crate) hosts: Hosts,
    process: Child,
    rest: SocketAddr,
    client: reqwest::Client,
    password: String,
    log_filter: &'static str,
    /// Ids of the hosts that were added.
    ids: Vec<Value>,
    cluster: Value,
    /// Tasks that have to be SUCCESSFUL.
    tasks: usize,
}

/// What one batchAdd over all hosts took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) hosts: f64,
    pub(crate) wall_seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) idle_mib: f64,
    pub(crate) peak_mib: f64,
    pub(crate) events: f64,
    pub(crate) commits: f64,
}

/// The environment that the unit gives to the coordinator.
fn unit_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    let unit = include_str!("../../systemd/oblet-coordinator.service");
    unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}

impl Run {
    pub(crate) fn micros_per_subtask(&self) -> f64 {
        self.cpu_seconds / (self.hosts * 12.0) * 1e6
    }
}

/// A coordinator whose state lies below `path`; its standard error goes to a file there.
async fn spawn(path: &Path, rest: SocketAddr, log_filter: &str) -> Child {
    let log = fs::File::options().create(true).append(true).open(path.join("log")).unwrap();
    let process = Command::new(env!("CARGO_BIN_EXE_oblet-coordinator"))
        .args(["--listen", &rest.to_string(), "--config-service-listen", &format!("{}:8080", rest.ip())])
        .args(["--advertise-addresses", &rest.ip().to_string(), "--log-filter", log_filter, "--log-format", "text"])
        .arg("--state-dir")
        .arg(path.join("state"))
        .arg("--initial-password-file")
        .arg(path.join("password"))
        .envs(unit_environment())
        .stderr(log)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(rest).is_err() {
        assert!(Instant::now() < deadline, "the coordinator does not answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Fleet {
    /// A coordinator with `count` hosts and a proxy cluster, nothing on them yet.
    pub(crate) async fn start(address: Ipv4Addr, count: u16, log_filter: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("state/tls")).unwrap();
        // Prepared first, so that hosts can be given certificates.
        let authority = CertificateAuthority::load_or_create(&path.join("state/tls")).unwrap();
        let hosts = hosts::serve(&authority, count).await;
        let rest = SocketAddr::from((address, 8443));
        let process = spawn(path, rest, log_filter).await;
        let ca = reqwest::Certificate::from_pem(authority.certificate_pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).timeout(PATIENCE).build().unwrap();
        let password = fs::read_to_string(path.join("password")).unwrap().trim().to_owned();
        let (ids, cluster, tasks) = (Vec::new(), Value::Null, 0);
        let mut fleet =
            Self { directory, authority, hosts, process, rest, client, password, log_filter, ids, cluster, tasks };
        fleet.add_hosts(count).await;
        fleet
    }

    /// Ends the coordinator, lets `meanwhile` change its store, and starts it again.
    pub(crate) async fn restart(&mut self, meanwhile: impl AsyncFnOnce(&Path)) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.process.wait().unwrap();
        meanwhile(&self.directory.path().join("state/coordinator.db")).await;
        self.process = spawn(self.directory.path(), self.rest, self.log_filter).await;
    }

    async fn add_hosts(&mut self, count: u16) {
        let addresses: Vec<Value> =
            (1..=count).map(|number| json!({"innerIpAddress": hosts::address(number).to_string()})).collect();
        for chunk in addresses.chunks(HOSTS_PER_CREATE) {
            let hosts = json!({"hostBasicDataList": chunk, "mgragentPort": hosts::AGENT_PORT});
            let data = self.post("/api/v2/compute/hosts/batchCreate", &hosts).await;
            self.ids.extend(data["contents"].as_array().unwrap().iter().map(|task| task["hostId"].clone()));
        }
        self.wait_until_successful(usize::from(count)).await;
        let cluster = json!({
            "name": "fleet", "workMode": "RS_LIST",
            "obLinks": [{"clusterName": "ob1", "obClusterId": 1, "username": "proxyro"}],
            "startupParameters": [{"name": "rootservice_list", "value": "127.0.0.1:2881"}], "parameters": [],
        });
        self.post("/api/v2/obproxy/clusters", &cluster).await;
        self.wait_until_successful(1).await;
        self.cluster = self.get("/api/v2/obproxy/clusters").await["data"]["contents"][0]["id"].clone();
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.rest)
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.client.get(self.url(path)).basic_auth("admin", Some(&self.password));
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.client.post(self.url(path)).basic_auth("admin", Some(&self.password)).json(body);
        let response = request.send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{path}: {answer}");
        answer["data"].clone()
    }

    /// A package that holds `bytes` which nothing can compress.
    pub(crate) fn package(&self, bytes: usize) -> PathBuf {
        let program = self.directory.path().join("program");
        let mut content = vec![0; bytes];
        fastrand::Rng::with_seed(1).fill(&mut content);
        fs::write(&program, content).unwrap();
        oblet_standins::package::build(&oblet_standins::package::Options::new(&program, self.directory.path())).unwrap()
    }

    pub(crate) async fn upload(&self, file: &Path) -> String {
        let form = reqwest::multipart::Form::new().file("file", file).await.unwrap();
        let request = self.client.post(self.url("/api/v2/software-packages")).multipart(form);
        let answer = request.basic_auth("admin", Some(&self.password)).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        file.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Adds a proxy to each host and waits until every task is SUCCESSFUL.
    pub(crate) async fn add_everywhere(&mut self, version: &str) -> Run {
        let path = format!("/api/v2/obproxy/clusters/{}/obproxies/batchAdd", self.cluster);
        // The peak is counted from here.
        fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5").unwrap();
        let idle_mib = self.memory_mib("VmRSS:");
        let (cpu, events, commits) = (self.cpu_seconds(), self.metric("events").await, self.metric("commits").await);
        let begin = Instant::now();
        for chunk in self.ids.clone().chunks(HOSTS_PER_ADD) {
            self.post(&path, &json!({"hostIds": chunk, "sqlPort": 2883, "exporterPort": 2884, "version": version}))
                .await;
        }
        self.wait_until_successful(self.ids.len()).await;
        Run {
            hosts: self.ids.len() as f64,
            wall_seconds: begin.elapsed().as_secs_f64(),
            cpu_seconds: self.cpu_seconds() - cpu,
            idle_mib,
            peak_mib: self.memory_mib("VmHWM:"),
            events: self.metric("events").await - events,
            commits: self.metric("commits").await - commits,
        }
    }

    /// Waits until so many more tasks are SUCCESSFUL. Asks seldom: the answers cost what is measured.
    async fn wait_until_successful(&mut self, more: usize) {
        self.tasks += more;
        let deadline = Instant::now() + PATIENCE;
        let total = async |status: &str| {
            let page = self.get(&format!("/api/v2/tasks/instances?status={status}&size=1")).await;
            page["data"]["page"]["totalElements"].as_u64().unwrap()
        };
        for round in 0_u32.. {
            if total("SUCCESSFUL").await == self.tasks as u64 {
                return;
            }
            if round % 10 == 9 {
                self.check_none_failed().await;
            }
            assert!(Instant::now() < deadline, "the tasks do not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Panics with the reason of one that did.
    async fn check_none_failed(&self) {
        let page = self.get("/api/v2/tasks/instances?status=FAILED&size=1").await;
        let Some(failed) = page["data"]["contents"].as_array().and_then(|tasks| tasks.first()) else { return };
        let task = self.get(&format!("/api/v2/tasks/instances/{}", failed["id"])).await;
        let reasons: Vec<_> =
            task["data"]["subtasks"].as_array().into_iter().flatten().map(|s| &s["failure"]).collect();
        panic!("a task failed: {reasons:?}");
    }

    /// How long the first page of a list takes, in milliseconds, and its number of elements in all.
    pub(crate) async fn first_page(&self, path: &str) -> (f64, u64) {
        let begin = Instant::now();
        let page = self.get(path).await;
        let milliseconds = begin.elapsed().as_secs_f64() * 1e3;
        (milliseconds, page["data"]["page"]["totalElements"].as_u64().unwrap())
    }

    async fn metric(&self, name: &str) -> f64 {
        let text = self.client.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("oblet_engine_{name}_total ")));
        line.unwrap().parse().unwrap()
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
        // 100 ticks a second on every Linux that runs databases.
        (ticks(11) + ticks(12)) / 100.0
    }

    pub(crate) fn memory_mib(&self, line: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let kib = status.lines().find_map(|known| known.strip_prefix(line)).unwrap();
        kib.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }
}
