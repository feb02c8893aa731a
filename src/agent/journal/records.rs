//! What is asked of the journal, as SQL.

use super::{
    Journal, JournalError,
    rows::{Attempt, attempt, effect_word, event, log_unreadable, record},
};
use crate::agent::operation::{Key, Order, Outcome, Phase, PhaseEvent, Record, UndoTarget, now_us};
use crate::graph::Direction;
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection};
use uuid::Uuid;

/// Answer to the wish to carry out an operation.
#[derive(Debug)]
pub enum Accepted {
    /// It is on disk and has to be begun.
    Fresh(Record),
    /// It was accepted before; this is how it stands.
    Known(Record),
    OtherContent,
    /// A later attempt, or an undo of this one, was accepted before: the call was late.
    Superseded,
    StaleEpoch {
        highest: u64,
    },
    Locked {
        lock: String,
        holder: String,
    },
}

/// Answer to the wish that an operation ends.
#[derive(Debug)]
pub enum Canceled {
    /// It is known, and may still run.
    Known(Record),
    /// Nobody has submitted it yet. It is on disk that it is over, so a Submit that is still under way runs nothing.
    BeforeItCame(Record),
    StaleEpoch {
        highest: u64,
    },
}

/// Answer to an acknowledgement.
#[derive(Debug, PartialEq, Eq)]
pub enum Acknowledged {
    Done,
    Unknown,
    NotFinished,
    StaleEpoch { highest: u64 },
}

/// A part of the journal.
#[derive(Debug)]
pub struct Page {
    pub records: Vec<Record>,
    /// Where the next part begins.
    pub next: Option<i64>,
}

/// Fingerprint of an operation that was canceled before it came; a Submit always has another one.
const CANCELED_UNSEEN: &str = "";

pub(super) const RECORD: &str = "SELECT position, operation_id, attempt, epoch, step_kind, undoes_operation_id, phase, sequence, \
                      accept_us, finish_us, outcome FROM operations";

impl Journal {
    /// Takes the operation and its lock, unless something speaks against it.
    pub async fn accept(&self, order: &Order) -> Result<Accepted, JournalError> {
        if let Some(highest) = self.hear(order.epoch) {
            return Ok(Accepted::StaleEpoch { highest });
        }
        let order = order.clone();
        let step = serde_json::to_string(&order.step).map_err(encode)?;
        let sealed = self.sealer.seal(&order.key, &order.secrets).map_err(encode)?;
        self.write(move |connection| {
            Box::pin(async move {
                if let Some(highest) = claim(connection, order.epoch).await? {
                    return Ok(Accepted::StaleEpoch { highest });
                }
                if let Some((record, fingerprint)) = find(connection, order.key).await? {
                    // Canceled before it came: whatever it was to be, it is over.
                    let same = fingerprint == order.fingerprint || fingerprint == CANCELED_UNSEEN;
                    return Ok(if same { Accepted::Known(record) } else { Accepted::OtherContent });
                }
                if order.undoes.is_none() && is_superseded(connection, order.key).await? {
                    return Ok(Accepted::Superseded);
                }
                let lock = order.step.lock();
                if let Some(lock) = &lock
                    && let Some(holder) = holder(connection, lock, order.undoes).await?
                {
                    return Ok(Accepted::Locked { lock: lock.clone(), holder });
                }
                insert(connection, order, step, lock, sealed).await.map(Accepted::Fresh)
            })
        })
        .await
    }

    /// Notes that an unfinished operation reached `phase`; false when it is over already.
    pub async fn advance(&self, position: i64, phase: Phase, identity: Option<String>) -> Result<bool, JournalError> {
        self.write(move |connection| {
            Box::pin(async move {
                let sequence: Option<i64> = sqlx::query_scalar(
                    "UPDATE operations SET phase = ?, sequence = sequence + 1, identity = coalesce(?, identity) \
                     WHERE position = ? AND phase < 4 RETURNING sequence",
                )
                .bind(phase as i64)
                .bind(identity)
                .bind(position)
                .fetch_optional(&mut *connection)
                .await?;
                note(connection, position, sequence, phase).await
            })
        })
        .await
    }

    /// Notes the outcome, gives the lock back and wipes the secrets. A second outcome is not taken.
    pub async fn finish(&self, position: i64, outcome: &Outcome) -> Result<bool, JournalError> {
        let outcome = serde_json::to_string(outcome).map_err(encode)?;
        self.write(move |connection| {
            Box::pin(async move {
                let sequence: Option<i64> = sqlx::query_scalar(
                    "UPDATE operations SET phase = 4, sequence = sequence + 1, finish_us = ?, outcome = ?, \
                     secrets = NULL WHERE position = ? AND phase < 4 RETURNING sequence",
                )
                .bind(now_us())
                .bind(outcome)
                .bind(position)
                .fetch_optional(&mut *connection)
                .await?;
                note(connection, position, sequence, Phase::Finished).await
            })
        })
        .await
    }

    /// Answers the operation, or notes that it ended before it came: a record without a step, finished as canceled.
    pub async fn cancel(&self, key: Key, epoch: u64) -> Result<Canceled, JournalError> {
        if let Some(highest) = self.hear(epoch) {
            return Ok(Canceled::StaleEpoch { highest });
        }
        let outcome = Outcome::canceled_unseen();
        let told = serde_json::to_string(&outcome).map_err(encode)?;
        self.write(move |connection| {
            Box::pin(async move {
                if let Some(highest) = claim(connection, epoch).await? {
                    return Ok(Canceled::StaleEpoch { highest });
                }
                if let Some((record, _)) = find(connection, key).await? {
                    return Ok(Canceled::Known(record));
                }
                insert_canceled(connection, key, epoch, outcome, told).await.map(Canceled::BeforeItCame)
            })
        })
        .await
    }

    pub async fn acknowledge(&self, key: Key, epoch: u64) -> Result<Acknowledged, JournalError> {
        if let Some(highest) = self.hear(epoch) {
            return Ok(Acknowledged::StaleEpoch { highest });
        }
        self.write(move |connection| {
            Box::pin(async move {
                if let Some(highest) = claim(connection, epoch).await? {
                    return Ok(Acknowledged::StaleEpoch { highest });
                }
                let Some((record, _)) = find(connection, key).await? else { return Ok(Acknowledged::Unknown) };
                match record.phase {
                    Phase::Acknowledged => Ok(Acknowledged::Done),
                    Phase::Accepted | Phase::Starting | Phase::Running => Ok(Acknowledged::NotFinished),
                    Phase::Finished => {
                        let sequence = sqlx::query_scalar(
                            "UPDATE operations SET phase = 5, sequence = sequence + 1 WHERE position = ? \
                             RETURNING sequence",
                        )
                        .bind(record.position)
                        .fetch_optional(&mut *connection)
                        .await?;
                        note(connection, record.position, sequence, Phase::Acknowledged).await?;
                        Ok(Acknowledged::Done)
                    }
                }
            })
        })
        .await
    }

    pub async fn get(&self, key: Key) -> Result<Option<Record>, JournalError> {
        self.read(move |connection| Box::pin(async move { Ok(find(connection, key).await?.map(|(record, _)| record)) }))
            .await
    }

    /// Operations accepted after `position`, oldest first. What cannot be read is left out.
    pub async fn list(&self, position: i64, limit: u32, unfinished_only: bool) -> Result<Page, JournalError> {
        self.read(move |connection| {
            Box::pin(async move {
                let rows = sqlx::query(AssertSqlSafe(list_statement(unfinished_only)))
                    .bind(position)
                    .bind(limit)
                    .fetch_all(connection)
                    .await?;
                let full = rows.len() >= limit as usize;
                let next = rows.last().filter(|_| full).map(|row| row.try_get("position")).transpose()?;
                let readable = |row| record(row).inspect_err(log_unreadable).ok();
                Ok(Page { records: rows.iter().filter_map(readable).collect(), next })
            })
        })
        .await
    }

    pub async fn events(&self, position: i64, after: u64) -> Result<Vec<PhaseEvent>, JournalError> {
        self.read(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "SELECT sequence, phase, time_us FROM events WHERE position = ? AND sequence > ? ORDER BY sequence",
                )
                .bind(position)
                .bind(number(after))
                .fetch_all(connection)
                .await?
                .iter()
                .map(event)
                .collect()
            })
        })
        .await
    }

    /// Every attempt of an operation that was ever accepted here; what was canceled before it came left nothing.
    pub async fn attempts(&self, operation_id: Uuid) -> Result<Vec<Attempt>, JournalError> {
        self.read(move |connection| {
            Box::pin(async move {
                let rows = sqlx::query(
                    "SELECT attempt, phase, identity, outcome, position < coalesce((SELECT max(undo.position) \
                     FROM operations AS undo WHERE undo.undoes_operation_id = ?1 AND CASE json_valid(undo.outcome) \
                     WHEN 1 THEN json_extract(undo.outcome, '$.result') = 'succeeded' END), 0) AS is_undone \
                     FROM operations WHERE operation_id = ?1 AND fingerprint <> ?2 ORDER BY attempt",
                )
                .bind(operation_id.to_string())
                .bind(CANCELED_UNSEEN)
                .fetch_all(connection)
                .await?;
                rows.iter().map(|row| attempt(operation_id, row)).collect()
            })
        })
        .await
    }
}

pub(super) async fn highest(connection: &mut SqliteConnection) -> sqlx::Result<u64> {
    let epoch: i64 = sqlx::query_scalar("SELECT value FROM meta WHERE name = 'epoch'").fetch_one(connection).await?;
    Ok(epoch.unsigned_abs())
}

async fn claim(connection: &mut SqliteConnection, epoch: u64) -> sqlx::Result<Option<u64>> {
    let highest = highest(connection).await?;
    if epoch > highest {
        sqlx::query("UPDATE meta SET value = ? WHERE name = 'epoch'").bind(number(epoch)).execute(connection).await?;
    }
    Ok((epoch < highest).then_some(highest))
}

/// SQLite would rather go through all that is over than use an index that it knows nothing of.
pub(super) fn list_statement(unfinished_only: bool) -> String {
    let which = if unfinished_only {
        "INDEXED BY unfinished WHERE position > ? AND phase NOT IN (4, 5)"
    } else {
        "WHERE position > ?"
    };
    format!("{RECORD} {which} ORDER BY position LIMIT ?")
}

pub(super) fn find_statement() -> String {
    RECORD.replacen(" FROM ", ", fingerprint FROM ", 1) + " WHERE operation_id = ? AND attempt = ?"
}

async fn find(connection: &mut SqliteConnection, key: Key) -> sqlx::Result<Option<(Record, String)>> {
    let row = sqlx::query(AssertSqlSafe(find_statement()))
        .bind(key.operation_id.to_string())
        .bind(key.attempt)
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((record(&row)?, row.try_get("fingerprint")?))).transpose()
}

/// A retry undoes under the number of the attempt that follows, so an undo of a higher number is later.
async fn is_superseded(connection: &mut SqliteConnection, key: Key) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM operations WHERE operation_id = ?1 AND attempt > ?2) \
         OR EXISTS (SELECT 1 FROM operations WHERE undoes_operation_id = ?1 AND attempt > ?2)",
    )
    .bind(key.operation_id.to_string())
    .bind(key.attempt)
    .fetch_one(connection)
    .await
}

/// Who holds the lock. An undo passes the operation that it takes back, because it first ends it.
async fn holder(
    connection: &mut SqliteConnection,
    lock: &str,
    undoes: Option<UndoTarget>,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "SELECT operation_id FROM operations WHERE lock = ? AND phase NOT IN (4, 5) AND operation_id <> ? LIMIT 1",
    )
    .bind(lock)
    .bind(undoes.map(|target| target.operation_id.to_string()).unwrap_or_default())
    .fetch_optional(connection)
    .await
}

async fn insert(
    connection: &mut SqliteConnection,
    order: Order,
    step: String,
    lock: Option<String>,
    sealed: Option<Vec<u8>>,
) -> sqlx::Result<Record> {
    let now = now_us();
    let deadline =
        order.timeout.map(|timeout| now.saturating_add(i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX)));
    let position = sqlx::query_scalar(
        "INSERT INTO operations (operation_id, attempt, epoch, fingerprint, step_kind, step, undoes_operation_id, \
         undoes_effect, lock, secrets, deadline_us, phase, sequence, accept_us) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 1, ?) RETURNING position",
    )
    .bind(order.key.operation_id.to_string())
    .bind(order.key.attempt)
    .bind(number(order.epoch))
    .bind(&order.fingerprint)
    .bind(order.step.kind())
    .bind(step)
    .bind(order.undoes.map(|target| target.operation_id.to_string()))
    .bind(order.undoes.map(|target| effect_word(target.effect)))
    .bind(lock)
    .bind(sealed)
    .bind(deadline)
    .bind(now)
    .fetch_one(&mut *connection)
    .await?;
    note(connection, position, Some(1), Phase::Accepted).await?;
    Ok(Record {
        position,
        key: order.key,
        epoch: order.epoch,
        step_kind: order.step.kind().into(),
        direction: order.direction(),
        phase: Phase::Accepted,
        sequence: 1,
        accept_us: now,
        finish_us: None,
        outcome: None,
    })
}

async fn insert_canceled(
    connection: &mut SqliteConnection,
    key: Key,
    epoch: u64,
    outcome: Outcome,
    told: String,
) -> sqlx::Result<Record> {
    let now = now_us();
    let position = sqlx::query_scalar(
        "INSERT INTO operations (operation_id, attempt, epoch, fingerprint, step_kind, step, phase, sequence, \
         accept_us, finish_us, outcome) VALUES (?, ?, ?, ?, '', '', 4, 1, ?, ?, ?) RETURNING position",
    )
    .bind(key.operation_id.to_string())
    .bind(key.attempt)
    .bind(number(epoch))
    .bind(CANCELED_UNSEEN)
    .bind(now)
    .bind(now)
    .bind(told)
    .fetch_one(&mut *connection)
    .await?;
    note(connection, position, Some(1), Phase::Finished).await?;
    Ok(Record {
        position,
        key,
        epoch,
        step_kind: String::new(),
        direction: Direction::Execute,
        phase: Phase::Finished,
        sequence: 1,
        accept_us: now,
        finish_us: Some(now),
        outcome: Some(outcome),
    })
}

/// Adds the event of a change that took place; answers whether it did. A damaged sequence number costs an older event,
/// never the journal.
pub(super) async fn note(
    connection: &mut SqliteConnection,
    position: i64,
    sequence: Option<i64>,
    phase: Phase,
) -> sqlx::Result<bool> {
    let Some(sequence) = sequence else { return Ok(false) };
    sqlx::query("INSERT OR REPLACE INTO events (position, sequence, phase, time_us) VALUES (?, ?, ?, ?)")
        .bind(position)
        .bind(sequence)
        .bind(phase as i64)
        .bind(now_us())
        .execute(connection)
        .await?;
    Ok(true)
}

/// SQLite's integers are signed; the edge refuses epochs beyond them.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn encode(error: impl std::error::Error + Send + Sync + 'static) -> JournalError {
    JournalError::Encode(Box::new(error))
}
