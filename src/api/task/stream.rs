//! `/api/v2/tasks/instances/{id}/events`: the journal of a task as it is written.

use super::absent;
use crate::{
    api::frame::{
        envelope::{ErrorEnvelope, ocp_time},
        error::ApiError,
        extract::PathOf,
        state::ApiState,
        streams::{self, Found, Source},
    },
    coordinator::store::{
        Store, StoreError,
        task::{
            TaskId,
            events::{self, JournalEvent},
        },
    },
    graph::{NodeIndex, TaskStatus},
};
use axum::{
    extract::State,
    http::HeaderMap,
    response::{Response, sse::Event},
};
use serde::Serialize;
use std::collections::HashMap;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Events that are read at a time.
const PAGE: i64 = 256;

/// Streams the events of a task from the beginning or after `Last-Event-ID`: one event `task` for each, then one event
/// `rest` when nothing is running.
#[utoipa::path(
    get, path = "/api/v2/tasks/instances/{id}/events", tag = "tasks", operation_id = "followTask",
    params(("id" = i64, Path), ("Last-Event-ID" = Option<i64>, Header, description = "The id of the last event that the client received.")),
    responses(
        (status = 200, description = "A stream of server-sent events.", body = TaskStream, content_type = "text/event-stream"),
        (status = 204, description = "The task is not running and there are no more events."),
        (status = 400, description = "The header is not the id of an event.", body = ErrorEnvelope),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 503, description = "Too many streams are open.", body = ErrorEnvelope),
    ),
)]
async fn events(
    State(state): State<ApiState>,
    PathOf(id): PathOf<i64>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let last = streams::last_event_id(&headers)?;
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let task = TaskId(id);
    events::status(&mut connection, task).await?.ok_or_else(|| absent(id))?;
    let subtasks = events::subtask_ids(&mut connection, task).await?;
    drop(connection);
    let seen = last.and_then(|id| i64::try_from(id).ok()).unwrap_or(0);
    streams::serve(&state, TaskSource { task, subtasks, seen }, last.is_some()).await
}

struct TaskSource {
    task: TaskId,
    subtasks: HashMap<NodeIndex, i64>,
    /// Sequence number of the last event that was told.
    seen: i64,
}

/// What the stream tells.
struct TaskStream;

impl utoipa::PartialSchema for TaskStream {
    fn schema() -> RefOr<Schema> {
        streams::described(&[("task", "TaskEvent"), ("rest", "Rest")])
    }
}

impl ToSchema for TaskStream {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        streams::describe::<TaskEvent>(schemas);
        streams::describe::<Rest>(schemas);
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TaskEvent<'a> {
    task_id: i64,
    sequence: i64,
    kind: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtask_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    /// Status of the task when the event was sent.
    status: TaskStatus,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Rest {
    task_id: i64,
    status: TaskStatus,
}

impl Source for TaskSource {
    async fn look(&mut self, store: &Store) -> Result<Found, StoreError> {
        // One snapshot: a task that is at rest in it has no event that is not in it.
        let mut snapshot = store.readers().begin().await?;
        let status = events::status(&mut snapshot, self.task).await?.unwrap_or(TaskStatus::Failed);
        let read = events::after(&mut snapshot, self.task, self.seen, PAGE).await?;
        snapshot.commit().await?;
        self.seen = read.last().map_or(self.seen, |event| event.sequence);
        let mut events: Vec<Event> = read.iter().map(|event| self.told(event, status)).collect();
        if i64::try_from(read.len()) == Ok(PAGE) {
            return Ok(Found::Events(events));
        }
        if status != TaskStatus::Running {
            let rest = Rest { task_id: self.task.0, status };
            events.push(streams::event("rest", self.seen, &rest));
            return Ok(Found::End(events));
        }
        Ok(if events.is_empty() { Found::Nothing } else { Found::Events(events) })
    }
}

impl TaskSource {
    fn told(&self, event: &JournalEvent, status: TaskStatus) -> Event {
        let told = TaskEvent {
            task_id: self.task.0,
            sequence: event.sequence,
            kind: &event.kind,
            time: ocp_time(event.at),
            subtask_id: event.node.and_then(|node| self.subtasks.get(&node).copied()),
            attempt: event.attempt,
            by: event.by.as_deref(),
            status,
        };
        streams::event("task", event.sequence, &told)
    }
}
