//! Requests that can be sent again without harm: the header `Idempotency-Key`, or OCP's member `clientToken`.
//!
//!  1. Same user, same key, same request: the answer is that of the first time, and nothing is made.
//!  2. Same user and key, another request: 409, which names what the key was used for.
//!  3. The key is written in the transaction that makes the tasks, so there are never tasks without it, nor it without them.
//!  4. A request that was refused leaves no key behind, so it can be corrected and sent again.

use super::{
    envelope::ocp_time,
    error::{ApiError, code},
    extract::{JsonBody, read_body},
    requester::Requester,
    state::ApiState,
};
use crate::{
    api::task::absent,
    coordinator::store::{
        requests::{self, RequestKey},
        task::{self, TaskRecord},
    },
    graph::TaskStatus,
};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::AnyConnection;

const HEADER: &str = "Idempotency-Key";
const MEMBER: &str = "clientToken";
const MAX_KEY_CHARACTERS: usize = 191;

/// A JSON body with the key of its request.
pub(in crate::api) struct Keyed<T> {
    pub(in crate::api) body: T,
    pub(in crate::api) once: Once,
}

/// What is remembered of a request that carries a key; nothing if it carries none.
pub(in crate::api) struct Once(Option<(RequestKey, String)>);

impl<T: DeserializeOwned> FromRequest<ApiState> for Keyed<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, ApiError> {
        let (mut parts, bytes) = read_body(request, state).await?;
        let requester = Requester::from_request_parts(&mut parts, state).await?;
        // What is no JSON is refused below, in the words of all bodies.
        let mut value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = value.as_object_mut().and_then(|members| members.remove(MEMBER));
        let key = key(header(&parts.headers)?, member(token)?)?;
        let once = Once(key.map(|key| {
            let fingerprint = fingerprint(state, &parts, &value);
            (RequestKey { user: requester.name, key }, fingerprint)
        }));
        let JsonBody(body) = JsonBody::from_request(Request::from_parts(parts, Body::from(bytes)), state).await?;
        Ok(Self { body, once })
    }
}

/// The key of a request without a body, whose query says what it asks for.
impl FromRequestParts<ApiState> for Once {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, ApiError> {
        let requester = Requester::from_request_parts(parts, state).await?;
        let query = Value::from(parts.uri.query());
        Ok(Self(header(&parts.headers)?.map(|key| {
            let fingerprint = fingerprint(state, parts, &query);
            (RequestKey { user: requester.name, key }, fingerprint)
        })))
    }
}

/// Keyed, because a body may hold passwords. The members are in the order of their names.
fn fingerprint(state: &ApiState, parts: &Parts, body: &Value) -> String {
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    state.settings.vault.fingerprint(&[method.as_bytes(), path.as_bytes(), body.to_string().as_bytes()])
}

fn header(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(HEADER).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(HEADER) { Err(ApiError::invalid(HEADER, "is given once")) } else { Ok(None) };
    };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > MAX_KEY_CHARACTERS || !is_visible(text) {
        return Err(ApiError::invalid(HEADER, format_args!("has 1 to {MAX_KEY_CHARACTERS} visible ASCII characters")));
    }
    Ok(Some(text.to_owned()))
}

fn member(token: Option<Value>) -> Result<Option<String>, ApiError> {
    match token {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (8..=64).contains(&text.len()) && is_visible(&text) => Ok(Some(text)),
        Some(_) => Err(ApiError::invalid(MEMBER, "has 8 to 64 visible ASCII characters")),
    }
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn key(header: Option<String>, member: Option<String>) -> Result<Option<String>, ApiError> {
    match (header, member) {
        (Some(header), Some(member)) if header != member => {
            Err(ApiError::invalid(MEMBER, format_args!("is not what the header {HEADER} says; give one of them")))
        }
        (header, member) => Ok(header.or(member)),
    }
}

impl Once {
    /// The tasks that this request has made before. Those that run are woken: who asks again may never have been told
    /// of the first answer, because the coordinator went away before it drove them.
    pub(in crate::api) async fn made(
        &self,
        state: &ApiState,
        connection: &mut AnyConnection,
    ) -> Result<Option<Vec<TaskRecord>>, ApiError> {
        let Some((key, fingerprint)) = &self.0 else { return Ok(None) };
        let Some(known) = requests::find(connection, key).await? else { return Ok(None) };
        let mut records = Vec::with_capacity(known.tasks.len());
        for id in &known.tasks {
            records.push(task::get(connection, *id).await?.ok_or_else(|| absent(id.0))?);
        }
        if known.fingerprint == *fingerprint {
            let running = records.iter().filter(|record| record.status == TaskStatus::Running);
            running.for_each(|record| state.engine().wake(record.id));
            return Ok(Some(records));
        }
        let made: Vec<String> = records.iter().map(|task| format!("task {}, {}", task.id, task.plan.name)).collect();
        let (at, made) = (ocp_time(known.created_at), made.join("; "));
        let text = format_args!("the key {:?} was used at {at} for another request, which made {made}", key.key);
        Err(ApiError::conflict(code::INVALID_REQUEST, text)
            .about(HEADER)
            .advise("give each request a key of its own; nothing was changed"))
    }

    pub(in crate::api) async fn remember(
        &self,
        connection: &mut AnyConnection,
        made: &[TaskRecord],
    ) -> Result<(), ApiError> {
        let Some((key, fingerprint)) = &self.0 else { return Ok(()) };
        let ids: Vec<_> = made.iter().map(|record| record.id).collect();
        requests::insert(connection, key, fingerprint, &ids).await.map_err(|error| {
            if error.is_conflict() {
                // Another coordinator has just carried the same request out.
                ApiError::conflict(code::INVALID_REQUEST, format_args!("the key {:?} has just been used", key.key))
                    .advise("send the request again: it returns the result of the first one")
            } else {
                error.into()
            }
        })
    }
}
