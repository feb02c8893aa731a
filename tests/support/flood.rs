//! A stranger with sockets.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    time::Duration,
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
