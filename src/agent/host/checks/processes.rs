//! Processes by a piece of their command line, as `ps -ef | grep` finds them, read straight from `/proc`.
//!
//! Only the command line is read for every process; everything else is asked of the few that match.

use crate::{
    agent::{
        host::{Host, OwnProxies, adapter::Adapter, blocking, own_proxies, settings::HostSettings},
        step::{Done, StepContext, StepError},
    },
    steps::CheckProcesses,
};
use futures_util::future::BoxFuture;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

const SHOWN_CHARACTERS: usize = 200;
const SHOWN_PROCESSES: usize = 20;

struct Hit {
    pid: i32,
    user: String,
    command_line: String,
}

impl Adapter for CheckProcesses {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        let (settings, step, context) = (Arc::clone(&host.settings), self.clone(), context.clone());
        let supervisor = Arc::clone(&host.supervisor);
        let own = move |settings: &HostSettings| own_proxies(&*supervisor, settings);
        Box::pin(blocking(move || check(&settings, own, &step, &context)))
    }
}

/// `own` answers the processes of the instances that this agent runs: those are no reason to refuse another one.
fn check(
    settings: &HostSettings,
    own: impl FnOnce(&HostSettings) -> io::Result<OwnProxies>,
    step: &CheckProcesses,
    context: &StepContext,
) -> Result<Done, StepError> {
    let keywords: Vec<&str> = step.keywords.iter().map(|keyword| keyword.as_str()).collect();
    let mut hits = scan(settings, &keywords).map_err(|error| {
        StepError::new("PROC_UNREADABLE", "the process list could not be read", "mount /proc on the host, then retry")
            .because(error)
    })?;
    if !hits.is_empty() {
        let own = own(settings).map_err(not_listed)?;
        hits.retain(|hit| {
            if let Some(name) = own.get(&hit.pid) {
                context.log.line(&format!("pid {} is {name}, which oblet runs", hit.pid));
            }
            !own.contains_key(&hit.pid)
        });
    }
    if hits.is_empty() {
        context.log.line(&format!("no process has one of {} in its command line", keywords.join(", ")));
        return Ok(Done::already());
    }
    let shown: Vec<String> = hits
        .iter()
        .take(SHOWN_PROCESSES)
        .map(|hit| format!("pid {} of {}: {}", hit.pid, hit.user, hit.command_line))
        .collect();
    shown.iter().for_each(|line| context.log.line(line));
    Err(StepError::new(
        "PROCESS_EXISTS",
        format!("{} process(es) match {}: {}", hits.len(), keywords.join(", "), shown.join("; ")),
        "choose a host without these processes; stop them only if nothing uses them, then retry the subtask",
    ))
}

/// The proxies that oblet runs on this host are not known.
pub(super) fn not_listed(error: io::Error) -> StepError {
    let next_move = "look at the cause in the agent's state directory, then retry the subtask";
    StepError::new("STATE_UNREADABLE", "the proxies that oblet runs on this host could not be listed", next_move)
        .because(error)
}

fn scan(settings: &HostSettings, keywords: &[&str]) -> io::Result<Vec<Hit>> {
    let nest = settings.is_nested().then(|| settings.root_dir.canonicalize()).transpose()?;
    let mut hits = Vec::new();
    let (mut line, mut joined) = (Vec::new(), Vec::new());
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        line.clear();
        // A process that ended meanwhile is no process.
        if File::open(format!("/proc/{pid}/cmdline")).and_then(|mut file| file.read_to_end(&mut line)).is_err() {
            continue;
        }
        // Kernel threads have no command line.
        if line.is_empty() {
            continue;
        }
        joined.clear();
        joined.extend(line.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }));
        let text = String::from_utf8_lossy(&joined);
        if keywords.iter().any(|keyword| text.contains(keyword)) && belongs(pid, nest.as_deref()) {
            hits.push(Hit { pid, user: user(pid), command_line: masked(&arguments(&line)) });
        }
    }
    let family = ancestors();
    let own_program = program(i32::try_from(std::process::id()).unwrap_or(0));
    // The agent and its shims name instances and packages in their arguments; they are none.
    hits.retain(|hit| !family.contains(&hit.pid) && (own_program.is_none() || program(hit.pid) != own_program));
    Ok(hits)
}

fn arguments(line: &[u8]) -> Vec<String> {
    let line = line.strip_suffix(b"\0").unwrap_or(line);
    line.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// The file of the program, also if an upgrade has replaced it.
fn program(pid: i32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let text = path.to_string_lossy();
    Some(text.strip_suffix(" (deleted)").map_or_else(|| path.clone(), PathBuf::from))
}

/// A process that executes this very file.
pub(in crate::agent::host) fn executing(file: &Path) -> Option<i32> {
    let file = file.canonicalize().ok()?;
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == file))
}

fn belongs(pid: i32, nest: Option<&Path>) -> bool {
    let Some(nest) = nest else { return true };
    ["exe", "cwd"].iter().any(|link| fs::read_link(format!("/proc/{pid}/{link}")).is_ok_and(|at| at.starts_with(nest)))
}

pub(in crate::agent::host) fn user(pid: i32) -> String {
    let Ok(metadata) = fs::metadata(format!("/proc/{pid}")) else { return "unknown".into() };
    let uid = metadata.uid();
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

/// The agent itself and every process above it.
fn ancestors() -> HashSet<i32> {
    let mut family = HashSet::new();
    let mut next = i32::try_from(std::process::id()).ok();
    while let Some(pid) = next.filter(|pid| *pid > 0) {
        if !family.insert(pid) {
            break;
        }
        next = procfs::process::Process::new(pid).and_then(|process| process.stat()).ok().map(|stat| stat.ppid);
    }
    family
}

/// The command line as it may be shown: what looks like a password is hidden, the rest is cut.
fn masked(arguments: &[String]) -> String {
    let mut shown = String::new();
    let mut hide_next = false;
    for argument in arguments {
        if !shown.is_empty() {
            shown.push(' ');
        }
        if std::mem::take(&mut hide_next) {
            shown.push_str("***");
            continue;
        }
        let (text, open) = mask_argument(argument);
        hide_next = open;
        shown.push_str(&text);
        if shown.len() > 4 * SHOWN_CHARACTERS {
            break;
        }
    }
    if shown.chars().count() > SHOWN_CHARACTERS {
        shown = shown.chars().take(SHOWN_CHARACTERS).collect();
        shown.push_str("...");
    }
    shown
}

/// Hides values in `k=v,k=v`; the flag says that the value is the next argument.
fn mask_argument(argument: &str) -> (String, bool) {
    let secret = |name: &str| {
        let name = name.to_ascii_lowercase();
        ["passw", "pwd", "secret", "token", "credential"].iter().any(|word| name.contains(word))
    };
    let mut shown = String::new();
    for part in argument.split_inclusive([',', '&', ';', ' ']) {
        match part.split_once(['=', ':']) {
            Some((name, value)) if secret(name) => {
                let end = value.chars().next_back().filter(|last| [',', '&', ';', ' '].contains(last));
                shown.push_str(name);
                shown.push_str("=***");
                shown.extend(end);
            }
            _ => shown.push_str(part),
        }
    }
    // `-psecret` of the MySQL clients; `-p2883` is a port.
    if let Some(value) = argument.strip_prefix("-p").filter(|rest| !rest.is_empty())
        && !value.chars().all(|c| c.is_ascii_digit())
    {
        return ("-p***".into(), false);
    }
    let open = argument.starts_with('-') && !argument.contains('=') && secret(argument);
    (shown, open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::testing::{context, settings};
    use std::process::{Child, Command};

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn only_processes_of_this_host_match_and_no_password_is_shown() {
        let root = tempfile::tempdir().unwrap();
        let start = |dir: &Path| {
            // One exec, so that the process has its final command line before it says that it is ready.
            let script = "echo ready; exec sleep 600";
            let mut child = Command::new("sh")
                .args(["-c", script, "keyword-of-oblet", "--password=hidden-value"])
                .current_dir(dir)
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut ready = [0; 6];
            child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
            Running(child)
        };
        let settings = settings(root.path());
        let nobody = |_: &HostSettings| Ok(OwnProxies::new());
        let step = CheckProcesses { keywords: vec!["sleep 600".parse().unwrap()] };
        let elsewhere = start(Path::new("/"));
        assert_eq!(check(&settings, nobody, &step, &context("c")).unwrap(), Done::already());
        let here = start(root.path());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let error = loop {
            match check(&settings, nobody, &step, &context("c")) {
                Err(error) => break error,
                Ok(_) if std::time::Instant::now() < deadline => std::thread::yield_now(),
                Ok(_) => panic!("the process was not found"),
            }
        };
        assert_eq!(error.reason, "PROCESS_EXISTS");
        assert!(error.message.contains(&format!("pid {} of ", here.0.id())), "{}", error.message);
        assert!(!error.message.contains(&format!("pid {} of", elsewhere.0.id())));
        let own = |_: &HostSettings| Ok(OwnProxies::from([(i32::try_from(here.0.id()).unwrap(), "a proxy".into())]));
        assert_eq!(check(&settings, own, &step, &context("c")).unwrap(), Done::already());
    }

    #[test]
    fn what_looks_like_a_password_is_hidden() {
        let line = |text: &str| masked(&text.split(' ').map(String::from).collect::<Vec<_>>());
        assert_eq!(
            line("obproxy -p 2883 -o obproxy_sys_password=abc,x=1"),
            "obproxy -p 2883 -o obproxy_sys_password=***,x=1"
        );
        assert_eq!(line("mysql -psecret -P2883 --password abc d"), "mysql -p*** -P2883 --password *** d");
        assert_eq!(line("x -p2883"), "x -p2883");
        assert_eq!(line(&"y".repeat(500)).len(), SHOWN_CHARACTERS + 3);
    }

    #[test]
    fn the_test_itself_and_its_ancestors_never_match() {
        let mut settings = settings(Path::new("/"));
        settings.root_dir = "/".into();
        let own = std::env::args().next().unwrap();
        let hits = scan(&settings, &[own.as_str()]).unwrap();
        assert!(hits.iter().all(|hit| hit.pid != std::process::id() as i32));
    }
}
