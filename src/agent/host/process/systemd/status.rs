//! What systemd says of a unit, and what that means for a run.

use crate::agent::host::process::{
    identity::ProcessId,
    supervisor::{RunOutcome, RunState},
};
use std::collections::HashMap;
use zbus::OwnedVariant;

// Values of ExecMainCode, from waitid(2).
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;
/// A process without a parent that would learn how it ended.
const ENDED_AT_ONCE: &str = "its process ended as soon as it had gone to the background";
const NO_PROGRAM: &str = "the program cannot be executed (No such file, or no permission)";
/// What systemd's own child ends with when it cannot execute the program.
const NOT_EXECUTED: i32 = 203;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UnitStatus {
    pub(super) load_state: String,
    pub(super) active_state: String,
    pub(super) result: String,
    /// How the main process ended.
    pub(super) code: i32,
    /// Its exit code or its signal.
    pub(super) status: i32,
    pub(super) main_pid: u32,
    /// In microseconds since boot; 0 if no process was ever started in this boot.
    pub(super) started: u64,
    /// How the commands of its last start ended, in their order; those that have not run are left out.
    pub(super) commands: Vec<Command>,
    /// Another one for each start of the unit; empty where systemd is older than 232.
    pub(super) invocation: String,
    pub(super) control_group: String,
    pub(super) has_job: bool,
    /// Its file has changed since systemd read it.
    pub(super) needs_reload: bool,
}

/// A command of a start that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command {
    step: Step,
    code: i32,
    status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Program,
    After,
}

/// Path, arguments, whether a failure is ignored, four times, process, and how it ended.
type ExecCommand = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

fn commands(properties: &HashMap<String, OwnedVariant>, step: Step, name: &str) -> Vec<Command> {
    let listed = properties.get(name).and_then(|list| Vec::<ExecCommand>::try_from(list.try_clone().ok()?).ok());
    let ended = listed.unwrap_or_default().into_iter().filter(|(.., code, _)| *code != 0);
    ended.map(|(.., code, status)| Command { step, code, status }).collect()
}

fn get<T>(properties: &HashMap<String, OwnedVariant>, name: &str) -> T
where
    T: TryFrom<OwnedVariant> + Default,
{
    // A property that an older systemd does not know stands for itself with the value of an idle unit.
    properties.get(name).and_then(|value| T::try_from(value.try_clone().ok()?).ok()).unwrap_or_default()
}

impl From<&HashMap<String, OwnedVariant>> for UnitStatus {
    fn from(properties: &HashMap<String, OwnedVariant>) -> Self {
        let invocation: Vec<u8> = get(properties, "InvocationID");
        let job =
            properties.get("Job").and_then(|job| <(u32, zbus::OwnedObjectPath)>::try_from(job.try_clone().ok()?).ok());
        let mut commands_of_start = commands(properties, Step::Program, "ExecStart");
        commands_of_start.extend(commands(properties, Step::After, "ExecStartPost"));
        Self {
            commands: commands_of_start,
            load_state: get(properties, "LoadState"),
            active_state: get(properties, "ActiveState"),
            result: get(properties, "Result"),
            code: get(properties, "ExecMainCode"),
            status: get(properties, "ExecMainStatus"),
            main_pid: get(properties, "MainPID"),
            started: get(properties, "ExecMainStartTimestampMonotonic"),
            invocation: invocation.iter().map(|byte| format!("{byte:02x}")).collect(),
            control_group: get(properties, "ControlGroup"),
            needs_reload: get(properties, "NeedDaemonReload"),
            has_job: job.is_some_and(|(id, _)| id != 0),
        }
    }
}

fn ended(code: i32, status: i32) -> RunOutcome {
    match code {
        CLD_EXITED => RunOutcome::ExitCode(status),
        CLD_KILLED | CLD_DUMPED => RunOutcome::Signal(status),
        _ => RunOutcome::Lost,
    }
}

impl UnitStatus {
    /// Something of the unit runs, or is about to.
    pub(super) fn is_busy(&self) -> bool {
        self.has_job || !matches!(self.active_state.as_str(), "" | "inactive" | "failed")
    }

    /// The unit is loaded from a file.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.load_state.as_str(), "" | "not-found")
    }

    /// What lives of it; none if it is at rest.
    pub(super) fn life(&self) -> Option<RunState> {
        if !self.is_busy() {
            return None;
        }
        let main = i32::try_from(self.main_pid).ok().filter(|pid| *pid != 0);
        // A process that has gone since the answer leaves the rest to the next look.
        Some(main.and_then(|pid| ProcessId::of(pid).ok()).map_or(RunState::Between, RunState::Running))
    }

    /// How it ended; none if it has not begun in this boot and nothing kept it from that.
    pub(super) fn outcome(&self) -> Option<RunOutcome> {
        if self.started == 0 {
            let failed = !matches!(self.result.as_str(), "" | "success");
            return failed.then(|| self.no_main_process());
        }
        Some(ended(self.code, self.status))
    }

    /// Why a start has left systemd without a process to follow.
    fn no_main_process(&self) -> RunOutcome {
        match self.commands.iter().find(|command| (command.code, command.status) != (CLD_EXITED, 0)) {
            // From env(1), which puts the program in its place.
            Some(Command { step: Step::Program, code: CLD_EXITED, status: status @ (126 | 127) }) => {
                RunOutcome::NotStarted(format!("{NO_PROGRAM}, status {status}"))
            }
            // It did not even go to the background.
            Some(Command { step: Step::Program, code, status }) => ended(*code, *status),
            Some(Command { step: Step::After, code: CLD_EXITED, status: NOT_EXECUTED }) => RunOutcome::NotStarted(
                "the agent's helper beside its state could not be executed (is that file system mounted noexec?)"
                    .into(),
            ),
            Some(Command { step: Step::After, .. }) => RunOutcome::NotStarted(ENDED_AT_ONCE.into()),
            // The file was written, and its process gone before systemd read it.
            None if self.result == "protocol" => RunOutcome::NotStarted(ENDED_AT_ONCE.into()),
            None => RunOutcome::NotStarted(format!("systemd says {}", self.result)),
        }
    }

    /// How it ended if its start failed: systemd uses exit codes of its own for what it could not do.
    /// They are listed in systemd.exec(5), "Process Exit Codes".
    pub(super) fn failed_start(&self) -> Option<RunOutcome> {
        match self.outcome() {
            Some(RunOutcome::ExitCode(code @ 200..=243)) => {
                let what = match code {
                    200 => "the working directory cannot be entered",
                    NOT_EXECUTED => NO_PROGRAM,
                    209 => "the log cannot be opened",
                    216 | 217 => "the user cannot be taken on",
                    _ => "systemd could not prepare the process",
                };
                Some(RunOutcome::NotStarted(format!("{what}, status {code}")))
            }
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(code: i32, status: i32) -> UnitStatus {
        let failed = UnitStatus { active_state: "failed".into(), started: 7, ..UnitStatus::default() };
        UnitStatus { code, status, result: "exit-code".into(), ..failed }
    }

    #[test]
    fn the_end_of_the_main_process_is_the_outcome() {
        assert_eq!(unit(CLD_EXITED, 3).outcome(), Some(RunOutcome::ExitCode(3)));
        assert_eq!(unit(CLD_KILLED, 9).outcome(), Some(RunOutcome::Signal(9)));
        assert_eq!(unit(CLD_DUMPED, 11).outcome(), Some(RunOutcome::Signal(11)));
        assert_eq!(unit(0, 0).outcome(), Some(RunOutcome::Lost));
        assert_eq!(unit(CLD_EXITED, 3).life(), None);
    }

    #[test]
    fn a_unit_that_has_not_begun_has_no_outcome_unless_something_kept_it_from_that() {
        assert_eq!(UnitStatus::default().outcome(), None);
        let kept = UnitStatus { result: "resources".into(), ..UnitStatus::default() };
        assert!(matches!(kept.outcome(), Some(RunOutcome::NotStarted(why)) if why.contains("resources")));
    }

    #[test]
    fn a_start_without_a_main_process_is_explained_by_its_commands() {
        let start = |step, code, status| {
            let ended = Command { step: Step::Program, code: CLD_EXITED, status: 0 };
            let commands = vec![ended, Command { step, code, status }];
            UnitStatus { result: "exit-code".into(), commands, ..UnitStatus::default() }.failed_start().unwrap()
        };
        assert_eq!(start(Step::Program, CLD_EXITED, 3), RunOutcome::ExitCode(3));
        assert_eq!(start(Step::Program, CLD_KILLED, 9), RunOutcome::Signal(9));
        for (step, status, said) in [
            (Step::Program, NOT_EXECUTED, "No such file"),
            (Step::Program, 127, "No such file"),
            (Step::After, NOT_EXECUTED, "noexec"),
            (Step::After, 1, "ended as soon as"),
        ] {
            let outcome = start(step, CLD_EXITED, status);
            assert!(matches!(&outcome, RunOutcome::NotStarted(why) if why.contains(said)), "{outcome:?}");
        }
        let missed = UnitStatus { result: "protocol".into(), ..UnitStatus::default() };
        assert_eq!(missed.failed_start(), Some(RunOutcome::NotStarted(ENDED_AT_ONCE.into())));
    }

    #[test]
    fn codes_of_systemd_itself_mean_that_the_program_did_not_start() {
        let missing = unit(CLD_EXITED, 203);
        assert!(matches!(missing.failed_start(), Some(RunOutcome::NotStarted(why)) if why.contains("No such")));
        assert_eq!(unit(CLD_EXITED, 1).failed_start(), Some(RunOutcome::ExitCode(1)));
    }

    #[test]
    fn a_unit_with_a_job_or_between_two_processes_lives() {
        let waits = UnitStatus { active_state: "inactive".into(), has_job: true, ..UnitStatus::default() };
        assert_eq!(waits.life(), Some(RunState::Between));
        let restarts = UnitStatus { active_state: "activating".into(), ..UnitStatus::default() };
        assert_eq!(restarts.life(), Some(RunState::Between));
        let me = UnitStatus { active_state: "active".into(), main_pid: std::process::id(), ..UnitStatus::default() };
        assert!(matches!(me.life(), Some(RunState::Running(process)) if process.is_alive()));
    }
}
