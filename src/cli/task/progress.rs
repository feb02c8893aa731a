use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Display,
    io::Write,
    time::Duration,
};

use super::model::{Subtask, Task};
use crate::{
    cli::console::{output::Progress, table::printable},
    graph::{SubtaskStatus, TaskStatus},
};

/// Draws how far the tasks are, on stderr: bars on a terminal, elsewhere a line for each change.
pub(crate) struct View {
    progress: Progress,
    /// What was last said of a task (by its id) and of a subtask (by both ids).
    said: HashMap<(u64, Option<u64>), String>,
    /// The lines that told what a subtask waits for.
    waits: HashSet<String>,
    bars: MultiProgress,
    bar_of_task: BTreeMap<u64, ProgressBar>,
}

impl View {
    pub(crate) fn new(progress: Progress) -> Self {
        Self {
            progress,
            said: HashMap::new(),
            waits: HashSet::new(),
            bars: MultiProgress::new(),
            bar_of_task: BTreeMap::new(),
        }
    }

    /// Returns whether something changed since the task was last shown.
    pub(crate) fn show(&mut self, task: &Task) -> bool {
        let mut changed = false;
        let summary = format!("{} {}", task.id, task_state(task));
        if task.is_running() {
            changed |= self.say_once((task.id, None), summary.clone());
        }
        let count = task.subtasks().len();
        let width = count.to_string().len();
        for (number, subtask) in (1..).zip(task.subtasks()) {
            // A subtask that waits for its turn is news only if it was further: it is being undone.
            if is_waiting(subtask) && !self.said.contains_key(&(task.id, Some(subtask.id))) {
                continue;
            }
            let line = format!("{} [{number:>width$}/{count}] {}", task.id, subtask_state(subtask));
            changed |= self.say_once((task.id, Some(subtask.id)), line);
            if let Some(wait) = subtask.wait() {
                let step = format!("{} [{number:>width$}/{count}] {}", task.id, subtask.name);
                self.tell_wait(format!("{step}: {}", printable(&wait)));
            }
        }
        if !task.is_running() {
            changed |= self.say_once((task.id, None), summary);
        }
        if self.progress == Progress::Bars {
            self.draw(task);
        }
        changed
    }

    /// A remark about the work as a whole.
    pub(crate) fn remark(&self, text: &str) {
        match self.progress {
            Progress::None => {}
            Progress::Lines => write_line(text),
            Progress::Bars => self.bars.suspend(|| write_line(text)),
        }
    }

    fn say_once(&mut self, about: (u64, Option<u64>), line: String) -> bool {
        if self.said.get(&about) == Some(&line) {
            return false;
        }
        if self.progress == Progress::Lines {
            write_line(&line);
        }
        self.said.insert(about, line);
        true
    }

    /// A step may fail again and again, each time waiting for the same.
    fn tell_wait(&mut self, line: String) {
        if self.progress == Progress::Lines && !self.waits.contains(&line) {
            write_line(&line);
            self.waits.insert(line);
        }
    }

    fn draw(&mut self, task: &Task) {
        let bar = self.bar_of_task.entry(task.id).or_insert_with(|| self.bars.add(new_bar(task)));
        bar.set_length(task.subtasks().len() as u64);
        bar.set_position(task.finished_subtasks() as u64);
        let steps: Vec<_> = task.subtasks().iter().filter(|subtask| is_active(subtask)).map(step).collect();
        match task.status {
            TaskStatus::Running => bar.set_message(steps.join(", ")),
            TaskStatus::Failed => bar.abandon_with_message("FAILED"),
            TaskStatus::Successful => bar.finish_with_message(task.state()),
        }
    }
}

fn new_bar(task: &Task) -> ProgressBar {
    let bar = ProgressBar::new(task.subtasks().len() as u64).with_prefix(format!("{} {}", task.id, task.title()));
    let template = "{spinner} {prefix} [{bar:24}] {pos}/{len} {elapsed} {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn is_waiting(subtask: &Subtask) -> bool {
    matches!(subtask.status, SubtaskStatus::Pending | SubtaskStatus::Ready)
}

fn is_active(subtask: &Subtask) -> bool {
    matches!(subtask.status, SubtaskStatus::Running | SubtaskStatus::Canceling | SubtaskStatus::Failed)
}

/// Such as "Install obproxy on host 2: RUNNING (rollback)", at the end without the operation.
fn task_state(task: &Task) -> String {
    let operation = task.operation.as_deref().filter(|_| task.is_running() || task.has_failed());
    state(&task.title(), task.state(), operation, None)
}

fn subtask_state(subtask: &Subtask) -> String {
    state(&subtask.name, subtask.status, subtask.operation.as_deref(), subtask.run_time)
}

/// The state of a subtask with what it waits for.
fn step(subtask: &Subtask) -> String {
    match subtask.wait() {
        Some(wait) => format!("{}, {}", subtask_state(subtask), printable(&wait)),
        None => subtask_state(subtask),
    }
}

/// Such as "Install rpm: RUNNING (retry, attempt 2)".
fn state(name: &str, status: impl Display, operation: Option<&str>, attempt: Option<u32>) -> String {
    let operation = operation.filter(|operation| *operation != "EXECUTE").map(str::to_lowercase);
    let attempt = attempt.filter(|attempt| *attempt > 1).map(|attempt| format!("attempt {attempt}"));
    let remarks: Vec<_> = operation.into_iter().chain(attempt).collect();
    match remarks.is_empty() {
        true => format!("{name}: {status}"),
        false => format!("{name}: {status} ({})", remarks.join(", ")),
    }
}

/// Nobody is left to be told if stderr is closed.
fn write_line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
