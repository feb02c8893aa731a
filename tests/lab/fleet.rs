//! One lab for one test.

use crate::{lab_numbers, rest::Rest};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

pub(crate) const PACKAGE: &str = "obproxy-1.9.1.1-1919579.el7.x86_64";
pub(crate) const UNIT: &str = "oblet-obproxy@2883.service";
pub(crate) const SQL_PORT: u16 = 2883;
pub(crate) const SYS_PASSWORD: &str = "aaBB22__proxysys";
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// A coordinator on h0 and hosts h1, h2, ... with enrolled agents; all of it is gone when it is dropped.
pub(crate) struct Fleet {
    number: u8,
    pub(crate) directory: PathBuf,
    hosts: Vec<String>,
    rest: Option<Rest>,
    /// Held while the number is in use.
    _lock: File,
}

/// True where labs can be raised.
pub(crate) fn possible() -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab.sh");
    let checked = Command::new(script).arg("check").output().unwrap();
    let possible = checked.status.success();
    if !possible {
        crate::skip::skip(&String::from_utf8_lossy(&checked.stderr));
    }
    possible
}

impl Fleet {
    /// A lab in which nothing runs.
    pub(crate) fn empty() -> Self {
        oblet::tls::install_crypto_provider();
        let (number, lock) = lab_numbers::own();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-{number}"));
        let fleet = Self { number, directory, hosts: Vec::new(), rest: None, _lock: lock };
        // A test that was killed may have left its hosts.
        fleet.lab(&["down"]);
        fleet
    }

    /// A coordinator and so many hosts, installed from packages, enrolled and known.
    pub(crate) async fn raise(count: u8) -> Self {
        Self::raise_with(count, &[]).await
    }

    /// The same, with settings of `lab.sh`.
    pub(crate) async fn raise_with(count: u8, settings: &[(&str, &str)]) -> Self {
        let mut fleet = Self::empty();
        let raised = fleet.command(&["up", &count.to_string()]).envs(settings.iter().copied()).output().unwrap();
        assert!(raised.status.success(), "{}", String::from_utf8_lossy(&raised.stderr));
        fleet.hosts = (1..=count).map(|number| format!("h{number}")).collect();
        let ca = fs::read_to_string(fleet.directory.join("ca.pem")).unwrap();
        let password = fs::read_to_string(fleet.directory.join("password")).unwrap();
        fleet.connect(&ca, &password);
        fleet
    }

    /// Bare hosts: the coordinator's, and so many for databases.
    pub(crate) fn boot(count: u8) -> Self {
        let mut fleet = Self::empty();
        fleet.hosts = (1..=count).map(|number| format!("h{number}")).collect();
        let mut arguments = vec!["boot", "h0"];
        arguments.extend(fleet.hosts.iter().map(String::as_str));
        fleet.lab(&arguments);
        fleet
    }

    /// Speaks to the coordinator on h0 from here on.
    pub(crate) fn connect(&mut self, ca: &str, password: &str) {
        let address = format!("{}:8443", self.address("h0")).parse().unwrap();
        self.rest = Some(Rest::new(address, ca.as_bytes(), password.trim()));
    }

    /// Where the packages are that the lab installs.
    #[expect(clippy::unused_self, reason = "reads as a property of the fleet")]
    pub(crate) fn packages(&self) -> PathBuf {
        let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/packages");
        std::env::var_os("OBLET_LAB_PACKAGES").map_or_else(default, PathBuf::from)
    }

    /// Lays the agent's package of that release on the host; answers its path there.
    pub(crate) fn agent_package(&self, release: u8, host: &str) -> String {
        let mut command = self.command(&["package", "oblet-agent", host]);
        let output = command.env("OBLET_LAB_RELEASE", release.to_string()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Names of the database hosts.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    pub(crate) fn address(&self, host: &str) -> String {
        let number: u8 = host.strip_prefix('h').unwrap().parse().unwrap();
        format!("10.213.{}.{}", self.number, 10 + number)
    }

    pub(crate) fn rest(&self) -> &Rest {
        self.rest.as_ref().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab.sh"));
        command.args(arguments).env("OBLET_LAB", self.number.to_string()).env("OBLET_LAB_DIR", &self.directory);
        command.env("OBLET_LAB_RELEASE", "1");
        command
    }

    fn script(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// A command of the lab that has to succeed; answers what it printed.
    pub(crate) fn lab(&self, arguments: &[&str]) -> String {
        let output = self.script(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// A shell line on a host that has to succeed; answers what it printed.
    pub(crate) fn on(&self, host: &str, line: &str) -> String {
        self.lab(&["run", host, "bash", "-euc", line])
    }

    /// Whether a shell line on a host succeeds.
    pub(crate) fn holds_on(&self, host: &str, line: &str) -> bool {
        self.script(&["run", host, "bash", "-euc", line]).status.success()
    }

    /// A property of a unit, as `systemctl show` has it.
    pub(crate) fn property(&self, host: &str, unit: &str, name: &str) -> String {
        self.on(host, &format!("systemctl show --property={name} --value {unit}")).trim().to_owned()
    }

    /// Process of the proxy on that host.
    pub(crate) fn proxy_pid(&self, host: &str) -> u32 {
        let pid = self.property(host, UNIT, "MainPID").parse().unwrap();
        assert_ne!(pid, 0, "no proxy runs on {host}");
        pid
    }

    /// The stand-in's package; `scriptlet` runs after its installation, on the host.
    pub(crate) async fn upload_package(&self, scriptlet: &str) {
        // Stripped: the bad cable of one test carries some hundred kilobytes a second.
        let binary = self.directory.join("obproxy");
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(&binary).arg(oblet_standins::program("obproxy").unwrap());
        assert!(strip.status().unwrap().success());
        let mut options = oblet_standins::package::Options::new(binary, &self.directory);
        options.scriptlet = Some(scriptlet.into());
        self.rest().upload(&oblet_standins::package::build(&options).unwrap()).await;
    }

    /// A proxy cluster; answers its id.
    pub(crate) async fn create_cluster(&self) -> i64 {
        let body = json!({
            "name": "test", "workMode": "RS_LIST", "password": SYS_PASSWORD,
            "obLinks": [{"clusterName": "ob1", "obClusterId": 1, "username": "proxyro"}],
            "startupParameters": [{"name": "rootservice_list", "value": "127.0.0.1:2881"}],
        });
        let task = self.must_post("/api/v2/obproxy/clusters", &body).await;
        self.at_rest(task["id"].as_i64().unwrap()).await;
        let clusters = self.rest().get("/api/v2/obproxy/clusters").await.unwrap();
        clusters["data"]["contents"][0]["id"].as_i64().unwrap()
    }

    /// Asks for a proxy on every one of the hosts; answers the ids of the tasks, one for each.
    pub(crate) async fn batch_add(&self, cluster_id: i64, hosts: &[&str]) -> Vec<i64> {
        let known = self.rest().get("/api/v2/compute/hosts?size=100").await.unwrap();
        let id = |host: &&str| {
            let address = self.address(host);
            let known = known["data"]["contents"].as_array().unwrap();
            known.iter().find(|known| known["innerIpAddress"] == address.as_str()).unwrap()["id"].clone()
        };
        let body = json!({
            "hostIds": hosts.iter().map(id).collect::<Vec<_>>(),
            "sqlPort": SQL_PORT, "exporterPort": 2884, "version": format!("{PACKAGE}.rpm"),
        });
        let path = format!("/api/v2/obproxy/clusters/{cluster_id}/obproxies/batchAdd");
        let data = self.must_post(&path, &body).await;
        data["contents"].as_array().unwrap().iter().map(|task| task["id"].as_i64().unwrap()).collect()
    }

    /// A proxy on every host of the fleet.
    pub(crate) async fn with_proxies(count: u8) -> Self {
        let fleet = Self::raise(count).await;
        fleet.upload_package("echo scriptlet ran once").await;
        let cluster = fleet.create_cluster().await;
        let hosts: Vec<&str> = fleet.hosts.iter().map(String::as_str).collect();
        for id in fleet.batch_add(cluster, &hosts).await {
            fleet.succeeded(id).await;
        }
        fleet
    }

    pub(crate) async fn must_post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.rest().post(path, body).await.unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer["data"].clone()
    }

    pub(crate) async fn task(&self, id: i64) -> Value {
        self.rest().get(&format!("/api/v2/tasks/instances/{id}")).await.unwrap()["data"].clone()
    }

    /// Waits until the task came to rest.
    pub(crate) async fn at_rest(&self, id: i64) -> Value {
        self.wait_for_task(id, "comes to rest", |task| task["status"] != "RUNNING").await
    }

    pub(crate) async fn succeeded(&self, id: i64) -> Value {
        let task = self.at_rest(id).await;
        assert_eq!(task["status"], "SUCCESSFUL", "{task:#}");
        task
    }

    pub(crate) async fn wait_for_task(&self, id: i64, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let task = self.task(id).await;
            if fits(&task) {
                return task;
            }
            assert!(Instant::now() < deadline, "task {id} never {what}: {task:#}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a subtask of the task says that the agent of the host does not answer.
    pub(crate) async fn misses(&self, id: i64, host: &str) -> Value {
        let address = self.address(host);
        let says = |subtask: &Value| {
            let reason = subtask["waiting"]["for"].as_str().unwrap_or_default();
            reason.starts_with("the next try, because") && reason.contains(&address)
        };
        let what = format!("says that {address} does not answer");
        self.wait_for_task(id, &what, |task| task["subtasks"].as_array().is_some_and(|all| all.iter().any(says))).await
    }

    /// Waits until a shell line succeeds on the host.
    pub(crate) async fn wait_on(&self, host: &str, line: &str) {
        self.wait(&format!("{line:?} on {host}"), || self.holds_on(host, line)).await;
    }

    /// Waits for a condition, bounded.
    pub(crate) async fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// A client of the proxy on that host, logged in as its administrator.
    pub(crate) fn client(&self, host: &str) -> oblet_standins::client::Client {
        oblet_standins::client::Client::login(&self.address(host), SQL_PORT, "root@proxysys", SYS_PASSWORD).unwrap()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.last_words());
        }
        let down = self.script(&["down"]);
        if !down.status.success() {
            println!("the lab could not be removed: {}", String::from_utf8_lossy(&down.stderr));
        }
    }
}

impl Fleet {
    /// What the journals say last: the only witness when a test has failed.
    fn last_words(&self) -> String {
        let mut words = String::new();
        for (host, unit) in
            std::iter::once(("h0", "oblet-coordinator")).chain(self.hosts.iter().map(|host| (host.as_str(), "oblet-*")))
        {
            let said = self.script(&["run", host, "journalctl", "--no-pager", "--lines=40", "--unit", unit]);
            words.push_str(&format!("--- {host}\n{}\n", String::from_utf8_lossy(&said.stdout)));
        }
        words
    }
}
