//! Runs under a shim, whoever started the shim: who holds them, what became of them, and how they are stopped.

use super::{
    identity::ProcessId,
    shim::{CLAIM, Claim, KEPT, OUTCOME, PROGRAM, SHIM_LOG},
    supervisor::{RunOutcome, RunState},
};
use crate::agent::host::durable::{claim_json, read_end, read_json, remove, write_text};
use rustix::process::Signal;
use std::{io, path::Path, time::Duration};
use tokio::time::{Instant, sleep};

/// A shim needs milliseconds; this is for a machine under heavy load.
const SHIM_DEADLINE: Duration = Duration::from_secs(15);
/// The kernel needs this long at most to end what was killed.
pub(super) const KILL_DEADLINE: Duration = Duration::from_secs(20);
/// The shim has one thing to say.
const LOG_BYTES: u64 = 4 << 10;
const START_POLL: Duration = Duration::from_millis(1);
const FIRST_POLL: Duration = Duration::from_millis(10);
/// Looking through all processes costs milliseconds, and rpm may take its whole grace.
const LAST_POLL: Duration = Duration::from_millis(100);

/// Who holds the run; a run without a holder can no longer begin.
pub(super) fn settle_claim(run_dir: &Path) -> io::Result<Claim> {
    let path = run_dir.join(CLAIM);
    // A claim is never withdrawn; a run is asked for many times a second, and making one costs a sync.
    if let Some(claim) = read_json(&path)? {
        return Ok(claim);
    }
    if !run_dir.exists() || claim_json(&path, &Claim::Recovery)? {
        return Ok(Claim::Recovery);
    }
    Ok(read_json(&path)?.unwrap_or(Claim::Recovery))
}

/// Whether a run may still be started; an error if it was given up. Starting it again changes nothing.
pub(super) fn is_open(run_dir: &Path) -> io::Result<bool> {
    match read_json(&run_dir.join(CLAIM))? {
        None => Ok(true),
        Some(Claim::Shim(_) | Claim::Unit(_)) => Ok(false),
        Some(Claim::Recovery) => Err(io::Error::other("the run was given up, nothing was started")),
    }
}

/// Waits until the program runs or has failed to. `gone` says that the shim has ended, whatever it has left.
pub(super) async fn wait_for_start<Answer>(run_dir: &Path, mut gone: impl FnMut() -> Answer) -> io::Result<()>
where
    Answer: Future<Output = io::Result<bool>>,
{
    let (program, outcome) = (run_dir.join(PROGRAM), run_dir.join(OUTCOME));
    let deadline = Instant::now() + SHIM_DEADLINE;
    let mut poll = START_POLL;
    while !program.exists() && !outcome.exists() {
        if gone().await? && !outcome.exists() {
            let why = read_end(&run_dir.join(SHIM_LOG), LOG_BYTES).unwrap_or_default();
            return Err(io::Error::other(format!("the shim ended early: {}", why.trim())));
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the shim did not start the program in time"));
        }
        sleep(poll).await;
        poll = LAST_POLL.min(poll.mul_f32(1.2));
    }
    Ok(())
}

pub(super) fn program(run_dir: &Path) -> io::Result<Option<ProcessId>> {
    Ok(read_json(&run_dir.join(PROGRAM))?.filter(ProcessId::is_alive))
}

pub(super) fn find(shim: ProcessId, run_dir: &Path) -> io::Result<RunState> {
    let outcome = || read_json(&run_dir.join(OUTCOME));
    if let Some(outcome) = outcome()? {
        return Ok(RunState::Ended(outcome));
    }
    // The shim outlives its program, so the process list is read only when the shim was killed.
    if shim.is_alive() || !shim.session().is_empty() {
        // Between two lives of a service, or at the very beginning or end of any run.
        return Ok(program(run_dir)?.map_or(RunState::Between, RunState::Running));
    }
    // It may have ended since it was asked for its outcome.
    Ok(RunState::Ended(outcome()?.unwrap_or(RunOutcome::Lost)))
}

/// From here on the shim starts its program again when it ends.
pub(super) fn keep(run_dir: &Path) -> io::Result<()> {
    write_text(&run_dir.join(KEPT), "", 0o600)
}

/// Ends every process of the shim's session, for good.
pub(super) async fn stop(run_dir: &Path, shim: &ProcessId, grace: Duration) -> io::Result<()> {
    remove(&run_dir.join(KEPT))?;
    let asked = Instant::now();
    let mut told = Vec::new();
    let mut poll = FIRST_POLL;
    loop {
        let session = shim.session();
        if session.is_empty() {
            return Ok(());
        }
        // The shim goes by itself when its program is gone, after it has written the outcome.
        let (shims, programs): (Vec<_>, Vec<_>) = session.into_iter().partition(|process| process == shim);
        let insist = asked.elapsed() >= grace;
        for process in programs {
            if insist {
                process.signal(Signal::KILL)?;
            } else if !told.contains(&process) {
                process.signal(Signal::TERM)?;
                told.push(process);
            }
        }
        if asked.elapsed() > grace + KILL_DEADLINE / 2 {
            for process in shims {
                process.signal(Signal::KILL)?;
            }
        }
        if asked.elapsed() > grace + KILL_DEADLINE {
            return Err(io::Error::other(format!("processes of session {} do not end", shim.pid)));
        }
        sleep(poll).await;
        poll = LAST_POLL.min(poll.mul_f32(1.5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::host::durable::write_json;

    #[test]
    fn a_run_that_left_no_outcome_is_lost_and_no_success() {
        let directory = tempfile::tempdir().unwrap();
        let mut shim = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = ProcessId::of(shim.id().try_into().unwrap()).unwrap();
        shim.kill().unwrap();
        shim.wait().unwrap();
        let found = || find(process.clone(), directory.path()).unwrap();
        assert_eq!(found(), RunState::Ended(RunOutcome::Lost));
        write_json(&directory.path().join(OUTCOME), &RunOutcome::ExitCode(3)).unwrap();
        assert_eq!(found(), RunState::Ended(RunOutcome::ExitCode(3)));
    }
}
