//! Rows of the journal as values.

use super::seal::Sealer;
use crate::{
    agent::{
        operation::{Key, Order, Outcome, Phase, PhaseEvent, Record, UndoTarget},
        step::Undoes,
    },
    graph::{Direction, Effect},
    steps::AgentStep,
};
use sqlx::{Row as _, sqlite::SqliteRow};
use std::time::Duration;
use uuid::Uuid;

/// An operation that was under way when the agent stopped.
#[derive(Debug)]
pub struct Resume {
    pub position: i64,
    pub order: Order,
    pub phase: Phase,
    pub identity: Option<String>,
    pub deadline_us: Option<i64>,
}

/// An attempt of an operation that an undo takes back.
#[derive(Debug)]
pub struct Attempt {
    pub key: Key,
    pub is_over: bool,
    /// An undo that succeeded has taken it back.
    pub is_undone: bool,
    pub undoes: Undoes,
}

pub(super) fn record(row: &SqliteRow) -> sqlx::Result<Record> {
    let undoes: Option<String> = row.try_get("undoes_operation_id")?;
    Ok(Record {
        position: row.try_get("position")?,
        key: key(row)?,
        epoch: row.try_get::<i64, _>("epoch")?.unsigned_abs(),
        step_kind: row.try_get("step_kind")?,
        direction: if undoes.is_some() { Direction::Undo } else { Direction::Execute },
        phase: phase(row)?,
        sequence: row.try_get::<i64, _>("sequence")?.unsigned_abs(),
        accept_us: row.try_get("accept_us")?,
        finish_us: row.try_get("finish_us")?,
        outcome: outcome(row)?,
    })
}

pub(super) fn resume(row: &SqliteRow, position: i64, sealer: &Sealer) -> sqlx::Result<Resume> {
    let key = key(row)?;
    let step: AgentStep = serde_json::from_str(row.try_get("step")?).map_err(decode)?;
    let undoes = match row.try_get::<Option<&str>, _>("undoes_operation_id")? {
        None => None,
        Some(id) => Some(UndoTarget {
            operation_id: id.parse().map_err(decode)?,
            effect: word_effect(row.try_get("undoes_effect")?),
        }),
    };
    let sealed: Option<&[u8]> = row.try_get("secrets")?;
    let (accept_us, deadline_us): (i64, Option<i64>) = (row.try_get("accept_us")?, row.try_get("deadline_us")?);
    let timeout_us = deadline_us.map(|deadline| deadline.saturating_sub(accept_us).max(0).unsigned_abs());
    Ok(Resume {
        position,
        phase: phase(row)?,
        identity: row.try_get("identity")?,
        deadline_us,
        order: Order {
            key,
            epoch: row.try_get::<i64, _>("epoch")?.unsigned_abs(),
            fingerprint: row.try_get("fingerprint")?,
            step,
            undoes,
            secrets: sealed.map(|sealed| sealer.unseal(&key, sealed)).transpose().map_err(decode)?.unwrap_or_default(),
            timeout: timeout_us.map(Duration::from_micros),
        },
    })
}

pub(super) fn attempt(operation_id: Uuid, row: &SqliteRow) -> sqlx::Result<Attempt> {
    let effect = outcome(row)?.map_or(Effect::Unknown, |outcome| outcome.effect());
    Ok(Attempt {
        key: Key { operation_id, attempt: row.try_get("attempt")? },
        is_over: phase(row)?.is_over(),
        is_undone: row.try_get("is_undone")?,
        undoes: Undoes { identity: row.try_get("identity")?, effect },
    })
}

pub(super) fn event(row: &SqliteRow) -> sqlx::Result<PhaseEvent> {
    Ok(PhaseEvent {
        sequence: row.try_get::<i64, _>("sequence")?.unsigned_abs(),
        phase: phase(row)?,
        time_us: row.try_get("time_us")?,
    })
}

pub(super) fn key(row: &SqliteRow) -> sqlx::Result<Key> {
    let operation_id: &str = row.try_get("operation_id")?;
    Ok(Key { operation_id: operation_id.parse().map_err(decode)?, attempt: row.try_get("attempt")? })
}

fn phase(row: &SqliteRow) -> sqlx::Result<Phase> {
    let number: i64 = row.try_get("phase")?;
    Phase::from_number(number).ok_or_else(|| decode(format!("{number} is no phase")))
}

/// An outcome that cannot be read is told as an unknown one, so that an undo still takes the attempt into account.
fn outcome(row: &SqliteRow) -> sqlx::Result<Option<Outcome>> {
    let text: Option<&str> = row.try_get("outcome")?;
    Ok(text.map(|text| {
        serde_json::from_str(text).unwrap_or_else(|error| {
            Outcome::interrupted("UNREADABLE_RECORD", format!("the outcome in the journal cannot be read: {error}"))
        })
    }))
}

fn word_effect(word: Option<&str>) -> Effect {
    match word {
        Some("none") => Effect::None,
        Some("done") => Effect::Done,
        _ => Effect::Unknown,
    }
}

fn decode(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

pub(super) fn log_unreadable(error: &sqlx::Error) {
    tracing::error!(error = crate::telemetry::chain(error), "a record of the journal cannot be read; it is left out");
}

pub(super) fn effect_word(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "none",
        Effect::Done => "done",
        Effect::Unknown => "unknown",
    }
}
