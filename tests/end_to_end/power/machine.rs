//! A machine that loses power: its programs are traced, and before a chosen sync all of them are killed and the disk
//! loses what was not synced. Then the machine starts again.
//!
//! They stop at their syncs alone, by a filter in the kernel: at all system calls, they would spend most of their time on that.

use super::disk::Disk;
use crate::lab::wait_for;
use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fmt, fs, io,
    mem::offset_of,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

/// A cut that has fallen.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// What was about to be synced; None if the machine was at rest.
    pub(super) before: Option<PathBuf>,
    /// rpm was in the middle of something.
    pub(super) hit_rpm: bool,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.before {
            Some(path) => write!(f, "cut before the sync of {}", path.display())?,
            None => f.write_str("cut at rest")?,
        }
        f.write_str(if self.hit_rpm { ", while rpm ran" } else { "" })
    }
}

#[derive(Default)]
struct State {
    /// The process that the machine's service manager would start; None from a cut to the next start.
    main: Option<Pid>,
    /// Every so many syncs the power goes, and so many times.
    every: usize,
    times: usize,
    syncs: usize,
    cuts: Vec<Cut>,
    at_rest: bool,
    off: bool,
}

impl State {
    /// Counts a sync that is about to be made; whether the power goes instead.
    fn is_last(&mut self) -> bool {
        self.syncs += 1;
        let last = self.times > 0 && self.syncs == self.every;
        if last {
            self.times -= 1;
            self.syncs = 0;
        }
        last
    }

    /// The machine goes down: before the sync of this file, or because its main process has ended.
    fn fell(&mut self, before: Option<PathBuf>, tasks: &BTreeSet<Pid>) {
        self.main = None;
        if before.is_some() || std::mem::take(&mut self.at_rest) {
            self.cuts.push(Cut { before, hit_rpm: hit_rpm(tasks) });
        } else {
            self.off = true;
        }
    }
}

pub(super) struct Machine {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Starts the program, and again after each cut.
    pub(super) fn start(program: Vec<String>, log: PathBuf, disk: Disk) -> Self {
        Self::start_armed(program, log, disk, 0, 0)
    }

    /// The same; the power goes as [`Self::arm`] says, from the first start on.
    pub(super) fn start_armed(program: Vec<String>, log: PathBuf, mut disk: Disk, every: usize, times: usize) -> Self {
        let state = Arc::new(Mutex::new(State { every, times, ..State::default() }));
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            loop {
                disk.mount();
                if !live(&program, &log, &mut disk, &shared) {
                    return;
                }
                disk.lose_power();
            }
        });
        Self { state, thread: Some(thread) }
    }

    /// From now on the power goes before every so many syncs, and so many times.
    pub(super) fn arm(&self, every: usize, times: usize) {
        let mut state = self.state.lock().unwrap();
        (state.every, state.times, state.syncs) = (every, times, 0);
    }

    /// No more cuts; returns when the machine runs.
    pub(super) async fn disarm(&self) {
        self.state.lock().unwrap().times = 0;
        self.wait_until_up().await;
    }

    async fn wait_until_up(&self) {
        wait_for("a machine", || self.state.lock().unwrap().main.is_some() || self.has_ended()).await;
    }

    /// Cuts the power at a moment when nothing is synced; returns when the machine runs again.
    pub(super) async fn cut_at_rest(&self) {
        self.cut_at_rest_and_arm(0, 0).await;
    }

    /// The same; from then on the power goes as [`Self::arm`] says.
    pub(super) async fn cut_at_rest_and_arm(&self, every: usize, times: usize) {
        {
            let mut state = self.state.lock().unwrap();
            (state.every, state.times, state.syncs) = (every, times, 0);
            state.at_rest = true;
            state.main.take().map(|main| kill(main, Signal::SIGKILL));
        }
        self.wait_until_up().await;
    }

    pub(super) fn cuts(&self) -> Vec<Cut> {
        self.state.lock().unwrap().cuts.clone()
    }

    /// The program ended, and nobody had ended it.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        {
            let mut state = self.state.lock().unwrap();
            state.off = true;
            let _ = state.main.map(|main| kill(main, Signal::SIGKILL));
        }
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Runs the program and all that it starts until nothing is left of it; whether that was a power cut.
fn live(program: &[String], log: &Path, disk: &mut Disk, state: &Mutex<State>) -> bool {
    let main = start(program, log, state);
    let mut tasks = BTreeSet::from([main]);
    let mut dead = false;
    loop {
        // This thread's own tracees, whatever else this process has started.
        let status = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Err(Errno::ECHILD) => break,
            status => status.unwrap(),
        };
        let (task, signal) = match status {
            WaitStatus::PtraceEvent(task, _, libc::PTRACE_EVENT_SECCOMP) => {
                if let Some((descriptor, path)) = enters_a_sync(task).filter(|(_, path)| !dead && disk.holds(path)) {
                    if state.lock().unwrap().is_last() {
                        dead = true;
                        state.lock().unwrap().fell(Some(path), &tasks);
                    } else {
                        disk.sync(&descriptor, &path);
                    }
                }
                (task, None)
            }
            WaitStatus::PtraceEvent(task, ..) => (task, None),
            WaitStatus::Stopped(task, signal) => (task, Some(signal)),
            WaitStatus::Exited(task, _) | WaitStatus::Signaled(task, ..) => {
                tasks.remove(&task);
                if task == main && !dead {
                    dead = true;
                    state.lock().unwrap().fell(None, &tasks);
                    kill_all(&tasks);
                }
                continue;
            }
            _ => continue,
        };
        tasks.insert(task);
        if dead {
            kill_all(&tasks);
        }
        match ptrace::cont(task, signal) {
            // It is dead already.
            Err(Errno::ESRCH) => {}
            resumed => resumed.unwrap(),
        }
    }
    !state.lock().unwrap().off
}

/// Starts the program so that it is traced from its first instruction on.
#[expect(clippy::zombie_processes, reason = "whoever traces a process waits for it")]
fn start(program: &[String], log: &Path, state: &Mutex<State>) -> Pid {
    let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut waiting = Command::new("sh");
    #[expect(unsafe_code, reason = "two system calls and no memory of the parent")]
    unsafe {
        waiting.pre_exec(stop_at_syncs);
    }
    let mut waiting = waiting
        .args(["-c", r#"read go; exec "$0" "$@" </dev/null"#])
        .args(program)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let main = Pid::from_raw(waiting.id().cast_signed());
    let options = Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options).unwrap();
    ptrace::interrupt(main).unwrap();
    drop(waiting.stdin.take());
    let mut state = state.lock().unwrap();
    state.main = Some(main);
    // Switched off between two lives.
    if state.off {
        let _ = kill(main, Signal::SIGKILL);
    }
    main
}

const SYNCS: [libc::c_long; 2] = [libc::SYS_fsync, libc::SYS_fdatasync];

/// From here on this process and all that it starts stop for their tracer at each sync.
fn stop_at_syncs() -> io::Result<()> {
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let step =
        |code: u32, operand, equal, other| libc::sock_filter { code: code as u16, jt: equal, jf: other, k: operand };
    let [fsync, fdatasync] = SYNCS.map(|call| call as u32);
    let answer = libc::BPF_RET | libc::BPF_K;
    let is = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, number, 0, 0),
        step(is, fsync, 1, 0),
        step(is, fdatasync, 0, 1),
        step(answer, libc::SECCOMP_RET_TRACE, 0, 0),
        step(answer, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // Without it, only root may set a filter.
    prctl::set_no_new_privs()?;
    #[expect(unsafe_code, reason = "the kernel copies a program that lives until it has")]
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    Errno::result(set)?;
    Ok(())
}

/// The file that a task, stopped at a sync, is about to sync: by its descriptor, and by its path.
fn enters_a_sync(task: Pid) -> Option<(PathBuf, PathBuf)> {
    const AT_THE_FILTER: u8 = 3;
    let info = ptrace::syscall_info(task).ok().filter(|info| info.op == AT_THE_FILTER)?;
    #[expect(unsafe_code, reason = "the kernel has said which member of the union it has filled")]
    let entry = unsafe { info.u.seccomp };
    let descriptor = PathBuf::from(format!("/proc/{task}/fd/{}", entry.args[0]));
    fs::read_link(&descriptor).ok().map(|path| (descriptor, path))
}

fn kill_all(tasks: &BTreeSet<Pid>) {
    for task in tasks {
        // It may be dead already.
        let _ = kill(*task, Signal::SIGKILL);
    }
}

fn hit_rpm(tasks: &BTreeSet<Pid>) -> bool {
    tasks.iter().any(|task| fs::read_to_string(format!("/proc/{task}/comm")).is_ok_and(|name| name.trim() == "rpm"))
}
