//! What the unit of a service needs at each of its starts, also when the agent's package is gone:
//! `oblet-agent unit TASK SERVICE`, run by systemd as root from a copy of the agent beside its state.
//!
//! - `pause`, before the program: a service that keeps ending is started again after a pause that grows.
//! - `note-main-process`, after the program went to the background: writes the file by which systemd knows the process.
//!
//! Units outlive versions of the agent, so names and meanings here never change.

use super::{identity::ProcessId, supervisor::ServiceName, systemd::cgroup};
use crate::agent::host::durable::{read_text, remove, write_text};
use procfs::Current as _;
use std::{
    env,
    fs::{self, DirBuilder},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

pub(super) const SUBCOMMAND: &str = "unit";
/// Root's own, and gone with the next boot. systemd believes a file there whatever process it names.
const DIRECTORY: &str = "/run/oblet-agent";
const COPY: &str = "unit-helper";

/// A service that has lived for so long begins anew with the shortest pause.
const STEADY: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The program has gone to the background before this helper is started. A list of processes may still miss all of one that
/// forks and ends at that very moment, so an empty one is looked at again.
const PATIENCE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Pause,
    NoteMainProcess,
}

impl Task {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::NoteMainProcess => "note-main-process",
        }
    }
}

fn file(service: &str, what: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{service}.{what}"))
}

/// Where systemd finds the main process of the service.
pub(super) fn pid_file(service: &ServiceName) -> PathBuf {
    file(&service.to_string(), "pid")
}

/// The main process among those of a unit, the oldest first; none while the unit is about to start.
pub(super) fn main_process(unit: &str, processes: Vec<ProcessId>) -> io::Result<Option<ProcessId>> {
    let service = service_of(unit);
    if let Some(text) = read_text(&file(service, "pid"))? {
        let pid = text.trim().parse::<i32>().ok();
        return Ok(processes.into_iter().find(|process| Some(process.pid) == pid));
    }
    // systemd removes the file of a service that has ended, and the pause before the next start comes first.
    if file(service, "starts").exists() {
        return Ok(None);
    }
    // A unit of a version without these files; or systemd is older than 235 and has removed their directory when the agent
    // ended, which it belongs to.
    Ok(processes.into_iter().find(is_program))
}

/// Neither this helper nor what is about to become it: systemd names its children so until they execute.
fn is_program(process: &ProcessId) -> bool {
    let name = fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap_or_default();
    !name.is_empty() && name.trim() != COPY && !name.starts_with('(')
}

/// A service that is set up anew does not wait for what an earlier one of its name has done.
pub(super) fn forget(unit: &str) -> io::Result<()> {
    remove(&file(service_of(unit), "starts"))
}

fn service_of(unit: &str) -> &str {
    unit.strip_prefix("oblet-").and_then(|rest| rest.strip_suffix(".service")).unwrap_or(unit)
}

/// Puts a copy of the agent to where the units find it, beside the directory of all runs, unless it is there already.
pub(super) fn install(agent: &Path, run_dir: &Path) -> io::Result<PathBuf> {
    let dir =
        run_dir.parent().and_then(Path::parent).ok_or_else(|| io::Error::other("a run lies in no state directory"))?;
    let copy = dir.join(COPY);
    let mut program = fs::File::open(agent)?;
    let is_same = |copy: fs::Metadata, original: fs::Metadata| {
        copy.len() == original.len() && copy.modified().ok() == original.modified().ok()
    };
    if fs::metadata(&copy).is_ok_and(|copy| program.metadata().is_ok_and(|original| is_same(copy, original))) {
        return Ok(copy);
    }
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    io::copy(&mut program, file.as_file_mut())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
    keep_label(&program, file.as_file());
    // By its time a copy is known for one of this very program.
    file.as_file().set_modified(program.metadata()?.modified()?)?;
    file.as_file().sync_all()?;
    file.persist(&copy).map_err(|error| error.error)?;
    fs::File::open(dir)?.sync_all()?;
    Ok(copy)
}

/// SELinux lets systemd execute what is labelled as a program, and files below /var/lib are not. Where there is no SELinux
/// there is no label, or nobody may set it, and nobody asks for it.
fn keep_label(program: &fs::File, copy: &fs::File) {
    const LABEL: &str = "security.selinux";
    let mut label = [0; 256];
    if let Ok(length) = rustix::fs::fgetxattr(program, LABEL, &mut label)
        && let Some(label) = label.get(..length)
    {
        let _ = rustix::fs::fsetxattr(copy, LABEL, label, rustix::fs::XattrFlags::empty());
    }
}

/// Entry point of `oblet-agent unit TASK SERVICE`.
pub fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(2).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["pause", service] => pause(service),
        ["note-main-process", service] => note_main_process(service),
        _ => {
            let _ = writeln!(io::stderr(), "usage: oblet-agent unit pause|note-main-process SERVICE");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "oblet-agent unit {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn make_directory() -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(DIRECTORY)
}

/// The starts of a service one soon after the other: how many there were, and when the last one was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Starts {
    count: u32,
    /// Since boot.
    last: Duration,
}

impl Starts {
    fn parse(text: &str) -> Option<Self> {
        let (count, last) = text.trim().split_once(' ')?;
        Some(Self { count: count.parse().ok()?, last: Duration::from_secs(last.parse().ok()?) })
    }

    fn text(self) -> String {
        format!("{} {}\n", self.count, self.last.as_secs())
    }

    /// The start that follows, and how long it has to wait.
    pub(super) fn next(earlier: Option<Self>, now: Duration) -> (Self, Duration) {
        let quick = earlier.filter(|earlier| now.saturating_sub(earlier.last) < STEADY);
        let count = quick.map_or(0, |earlier| earlier.count.saturating_add(1));
        let pause = match count {
            0 => Duration::ZERO,
            again => Duration::from_secs(1 << (again - 1).min(6)).min(LONGEST_PAUSE),
        };
        (Self { count, last: now + pause }, pause)
    }
}

fn pause(service: &str) -> io::Result<()> {
    make_directory()?;
    let path = file(service, "starts");
    let uptime = procfs::Uptime::current().map_err(io::Error::other)?.uptime;
    // A file that cannot be read costs nothing but the pause.
    let earlier = read_text(&path).ok().flatten().and_then(|text| Starts::parse(&text));
    let (next, pause) = Starts::next(earlier, Duration::from_secs_f64(uptime));
    write_text(&path, &next.text(), 0o600)?;
    // systemd reads the file as soon as the program has gone to the background, and believes one that an earlier life has
    // left, whosever process has that number by now.
    remove(&file(service, "pid"))?;
    sleep(pause);
    Ok(())
}

fn note_main_process(service: &str) -> io::Result<()> {
    make_directory()?;
    let group = cgroup::own()?;
    let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let end = Instant::now() + PATIENCE;
    loop {
        // The program was there before this helper, and its first parent is gone.
        let others = cgroup::processes(&group).into_iter();
        if let Some(main) = others.filter(|process| process.pid != own).find(is_program) {
            return write_text(&file(service, "pid"), &format!("{}\n", main.pid), 0o644);
        }
        if Instant::now() > end {
            return Err(io::Error::other("the program has ended already"));
        }
        sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_with_each_start_and_ends_with_a_steady_life() {
        let mut now = Duration::from_secs(1000);
        let mut starts = None;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let (next, pause) = Starts::next(starts, now);
            pauses.push(pause.as_secs());
            assert_eq!(Starts::parse(&next.text()), Some(next));
            now = next.last + Duration::from_secs(1);
            starts = Some(next);
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(Starts::next(starts, now + STEADY).1, Duration::ZERO);
        assert_eq!(Starts::parse("garbage"), None);
    }

    #[test]
    fn the_copy_is_made_once_for_each_program() {
        let dir = tempfile::tempdir().unwrap();
        let (agent, run) = (dir.path().join("agent"), dir.path().join("state/runs/r1"));
        fs::create_dir_all(&run).unwrap();
        fs::write(&agent, "one").unwrap();
        let copy = install(&agent, &run).unwrap();
        let made = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let first = made(&copy);
        assert_eq!((install(&agent, &run).unwrap(), made(&copy)), (copy.clone(), first));
        fs::write(&agent, "another").unwrap();
        install(&agent, &run).unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), "another");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o755);
    }
}
