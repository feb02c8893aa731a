//! What the journal no longer needs.
//!
//!  1. An outcome stays until it is acknowledged, however long that takes.
//!  2. An acknowledged record goes when its retention is over.
//!  3. So does the note that an operation was canceled before it came, acknowledged or not: it holds no outcome that
//!     the coordinator lacks, and no call stays under way for that long.

use super::{Journal, JournalError, rows::key};
use crate::agent::operation::{Key, Phase};
use sqlx::Row as _;

/// An operation whose retention is over.
#[derive(Debug)]
pub struct Expired {
    pub position: i64,
    /// None if it cannot be read.
    pub key: Option<Key>,
}

/// What the journal says of the files of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The outcome is not safe with the coordinator, or the record cannot be read.
    Needed,
    Acknowledged,
    /// There is no record.
    Forgotten,
}

impl Journal {
    /// Operations that finished before `before_us` and may be forgotten, at most a hundred.
    pub async fn expired(&self, before_us: i64) -> Result<Vec<Expired>, JournalError> {
        self.read(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "SELECT position, operation_id, attempt FROM operations \
                     WHERE (phase = 5 OR fingerprint = '') AND finish_us < ? ORDER BY finish_us LIMIT 100",
                )
                .bind(before_us)
                .fetch_all(connection)
                .await?
                .iter()
                .map(|row| Ok(Expired { position: row.try_get("position")?, key: key(row).ok() }))
                .collect()
            })
        })
        .await
    }

    pub async fn forget(&self, positions: Vec<i64>) -> Result<(), JournalError> {
        self.write(move |connection| {
            Box::pin(async move {
                for position in positions {
                    sqlx::query("DELETE FROM operations WHERE position = ? AND (phase = 5 OR fingerprint = '')")
                        .bind(position)
                        .execute(&mut *connection)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// In the order of `keys`.
    pub async fn needs(&self, keys: Vec<Key>) -> Result<Vec<Need>, JournalError> {
        self.read(move |connection| {
            Box::pin(async move {
                let mut needs = Vec::with_capacity(keys.len());
                for key in keys {
                    let phase: Option<i64> =
                        sqlx::query_scalar("SELECT phase FROM operations WHERE operation_id = ? AND attempt = ?")
                            .bind(key.operation_id.to_string())
                            .bind(key.attempt)
                            .fetch_optional(&mut *connection)
                            .await?;
                    needs.push(match phase.map(Phase::from_number) {
                        None => Need::Forgotten,
                        Some(Some(Phase::Acknowledged)) => Need::Acknowledged,
                        Some(_) => Need::Needed,
                    });
                }
                Ok(needs)
            })
        })
        .await
    }
}
