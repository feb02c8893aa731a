use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};

use crate::{
    cli::console::{
        error::{CliError, TaskFailure, labelled},
        table::{local_time, text},
    },
    graph::{SubtaskStatus, TaskStatus},
};

/// A task as the API tells it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    /// 0 for a task that is only planned.
    #[serde(default)]
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) status: TaskStatus,
    pub(crate) operation: Option<String>,
    pub(crate) creator: Option<Creator>,
    pub(crate) host_id: Option<u64>,
    pub(crate) start_time: Option<String>,
    pub(crate) finish_time: Option<String>,
    /// Why no coordinator can go on with it, if none can.
    pub(crate) problem: Option<String>,
    #[serde(default)]
    subtasks: Vec<Subtask>,
    /// The name of the subtasks in OCP's older shape.
    #[serde(default, rename = "tasks")]
    older_subtasks: Vec<Subtask>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subtask {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) status: SubtaskStatus,
    pub(crate) operation: Option<String>,
    /// How often it has been run, from 1 on.
    pub(crate) run_time: Option<u32>,
    #[serde(rename = "timeout")]
    pub(crate) timeout_seconds: Option<u64>,
    #[serde(default)]
    pub(crate) upstreams: Vec<u64>,
    pub(crate) start_time: Option<String>,
    pub(crate) finish_time: Option<String>,
    pub(crate) failure: Option<Failure>,
    pub(crate) waiting: Option<Waiting>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Waiting {
    #[serde(rename = "for")]
    pub(crate) what: String,
    /// When it gives up; None if never.
    pub(crate) until: Option<String>,
}

/// Why a subtask failed and what to do about it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failure {
    /// Its address or its id.
    pub(crate) host: Option<Value>,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    #[serde(default)]
    pub(crate) causes: Vec<String>,
    pub(crate) next_move: Option<String>,
    pub(crate) exit_code: Option<i64>,
    /// Its number or its name.
    pub(crate) signal: Option<Value>,
    #[serde(default)]
    pub(crate) log_tail: Vec<String>,
    pub(crate) effect: Option<String>,
}

/// OCP's newer shape names the user, the older one wraps the name.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Creator {
    Name(String),
    User { name: String },
}

impl Creator {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::User { name } => name,
        }
    }
}

impl Task {
    pub(crate) fn read(doing: &str, data: &Value) -> Result<Self, CliError> {
        let task = Self::deserialize(data).map_err(|error| CliError::unreadable(doing, &error.to_string()))?;
        Ok(Self { subtasks: in_order(task.subtasks), older_subtasks: in_order(task.older_subtasks), ..task })
    }

    /// The tasks of an answer: it holds one, or a list of them.
    pub(crate) fn read_all(doing: &str, data: &Value) -> Result<Vec<Self>, CliError> {
        match data.get("contents").and_then(Value::as_array) {
            Some(contents) => contents.iter().map(|task| Self::read(doing, task)).collect(),
            None => Ok(vec![Self::read(doing, data)?]),
        }
    }

    /// The subtasks in the order in which they run.
    pub(crate) fn subtasks(&self) -> &[Subtask] {
        if self.subtasks.is_empty() { &self.older_subtasks } else { &self.subtasks }
    }

    /// With a problem nothing goes on, whatever its rows say.
    pub(crate) fn is_running(&self) -> bool {
        self.status == TaskStatus::Running && self.problem.is_none()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.status == TaskStatus::Failed || self.problem.is_some()
    }

    /// The status, unless it would pass off what was undone as done.
    pub(crate) fn state(&self) -> &'static str {
        match self.status {
            TaskStatus::Successful if self.operation.as_deref() == Some("ROLLBACK") => "ROLLED BACK",
            TaskStatus::Successful => "SUCCESSFUL",
            TaskStatus::Running => "RUNNING",
            TaskStatus::Failed => "FAILED",
        }
    }

    /// How many of the subtasks are done, such as "3/12"; none of a task that was rolled back.
    pub(crate) fn steps(&self) -> String {
        match self.state() {
            "ROLLED BACK" => text(None),
            _ => format!("{}/{}", self.finished_subtasks(), self.subtasks().len()),
        }
    }

    pub(crate) fn finished_subtasks(&self) -> usize {
        self.subtasks().iter().filter(|subtask| subtask.status == SubtaskStatus::Successful).count()
    }

    /// What an operator calls it.
    pub(crate) fn title(&self) -> String {
        match self.host_id {
            Some(host) => format!("{} on host {host}", self.name),
            None => self.name.clone(),
        }
    }

    pub(crate) fn failure(&self) -> TaskFailure {
        TaskFailure { task_id: self.id, report: self.failure_report() }
    }

    /// Everything an operator must know about a task that failed.
    pub(crate) fn failure_report(&self) -> String {
        if let Some(problem) = &self.problem {
            return self.problem_report(problem);
        }
        let mut report = format!("task {} failed: {}\n", self.id, self.title());
        let failed: Vec<_> = self.subtasks().iter().filter(|subtask| subtask.status == SubtaskStatus::Failed).collect();
        for subtask in &failed {
            subtask.tell_failure(self.id, &mut report);
        }
        if failed.is_empty() {
            report.push_str(&labelled("see", &format!("oblet task show {}", self.id)));
        }
        report
    }

    fn problem_report(&self, problem: &str) -> String {
        let mut report = format!("task {} needs an operator: {}\n", self.id, self.title());
        report.push_str(&labelled("cause", problem));
        let next = format!(
            "start the coordinator version that wrote it, or undo by hand what it did, then: oblet task unlock {}",
            self.id
        );
        report.push_str(&labelled("next", &next));
        report
    }
}

impl Subtask {
    pub(crate) fn has_started(&self) -> bool {
        !matches!(self.status, SubtaskStatus::Pending | SubtaskStatus::Ready) || self.start_time.is_some()
    }

    /// What a subtask at work waits for. The others wait for their turn, which goes without saying.
    pub(crate) fn wait(&self) -> Option<String> {
        let at_work = matches!(self.status, SubtaskStatus::Running | SubtaskStatus::Canceling);
        let Waiting { what, until } = self.waiting.as_ref().filter(|_| at_work)?;
        Some(match until {
            Some(until) => format!("waits for {what} until {}", local_time(until)),
            None => format!("waits for {what}"),
        })
    }

    /// Above its log where there are several.
    pub(crate) fn log_heading(&self) -> String {
        format!("==> {} ({}) <==\n", self.name, self.id)
    }

    pub(crate) fn failure_report(&self, task: u64) -> String {
        let mut report = String::new();
        self.tell_failure(task, &mut report);
        report
    }

    fn tell_failure(&self, task: u64, report: &mut String) {
        let mut line = |label: &str, value: &str| report.push_str(&labelled(label, value));
        match self.run_time {
            Some(attempt @ 2..) => line("step", &format!("{} (subtask {}, attempt {attempt})", self.name, self.id)),
            _ => line("step", &format!("{} (subtask {})", self.name, self.id)),
        }
        if let Some(failure) = &self.failure {
            if failure.host.is_some() {
                line("host", &text(failure.host.as_ref()));
            }
            match (&failure.message, &failure.reason) {
                (Some(message), Some(reason)) => line("cause", &format!("{message} ({reason})")),
                (Some(only), None) | (None, Some(only)) => line("cause", only),
                (None, None) => {}
            }
            for cause in &failure.causes {
                line("", &format!("because {cause}"));
            }
            if let Some(code) = failure.exit_code {
                line("exit", &format!("code {code}"));
            }
            if failure.signal.is_some() {
                line("exit", &format!("signal {}", text(failure.signal.as_ref())));
            }
            if let Some(effect) = &failure.effect {
                line("effect", effect);
            }
            if !failure.log_tail.is_empty() {
                line("log", &failure.log_tail.join("\n"));
            }
            if let Some(next) = &failure.next_move {
                line("next", next);
            }
        }
        line("see", &format!("oblet task log {task} {}", self.id));
    }
}

/// Sorts by the longest way from a root, then by id: the API lists subtasks in no order.
fn in_order(subtasks: Vec<Subtask>) -> Vec<Subtask> {
    let mut downstreams: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut waiting: HashMap<u64, usize> = subtasks.iter().map(|subtask| (subtask.id, 0)).collect();
    for subtask in &subtasks {
        for upstream in subtask.upstreams.iter().filter(|upstream| subtasks.iter().any(|other| other.id == **upstream))
        {
            downstreams.entry(*upstream).or_default().push(subtask.id);
            *waiting.entry(subtask.id).or_default() += 1;
        }
    }
    let mut depths: HashMap<u64, usize> = HashMap::new();
    let mut free: VecDeque<u64> = waiting.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    while let Some(id) = free.pop_front() {
        let depth = *depths.entry(id).or_default();
        for downstream in downstreams.get(&id).into_iter().flatten() {
            let below = depths.entry(*downstream).or_default();
            *below = depth.saturating_add(1).max(*below);
            if let Some(count) = waiting.get_mut(downstream) {
                *count -= 1;
                if *count == 0 {
                    free.push_back(*downstream);
                }
            }
        }
    }
    let mut subtasks = subtasks;
    subtasks.sort_by_key(|subtask| (depths.get(&subtask.id).copied().unwrap_or(usize::MAX), subtask.id));
    subtasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order(subtasks: &[(u64, &[u64])]) -> Vec<u64> {
        let subtasks: Vec<_> = subtasks
            .iter()
            .map(|(id, upstreams)| json!({"id": id, "name": "step", "status": "PENDING", "upstreams": upstreams}))
            .collect();
        let task = json!({"id": 1, "name": "task", "status": "RUNNING", "subtasks": subtasks});
        Task::read("test", &task).unwrap().subtasks().iter().map(|subtask| subtask.id).collect()
    }

    #[test]
    fn subtasks_follow_their_upstreams() {
        assert_eq!(order(&[(5, &[9]), (7, &[]), (9, &[7, 8]), (8, &[7])]), [7, 8, 9, 5]);
    }

    #[test]
    fn upstreams_that_are_not_listed_are_not_waited_for() {
        assert_eq!(order(&[(2, &[1]), (3, &[2])]), [2, 3]);
    }

    #[test]
    fn both_shapes_of_a_task_are_read() {
        let step = json!({"id": 2, "name": "step", "status": "READY"});
        let task = json!({"id": 1, "name": "task", "status": "RUNNING", "creator": {"id": 100, "name": "admin"},
            "context": "Context(parallelIdx=-1)", "tasks": [step]});
        let task = Task::read("test", &task).unwrap();
        assert_eq!((task.subtasks().len(), task.creator.as_ref().map(Creator::name)), (1, Some("admin")));
    }
}
