//! What the first pages of lists take when there is much to list.

use crate::{fleet::Fleet, line};
use serde_json::Value;
use sqlx::{ConnectOptions as _, Executor as _, sqlite::SqliteConnectOptions};
use std::path::Path;

const TASKS: u64 = 100_000;
const ASKED: usize = 30;
const AIM_MILLISECONDS: f64 = 20.0;
const PAGES: [(&str, &str); 3] = [
    ("hosts", "/api/v2/compute/hosts"),
    ("tasks", "/api/v2/tasks/instances"),
    ("failed tasks", "/api/v2/tasks/instances?status=FAILED"),
];

/// Asks a fleet whose tasks are copied until there are a hundred thousand.
pub(crate) async fn measure(fleet: &mut Fleet) -> Vec<Value> {
    fleet.restart(copy_tasks).await;
    let mut lines = Vec::new();
    for (name, path) in PAGES {
        let (_, total) = fleet.first_page(path).await;
        let mut times = Vec::new();
        for _ in 0..ASKED {
            times.push(fleet.first_page(path).await.0);
        }
        times.sort_by(f64::total_cmp);
        let name = format!("first page of {total} {name}, p50");
        lines.push(line(&name, times[ASKED / 2], "ms", AIM_MILLISECONDS, "lower", Some(1.0)));
    }
    let before = fleet.memory_mib("VmRSS:");
    for _ in 0..ASKED {
        for (_, path) in PAGES {
            fleet.first_page(&format!("{path}{}size=2000", if path.contains('?') { '&' } else { '?' })).await;
        }
    }
    let grown = fleet.memory_mib("VmRSS:") - before;
    lines.push(line("  memory after 90 pages of 2,000 rows", grown, "MiB", 64.0, "lower", Some(1.0)));
    lines
}

/// The rows of the newest task again and again, with ids of their own.
async fn copy_tasks(store: &Path) {
    let mut connection = SqliteConnectOptions::new().filename(store).connect().await.unwrap();
    let columns = async |connection: &mut sqlx::SqliteConnection, table: &str, own: &[&str]| {
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info(?) ORDER BY cid")
            .bind(table)
            .fetch_all(connection)
            .await
            .unwrap();
        let names = names.into_iter().filter(|name| !own.contains(&name.as_str()));
        let (plain, of_table): (Vec<_>, Vec<_>) = names.map(|name| (name.clone(), format!("{table}.{name}"))).unzip();
        (plain.join(", "), of_table.join(", "))
    };
    let (tasks, tasks_of) = columns(&mut connection, "tasks", &["id"]).await;
    let (subtasks, subtasks_of) = columns(&mut connection, "subtasks", &["id", "task_id"]).await;
    let numbers = format!(
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers \
         WHERE n < {TASKS} - (SELECT COUNT(*) FROM tasks)), newest (id) AS (SELECT MAX(id) FROM tasks)"
    );
    for copy in [
        format!(
            "{numbers} INSERT INTO tasks (id, {tasks}) SELECT newest.id + n, {tasks_of} \
             FROM tasks JOIN newest USING (id) CROSS JOIN numbers"
        ),
        format!(
            "WITH newest (id) AS (SELECT MAX(task_id) FROM subtasks) \
             INSERT INTO subtasks (id, task_id, {subtasks}) SELECT (SELECT MAX(id) FROM subtasks) \
             + ROW_NUMBER() OVER (), copy.id, {subtasks_of} FROM subtasks JOIN newest ON task_id = newest.id \
             JOIN tasks AS copy ON copy.id > newest.id"
        ),
        "UPDATE sequences SET next_value = (SELECT MAX(id) + 1 FROM tasks) WHERE name = 'task'".into(),
        "UPDATE sequences SET next_value = (SELECT MAX(id) + 1 FROM subtasks) WHERE name = 'subtask'".into(),
    ] {
        connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(copy))).await.unwrap();
    }
}
