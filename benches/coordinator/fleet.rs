//! A coordinator of its own, as a process of its own, and what it took to add a proxy to every host of a fleet.

use crate::hosts;
use oblet::tls::CertificateAuthority;
use serde_json::{Value, json};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(300);
/// Bounds of the two requests.
const HOSTS_PER_CREATE: usize = 50;
const HOSTS_PER_ADD: usize = 200;

pub(crate) struct Fleet {
    directory: tempfile::TempDir,
    process: Child,
    rest: SocketAddr,
    client: reqwest::Client,
    password: String,
}

/// What one batchAdd over all hosts took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) subtasks: f64,
    pub(crate) wall_seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
    pub(crate) events: f64,
    pub(crate) commits: f64,
}

/// The environment that the unit gives to the coordinator.
fn unit_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    let unit = include_str!("../../systemd/oblet-coordinator.service");
    unit.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Fleet {
    /// Prepares the state directory with an authority, so that hosts can be given certificates before the start.
    pub(crate) async fn start(address: Ipv4Addr, count: u16) -> (Self, CertificateAuthority) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("state/tls")).unwrap();
        let authority = CertificateAuthority::load_or_create(&path.join("state/tls")).unwrap();
        hosts::serve(&authority, count).await;
        let rest = SocketAddr::from((address, 8443));
        let process = Command::new(env!("CARGO_BIN_EXE_oblet-coordinator"))
            .args(["--listen", &rest.to_string(), "--config-service-listen", &format!("{address}:8080")])
            .args(["--advertise-addresses", &address.to_string(), "--log-filter", "warn"])
            .arg("--state-dir")
            .arg(path.join("state"))
            .arg("--initial-password-file")
            .arg(path.join("password"))
            .envs(unit_environment())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(rest).is_err() {
            assert!(Instant::now() < deadline, "the coordinator does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ca = reqwest::Certificate::from_pem(authority.certificate_pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).timeout(PATIENCE).build().unwrap();
        let password = fs::read_to_string(path.join("password")).unwrap().trim().to_owned();
        (Self { directory, process, rest, client, password }, authority)
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

    async fn upload(&self) -> String {
        let program = self.directory.path().join("program");
        fs::write(&program, vec![7; 8 << 10]).unwrap();
        let file: PathBuf =
            oblet_standins::package::build(&oblet_standins::package::Options::new(&program, self.directory.path()))
                .unwrap();
        let form = reqwest::multipart::Form::new().file("file", &file).await.unwrap();
        let request = self.client.post(self.url("/api/v2/software-packages")).multipart(form);
        let answer = request.basic_auth("admin", Some(&self.password)).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        file.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Adds a proxy to each host and waits until every task is SUCCESSFUL.
    pub(crate) async fn add_everywhere(&self, count: u16) -> Run {
        let version = self.upload().await;
        let addresses: Vec<Value> =
            (1..=count).map(|number| json!({"innerIpAddress": hosts::address(number).to_string()})).collect();
        let mut ids = Vec::new();
        for chunk in addresses.chunks(HOSTS_PER_CREATE) {
            let data = self.post("/api/v2/compute/hosts/batchCreate", &json!({"hostBasicDataList": chunk})).await;
            ids.extend(data["contents"].as_array().unwrap().iter().map(|task| task["hostId"].clone()));
        }
        self.wait_until_successful(usize::from(count)).await;
        let cluster = json!({
            "name": "fleet", "workMode": "RS_LIST",
            "obLinks": [{"clusterName": "ob1", "obClusterId": 1, "username": "proxyro"}],
            "startupParameters": [{"name": "rootservice_list", "value": "127.0.0.1:2881"}], "parameters": [],
        });
        self.post("/api/v2/obproxy/clusters", &cluster).await;
        self.wait_until_successful(usize::from(count) + 1).await;
        let clusters = self.get("/api/v2/obproxy/clusters").await;
        let path = format!("/api/v2/obproxy/clusters/{}/obproxies/batchAdd", clusters["data"]["contents"][0]["id"]);

        let (cpu, events, commits) = (self.cpu_seconds(), self.metric("events").await, self.metric("commits").await);
        let begin = Instant::now();
        for chunk in ids.chunks(HOSTS_PER_ADD) {
            self.post(&path, &json!({"hostIds": chunk, "sqlPort": 2883, "exporterPort": 2884, "version": version}))
                .await;
        }
        self.wait_until_successful(2 * usize::from(count) + 1).await;
        Run {
            wall_seconds: begin.elapsed().as_secs_f64(),
            cpu_seconds: self.cpu_seconds() - cpu,
            subtasks: f64::from(count) * 12.0,
            peak_mib: self.peak_mib(),
            events: self.metric("events").await - events,
            commits: self.metric("commits").await - commits,
        }
    }

    /// Asks seldom: the answers cost what is measured.
    async fn wait_until_successful(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let total = async |status: &str| {
            let page = self.get(&format!("/api/v2/tasks/instances?status={status}&size=1")).await;
            page["data"]["page"]["totalElements"].as_u64().unwrap()
        };
        for round in 0_u32.. {
            if total("SUCCESSFUL").await == count as u64 {
                return;
            }
            if round % 10 == 9 {
                assert_eq!(total("FAILED").await, 0, "a task failed");
            }
            assert!(Instant::now() < deadline, "the tasks do not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
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

    fn peak_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }
}
