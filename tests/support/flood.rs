//! A stranger with sockets.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

/// As many as a scanner holds; a process that may hold fewer opens those.
const STRANGERS: u64 = 20_000;
/// Descriptors that the test needs for itself.
const OWN: u64 = 200;

/// Opens connections that say nothing, or half a request.
#[expect(clippy::print_stderr, reason = "a test that does less says so")]
pub(crate) fn flood(address: SocketAddr) -> Vec<TcpStream> {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    // "unlimited" is no number.
    let limit = files.split_whitespace().next().unwrap().parse().unwrap_or(u64::MAX);
    let count = STRANGERS.min(limit.saturating_sub(OWN));
    if count < STRANGERS {
        eprintln!("only {count} of {STRANGERS} connections: this process may open {limit} files");
    }
    connect(address, count)
}

pub(crate) fn connect(address: SocketAddr, count: u64) -> Vec<TcpStream> {
    let connect = |number: u64| {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(30)).unwrap();
        if number.is_multiple_of(2) {
            // One that was shown out at once does not hear it.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n");
        }
        stream
    };
    (0..count).map(connect).collect()
}

/// Memory that a process has at the moment, in MiB.
pub(crate) fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    resident.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

/// A program in an empty environment that may have so many files open, if that is said; at first 100.
pub(crate) fn limited(program: &str, files: Option<u64>) -> Command {
    let Some(files) = files else {
        let mut command = Command::new(program);
        command.env_clear();
        return command;
    };
    let mut command = Command::new("/bin/sh");
    // `$0` is the program, `$@` its arguments, which the caller adds.
    command
        .env_clear()
        .arg("-c")
        .arg(format!("ulimit -Sn 100 && ulimit -Hn {files} && exec \"$0\" \"$@\""))
        .arg(program);
    command
}

/// Soft and hard.
pub(crate) fn limit_of_files(pid: u32) -> (u64, u64) {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let mut words = files.split_whitespace().map(|word| word.parse().unwrap());
    (words.next().unwrap(), words.next().unwrap())
}

fn open_files(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64
}

/// Allows a process so many files more than it has open.
pub(crate) fn leave_descriptors(pid: u32, count: u64) {
    let limit = open_files(pid) + count;
    let status = Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={limit}:1000")]).status();
    assert!(status.unwrap().success());
}

pub(crate) fn free_descriptors(pid: u32) -> u64 {
    limit_of_files(pid).0.saturating_sub(open_files(pid))
}

/// Processor time that a process needs in a while.
pub(crate) fn spent_in(pid: u32, time: Duration) -> Duration {
    let before = processor_time(pid);
    std::thread::sleep(time);
    processor_time(pid) - before
}

/// Of all threads of a process, since its start.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
    // A tick is the hundredth part of a second on all systems in use.
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

pub(crate) fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "nothing changes");
        std::thread::yield_now();
    }
}
