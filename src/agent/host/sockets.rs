//! Who listens on a port.

use super::{OwnProxies, process::identity::all_pids};
use procfs::net::{TcpNetEntry, TcpState};
use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

/// Whether a server could listen on the port; the socket is closed at once.
pub(super) fn try_listen(address: IpAddr, port: u16) -> io::Result<()> {
    // The standard library sets SO_REUSEADDR, as every server does: connections in TIME_WAIT do not count.
    TcpListener::bind((address, port)).map(drop)
}

/// The process that listens on the port of this address, if `/proc` tells.
pub(super) fn listener_pid(address: IpAddr, port: u16) -> Option<i32> {
    let entries = procfs::net::tcp().into_iter().flatten().chain(procfs::net::tcp6().into_iter().flatten());
    let covers = |entry: &TcpNetEntry| {
        let at = entry.local_address;
        entry.state == TcpState::Listen
            && at.port() == port
            && (address.is_unspecified() || at.ip().is_unspecified() || at.ip().to_canonical() == address)
    };
    let links: HashSet<String> = entries.filter(covers).map(|entry| format!("socket:[{}]", entry.inode)).collect();
    if links.is_empty() {
        return None;
    }
    all_pids().ok()?.into_iter().find(|pid| !sockets_of(*pid).is_disjoint(&links))
}

fn sockets_of(pid: i32) -> HashSet<String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()?.into_os_string().into_string().ok());
    links.filter(|link| link.starts_with("socket:")).collect()
}

/// Who holds the end `there` of a connection of this process from `here`, unless it is one of these processes. To be
/// asked after the other end has said something: before it has taken the connection nobody holds it.
pub(super) fn stranger_at(there: SocketAddr, here: SocketAddr, owners: &[i32]) -> io::Result<Option<String>> {
    let entries = procfs::net::tcp().into_iter().flatten().chain(procfs::net::tcp6().into_iter().flatten());
    let plain = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    let other_end =
        |entry: &TcpNetEntry| plain(entry.local_address) == plain(there) && plain(entry.remote_address) == plain(here);
    let Some(entry) = { entries }.find(other_end) else {
        return Ok(Some("a process in another network".into()));
    };
    let socket = format!("socket:[{}]", entry.inode);
    if owners.iter().any(|pid| sockets_of(*pid).contains(&socket)) {
        return Ok(None);
    }
    let holder = all_pids()?.into_iter().find(|pid| sockets_of(*pid).contains(&socket));
    Ok(Some(holder.map_or_else(
        || "an unknown process".into(),
        |pid| format!("pid {pid} of {}", super::checks::processes::user(pid)),
    )))
}

/// The TCP ports on which this very process listens, at whatever address.
pub(super) fn own_ports() -> io::Result<HashSet<u16>> {
    let files = fs::read_dir("/proc/self/fd")?.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let links: HashSet<PathBuf> = files.collect();
    let entries = procfs::net::tcp().map_err(io::Error::other)?.into_iter();
    // Without IPv6 there is no such file.
    let entries = entries.chain(procfs::net::tcp6().into_iter().flatten());
    let own = |entry: &TcpNetEntry| {
        entry.state == TcpState::Listen && links.contains(Path::new(&format!("socket:[{}]", entry.inode)))
    };
    Ok(entries.filter(own).map(|entry| entry.local_address.port()).collect())
}

/// A port that is not free.
pub(super) struct HeldPort {
    port: u16,
    address: IpAddr,
    holder: Option<i32>,
    error: io::Error,
}

impl HeldPort {
    /// Whether a proxy holds it that oblet runs: one that must not be stopped for the sake of another.
    pub(super) fn is_of(&self, own: &OwnProxies) -> bool {
        self.holder.is_some_and(|pid| own.contains_key(&pid))
    }

    /// `"port 2883 is held by pid 17 of admin"`; a proxy that oblet runs is named.
    pub(super) fn told(&self, own: &OwnProxies) -> String {
        let Self { port, address, holder, error } = self;
        match holder.map(|pid| (pid, own.get(&pid))) {
            Some((pid, Some(name))) => format!("port {port} is held by {name}, which oblet runs (pid {pid})"),
            Some((pid, None)) => {
                format!("port {port} is held by pid {pid} of {}", super::checks::processes::user(pid))
            }
            None => format!("port {port} cannot be listened on at {address}: {error}"),
        }
    }
}

pub(super) fn held_ports(address: IpAddr, ports: &[u16]) -> Vec<HeldPort> {
    let held = |port: &u16| {
        let error = try_listen(address, *port).err()?;
        Some(HeldPort { port: *port, address, holder: listener_pid(address, *port), error })
    };
    ports.iter().filter_map(held).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = IpAddr::from([127, 0, 0, 1]);
        let held = held_ports(address, &[port]);
        let pid = std::process::id();
        let told = held[0].told(&OwnProxies::new());
        assert!(told.contains(&format!("is held by pid {pid} of ")), "{told}");
        let own = OwnProxies::from([(i32::try_from(pid).unwrap(), "the obproxy of demo at port 2883".into())]);
        let told = held[0].told(&own);
        assert!(
            held[0].is_of(&own) && told.contains("held by the obproxy of demo at port 2883, which oblet"),
            "{told}"
        );
        drop(listener);
        assert!(held_ports(address, &[port]).is_empty());
    }
}
