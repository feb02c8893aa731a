//! No statement of the store reads the whole of a table that grows: how long it takes must not depend on how long the
//! coordinator has been in use.
//!
//! The statements are the literals in the files of this room. Those that are put together at run time are planned in
//! the forms that their builders give them.

use super::{
    Store,
    agent::certificates,
    by_ids_query,
    host::{self, places},
    locks, obproxy, package, task,
};
use crate::graph::TaskStatus;
use sqlx::{Any, AssertSqlSafe, QueryBuilder, Row as _};
use std::{fs, path::Path};

/// Tables that nothing but the number of users, clusters and packages makes longer.
const SMALL: &[&str] = &["sequences", "users", "packages", "obproxy_clusters", "revoked_hosts", "root_server_lists"];

/// Statements that read a whole table because all of it is what they are asked for.
const WHOLE: &[&str] = &[
    // What Prometheus is to scrape.
    "SELECT * FROM obproxies ORDER BY id",
];

/// String literals of a file that are statements, without those that a builder goes on with.
fn statements(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(begin) = rest.find('"') {
        let (before, literal) = rest.split_at(begin);
        let literal = &literal[1..];
        let end = literal.find('"').expect("a literal ends");
        let text = &literal[..end];
        rest = &literal[end + 1..];
        let is_statement = ["SELECT ", "UPDATE ", "DELETE "].iter().any(|verb| text.starts_with(verb));
        if is_statement && !before.trim_end().ends_with("QueryBuilder::<Any>::new(") {
            // A backslash at the end of a line goes on with the next word.
            found.push(text.split("\\\n").map(str::trim_start).collect());
        }
    }
    found
}

fn files(directory: &Path) -> Vec<String> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            sources.extend(files(&path));
        } else if !["schema.rs", "query_plans.rs", "tests.rs"].contains(&name) {
            sources.push(fs::read_to_string(&path).unwrap());
        }
    }
    sources
}

/// Every combination of what a list can be narrowed by, each part of it alone included.
fn task_filters() -> Vec<task::TaskFilter> {
    let mut filters = Vec::new();
    for name in [None, Some("n".to_owned())] {
        for host_id in [None, Some(1)] {
            for cluster_id in [None, Some(1)] {
                for statuses in [vec![], vec![TaskStatus::Running], vec![TaskStatus::Running, TaskStatus::Failed]] {
                    let name = name.clone();
                    filters.push(task::TaskFilter { name, host_id, cluster_id, statuses, ascending: false });
                }
            }
        }
    }
    filters
}

fn host_filters() -> Vec<host::HostFilter> {
    use host::HostStatus::{New, Online};
    let mut filters = Vec::new();
    for keyword in [None, Some("k".to_owned())] {
        for statuses in [vec![], vec![New], vec![New, Online]] {
            filters.push(host::HostFilter { keyword: keyword.clone(), statuses });
        }
    }
    filters
}

/// Every filter alone, and all of them together.
fn package_filters() -> Vec<package::PackageFilter> {
    let all = package::PackageFilter {
        keyword: Some("k".into()),
        kinds: vec![package::PackageKind::Obproxy, package::PackageKind::Agent],
        versions: two_names(),
        operating_systems: two_names(),
        architectures: two_names(),
        ascending: true,
    };
    let none = package::PackageFilter::default;
    vec![
        none(),
        package::PackageFilter { keyword: all.keyword.clone(), ..none() },
        package::PackageFilter { kinds: all.kinds.clone(), ..none() },
        package::PackageFilter { versions: all.versions.clone(), ..none() },
        package::PackageFilter { operating_systems: all.operating_systems.clone(), ..none() },
        package::PackageFilter { architectures: all.architectures.clone(), ..none() },
        all,
    ]
}

fn two_names() -> Vec<String> {
    vec!["a".into(), "b".into()]
}

fn built() -> Vec<String> {
    let mut built: Vec<QueryBuilder<Any>> = Vec::new();
    for filter in task_filters() {
        built.push(task::count_query(&filter));
        built.push(task::page_query(&filter, 10, 0));
        built.push(task::page_query(&task::TaskFilter { ascending: true, ..filter }, 10, 0));
    }
    for filter in host_filters() {
        built.push(host::count_query(&filter));
        built.push(host::page_query(&filter, 10, 0));
    }
    for filter in package_filters() {
        built.push(package::count_query(&filter));
        built.push(package::page_query(&filter, 10, 0));
    }
    built.extend(["hosts", "obproxies", "tasks"].map(|table| by_ids_query(table, &[1, 2])));
    built.push(certificates::revocations_query(&two_names()));
    built.push(certificates::accepted_query(&two_names()));
    built.push(package::by_file_names_query(&two_names()));
    built.push(task::subtasks_query(&[1, 2]));
    built.push(task::load::events_query(&[1, 2]));
    built.push(host::addresses_query([1, 2]));
    built.push(host::known_query(&two_names()));
    built.push(host::follow_proxy_query(1));
    built.push(host::follow_proxies_query(&[1, 2]));
    built.push(places::find_query([1, 2]));
    built.push(places::idc_names_query([1, 2]));
    built.push(obproxy::proxies_query("cluster_id", &[1, 2]));
    built.push(obproxy::proxies_query("host_id", &[1, 2]));
    built.push(obproxy::names_query([1, 2]));
    built.push(locks::release_query(&[task::TaskId(1), task::TaskId(2)]));
    built.extend(task::append_all::some_queries());
    built.push(task::claim_query(1, &[1, 2]));
    built.push(task::acknowledged_query(&[(task::TaskId(1), 1), (task::TaskId(2), 1)]));
    for own in [None, Some(task::TaskId(1))] {
        built.extend([true, false].map(|exclusive| locks::conflict_query(own, "host", exclusive, &[1, 2])));
    }
    built.iter().map(|query| query.sql().as_str().to_owned()).collect()
}

/// Pages of everything are told with the number of everything, and cost what lies before them.
fn may_walk(statement: &str, plan: &[String]) -> bool {
    let conditions = statement.split_once(" WHERE ").map_or("1 = 1", |(_, conditions)| conditions);
    let narrowed = !conditions.starts_with("1 = 1") || conditions.contains(" AND ");
    let is_count = statement.starts_with("SELECT COUNT(*) FROM ");
    let is_page = statement.ends_with(" OFFSET ?") && !plan.iter().any(|step| step.contains("TEMP B-TREE"));
    // A part of a name is found by no index, and the largest fleet has some ten thousand hosts.
    let searches_hosts = statement.contains("FROM hosts WHERE 1 = 1 AND (INSTR(") && !statement.contains("status IN");
    searches_hosts || WHOLE.contains(&statement) || ((is_count || is_page) && !narrowed)
}

async fn scans(store: &Store, statements: &[String]) -> Vec<String> {
    let mut scans = Vec::new();
    for statement in statements {
        let mut query = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")));
        for _ in 0..statement.matches('?').count() {
            query = query.bind(1_i64);
        }
        let rows = query.fetch_all(store.readers()).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let scanned = plan.iter().filter_map(|step| step.strip_prefix("SCAN ")?.split(' ').next());
        let grows = |table: &str| !SMALL.contains(&table) && table != "CONSTANT";
        if scanned.into_iter().any(grows) && !may_walk(statement, &plan) {
            scans.push(format!("{statement}\n    {}", plan.join("\n    ")));
        }
    }
    scans
}

#[tokio::test]
async fn no_statement_scans_a_table_that_grows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = Store::open(&path).await.unwrap();
    let sources = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/coordinator/store"));
    let builders: usize = sources.iter().map(|source| source.matches("QueryBuilder::<Any>::new(").count()).sum();
    assert_eq!(builders, 34, "a statement that is put together at run time has to be planned here as well");
    let mut all: Vec<String> = sources.iter().flat_map(|source| statements(source)).collect();
    assert!(all.len() > 60, "{}", all.len());
    all.extend(built());

    let found = scans(&store, &all).await;
    assert!(found.is_empty(), "\n{}", found.join("\n"));

    // Without its indexes the store is found out.
    let mut transaction = store.begin().await.unwrap();
    let names = sqlx::query("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL");
    for row in names.fetch_all(&mut *transaction).await.unwrap() {
        let drop = AssertSqlSafe(format!("DROP INDEX {}", row.get::<String, _>(0)));
        sqlx::query(drop).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    store.close().await;
    // A connection that only explains does not notice that others have changed the schema.
    let store = Store::open(&path).await.unwrap();
    let found = scans(&store, &all).await;
    assert!(found.len() > 20, "\n{}", found.join("\n"));
}
