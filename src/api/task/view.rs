//! Tasks on the wire: OCP's TaskInstance and SubtaskInstance.
//!
//! Two shapes live side by side. The answer to a request that makes a task has no more members than OCP's samples;
//! a task that is asked for has both names of its subtasks, all times, and the failure of each subtask.

use crate::{
    api::frame::{envelope::ocp_time, error::ApiError},
    coordinator::{
        engine::Wait,
        store::task::{SubtaskRecord, TaskRecord},
    },
    graph::{Failure, GraphError, NodeIndex, Operation, SubtaskStatus, TaskState, TaskStatus},
    operations::PlannedNode,
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};
use utoipa::ToSchema;

/// Subtasks that are named where one waits for many.
const NAMED_UPSTREAMS: usize = 3;

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct TaskInstance {
    /// Omitted in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    name: String,
    /// MANUAL: an operator asked for it.
    r#type: &'static str,
    /// RUNNING, FAILED or SUCCESSFUL.
    #[schema(value_type = TaskStatus)]
    status: &'static str,
    /// EXECUTE, RETRY, ROLLBACK, SKIP or CANCEL.
    #[schema(value_type = Operation)]
    operation: &'static str,
    creator: Creator,
    /// Address of the coordinator that runs it.
    executor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<i64>,
    context: TaskContext,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Option<String>,
    start_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_time: Option<String>,
    /// Why no coordinator can continue the task; it needs an operator. Not part of OCP's responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prohibit_rollback: Option<bool>,
    task_definition_id: i64,
    /// In no particular order: follow `upstreams`.
    subtasks: Vec<SubtaskInstance>,
    /// The same subtasks under the name that older clients read.
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<SubtaskInstance>>,
}

/// The name when a task is created, an object when it is read.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Creator {
    Name(String),
    User(UserName),
}

#[derive(Clone, Serialize, ToSchema)]
pub(super) struct UserName {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<i64>,
    pub(super) name: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TaskContext {
    list_map: BTreeMap<String, Vec<String>>,
    string_map: BTreeMap<String, String>,
    parallel: bool,
    parallel_idx: i32,
}

#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SubtaskInstance {
    id: i64,
    name: &'static str,
    description: &'static str,
    class_name: &'static str,
    node_type: &'static str,
    /// Index of the node in its template; parallel copies share it.
    series_id: u32,
    /// -1, or the index in the list that was split.
    parallel_idx: i32,
    /// PENDING, READY, RUNNING, CANCELING, FAILED or SUCCESSFUL.
    #[schema(value_type = SubtaskStatus)]
    status: &'static str,
    #[schema(value_type = Operation)]
    operation: &'static str,
    /// Number of the current run, starting at 1.
    run_time: u32,
    /// Seconds; 0 means none.
    timeout: u64,
    prohibit_rollback: bool,
    upstreams: Vec<i64>,
    downstreams: Vec<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<SubtaskFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<SubtaskWait>,
}

/// What a subtask of a running task waits for. Not part of OCP's responses.
#[derive(Clone, Serialize, ToSchema)]
struct SubtaskWait {
    /// Completes "it waits for".
    r#for: String,
    /// When the wait ends with an error; omitted if never.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

/// Why a subtask failed and what to do next. Not part of OCP's responses.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SubtaskFailure {
    /// Address of the host on which it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// Stable identifier in UPPER_SNAKE_CASE.
    reason: String,
    message: String,
    /// From the outermost to the innermost.
    causes: Vec<String>,
    next_move: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    log_tail: Vec<String>,
    /// What the attempt left on the host: "none", "done" or "unknown".
    #[schema(value_type = String)]
    effect: crate::graph::Effect,
}

/// A row in a list of tasks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BasicTaskInstance {
    id: i64,
    name: String,
    #[schema(value_type = TaskStatus)]
    status: &'static str,
    #[schema(value_type = Operation)]
    operation: &'static str,
    creator: UserName,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_id: Option<i64>,
    start_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_time: Option<String>,
    /// Why no coordinator can continue the task; it needs an operator. Not part of OCP's responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    subtasks: Vec<BasicSubtaskInstance>,
}

#[derive(Serialize, ToSchema)]
struct BasicSubtaskInstance {
    id: i64,
    name: &'static str,
    description: &'static str,
    #[schema(value_type = SubtaskStatus)]
    status: &'static str,
    #[schema(value_type = Operation)]
    operation: &'static str,
}

impl TaskInstance {
    pub(super) fn into_subtask(self, id: i64) -> Option<SubtaskInstance> {
        self.subtasks.into_iter().find(|subtask| subtask.id == id)
    }
}

/// The record of a task as it was when it was made.
fn as_made(mut record: TaskRecord) -> Result<TaskRecord, GraphError> {
    let state = TaskState::new(record.plan.graph()?);
    record.status = state.status();
    record.operation = state.operation();
    for (row, (_, subtask)) in record.subtasks.iter_mut().zip(state.subtasks()) {
        row.status = subtask.status;
        row.operation = subtask.operation;
        row.run_time = subtask.attempt;
    }
    Ok(record)
}

/// The answer to the request that made the task, once more.
pub(in crate::api) fn again(record: TaskRecord) -> Result<TaskInstance, ApiError> {
    let record = as_made(record).map_err(|error| ApiError::internal(&error))?;
    Ok(created(&record))
}

/// A task that was just made.
pub(in crate::api) fn created(record: &TaskRecord) -> TaskInstance {
    let creator = Creator::Name(record.creator.clone());
    instance(record, creator, subtasks(record, |view, _, _| view))
}

/// A task that would have been made. Its subtasks are numbered for the sake of their edges only.
pub(in crate::api) fn planned(record: &TaskRecord) -> TaskInstance {
    TaskInstance { id: None, ..created(record) }
}

/// A task that is asked for. `hosts` gives the addresses of the hosts of its subtasks, `waits` what the running ones
/// wait for.
pub(super) fn wrapped(
    record: &TaskRecord,
    creator: UserName,
    hosts: &HashMap<i64, IpAddr>,
    waits: &HashMap<NodeIndex, Wait>,
) -> TaskInstance {
    let list = subtasks(record, |view, node, row| SubtaskInstance {
        executor: row.started_at.map(|_| record.executor.clone()),
        start_time: row.started_at.map(ocp_time),
        finish_time: row.finished_at.map(ocp_time),
        failure: row.failure.as_ref().map(|failure| failed(failure, node.host_id.and_then(|id| hosts.get(&id)))),
        waiting: waiting(record, node, row, waits),
        ..view
    });
    TaskInstance {
        create_time: Some(ocp_time(record.created_at)),
        finish_time: record.finished_at.map(ocp_time),
        problem: record.problem.clone(),
        prohibit_rollback: Some(false),
        tasks: Some(list.clone()),
        ..instance(record, Creator::User(creator), list)
    }
}

pub(super) fn basic(record: &TaskRecord, creator: UserName) -> BasicTaskInstance {
    let row = |(row, node): (&SubtaskRecord, &PlannedNode)| BasicSubtaskInstance {
        id: row.id,
        name: node.info().name,
        description: node.info().name,
        status: row.status.as_str(),
        operation: row.operation.as_str(),
    };
    BasicTaskInstance {
        id: record.id.0,
        name: record.plan.name.clone(),
        status: record.status.as_str(),
        operation: record.operation.as_str(),
        creator,
        host_id: record.plan.host_id,
        start_time: ocp_time(record.created_at),
        finish_time: record.finished_at.map(ocp_time),
        problem: record.problem.clone(),
        subtasks: record.subtasks.iter().zip(&record.plan.nodes).map(row).collect(),
    }
}

fn instance(record: &TaskRecord, creator: Creator, subtasks: Vec<SubtaskInstance>) -> TaskInstance {
    TaskInstance {
        id: Some(record.id.0),
        name: record.plan.name.clone(),
        r#type: "MANUAL",
        status: record.status.as_str(),
        operation: record.operation.as_str(),
        creator,
        executor: record.executor.clone(),
        host_id: record.plan.host_id,
        context: TaskContext {
            list_map: record.plan.context.list_map.clone(),
            string_map: record.plan.context.string_map.clone(),
            parallel: false,
            parallel_idx: -1,
        },
        create_time: None,
        start_time: ocp_time(record.created_at),
        finish_time: None,
        problem: None,
        prohibit_rollback: None,
        task_definition_id: -1,
        subtasks,
        tasks: None,
    }
}

fn subtasks(
    record: &TaskRecord,
    extend: impl Fn(SubtaskInstance, &PlannedNode, &SubtaskRecord) -> SubtaskInstance,
) -> Vec<SubtaskInstance> {
    let id_of = |index: &NodeIndex| record.subtasks.get(index.0 as usize).map(|row| row.id);
    let mut downstreams: HashMap<NodeIndex, Vec<i64>> = HashMap::new();
    for (row, node) in record.subtasks.iter().zip(&record.plan.nodes) {
        for upstream in &node.upstreams {
            downstreams.entry(*upstream).or_default().push(row.id);
        }
    }
    let view = |(row, node): (&SubtaskRecord, &PlannedNode)| {
        let info = node.info();
        let view = SubtaskInstance {
            id: row.id,
            name: info.name,
            description: info.name,
            class_name: info.class_name,
            node_type: "JAVA_TASK",
            series_id: node.series_id,
            parallel_idx: node.parallel_index,
            status: row.status.as_str(),
            operation: row.operation.as_str(),
            run_time: row.run_time,
            timeout: info.timeout.map_or(0, |timeout| timeout.as_secs()),
            prohibit_rollback: false,
            upstreams: node.upstreams.iter().filter_map(id_of).collect(),
            downstreams: downstreams.remove(&row.node).unwrap_or_default(),
            executor: None,
            start_time: None,
            finish_time: None,
            failure: None,
            waiting: None,
        };
        extend(view, node, row)
    };
    record.subtasks.iter().zip(&record.plan.nodes).map(view).collect()
}

fn waiting(
    record: &TaskRecord,
    node: &PlannedNode,
    row: &SubtaskRecord,
    waits: &HashMap<NodeIndex, Wait>,
) -> Option<SubtaskWait> {
    if record.status != TaskStatus::Running || record.problem.is_some() {
        return None;
    }
    let forever = |what: String| Some(SubtaskWait { r#for: what, until: None });
    match (row.status, record.operation) {
        (SubtaskStatus::Running | SubtaskStatus::Canceling, _) => {
            let wait = waits.get(&row.node)?;
            Some(SubtaskWait { r#for: wait.what.clone(), until: Some(ocp_time(wait.until)) })
        }
        (SubtaskStatus::Pending | SubtaskStatus::Ready, Operation::Cancel) => {
            forever("a decision about the canceled task".into())
        }
        (SubtaskStatus::Ready, _) if row.operation == Operation::Execute && any(record, SubtaskStatus::Failed) => {
            forever("a decision about what failed".into())
        }
        (SubtaskStatus::Ready, _) => forever("its turn".into()),
        // Going backward it is done.
        (SubtaskStatus::Pending, Operation::Rollback) => None,
        (SubtaskStatus::Pending, _) => forever(unfinished(record, &node.upstreams)),
        (SubtaskStatus::Failed | SubtaskStatus::Successful, _) => None,
    }
}

/// The first of these subtasks that are not SUCCESSFUL, by name, and how many more there are.
fn unfinished(record: &TaskRecord, subtasks: &[NodeIndex]) -> String {
    let rows = subtasks.iter().filter_map(|node| record.subtasks.get(node.at()).zip(record.plan.node(*node)));
    let open = rows.filter(|(row, _)| row.status != SubtaskStatus::Successful);
    let mut names: Vec<String> = open.map(|(row, node)| format!("{} ({})", node.info().name, row.id)).collect();
    let more = names.len().saturating_sub(NAMED_UPSTREAMS);
    names.truncate(NAMED_UPSTREAMS);
    let named = names.join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

fn any(record: &TaskRecord, status: SubtaskStatus) -> bool {
    record.subtasks.iter().any(|row| row.status == status)
}

fn failed(failure: &Failure, host: Option<&IpAddr>) -> SubtaskFailure {
    SubtaskFailure {
        host: host.map(ToString::to_string),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        causes: failure.causes.clone(),
        next_move: failure.next_move.clone(),
        exit_code: failure.exit_code,
        signal: failure.signal,
        log_tail: failure.log_tail.clone(),
        effect: failure.effect,
    }
}
