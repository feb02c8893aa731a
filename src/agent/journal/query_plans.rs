//! No statement of the journal reads all operations: how long an order takes must not depend on how many there were.
//!
//! The statements are the literals in the files of this room. Those that are put together at run time are planned in
//! the forms that their builders give them.

use super::{Journal, records};
use sqlx::{AssertSqlSafe, Row as _};
use std::{fs, path::Path};

/// Indexes that hold nothing but what is not over yet.
const SMALL: &[&str] = &["unfinished"];

/// String literals of a file that are statements.
fn statements(source: &str) -> Vec<String> {
    let literals = source.split('"').skip(1).step_by(2);
    let is_statement = |text: &&str| ["SELECT ", "UPDATE ", "DELETE "].iter().any(|verb| text.starts_with(verb));
    // A backslash at the end of a line goes on with the next word.
    literals.filter(is_statement).map(|text| text.split("\\\n").map(str::trim_start).collect()).collect()
}

async fn plan(journal: &Journal, statement: &str) -> Vec<String> {
    let explain = format!("EXPLAIN QUERY PLAN {statement}");
    // A plan that is kept does not notice that an index is gone.
    let told = journal.read(move |connection| {
        Box::pin(async move {
            let rows = sqlx::query(AssertSqlSafe(explain)).persistent(false).fetch_all(connection).await?;
            rows.iter().map(|row| row.try_get("detail")).collect()
        })
    });
    told.await.unwrap_or_else(|error| panic!("{statement}: {error:?}"))
}

fn scans(plan: &[String]) -> bool {
    let by_small = |step: &str| SMALL.iter().any(|index| step.ends_with(&format!(" INDEX {index}")));
    let grows = |step: &&String| step.starts_with("SCAN ") && *step != "SCAN CONSTANT ROW" && !by_small(step);
    plan.iter().any(|step| grows(&step) || step.contains("AUTOMATIC"))
}

#[tokio::test]
async fn no_statement_reads_all_operations() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, _writer) = Journal::open(directory.path()).await.unwrap();
    let mut all = vec![records::list_statement(true), records::list_statement(false), records::find_statement()];
    let mut composed = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/agent/journal")).unwrap() {
        let path = entry.unwrap().path();
        if !["schema.rs", "query_plans.rs", "tests.rs"].iter().any(|name| path.ends_with(name)) {
            let source = fs::read_to_string(path).unwrap();
            composed += source.matches("AssertSqlSafe(").count();
            all.extend(statements(&source));
        }
    }
    assert_eq!(composed, 2, "a statement that is put together at run time has to be planned here as well");
    // The beginning that the composed ones share is none itself.
    all.retain(|statement| statement != records::RECORD);
    assert!(all.len() > 15, "{all:?}");

    for statement in &all {
        let plan = plan(&journal, statement).await;
        assert!(!scans(&plan), "{statement}\n    {}", plan.join("\n    "));
    }

    // Without its indexes the journal is found out.
    let drop_all = journal.write(|connection| {
        Box::pin(async move {
            let statements = "DROP INDEX undos; DROP INDEX unfinished; DROP INDEX collectable";
            sqlx::raw_sql(statements).execute(connection).await.map(drop)
        })
    });
    drop_all.await.unwrap();
    let mut found = 0;
    for statement in all.iter().filter(|statement| !statement.contains("INDEXED BY")) {
        found += usize::from(scans(&plan(&journal, statement).await));
    }
    assert!(found >= 4, "{found}");
}
