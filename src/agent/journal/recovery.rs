//! What the agent finds unfinished when it starts.

use super::{
    Journal, JournalError,
    records::{encode, note},
    rows::{Resume, key, resume},
};
use crate::agent::operation::{Outcome, Phase, now_us};
use sqlx::Row as _;

/// What recovery finds.
#[derive(Debug)]
pub enum Unfinished {
    Readable(Box<Resume>),
    Unreadable {
        position: i64,
        /// Its name can be read, so that somebody may come and ask for it.
        is_named: bool,
        problem: String,
    },
}

/// An operation that ends because nobody can carry it on.
#[derive(Debug)]
pub struct GivenUp {
    pub position: i64,
    pub outcome: Outcome,
    /// Nobody can ever acknowledge a record whose name is lost, so it counts as acknowledged.
    pub is_named: bool,
}

impl Journal {
    /// Every operation that is not over, and every one whose phase makes no sense.
    pub async fn unfinished(&self) -> Result<Vec<Unfinished>, JournalError> {
        let sealer = self.sealer.clone();
        self.read(move |connection| {
            Box::pin(async move {
                let rows = sqlx::query("SELECT * FROM operations WHERE phase NOT IN (4, 5) ORDER BY position")
                    .fetch_all(connection)
                    .await?;
                rows.iter()
                    .map(|row| {
                        let position = row.try_get("position")?;
                        Ok(match resume(row, position, &sealer) {
                            Ok(resume) => Unfinished::Readable(Box::new(resume)),
                            Err(error) => Unfinished::Unreadable {
                                position,
                                is_named: key(row).is_ok(),
                                problem: error.to_string(),
                            },
                        })
                    })
                    .collect()
            })
        })
        .await
    }

    /// Ends them all in one commit; an outcome that is there already stays.
    pub async fn give_up(&self, operations: Vec<GivenUp>) -> Result<(), JournalError> {
        if operations.is_empty() {
            return Ok(());
        }
        let told: Result<Vec<_>, _> = operations
            .into_iter()
            .map(|operation| {
                let phase = if operation.is_named { Phase::Finished } else { Phase::Acknowledged };
                serde_json::to_string(&operation.outcome).map(|outcome| (operation.position, phase, outcome))
            })
            .collect();
        let told = told.map_err(encode)?;
        self.write(move |connection| {
            Box::pin(async move {
                for (position, phase, outcome) in told {
                    let sequence = sqlx::query_scalar(
                        "UPDATE operations SET phase = ?, sequence = sequence + 1, finish_us = coalesce(finish_us, ?), \
                         outcome = coalesce(outcome, ?), secrets = NULL \
                         WHERE position = ? AND phase NOT IN (4, 5) RETURNING sequence",
                    )
                    .bind(phase as i64)
                    .bind(now_us())
                    .bind(outcome)
                    .bind(position)
                    .fetch_optional(&mut *connection)
                    .await?;
                    note(connection, position, sequence, Phase::Finished).await?;
                }
                Ok(())
            })
        })
        .await
    }
}
