//! A network in which a program is alone: a loopback device of its own, and one way in for the agent.
//!
//! The shim enters it before it starts the program. Whoever connects to the socket [`SOCKET`] in the directory of the run,
//! which only the agent may enter, is connected to one TCP port of the program. The relay reads nothing of what passes.

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
    unistd::{getegid, geteuid},
};
use std::{
    env, fs, io,
    net::{Ipv4Addr, Shutdown, TcpStream},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    thread,
};

const SOCKET: &str = "sql";

/// The way in, from the side of the agent.
pub(in crate::agent::host) struct Door {
    run_dir: fs::File,
}

impl Door {
    pub(in crate::agent::host) fn of(run_dir: &Path) -> io::Result<Self> {
        Ok(Self { run_dir: fs::File::open(run_dir)? })
    }

    /// Short enough for the address of a socket, however long the path of the run is.
    pub(in crate::agent::host) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.run_dir.as_raw_fd())).join(SOCKET)
    }
}

/// Moves this process, and with it all that it starts from here on, into a network of its own.
pub(super) fn enter(run_dir: &Path, port: u16) -> io::Result<()> {
    // Relative, because the address of a socket is short.
    env::set_current_dir(run_dir)?;
    let listener = UnixListener::bind(SOCKET)?;
    leave_the_network()?;
    raise_loopback()?;
    thread::Builder::new().name("relay".into()).spawn(move || {
        // A connection that fails is for the agent to try again.
        for stream in listener.incoming().flatten() {
            let _ = thread::Builder::new().name("relay".into()).spawn(move || relay(&stream, port));
        }
    })?;
    Ok(())
}

fn leave_the_network() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let refused = |error: Errno| {
        let why =
            "a program cannot be given a network of its own here (the agent needs CAP_SYS_ADMIN or user namespaces)";
        io::Error::new(io::ErrorKind::PermissionDenied, format!("{why}: {error}"))
    };
    match unshare(CloneFlags::CLONE_NEWNET) {
        Err(Errno::EPERM) if !uid.is_root() => {}
        left => return left.map_err(refused),
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(refused)?;
    // In its own user namespace a process is nobody until it is said who it is.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Sets the loopback device up, and the kernel gives it 127.0.0.1. Source: rtnetlink(7), RTM_NEWLINK.
fn raise_loopback() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const UP: u32 = 1;
    /// The first device of every network.
    const LOOPBACK_INDEX: i32 = 1;
    const MESSAGE_BYTES: u32 = 32;
    const HEADER_BYTES: usize = 16;

    let mut message = Vec::with_capacity(MESSAGE_BYTES as usize);
    message.extend_from_slice(&MESSAGE_BYTES.to_ne_bytes());
    message.extend_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message.extend_from_slice(&REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    // Sequence number and sender; then family, padding and type of the device, which say "any".
    message.extend_from_slice(&[0; 8 + 4]);
    message.extend_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());
    message.extend_from_slice(&UP.to_ne_bytes());

    let kernel: OwnedFd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(kernel.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = answer.get(..length).and_then(|answer| answer.get(HEADER_BYTES..HEADER_BYTES + 4));
    let code = code.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("the kernel's answer about the loopback device is too short")),
    }
}

fn relay(agent: &UnixStream, port: u16) {
    // Dropping the stream tells the agent that nobody listens yet.
    let Ok(program) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*agent, &mut &program);
            let _ = program.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &program, &mut &*agent);
        let _ = agent.shutdown(Shutdown::Both);
    });
}
