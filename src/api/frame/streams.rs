//! Server-sent events: what follows a task or a log until it comes to rest.
//!
//!  1. Each event has an id. A client that comes back names the last one it saw (`Last-Event-ID`) and misses nothing.
//!  2. The stream ends by itself when what it follows is at rest; who comes back to something at rest of which it knows
//!     all is answered 204, which tells an EventSource to stop.
//!  3. A commit of this coordinator wakes the stream; a look each second finds what another one has written.
//!  4. Streams are bounded in number and end with the coordinator.

use super::{
    error::ApiError,
    state::{ApiState, MAX_STREAMS},
};
use crate::{
    coordinator::store::{Store, StoreError},
    telemetry::chain,
};
use axum::{
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use std::{collections::VecDeque, convert::Infallible, fmt::Display, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use utoipa::{
    ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ObjectBuilder, OneOfBuilder, Type},
    },
};

const LAST_EVENT_ID: &str = "Last-Event-ID";
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A busy coordinator commits far more often than anybody can read.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_millis(50);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a source has found.
pub(in crate::api) enum Found {
    /// Events, after which there may be more at once.
    Events(Vec<Event>),
    /// Nothing yet.
    Nothing,
    /// The last events: what it follows is at rest.
    End(Vec<Event>),
}

/// What a stream tells. It knows itself how far it has come.
pub(in crate::api) trait Source: Send + 'static {
    fn look(&mut self, store: &Store) -> impl Future<Output = Result<Found, StoreError>> + Send;
}

/// Describes a stream by its events: the name of each, and the name of the schema that its data has.
pub(in crate::api) fn described(events: &[(&str, &str)]) -> RefOr<Schema> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let event = |(name, data): &(&str, &str)| {
        // What the data of an event holds, this keyword of JSON Schema says.
        let content = ("contentSchema", json!({"$ref": format!("#/components/schemas/{data}")}));
        let data = text().content_media_type("application/json").extensions(Some([content].into_iter().collect()));
        ObjectBuilder::new()
            .property("event", text().enum_values(Some([*name])))
            .property("id", text())
            .property("data", data)
            .required("event")
            .required("id")
            .required("data")
    };
    events.iter().map(event).fold(OneOfBuilder::new(), OneOfBuilder::item).into()
}

/// Adds the schema of an event's data.
pub(in crate::api) fn describe<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    T::schemas(schemas);
    schemas.push((T::name().into(), T::schema()));
}

/// An event whose data is JSON.
pub(in crate::api) fn event(name: &str, id: impl Display, data: &impl Serialize) -> Event {
    // The data are numbers and texts, which are always JSON.
    let text = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).id(id.to_string()).data(text)
}

/// The id that a client saw last; None at its first connection.
pub(in crate::api) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|id| i64::try_from(*id).is_ok());
    let wrong = || ApiError::invalid(LAST_EVENT_ID, "is the id of an event of this stream, which is a number");
    number.map(Some).ok_or_else(wrong)
}

/// Answers with the stream, or that no more can be open. `back` is a client that has come back: if it knows everything
/// and nothing more will come, it is told so.
pub(in crate::api) async fn serve(state: &ApiState, mut source: impl Source, back: bool) -> Result<Response, ApiError> {
    let permit = Arc::clone(&state.streams).try_acquire_owned().map_err(|_full| {
        ApiError::try_later(format_args!("all {MAX_STREAMS} streams are in use"))
            .advise("close a stream that is not needed, or poll the task instead")
    })?;
    // Taken before the first look, so that no commit after it is missed.
    let commits = state.engine().commits();
    let first = source.look(state.store()).await?;
    // The one event of such an end says only that it is at rest.
    if back && matches!(&first, Found::End(events) if events.len() <= 1) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let mut follower = Follower {
        source,
        store: state.store().clone(),
        commits,
        shutdown: state.settings.shutdown.clone(),
        ready: VecDeque::new(),
        hungry: false,
        over: false,
        looked: Instant::now(),
        _permit: permit,
    };
    follower.take(first);
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

struct Follower<S> {
    source: S,
    store: Store,
    commits: watch::Receiver<u64>,
    shutdown: CancellationToken,
    /// Found and not sent yet.
    ready: VecDeque<Event>,
    /// There may be more without a commit.
    hungry: bool,
    over: bool,
    looked: Instant,
    _permit: OwnedSemaphorePermit,
}

impl<S: Source> Follower<S> {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over || self.shutdown.is_cancelled() {
                return None;
            }
            if !self.hungry {
                self.shutdown.clone().run_until_cancelled(self.wait()).await?;
            }
            self.looked = Instant::now();
            match self.source.look(&self.store).await {
                Ok(found) => self.take(found),
                // The client comes back with the id of the last event, and by then the store may answer.
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a stream was aborted");
                    return None;
                }
            }
        }
    }

    fn take(&mut self, found: Found) {
        self.hungry = matches!(found, Found::Events(_));
        self.over = matches!(found, Found::End(_));
        match found {
            Found::Events(events) | Found::End(events) => self.ready.extend(events),
            Found::Nothing => {}
        }
    }

    async fn wait(&mut self) {
        let latest = sleep_until(self.looked + LOOK_EVERY);
        tokio::select! {
            changed = self.commits.changed() => match changed {
                Ok(()) => sleep_until(self.looked + LOOK_AT_MOST_EVERY).await,
                // The engine has ended; another coordinator may go on.
                Err(_) => sleep_until(self.looked + LOOK_EVERY).await,
            },
            () = latest => {}
        }
    }
}
