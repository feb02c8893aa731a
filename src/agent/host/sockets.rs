//! Who listens on a port.

use procfs::net::{TcpNetEntry, TcpState};
use std::{
    collections::HashSet,
    fs, io,
    net::{IpAddr, TcpListener},
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
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        files
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
            .any(|link| link.to_str().is_some_and(|link| links.contains(link)))
    })
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

/// `"port 2883 is held by pid 17 of admin"`, for the ports that are not free.
pub(super) fn held_ports(address: IpAddr, ports: &[u16]) -> Vec<String> {
    let held = |port: &u16| {
        let error = try_listen(address, *port).err()?;
        Some(match listener_pid(address, *port) {
            Some(pid) => format!("port {port} is held by pid {pid} of {}", super::processes::user(pid)),
            None => format!("port {port} cannot be listened on at {address}: {error}"),
        })
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
        assert!(held[0].contains(&format!("pid {}", std::process::id())), "{held:?}");
        drop(listener);
        assert!(held_ports(address, &[port]).is_empty());
    }
}
