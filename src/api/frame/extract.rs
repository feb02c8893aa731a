//! What comes in: bodies, path parameters and query parameters, refused in OCP's words.

use super::{
    envelope::{Page, PageInfo},
    error::{ApiError, code},
};
use crate::api::MAX_BODY_BYTES;
use axum::{
    Json,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData, str::FromStr};

/// A JSON body, at most as long as the router allows.
pub(in crate::api) struct JsonBody<T>(pub(in crate::api) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // serde would take an array for the members in their order.
        read_json(request, state, (b'{', "object")).await.map(Self)
    }
}

/// A JSON body that is a list of objects, at most as long as the router allows.
pub(in crate::api) struct JsonList<T>(pub(in crate::api) Vec<T>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonList<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let list: Vec<Object<T>> = read_json(request, state, (b'[', "array")).await?;
        Ok(Self(list.into_iter().map(|Object(item)| item).collect()))
    }
}

/// Whatever is read from an object. By itself serde would take an array for the members in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

/// A whole JSON body that opens as it has to.
async fn read_json<S: Send + Sync, T: DeserializeOwned>(
    request: Request,
    state: &S,
    (opening, what): (u8, &str),
) -> Result<T, ApiError> {
    let (parts, bytes) = read_body(request, state).await?;
    if bytes.trim_ascii_start().first() != Some(&opening) {
        let text = format_args!("the body must be a JSON {what}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, text));
    }
    let request = Request::from_parts(parts, Body::from(bytes));
    let Json(body) = Json::<T>::from_request(request, state).await.map_err(refuse_json)?;
    Ok(body)
}

/// A whole body, at most as long as the router allows.
pub(in crate::api) async fn read_body<S: Send + Sync>(request: Request, state: &S) -> Result<(Parts, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let text = format_args!("a JSON body has at most {MAX_BODY_BYTES} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, code::INVALID_REQUEST, text)
        }
        status => ApiError::new(status, code::INVALID_REQUEST, rejection.body_text()),
    })?;
    Ok((parts, bytes))
}

fn refuse_json(rejection: JsonRejection) -> ApiError {
    match &rejection {
        JsonRejection::JsonDataError(_) => wrong_member(&rejection.body_text()),
        JsonRejection::MissingJsonContentType(_) => ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code::INVALID_REQUEST,
            "the body must be JSON, with Content-Type: application/json",
        ),
        _ => ApiError::new(rejection.status(), code::INVALID_REQUEST, rejection.body_text()),
    }
}

/// serde's words, such as "introduction: member: what is wrong with it at line 1 column 9", without the place: it is
/// known by the member, and nobody counts the columns of a body that a program wrote.
fn wrong_member(text: &str) -> ApiError {
    let detail = text.split_once(": ").map_or(text, |(_, detail)| detail);
    let detail = detail.rsplit_once(" at line ").map_or(detail, |(detail, _)| detail);
    let error = ApiError::new(StatusCode::BAD_REQUEST, code::INVALID_PARAMETER, detail);
    match detail.split_once(": ") {
        Some((member, _)) if !member.contains(' ') => error.about(member),
        _ => error,
    }
}

/// A member of a body that stands in no log and no error.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(in crate::api) struct Password(pub(in crate::api) SecretString);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// Path parameters.
pub(in crate::api) struct PathOf<T>(pub(in crate::api) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(value) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::invalid("path", rejection.body_text()))?;
        Ok(Self(value))
    }
}

/// Query parameters. A list may be given as repeated parameters or joined by commas; what is not known is ignored, as OCP does.
pub(in crate::api) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::invalid("query", rejection.body_text()))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// The first value that is not empty.
    pub(in crate::api) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(in crate::api) fn parsed<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name).map(str::parse).transpose().map_err(|error| ApiError::invalid(name, error))
    }

    pub(in crate::api) fn list<T: FromStr<Err: fmt::Display>>(&self, name: &str) -> Result<Vec<T>, ApiError> {
        let values = self.0.iter().filter(|(key, _)| key == name).flat_map(|(_, value)| value.split(','));
        let parse = |value: &str| value.parse().map_err(|error| ApiError::invalid(name, error));
        values.filter(|value| !value.is_empty()).map(parse).collect()
    }

    pub(in crate::api) fn paging(&self) -> Result<Paging, ApiError> {
        let number = self.parsed::<i64>("page")?.unwrap_or(1);
        let size = self.parsed::<i64>("size")?.unwrap_or(Paging::DEFAULT_SIZE);
        if number < 1 {
            return Err(ApiError::invalid("page", "pages are counted from 1"));
        }
        if !(1..=Paging::MAX_SIZE).contains(&size) {
            return Err(ApiError::invalid("size", format_args!("a page has 1 to {} entries", Paging::MAX_SIZE)));
        }
        Ok(Paging { number, size })
    }

    /// Whether `sort` asks for the newest first, which is the default. Lists are sorted by id only.
    pub(in crate::api) fn newest_first(&self) -> Result<bool, ApiError> {
        match self.text("sort") {
            None | Some("id,desc") => Ok(true),
            Some("id" | "id,asc") => Ok(false),
            Some(other) => Err(not_sortable(other, "id,asc and id,desc are")),
        }
    }

    /// For lists that have one order, the oldest first.
    pub(in crate::api) fn oldest_first(&self) -> Result<(), ApiError> {
        match self.text("sort") {
            None | Some("id" | "id,asc") => Ok(()),
            Some(other) => Err(not_sortable(other, "id,asc is")),
        }
    }
}

fn not_sortable(asked: &str, possible: &str) -> ApiError {
    let text = format_args!("sort: {asked:?} is not possible; only {possible}");
    ApiError::new(StatusCode::BAD_REQUEST, code::NOT_SORTABLE, text).about("sort")
}

/// Which part of a list is wanted.
#[derive(Clone, Copy)]
pub(in crate::api) struct Paging {
    number: i64,
    pub(in crate::api) size: i64,
}

impl Paging {
    pub(in crate::api) const DEFAULT_SIZE: i64 = 10;
    pub(in crate::api) const MAX_SIZE: i64 = 2000;

    pub(in crate::api) fn offset(self) -> i64 {
        (self.number - 1).saturating_mul(self.size)
    }

    pub(in crate::api) fn page<T>(self, contents: Vec<T>, total: i64) -> Page<T> {
        let total_pages = total.max(0).div_euclid(self.size) + i64::from(total % self.size != 0);
        Page { contents, page: PageInfo { number: self.number, size: self.size, total_elements: total, total_pages } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn lists_are_repeated_or_joined() {
        let params = params(&[("status", "1,2"), ("status", "3"), ("x", "9")]);
        assert_eq!(params.list::<i32>("status").unwrap_or_default(), [1, 2, 3]);
    }

    #[test]
    fn pages_are_counted_from_one_and_bounded() {
        assert!(params(&[("page", "0")]).paging().is_err());
        assert!(params(&[("size", "2001")]).paging().is_err());
        let Ok(paging) = params(&[("page", "3"), ("size", "10")]).paging() else { panic!("refused") };
        assert_eq!(paging.offset(), 20);
        assert_eq!(paging.page(vec![1], 21).page.total_pages, 3);
        assert_eq!(paging.page(vec![1], 20).page.total_pages, 2);
        let Ok(far) = params(&[("page", "9223372036854775807")]).paging() else { panic!("refused") };
        assert_eq!(far.offset(), i64::MAX);
    }
}
