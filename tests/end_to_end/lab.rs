//! Hosts on loopback addresses: each an agent with its own root directory and rpm database, under one coordinator.

use crate::{ports, rest::Rest};
use nix::{sys::signal::Signal, unistd::Pid};
use oblet::tls;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) const PACKAGE: &str = "obproxy-1.9.1.1-1919579.el7.x86_64";
/// Of a version that listens for RPC as well.
pub(crate) const MODERN_PACKAGE: &str = "obproxy-ce-4.3.1.0-1.el8.x86_64";
pub(crate) const AGENT_PORT: u16 = 62898;
const METRICS_PORT: u16 = 62899;
const REST_PORT: u16 = 8443;
pub(crate) const SQL_PORT: u16 = 2883;
pub(crate) const SYS_PASSWORD: &str = "aaBB22__proxysys";
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at a task. Each of them costs programs without optimisation some milliseconds, and many tests look at a time.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// True where the tests of this file can run.
pub(crate) fn possible() -> bool {
    let possible = Command::new("rpm").arg("--version").output().is_ok();
    if !possible {
        crate::skip::skip("there is no rpm on this machine");
    }
    possible
}

fn command(program: &str, config: &Path) -> Vec<String> {
    vec![program.into(), "--config".into(), config.to_str().unwrap().into()]
}

/// A child that is killed with its test.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn spawn(command: &[String], log: &Path) -> Self {
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let (program, arguments) = command.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }

    /// SIGKILL, as `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// SIGSTOP: alive, and deaf.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    /// SIGTERM, as a service manager sends it, until it has ended.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the process does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a host is, whatever runs on it.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) address: Ipv4Addr,
    /// On this and the next one a proxy listens on every address, those of the other hosts as well.
    pub(crate) exporter_port: u16,
    pub(crate) rpc_port: u16,
    pub(crate) directory: PathBuf,
}

pub(crate) struct Host {
    place: Place,
    pub(crate) agent: Option<Process>,
}

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Host {
    pub(crate) fn start_agent(&mut self) {
        self.agent = Some(Process::spawn(&self.agent_command(), &self.directory.join("agent.log")));
    }
}

impl Place {
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Program and arguments of the agent.
    pub(crate) fn agent_command(&self) -> Vec<String> {
        command(env!("CARGO_BIN_EXE_oblet-agent"), &self.directory.join("agent.toml"))
    }

    /// What the real rpm database has.
    pub(crate) fn packages(&self) -> String {
        let database = self.root().join("var/lib/rpm");
        let output = Command::new("rpm").arg("--dbpath").arg(database).args(["-qa"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Processes whose program lies in this host's root.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let inside =
            |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.starts_with(self.root()));
        pids().filter(inside).collect()
    }

    /// Whether the agent takes connections.
    pub(crate) fn answers(&self) -> bool {
        TcpStream::connect((self.address, AGENT_PORT)).is_ok()
    }

    /// The request for a proxy on this host.
    pub(crate) fn batch_add_body(&self, id: usize) -> Value {
        json!({
            "hostIds": [id], "sqlPort": SQL_PORT, "exporterPort": self.exporter_port,
            "version": format!("{PACKAGE}.rpm"),
        })
    }

    /// How often a file below the agent's logs holds `text`.
    pub(crate) fn count_in_logs(&self, text: &str) -> usize {
        let mut count = 0;
        let mut directories = vec![self.directory.join("state")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                } else if entry.path().components().any(|part| part.as_os_str() == "logs") {
                    count += String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).matches(text).count();
                }
            }
        }
        count
    }
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Command lines of all processes, their words parted by spaces.
pub(crate) fn command_lines() -> BTreeMap<u32, String> {
    let line = |pid: u32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&bytes).replace('\0', " ")))
    };
    pids().filter_map(line).collect()
}

impl Drop for Host {
    fn drop(&mut self) {
        self.agent = None;
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

pub(crate) struct Lab {
    pub(crate) hosts: Vec<Host>,
    pub(crate) coordinator: Option<Process>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) listen: SocketAddr,
    rest: Option<Rest>,
}

/// A network of loopback addresses that no other process has. Who listens on its last address has it.
struct Network {
    high: u8,
    low: u8,
    _guard: TcpListener,
}

static NETWORK: LazyLock<Network> = LazyLock::new(|| {
    // Processes that start one after the other seldom look at the same one.
    let candidates = (0..u32::from(u16::MAX)).map(|number| (std::process::id() + number).to_be_bytes());
    let reserve = |[_, _, high, low]: [u8; 4]| {
        let high = high | 128;
        let guard = TcpListener::bind((Ipv4Addr::new(127, high, low, 254), REST_PORT)).ok()?;
        Some(Network { high, low, _guard: guard })
    };
    { candidates }.find_map(reserve).unwrap_or_else(|| panic!("other tests have all networks"))
});

/// Addresses of its own for each lab, so that all of them can use the same SQL port at the same time: a block of ten in the
/// network of this process.
fn block() -> impl Fn(u8) -> Ipv4Addr {
    static LABS: AtomicU8 = AtomicU8::new(0);
    let first = LABS.fetch_add(1, Ordering::Relaxed) % 25 * 10;
    move |number| Ipv4Addr::new(127, NETWORK.high, NETWORK.low, first + 1 + number)
}

impl Lab {
    /// Certificates, directories and configuration; nothing runs yet.
    pub(crate) fn prepare(hosts: u8) -> Self {
        tls::install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let address = block();
        let listen = SocketAddr::from((address(0), REST_PORT));
        let path = directory.path();
        fs::create_dir(path.join("coordinator")).unwrap();
        let config = format!(
            "listen = '{listen}'\nconfig_service_listen = '{1}:8080'\nstate_dir = '{0}/coordinator/state'\n\
             advertise_addresses = ['{1}']\ninitial_password_file = '{0}/password'\n",
            path.display(),
            listen.ip(),
        );
        fs::write(path.join("coordinator/coordinator.toml"), config).unwrap();
        let mut lab = Self { hosts: Vec::new(), coordinator: None, directory, listen, rest: None };
        for number in 0..hosts {
            lab.add_host(address(1 + number));
        }
        lab
    }

    fn add_host(&mut self, address: Ipv4Addr) {
        let directory = self.directory.path().join(address.to_string());
        fs::create_dir_all(directory.join("root")).unwrap();
        let issued = Command::new(env!("CARGO_BIN_EXE_oblet-coordinator"))
            .arg("certificate")
            .arg("--config")
            .arg(self.coordinator_config())
            .args(["--role", "agent", "--name", "host", "--address", &address.to_string(), "--out"])
            .arg(directory.join("tls"))
            .output()
            .unwrap();
        assert!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
        let config = format!(
            "listen = '{address}:{AGENT_PORT}'\nmetrics_listen = '{address}:{METRICS_PORT}'\naddress = '{address}'\n\
             state_dir = '{0}/state'\nroot_dir = '{0}/root'\nrun_user = '{1}'\nrpm_scriptlets = true\n\
             tls_ca = '{0}/tls/ca.pem'\ntls_certificate = '{0}/tls/agent.pem'\ntls_key = '{0}/tls/agent.key'\n",
            directory.display(),
            nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap().name,
        );
        fs::write(directory.join("agent.toml"), config).unwrap();
        let place = Place { address, exporter_port: ports::own(), rpc_port: ports::own(), directory };
        self.hosts.push(Host { place, agent: None });
    }

    fn coordinator_config(&self) -> PathBuf {
        self.directory.path().join("coordinator/coordinator.toml")
    }

    /// Program and arguments of the coordinator.
    pub(crate) fn coordinator_command(&self) -> Vec<String> {
        command(env!("CARGO_BIN_EXE_oblet-coordinator"), &self.coordinator_config())
    }

    /// A setting of the coordinator from its next start on.
    pub(crate) fn configure_coordinator(&self, setting: &str) {
        let mut config = fs::OpenOptions::new().append(true).open(self.coordinator_config()).unwrap();
        writeln!(config, "{setting}").unwrap();
    }

    /// Of SQLite, as its URL.
    pub(crate) fn store_url(&self) -> String {
        format!("sqlite://{}?mode=rwc", self.directory.path().join("coordinator/state/coordinator.db").display())
    }

    pub(crate) fn coordinator_log(&self) -> PathBuf {
        self.directory.path().join("coordinator/coordinator.log")
    }

    pub(crate) fn start_coordinator(&mut self) {
        self.coordinator = Some(Process::spawn(&self.coordinator_command(), &self.coordinator_log()));
    }

    /// Everything runs and answers.
    pub(crate) async fn start(hosts: u8) -> Self {
        let mut lab = Self::prepare(hosts);
        lab.run().await;
        lab
    }

    pub(crate) async fn run(&mut self) {
        self.hosts.iter_mut().for_each(Host::start_agent);
        self.start_coordinator();
        self.connect().await;
    }

    /// Waits until coordinator and agents answer, as far as they were started.
    pub(crate) async fn connect(&mut self) {
        self.connect_coordinator().await;
        for host in self.hosts.iter().filter(|host| host.agent.is_some()) {
            wait_for("an agent", || host.answers()).await;
        }
    }

    pub(crate) async fn connect_coordinator(&mut self) {
        let path = self.directory.path().to_owned();
        wait_for("the coordinator", || TcpStream::connect(self.listen).is_ok()).await;
        let ca = fs::read(path.join("coordinator/state/tls/ca.pem")).unwrap();
        let password = fs::read_to_string(path.join("password")).unwrap();
        self.rest = Some(Rest::new(self.listen, &ca, password.trim()));
    }

    /// The REST interface, as administrator.
    pub(crate) fn rest(&self) -> &Rest {
        self.rest.as_ref().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, reqwest::Error> {
        self.rest().get(path).await
    }

    /// Answers status and body.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.rest().post(path, body).await.unwrap()
    }

    async fn must_post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer["data"].clone()
    }

    /// Uploads the package, registers the hosts and creates a proxy cluster; answers the cluster's id.
    pub(crate) async fn set_up(&self, cluster: Value) -> i64 {
        let package = self.build_package();
        self.set_up_with(&package, cluster).await
    }

    pub(crate) async fn set_up_with(&self, package: &Path, cluster: Value) -> i64 {
        self.set_up_first(self.hosts.len(), package, cluster).await
    }

    /// The same, of the hosts only the first ones.
    pub(crate) async fn set_up_first(&self, hosts: usize, package: &Path, cluster: Value) -> i64 {
        self.rest().upload(package).await;
        let list: Vec<Value> =
            self.hosts.iter().take(hosts).map(|host| json!({"innerIpAddress": host.address.to_string()})).collect();
        let made = self.must_post("/api/v2/compute/hosts/batchCreate", &json!({"hostBasicDataList": list})).await;
        for task in made["contents"].as_array().unwrap() {
            let task = self.finished(task["id"].as_i64().unwrap()).await;
            assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
        }
        let mut body = json!({
            "name": "test", "workMode": "RS_LIST", "password": SYS_PASSWORD,
            "obLinks": [{"clusterName": "ob1", "obClusterId": 1, "username": "proxyro"}],
            "startupParameters": [{"name": "rootservice_list", "value": "127.0.0.1:2881"}],
        });
        body.as_object_mut().unwrap().extend(cluster.as_object().unwrap().clone());
        let task = self.must_post("/api/v2/obproxy/clusters", &body).await;
        self.finished(task["id"].as_i64().unwrap()).await;
        let clusters = self.get("/api/v2/obproxy/clusters").await.unwrap();
        clusters["data"]["contents"][0]["id"].as_i64().unwrap()
    }

    /// Ends everything, and leaves the directory to whoever wants to look at it.
    pub(crate) fn keep(self) -> PathBuf {
        let Self { hosts, coordinator, directory, .. } = self;
        drop((hosts, coordinator));
        directory.keep()
    }

    pub(crate) fn build_package(&self) -> PathBuf {
        self.build_package_with("echo scriptlet ran once")
    }

    pub(crate) fn build_package_with(&self, scriptlet: &str) -> PathBuf {
        let binary = oblet_standins::program("obproxy").unwrap();
        let mut options = oblet_standins::package::Options::new(binary, self.directory.path());
        options.scriptlet = Some(scriptlet.into());
        oblet_standins::package::build(&options).unwrap()
    }

    pub(crate) fn build_modern_package(&self) -> PathBuf {
        let binary = oblet_standins::program("obproxy").unwrap();
        let mut options = oblet_standins::package::Options::modern(binary, self.directory.path());
        options.scriptlet = Some("echo scriptlet ran once".into());
        oblet_standins::package::build(&options).unwrap()
    }

    /// The request of the sample, once for each host; answers the ids of the tasks.
    pub(crate) async fn batch_add(&self, cluster_id: i64) -> Vec<i64> {
        self.batch_add_all(cluster_id, self.batch_add_bodies()).await
    }

    /// The same for the version with a port for RPC.
    pub(crate) async fn batch_add_modern(&self, cluster_id: i64) -> Vec<i64> {
        let mut bodies = self.batch_add_bodies();
        for (body, host) in bodies.iter_mut().zip(&self.hosts) {
            body["version"] = json!(format!("{MODERN_PACKAGE}.rpm"));
            body["rpcPort"] = json!(host.rpc_port);
        }
        self.batch_add_all(cluster_id, bodies).await
    }

    async fn batch_add_all(&self, cluster_id: i64, bodies: Vec<Value>) -> Vec<i64> {
        let mut ids = Vec::new();
        for body in bodies {
            let data = self.must_post(&batch_add_path(cluster_id), &body).await;
            let tasks = data["contents"].as_array().unwrap();
            ids.extend(tasks.iter().map(|task| task["id"].as_i64().unwrap()));
        }
        ids
    }

    /// A request for each host, because their ports for metrics differ.
    pub(crate) fn batch_add_bodies(&self) -> Vec<Value> {
        let body = |(number, host): (usize, &Host)| host.batch_add_body(number + 1);
        self.hosts.iter().enumerate().map(body).collect()
    }

    /// Waits until the task came to rest.
    pub(crate) async fn finished(&self, id: i64) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Value::Null;
        while Instant::now() < deadline {
            // The coordinator may be down at the moment.
            if let Ok(answer) = self.get(&format!("/api/v2/tasks/instances/{id}")).await {
                last = answer["data"].clone();
                if last["status"] != "RUNNING" {
                    return last;
                }
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("task {id} does not come to rest: {last:#}");
    }

    /// Waits until the log of a subtask that runs or failed holds the text; answers that log.
    pub(crate) async fn told(&self, id: i64, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut logs = String::new();
        while Instant::now() < deadline {
            let task = self.get(&format!("/api/v2/tasks/instances/{id}")).await.unwrap()["data"].clone();
            let active = |subtask: &&Value| subtask["status"] == "RUNNING" || subtask["status"] == "FAILED";
            for subtask in task["subtasks"].as_array().unwrap().iter().filter(active) {
                let log = self.log(&task, subtask["name"].as_str().unwrap()).await;
                if log.contains(text) {
                    return log;
                }
                logs = log;
            }
            tokio::time::sleep(POLL).await;
        }
        panic!("no log of task {id} says {text:?}: {logs}");
    }

    pub(crate) async fn log(&self, task: &Value, subtask: &str) -> String {
        let subtasks = task["subtasks"].as_array().unwrap();
        let id = &subtasks.iter().find(|candidate| candidate["name"] == subtask).unwrap()["id"];
        let path = format!("/api/v2/tasks/instances/{}/subtasks/{id}/log", task["id"]);
        self.get(&path).await.unwrap()["data"]["log"].as_str().unwrap().to_owned()
    }

    /// No file that oblet wrote holds the text in clear.
    pub(crate) fn assert_nowhere(&self, secret: &str) {
        let mut directories = vec![self.directory.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                } else if let Ok(content) = fs::read(entry.path()) {
                    let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                    assert!(!found, "{} holds a secret", entry.path().display());
                }
            }
        }
    }
}

pub(crate) fn batch_add_path(cluster_id: i64) -> String {
    format!("/api/v2/obproxy/clusters/{cluster_id}/obproxies/batchAdd")
}

/// Waits for a condition, bounded.
pub(crate) async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    assert!(holds_within(PATIENCE, condition).await, "waited in vain for {what}");
}

/// Whether the condition comes true in that time.
pub(crate) async fn holds_within(time: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Holds a port, as a stranger would.
pub(crate) fn occupy(address: Ipv4Addr, port: u16) -> TcpListener {
    TcpListener::bind((address, port)).unwrap()
}
