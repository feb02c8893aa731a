//! Values in columns of text.

use super::StoreError;
use serde::de::DeserializeOwned;
use sqlx::{Row as _, any::AnyRow};
use std::str::FromStr;

pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

pub(super) fn parse<T: FromStr<Err = String>>(row: &AnyRow, column: &str) -> Result<T, Cause> {
    Ok(row.try_get::<String, _>(column)?.parse::<T>()?)
}

pub(super) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Cause> {
    Ok(serde_json::from_str(text)?)
}

pub(super) fn encode<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Sql(sqlx::Error::Encode(error.into())))
}
