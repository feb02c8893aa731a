//! `/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/log/events`: the log of a subtask as it is written.

use super::absent_subtask;
use crate::{
    api::frame::{
        envelope::ErrorEnvelope,
        error::ApiError,
        extract::PathOf,
        state::ApiState,
        streams::{self, Found, Source},
    },
    coordinator::store::{
        Store, StoreError,
        task::{
            TaskId, events,
            logs::{self, LogCursor},
        },
    },
    graph::{NodeIndex, SubtaskStatus, TaskStatus},
};
use axum::{
    extract::State,
    http::HeaderMap,
    response::{Response, sse::Event},
};
use serde::Serialize;
use sqlx::AnyConnection;
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(in crate::api) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Bytes of an event, about.
const CHUNK_BYTES: usize = 64 << 10;

/// Streams the log of all runs of a subtask from the beginning or after `Last-Event-ID`: events `log`, whose id is the
/// number of bytes up to their end, then one event `end` when the subtask is not running.
#[utoipa::path(
    get, path = "/api/v2/tasks/instances/{id}/subtasks/{subtaskId}/log/events", tag = "tasks", operation_id = "followSubtaskLog",
    params(
        ("id" = i64, Path), ("subtaskId" = i64, Path),
        ("Last-Event-ID" = Option<i64>, Header, description = "The id of the last event that the client received."),
    ),
    responses(
        (status = 200, description = "A stream of server-sent events.", body = LogStream, content_type = "text/event-stream"),
        (status = 204, description = "The subtask is not running and there are no more events."),
        (status = 400, description = "The header is not the id of an event.", body = ErrorEnvelope),
        (status = 404, description = "It does not exist.", body = ErrorEnvelope),
        (status = 503, description = "Too many streams are open.", body = ErrorEnvelope),
    ),
)]
async fn events(
    State(state): State<ApiState>,
    PathOf((id, subtask_id)): PathOf<(i64, i64)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let last = streams::last_event_id(&headers)?;
    let task = TaskId(id);
    let mut connection = state.store().readers().acquire().await.map_err(StoreError::from)?;
    let subtask = events::subtask_status(&mut connection, task, subtask_id).await?;
    let (node, _) = subtask.ok_or_else(|| absent_subtask(id, subtask_id))?;
    let cursor = logs::seek(&mut connection, task, node, last.unwrap_or(0)).await?;
    let removed = if last.is_none() { logs::removed(&mut connection, task).await? } else { None };
    drop(connection);
    streams::serve(&state, LogSource { task, subtask_id, node, cursor, removed }, last.is_some()).await
}

struct LogSource {
    task: TaskId,
    subtask_id: i64,
    node: NodeIndex,
    cursor: LogCursor,
    /// What stands in place of what retention has removed, until it is told.
    removed: Option<String>,
}

/// What the stream tells.
struct LogStream;

impl utoipa::PartialSchema for LogStream {
    fn schema() -> RefOr<Schema> {
        streams::described(&[("log", "LogText"), ("end", "End")])
    }
}

impl ToSchema for LogStream {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        streams::describe::<LogText>(schemas);
        streams::describe::<End>(schemas);
    }
}

#[derive(Serialize, ToSchema)]
struct LogText {
    text: String,
}

#[derive(Serialize, ToSchema)]
struct End {
    status: SubtaskStatus,
}

impl Source for LogSource {
    async fn look(&mut self, store: &Store) -> Result<Found, StoreError> {
        if let Some(text) = self.removed.take() {
            return Ok(Found::Events(vec![self.told("log", &LogText { text })]));
        }
        // One snapshot: a subtask that is at rest in it has no log that is not in it.
        let mut snapshot = store.readers().begin().await?;
        let (text, cursor) = logs::read_from(&mut snapshot, (self.task, self.node), self.cursor, CHUNK_BYTES).await?;
        let rest = if text.is_empty() { self.rest(&mut snapshot).await? } else { None };
        snapshot.commit().await?;
        if !text.is_empty() {
            self.cursor = cursor;
            return Ok(Found::Events(vec![self.told("log", &LogText { text })]));
        }
        Ok(rest.map_or(Found::Nothing, |status| Found::End(vec![self.told("end", &End { status })])))
    }
}

impl LogSource {
    fn told(&self, name: &str, data: &impl Serialize) -> Event {
        streams::event(name, self.cursor.offset(), data)
    }

    /// The status of the subtask, if nothing more is written before somebody decides something.
    async fn rest(&self, connection: &mut AnyConnection) -> Result<Option<SubtaskStatus>, StoreError> {
        let task = events::status(connection, self.task).await?;
        let subtask = events::subtask_status(connection, self.task, self.subtask_id).await?;
        let Some((_, status)) = subtask else { return Ok(Some(SubtaskStatus::Failed)) };
        let ended = match status {
            SubtaskStatus::Failed | SubtaskStatus::Successful => true,
            SubtaskStatus::Pending | SubtaskStatus::Ready => task != Some(TaskStatus::Running),
            SubtaskStatus::Running | SubtaskStatus::Canceling => false,
        };
        Ok(ended.then_some(status))
    }
}
