//! An agent that dies at a chosen moment: a process of its own carries a step out, is traced, and is killed at the entry
//! of the n-th of its system calls that change anything: files, directories, other processes, and what is said to them.
//!
//! Two kinds do not count, to have the tests over in time. What is written into the log of the step is read by nobody who
//! carries on. A process that is killed before it syncs a file leaves what it leaves when it is killed before the next change:
//! only a power failure tells them apart.

use crate::place::{Passwords, Place, context, instance};
use futures_util::future::BoxFuture;
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use oblet::{
    agent::step::{Carrier as _, IdentityStore},
    steps::{AgentStep, SetObproxyPasswords, StartObproxy, UninstallObproxy, values::Sha256 as Digest},
};
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

/// What the process is told that is to die.
const TOLD: &str = "OBLET_TEST_DYING_AGENT";
const READY: &str = "ready to die";

/// What an agent is about to do when it dies.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    Start,
    SetPasswords,
    Uninstall,
}

/// One attempt at a step, as the journal of an agent knows it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) work: Work,
    pub(crate) place: PathBuf,
    pub(crate) run_id: String,
    pub(crate) start: StartObproxy,
    /// Of its package.
    pub(crate) sha256: Option<Digest>,
    pub(crate) sys_password: String,
    pub(crate) observer_password: String,
}

impl Life {
    pub(crate) fn passwords(&self) -> Passwords {
        Passwords { sys: self.sys_password.clone(), observer: self.observer_password.clone() }
    }

    pub(crate) fn step(&self) -> AgentStep {
        match self.work {
            Work::Start => AgentStep::StartObproxy(self.start.clone()),
            Work::Uninstall => AgentStep::UninstallObproxy(UninstallObproxy {
                start: self.start.clone(),
                instance: instance(&self.start),
                parameters: Vec::new(),
                sha256: self.sha256.clone(),
                keep_logs: false,
            }),
            Work::SetPasswords => AgentStep::SetObproxyPasswords(SetObproxyPasswords { sql_port: self.start.sql_port }),
        }
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.place.join(format!("{kind}-{}", self.run_id))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.file("log")
    }

    /// What the attempt has chosen, if it came that far.
    pub(crate) fn identity(&self) -> Option<String> {
        fs::read_to_string(self.file("identity")).ok()
    }

    pub(crate) fn identities(&self) -> Arc<dyn IdentityStore> {
        Arc::new(OnDisk(self.file("identity")))
    }

    /// Carries the step out in a process that dies before its n-th change; answers whether it came to that, and how many
    /// changes it has begun.
    #[expect(clippy::zombie_processes, reason = "whoever traces a process waits for it")]
    pub(crate) fn die_at(&self, change: usize) -> (bool, usize) {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "dying::an_agent_that_dies", "--ignored", "--nocapture"])
            .env(TOLD, serde_json::to_string(self).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap().contains(READY)), "it did not come so far as to die");
        let pid = Pid::from_raw(child.id().cast_signed());
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let task = Pid::from_raw(task.unwrap().file_name().to_str().unwrap().parse().unwrap());
            let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
            ptrace::seize(task, options).unwrap();
            ptrace::interrupt(task).unwrap();
        }
        drop(child.stdin.take());
        let counted = count(pid, change);
        // What it may have to say of a panic.
        lines.map_while(Result::ok).for_each(|line| eprintln!("{line}"));
        counted
    }
}

/// Lets the process run until it ends or is to die.
fn count(process: Pid, last: usize) -> (bool, usize) {
    let mut changes = 0;
    loop {
        // This thread's own tracees, whatever else this process has started.
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::ECHILD) => return (changes >= last, changes),
            status => status.unwrap(),
        };
        let (task, signal) = match status {
            WaitStatus::PtraceSyscall(task) => {
                if changes < last && enters_a_change(task) {
                    changes += 1;
                    if changes == last {
                        kill(process, Signal::SIGKILL).unwrap();
                    }
                }
                (task, None)
            }
            WaitStatus::PtraceEvent(task, ..) => (task, None),
            WaitStatus::Stopped(task, signal) => (task, Some(signal)),
            _ => continue,
        };
        match ptrace::syscall(task, signal) {
            // It is dead already.
            Err(Errno::ESRCH) => {}
            resumed => resumed.unwrap(),
        }
    }
}

/// Whether a task that has stopped at a system call is about to change something.
fn enters_a_change(task: Pid) -> bool {
    const ENTRY: u8 = 1;
    let Ok(info) = ptrace::syscall_info(task) else { return false };
    if info.op != ENTRY {
        return false;
    }
    #[expect(unsafe_code, reason = "the kernel has said which member of the union it has filled")]
    let entry = unsafe { info.u.entry };
    let call = entry.nr.cast_signed();
    #[cfg(target_arch = "x86_64")]
    let is_older =
        [libc::SYS_mkdir, libc::SYS_rename, libc::SYS_link, libc::SYS_unlink, libc::SYS_rmdir, libc::SYS_vfork]
            .contains(&call);
    #[cfg(not(target_arch = "x86_64"))]
    let is_older = false;
    let creates = call == libc::SYS_openat && entry.args[2] & u64::from(libc::O_CREAT.cast_unsigned()) != 0;
    let is_one = [
        libc::SYS_mkdirat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_linkat,
        libc::SYS_unlinkat,
        libc::SYS_fchown,
        libc::SYS_fchmod,
        libc::SYS_sendto,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_pidfd_send_signal,
    ];
    let writes = call == libc::SYS_write || call == libc::SYS_pwrite64;
    creates || is_older || is_one.contains(&call) || (writes && is_file(task, entry.args[0]))
}

/// Whether the descriptor of the task leads to a file that others read.
fn is_file(task: Pid, descriptor: u64) -> bool {
    let Ok(path) = fs::read_link(format!("/proc/{task}/fd/{descriptor}")) else { return false };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_absolute() && !path.starts_with("/dev") && !path.starts_with("/proc") && !name.starts_with("log-")
}

/// The journal's part.
struct OnDisk(PathBuf);

impl OnDisk {
    fn write(&self, text: &str) -> io::Result<()> {
        let beside = self.0.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(beside, &self.0)
    }
}

impl IdentityStore for OnDisk {
    fn choose(&self, identity: String) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { self.write(&identity) })
    }

    fn confirm(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { fs::write(self.0.with_extension("confirmed"), "") })
    }
}

#[tokio::test]
#[ignore = "other tests let a process of its own run it"]
async fn an_agent_that_dies() {
    let Ok(told) = env::var(TOLD) else { return };
    let life: Life = serde_json::from_str(&told).unwrap();
    eprintln!("{READY}");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let host = Place::open(Path::new(&life.place));
    let context = context(&life.run_id, life.identity(), life.identities(), &life.passwords(), life.log());
    host.execute(&life.step(), &context).await.unwrap();
}
