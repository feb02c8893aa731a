//! An installed stand-in of a chosen version, with a root directory of its own.

use crate::ports;
use oblet_standins::{
    client::{Client, Error, Rows},
    mysql,
};
use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio, id},
    thread,
    time::{Duration, Instant},
};

pub(crate) const ADMIN: &str = "root@proxysys";
pub(crate) const PASSWORD: &str = "first one";
pub(crate) const OLD: &str = "1.9.1.1-1919579";
pub(crate) const NEW: &str = "4.3.1.0-1.el8";
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn hash(password: &str) -> String {
    mysql::hex(&mysql::sha1(&[password.as_bytes()]))
}

/// Waits for a condition, bounded.
pub(crate) fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn code_of(refused: Result<Rows, Error>) -> u16 {
    match refused {
        Err(Error::Refused { code, .. }) => code,
        other => panic!("no refusal: {other:?}"),
    }
}

/// All of it goes with it, its processes included.
pub(crate) struct Place {
    directory: PathBuf,
    pub(crate) version: &'static str,
    pub(crate) sql_port: u16,
    pub(crate) metrics_port: u16,
    pub(crate) rpc_port: u16,
    process: Option<Child>,
}

impl Place {
    pub(crate) fn new(test: &str, version: &'static str) -> Self {
        let directory = env::temp_dir().join(format!("oblet-standin-{}-{test}-{}", id(), &version[..1]));
        for part in ["bin", "lib", "root"] {
            fs::create_dir_all(directory.join(part)).unwrap();
        }
        let (program, installed) = (env!("CARGO_BIN_EXE_obproxy"), directory.join("bin/obproxy"));
        fs::copy(program, installed).unwrap();
        fs::write(directory.join("lib/standin-version"), version).unwrap();
        let (sql_port, metrics_port, rpc_port) = (ports::own(), ports::own(), ports::own());
        Self { directory, version, sql_port, metrics_port, rpc_port, process: None }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Faults that the package carries.
    pub(crate) fn carry(&self, faults: &str) {
        fs::write(self.directory.join("lib/standin-faults"), faults).unwrap();
    }

    /// The flags of a first start, without `-N`.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = vec!["-p".to_owned(), self.sql_port.to_string(), "-l".into(), self.metrics_port.to_string()];
        if self.version == NEW {
            flags.extend(["-s".into(), self.rpc_port.to_string()]);
        }
        flags.extend(["-n", "demo", "-r", "127.0.0.1:2881", "-c", "obdemo"].map(str::to_owned));
        flags
    }

    pub(crate) fn command<A: AsRef<str>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(self.directory.join("bin/obproxy"));
        command.args(arguments.iter().map(AsRef::as_ref)).env("OBPROXY_ROOT", self.root()).current_dir(self.root());
        command.stdin(Stdio::null());
        command
    }

    /// Runs to the end of the process that was started, which may leave a daemon.
    pub(crate) fn output<A: AsRef<str>>(&self, arguments: &[A]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// In the foreground, with exactly these arguments.
    pub(crate) fn start_with<A: AsRef<str>>(&mut self, arguments: &[A]) {
        let mut command = self.command(arguments);
        self.spawn(command.arg("-N"));
    }

    pub(crate) fn spawn(&mut self, command: &mut Command) {
        assert!(self.process.is_none(), "one at a time");
        self.process = Some(command.stderr(Stdio::null()).spawn().unwrap());
    }

    /// In the foreground, with the password [`PASSWORD`] and more items for `-o`.
    pub(crate) fn start(&mut self, more_items: &str) {
        let items = format!("obproxy_sys_password={}{more_items}", hash(PASSWORD));
        let flags: Vec<String> = self.flags().into_iter().chain(["-o".to_owned(), items]).collect();
        self.start_with(&flags);
    }

    /// A login as soon as the port answers.
    pub(crate) fn try_login(&self, user: &str, password: &str) -> Result<Client, Error> {
        wait("the SQL port", || TcpStream::connect(("127.0.0.1", self.sql_port)).ok());
        Client::login("127.0.0.1", self.sql_port, user, password)
    }

    pub(crate) fn login(&self) -> Client {
        self.try_login(ADMIN, PASSWORD).unwrap()
    }

    pub(crate) fn refusal(&self, user: &str, password: &str) -> String {
        self.try_login(user, password).err().unwrap().to_string()
    }

    /// The status line and the rest.
    pub(crate) fn http(&self, target: &str) -> (String, String) {
        let connect = || TcpStream::connect(("127.0.0.1", self.metrics_port)).ok();
        let mut stream = wait("the metrics port", connect);
        write!(stream, "GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// Sends SIGTERM and answers the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let pid = self.process.as_ref().unwrap().id();
        signal(pid, nix::sys::signal::Signal::SIGTERM);
        self.ended()
    }

    /// The exit code of a process that ends on its own.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        wait("the end of the process", || process.try_wait().unwrap()).code()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.root().join("log/obproxy.log")).unwrap_or_default()
    }

    /// Processes that execute this place's program, daemons included.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let program = self.directory.join("bin/obproxy");
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)).collect()
    }
}

pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

pub(crate) fn value(client: &mut Client, name: &str) -> String {
    let rows = client.query(&format!("SHOW PROXYCONFIG LIKE '{name}'")).unwrap();
    rows[0][1].clone().unwrap()
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.pids() {
            signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
        if let Some(mut process) = self.process.take() {
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
