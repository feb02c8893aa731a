//! Tables of the journal and the way from each version to the next.

use super::OpenError;
use sqlx::SqliteConnection;
use std::path::Path;

/// Step `n` leads from version `n` to `n + 1`. A step that was released is never edited.
const MIGRATIONS: &[&str] = &[
    "
CREATE TABLE operations (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    operation_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    step_kind TEXT NOT NULL,
    step TEXT NOT NULL,
    undoes_operation_id TEXT,
    undoes_effect TEXT,
    lock TEXT,
    secrets BLOB,
    deadline_us INTEGER,
    phase INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    identity TEXT,
    accept_us INTEGER NOT NULL,
    finish_us INTEGER,
    outcome TEXT,
    UNIQUE (operation_id, attempt)
) STRICT;
CREATE INDEX unfinished ON operations (position) WHERE phase < 4;
CREATE INDEX acknowledged ON operations (finish_us) WHERE phase = 5;
CREATE TABLE events (
    position INTEGER NOT NULL REFERENCES operations (position) ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    phase INTEGER NOT NULL,
    time_us INTEGER NOT NULL,
    PRIMARY KEY (position, sequence)
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('epoch', 0);
",
    "
-- A record whose phase is damaged is unfinished until recovery gives it up.
DROP INDEX unfinished;
CREATE INDEX unfinished ON operations (position) WHERE phase NOT IN (4, 5);
-- An operation that was canceled before it arrived has no fingerprint, and nobody has to acknowledge it.
DROP INDEX acknowledged;
CREATE INDEX collectable ON operations (finish_us) WHERE phase = 5 OR fingerprint = '';
",
];

/// Made at every start instead of by a migration: an index changes nothing for an agent of the version before, which has
/// to be able to come back after an upgrade.
const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS undos ON operations (undoes_operation_id, attempt) WHERE undoes_operation_id IS NOT NULL;
";

pub(super) async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let database = |source| OpenError::Database { path: path.into(), source };
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let found = upgrade(connection).await.map_err(database)?;
    if found > known {
        return Err(OpenError::Newer { path: path.into(), found, known });
    }
    Ok(())
}

/// Brings the tables to the latest version, in one transaction; answers the version that was found.
async fn upgrade(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::raw_sql(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
         INSERT OR IGNORE INTO meta (name, value) VALUES ('schema', 0);",
    )
    .execute(&mut *connection)
    .await?;
    let found: i64 =
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'").fetch_one(&mut *connection).await?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(usize::MAX)) {
        sqlx::raw_sql(*migration).execute(&mut *connection).await?;
        sqlx::query("UPDATE meta SET value = value + 1 WHERE name = 'schema'").execute(&mut *connection).await?;
    }
    if usize::try_from(found).is_ok_and(|found| found <= MIGRATIONS.len()) {
        sqlx::raw_sql(INDEXES).execute(&mut *connection).await?;
    }
    sqlx::query("COMMIT").execute(connection).await?;
    Ok(found)
}
