//! Whether a new instance fits on the host; every problem is told at once.

use crate::{
    agent::{
        host::{
            Host, OwnProxies, adapter::Adapter, beneath, blocking, checks::processes::not_listed, own_proxies,
            settings::HostSettings, sockets::held_ports,
        },
        step::{Done, StepContext, StepError},
    },
    steps::CheckInstance,
};
use futures_util::future::BoxFuture;
use std::{io, net::Ipv4Addr, path::Path, sync::Arc};

/// Kept free besides what is installed: logs and the rpm database grow.
pub(super) const DISK_MARGIN_BYTES: u64 = 64 << 20;

/// Bytes that a process may still write below `path`, which need not exist yet.
fn available_bytes(path: &Path) -> io::Result<u64> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let space = nix::sys::statvfs::statvfs(existing)?;
    Ok(space.blocks_available().saturating_mul(space.fragment_size()))
}

pub(super) fn machine() -> io::Result<String> {
    Ok(nix::sys::utsname::uname()?.machine().to_string_lossy().into_owned())
}

/// What is wrong with the architecture of a package, if anything.
pub(in crate::agent::host) fn architecture_problem(architecture: &str) -> Option<String> {
    match machine() {
        Ok(machine) if architecture == "noarch" || architecture == machine => None,
        Ok(machine) => Some(format!("the package is for {architecture}, the host is {machine}")),
        Err(error) => Some(format!("the architecture of the host is unknown: {error}")),
    }
}

/// What is wrong with the room on the disk, if anything.
pub(in crate::agent::host) fn disk_problem(root_dir: &Path, needed_bytes: u64) -> Option<String> {
    room_problem(root_dir, available_bytes(root_dir), needed_bytes)
}

/// The same of a directory in which the run user may have put links.
pub(super) fn disk_problem_beneath(dir: &Path, needed_bytes: u64) -> Option<String> {
    room_problem(dir, beneath::available_bytes(dir), needed_bytes)
}

fn room_problem(dir: &Path, available: io::Result<u64>, needed_bytes: u64) -> Option<String> {
    let needed = needed_bytes.saturating_add(DISK_MARGIN_BYTES);
    match available {
        Ok(available) if available >= needed => None,
        Ok(available) => {
            Some(format!("{} has {} MiB free, {} MiB are needed", dir.display(), available >> 20, needed >> 20))
        }
        Err(error) => Some(format!("the free space of {} is unknown: {error}", dir.display())),
    }
}

/// Why nothing can run as the user, if anything.
pub(super) fn user_problem(name: &str) -> Option<String> {
    match nix::unistd::User::from_name(name) {
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("user {name} does not exist")),
        Err(error) => Some(format!("user {name} cannot be looked up: {error}")),
    }
}

impl Adapter for CheckInstance {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        let (settings, step, context) = (Arc::clone(&host.settings), self.clone(), context.clone());
        let supervisor = Arc::clone(&host.supervisor);
        let own = move |settings: &HostSettings| own_proxies(&*supervisor, settings);
        Box::pin(blocking(move || check(&settings, own, &step, &context)))
    }
}

/// `own` answers the proxies that oblet runs on this host.
fn check(
    settings: &HostSettings,
    own: impl FnOnce(&HostSettings) -> io::Result<OwnProxies>,
    step: &CheckInstance,
    context: &StepContext,
) -> Result<Done, StepError> {
    let numbers: Vec<u16> = step.ports.iter().map(|port| port.get()).collect();
    let (sql, everywhere) = numbers.split_at(numbers.len().min(1));
    let mut held = held_ports(settings.listen(), sql);
    // Of obproxy only the port of the metrics is known to do so (L3); that for RPC is taken to do it as well.
    held.extend(held_ports(Ipv4Addr::UNSPECIFIED.into(), everywhere));
    let own = if held.is_empty() { OwnProxies::new() } else { own(settings).map_err(not_listed)? };
    let mut problems: Vec<String> = held.iter().map(|port| port.told(&own)).collect();
    problems.extend(user_problem(&settings.run_user));
    problems.extend(architecture_problem(&step.architecture));
    problems.extend(disk_problem(&settings.root_dir, step.disk_bytes));
    if problems.is_empty() {
        context.log.line("ports, run user, architecture and disk space fit");
        return Ok(Done::already());
    }
    problems.iter().for_each(|problem| context.log.line(problem));
    Err(StepError::new(
        "HOST_UNFIT",
        problems.join("; "),
        if held.iter().any(|port| port.is_of(&own)) {
            "roll the task back and choose other ports: a proxy that oblet runs has them"
        } else {
            "free the ports, create the user, make room or choose another host or package, as the message says; then retry"
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::host::testing::{context, settings},
        steps::values::Port,
    };

    #[test]
    fn all_problems_are_told_at_once() {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path());
        let nobody = |_: &HostSettings| Ok(OwnProxies::new());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut step = CheckInstance {
            ports: vec![i64::from(port).try_into().unwrap()],
            architecture: "vax".into(),
            disk_bytes: u64::MAX,
        };
        settings.run_user = "nobody-has-this-name".into();
        let error = check(&settings, nobody, &step, &context("c")).unwrap_err();
        for part in [&format!("port {port} is held by pid"), "nobody-has-this-name", "is for vax", "MiB are needed"] {
            assert!(error.message.contains(part), "{part}: {}", error.message);
        }
        assert!(error.next_move.contains("free the ports"), "{}", error.next_move);
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = |_: &HostSettings| Ok(OwnProxies::from([(pid, "the obproxy of shop at port 2883".into())]));
        let error = check(&settings, own, &step, &context("c")).unwrap_err();
        assert!(error.message.contains("held by the obproxy of shop at port 2883, which oblet"), "{}", error.message);
        assert!(error.next_move.starts_with("roll the task back and choose other ports"), "{}", error.next_move);
        // A program that listens everywhere is kept out by whoever listens anywhere.
        let elsewhere = std::net::TcpListener::bind("127.0.0.9:0").unwrap();
        let taken: Port = i64::from(elsewhere.local_addr().unwrap().port()).try_into().unwrap();
        let sql_port = std::mem::replace(&mut step.ports, vec![taken]);
        let error = check(&settings, nobody, &step, &context("c")).unwrap_err();
        assert!(!error.message.contains(&format!("port {taken} is held")), "{}", error.message);
        step.ports.insert(0, sql_port[0]);
        let error = check(&settings, nobody, &step, &context("c")).unwrap_err();
        assert!(error.message.contains(&format!("port {taken} is held by pid")), "{}", error.message);
        // Bound and not listened on: nobody else gets the port, and a server may.
        let free = tokio::net::TcpSocket::new_v4().unwrap();
        free.set_reuseaddr(true).unwrap();
        free.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        step.ports = vec![i64::from(free.local_addr().unwrap().port()).try_into().unwrap()];
        settings.run_user = crate::agent::host::testing::settings(root.path()).run_user;
        step.architecture = "noarch".into();
        step.disk_bytes = 0;
        assert_eq!(check(&settings, nobody, &step, &context("c")).unwrap(), Done::already());
    }
}
