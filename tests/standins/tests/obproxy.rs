//! The stand-in behaves as the manual of obproxy says, seen from outside.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "helpers of tests are tests too")]

use oblet_standins::{
    client::{Client, Error},
    mysql,
};
use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio, id},
    thread,
    time::{Duration, Instant},
};

const ADMIN: &str = "root@proxysys";
const PATIENCE: Duration = Duration::from_secs(20);

/// A running stand-in with a root directory of its own; both go with it.
struct Proxy {
    process: Child,
    root: PathBuf,
    sql_port: u16,
    exporter_port: u16,
}

impl Proxy {
    fn start(test: &str, more_items: &str) -> Self {
        let root = env::temp_dir().join(format!("oblet-standin-{}-{test}", id()));
        fs::create_dir_all(&root).unwrap();
        let (sql_port, exporter_port) = (free_port(), free_port());
        let process = Command::new(env!("CARGO_BIN_EXE_obproxy"))
            .args(["-N", "-p", &sql_port.to_string(), "-l", &exporter_port.to_string()])
            .args(["-n", "demo", "-r", "127.0.0.1:2881", "-c", "obdemo"])
            .args(["-o", &format!("local_bound_ip=127.0.0.1{more_items}")])
            .env("OBPROXY_ROOT", &root)
            .env("observer_sys_password", mysql::hex(&mysql::sha1(&[b"read-only"])))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, root, sql_port, exporter_port }
    }

    fn login(&self, password: &str) -> Result<Client, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Client::login("127.0.0.1", self.sql_port, ADMIN, password) {
                Err(Error::Io(_)) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                end => return end,
            }
        }
    }

    fn value(&self, client: &mut Client, name: &str) -> String {
        let rows = client.query(&format!("SHOW PROXYCONFIG LIKE '{name}'")).unwrap();
        rows[0][1].clone().unwrap()
    }

    fn exit_code(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("still running after {PATIENCE:?}");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn password_can_be_set_once_and_is_then_asked_for() {
    let proxy = Proxy::start("password", "");
    let mut client = proxy.login("").unwrap();
    client.query("ALTER PROXYCONFIG SET obproxy_sys_password='new one', proxy_mem_limited='4G'").unwrap();
    let hash = mysql::hex(&mysql::sha1(&[b"new one"]));
    assert_eq!(proxy.value(&mut client, "obproxy_sys_password"), hash);
    assert_eq!(proxy.value(&mut client, "proxy_mem_limited"), "4G");
    assert_eq!(proxy.value(&mut client, "observer_sys_password"), mysql::hex(&mysql::sha1(&[b"read-only"])));

    assert!(matches!(proxy.login(""), Err(Error::Refused { code: 1045, .. })));
    let mut client = proxy.login("new one").unwrap();
    let told = client.query("SHOW PROXYINFO BINARY").unwrap();
    assert!(told[0][1].as_deref().unwrap().contains("1.9.1.1-1919579"));
    assert!(fs::read_to_string(proxy.root.join("etc/obproxy_config.bin")).unwrap().contains(&hash));
}

#[test]
fn unknown_items_and_statements_are_refused() {
    let proxy = Proxy::start("refusal", "");
    let mut client = proxy.login("").unwrap();
    let unknown = client.query("ALTER PROXYCONFIG SET no_such_item=1");
    assert!(matches!(unknown, Err(Error::Refused { code: 1193, .. })));
    assert!(matches!(client.query("DROP TABLE t"), Err(Error::Refused { code: 1064, .. })));
    assert_eq!(client.query("SELECT 1").unwrap(), [[Some("1".to_owned())]]);
}

#[test]
fn metrics_are_exposition_text() {
    let proxy = Proxy::start("metrics", "");
    proxy.login("").unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.exporter_port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(answer.contains("\n# TYPE odp_current_session gauge\nodp_current_session{"));
    assert!(answer.contains("cluster=\"obdemo\""));
}

#[test]
fn local_command_ends_it() {
    let proxy = Proxy::start("exit", "");
    proxy.login("").unwrap().query("ALTER PROXYCONFIG SET proxy_local_cmd=1").unwrap();
    assert_eq!(proxy.exit_code(), Some(0));
}

#[test]
fn faults_come_when_asked_for() {
    let proxy = Proxy::start("fault", ",standin_die_after_ms=1,standin_exit_code=7");
    assert_eq!(proxy.exit_code(), Some(7));
}

#[test]
fn plain_password_on_the_command_line_is_refused() {
    let proxy = Proxy::start("plain", ",obproxy_sys_password=secret");
    assert_eq!(proxy.exit_code(), Some(1));
}
