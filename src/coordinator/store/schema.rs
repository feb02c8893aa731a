//! Migrations, forward only. One statement each, because MySQL commits every DDL statement by itself.
//! A statement that was released is never edited: its text is its checksum.
//!
//! The list is written for SQLite. [`Dialect::MySql`] makes of each statement the one that means the same there: TEXT
//! would end at 64 KiB, and names would be equal in any case.

use sqlx::{
    AssertSqlSafe, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};
use std::borrow::Cow;

const STATEMENTS: &[(&str, &str)] = &[
    ("sequences", "CREATE TABLE sequences (name VARCHAR(64) PRIMARY KEY, next_value BIGINT NOT NULL)"),
    (
        "first ids",
        "INSERT INTO sequences (name, next_value) VALUES \
         ('epoch', 1), ('task', 1), ('subtask', 1), ('host', 1), ('package', 1), ('obproxy_cluster', 1), \
         ('obproxy', 1), ('user', 100)",
    ),
    (
        "users",
        "CREATE TABLE users (id BIGINT PRIMARY KEY, name VARCHAR(64) NOT NULL UNIQUE, \
         password_hash TEXT NOT NULL, created_at BIGINT NOT NULL)",
    ),
    (
        "hosts",
        "CREATE TABLE hosts (id BIGINT PRIMARY KEY, inner_ip VARCHAR(64) NOT NULL UNIQUE, \
         agent_port BIGINT NOT NULL, metrics_port BIGINT NOT NULL, status VARCHAR(32) NOT NULL, \
         details TEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)",
    ),
    (
        "packages",
        "CREATE TABLE packages (id BIGINT PRIMARY KEY, file_name VARCHAR(191) NOT NULL UNIQUE, \
         kind VARCHAR(64) NOT NULL, size_bytes BIGINT NOT NULL, installed_bytes BIGINT NOT NULL, \
         sha1 VARCHAR(40) NOT NULL, sha256 VARCHAR(64) NOT NULL, created_at BIGINT NOT NULL)",
    ),
    (
        "obproxy clusters",
        "CREATE TABLE obproxy_clusters (id BIGINT PRIMARY KEY, name VARCHAR(64) NOT NULL UNIQUE, \
         address VARCHAR(255), port BIGINT, work_mode VARCHAR(16) NOT NULL, ob_links TEXT NOT NULL, \
         startup_parameters TEXT NOT NULL, parameters TEXT NOT NULL, parameter_version BIGINT NOT NULL, \
         secrets TEXT NOT NULL, creator VARCHAR(64) NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)",
    ),
    (
        "obproxies",
        "CREATE TABLE obproxies (id BIGINT PRIMARY KEY, cluster_id BIGINT NOT NULL, host_id BIGINT NOT NULL, \
         sql_port BIGINT NOT NULL, exporter_port BIGINT NOT NULL, version VARCHAR(191) NOT NULL, \
         architecture VARCHAR(32) NOT NULL, status VARCHAR(32) NOT NULL, parameter_version BIGINT NOT NULL, \
         created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, \
         UNIQUE (host_id, sql_port))",
    ),
    (
        "tasks",
        "CREATE TABLE tasks (id BIGINT PRIMARY KEY, name VARCHAR(128) NOT NULL, status VARCHAR(16) NOT NULL, \
         operation VARCHAR(16) NOT NULL, creator VARCHAR(64) NOT NULL, executor VARCHAR(64) NOT NULL, \
         host_id BIGINT, cluster_id BIGINT, plan TEXT NOT NULL, epoch BIGINT NOT NULL, \
         next_sequence BIGINT NOT NULL, trace_id VARCHAR(16) NOT NULL, created_at BIGINT NOT NULL, \
         finished_at BIGINT)",
    ),
    ("tasks by status", "CREATE INDEX tasks_by_status ON tasks (status, id)"),
    (
        "subtasks",
        "CREATE TABLE subtasks (id BIGINT PRIMARY KEY, task_id BIGINT NOT NULL, node BIGINT NOT NULL, \
         status VARCHAR(16) NOT NULL, operation VARCHAR(16) NOT NULL, run_time BIGINT NOT NULL, \
         started_at BIGINT, finished_at BIGINT, failure TEXT, UNIQUE (task_id, node))",
    ),
    (
        "task events",
        "CREATE TABLE task_events (task_id BIGINT NOT NULL, sequence BIGINT NOT NULL, node BIGINT, attempt BIGINT, \
         kind VARCHAR(32) NOT NULL, payload TEXT NOT NULL, epoch BIGINT NOT NULL, created_at BIGINT NOT NULL, \
         PRIMARY KEY (task_id, sequence), UNIQUE (task_id, node, attempt, kind))",
    ),
    (
        "subtask logs",
        "CREATE TABLE subtask_logs (task_id BIGINT NOT NULL, node BIGINT NOT NULL, attempt BIGINT NOT NULL, \
         part BIGINT NOT NULL, text TEXT NOT NULL, agent_offset BIGINT NOT NULL, \
         PRIMARY KEY (task_id, node, attempt, part))",
    ),
    // Why a task cannot be taken up by this program; its status is FAILED then.
    ("problem of a task", "ALTER TABLE tasks ADD COLUMN problem TEXT"),
    (
        "object locks",
        "CREATE TABLE object_locks (object_kind VARCHAR(32) NOT NULL, object_id BIGINT NOT NULL, \
         task_id BIGINT NOT NULL, exclusive BIGINT NOT NULL, PRIMARY KEY (object_kind, object_id, task_id))",
    ),
    ("object locks by task", "CREATE INDEX object_locks_by_task ON object_locks (task_id)"),
    (
        "idempotent requests",
        "CREATE TABLE idempotent_requests (user_name VARCHAR(64) NOT NULL, request_key VARCHAR(191) NOT NULL, \
         fingerprint VARCHAR(64) NOT NULL, task_ids TEXT NOT NULL, created_at BIGINT NOT NULL, \
         PRIMARY KEY (user_name, request_key))",
    ),
    (
        "audit events",
        "CREATE TABLE audit_events (id BIGINT PRIMARY KEY, created_at BIGINT NOT NULL, user_name VARCHAR(64) NOT NULL, \
         action VARCHAR(64) NOT NULL, object VARCHAR(191) NOT NULL, detail TEXT NOT NULL, trace_id VARCHAR(16) NOT NULL)",
    ),
    // 1: the agents know that all its outcomes are safe.
    ("acknowledged tasks", "ALTER TABLE tasks ADD COLUMN acknowledged BIGINT NOT NULL DEFAULT 0"),
    ("ids of audit events", "INSERT INTO sequences (name, next_value) VALUES ('audit_event', 1)"),
    // Logs of a task that were written before this are gone.
    ("retention of logs", "ALTER TABLE tasks ADD COLUMN logs_removed_at BIGINT"),
    (
        "enrolment tokens",
        "CREATE TABLE enrolment_tokens (id BIGINT PRIMARY KEY, token_hash VARCHAR(64) NOT NULL UNIQUE, \
         address VARCHAR(64) NOT NULL, any_source BIGINT NOT NULL, creator VARCHAR(64) NOT NULL, \
         status VARCHAR(16) NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL, used_at BIGINT, \
         used_from VARCHAR(64), certificate_serial VARCHAR(64))",
    ),
    ("ids of enrolment tokens", "INSERT INTO sequences (name, next_value) VALUES ('enrolment_token', 1)"),
    (
        "agent certificates",
        "CREATE TABLE agent_certificates (serial VARCHAR(64) PRIMARY KEY, address VARCHAR(64) NOT NULL, \
         fingerprint VARCHAR(96) NOT NULL, status VARCHAR(16) NOT NULL, issued_at BIGINT NOT NULL, \
         not_before BIGINT NOT NULL, not_after BIGINT NOT NULL)",
    ),
    ("agent certificates by address", "CREATE INDEX agent_certificates_by_address ON agent_certificates (address)"),
    (
        "revoked hosts",
        "CREATE TABLE revoked_hosts (address VARCHAR(64) PRIMARY KEY, revoked_at BIGINT NOT NULL, \
         revoked_by VARCHAR(64) NOT NULL)",
    ),
    ("RPC port of proxies", "ALTER TABLE obproxies ADD COLUMN rpc_port BIGINT"),
    ("tasks by acknowledgement", "CREATE INDEX tasks_by_acknowledged ON tasks (acknowledged, id)"),
    ("tasks by host", "CREATE INDEX tasks_by_host ON tasks (host_id, id)"),
    ("tasks by cluster", "CREATE INDEX tasks_by_cluster ON tasks (cluster_id, id)"),
    ("tasks by name", "CREATE INDEX tasks_by_name ON tasks (name, id)"),
    ("tasks by end", "CREATE INDEX tasks_by_finished ON tasks (finished_at, id)"),
    ("obproxies by cluster", "CREATE INDEX obproxies_by_cluster ON obproxies (cluster_id)"),
    ("obproxies by version", "CREATE INDEX obproxies_by_version ON obproxies (version)"),
    ("audit events by time", "CREATE INDEX audit_events_by_time ON audit_events (created_at)"),
    ("requests by time", "CREATE INDEX idempotent_requests_by_time ON idempotent_requests (created_at)"),
    (
        "agent certificates by status",
        "CREATE INDEX agent_certificates_by_status ON agent_certificates (status, address)",
    ),
    ("agent certificates by time", "CREATE INDEX agent_certificates_by_time ON agent_certificates (issued_at, serial)"),
    ("enrolment tokens by address", "CREATE INDEX enrolment_tokens_by_address ON enrolment_tokens (address, status)"),
    // What all logs hold together: kept up to date, because to count it means to read them all.
    (
        "bytes of logs",
        "INSERT INTO sequences (name, next_value) \
         SELECT 'subtask_log_bytes', CAST(COALESCE(SUM(OCTET_LENGTH(text)), 0) AS SIGNED) FROM subtask_logs",
    ),
    (
        "places",
        "CREATE TABLE places (id BIGINT PRIMARY KEY, kind VARCHAR(16) NOT NULL, name VARCHAR(64) NOT NULL, \
         description TEXT NOT NULL, region_id BIGINT, UNIQUE (kind, name))",
    ),
    ("ids of places", "INSERT INTO sequences (name, next_value) VALUES ('place', 1)"),
    ("places by region", "CREATE INDEX places_by_region ON places (region_id)"),
    ("IDC of hosts", "ALTER TABLE hosts ADD COLUMN idc_id BIGINT"),
    ("type of hosts", "ALTER TABLE hosts ADD COLUMN type_id BIGINT"),
    ("hosts by IDC", "CREATE INDEX hosts_by_idc ON hosts (idc_id)"),
    ("hosts by type", "CREATE INDEX hosts_by_type ON hosts (type_id)"),
    ("enrolment tokens by expiry", "CREATE INDEX enrolment_tokens_by_expiry ON enrolment_tokens (expires_at)"),
    ("turns of object locks", "INSERT INTO sequences (name, next_value) VALUES ('object_lock', 1)"),
    ("hosts by status", "CREATE INDEX hosts_by_status ON hosts (status, id)"),
    // Certificates that were made by hand were good for them for ever. One that has others on record was enrolled.
    (
        "removed hosts are revoked",
        "INSERT INTO revoked_hosts (address, revoked_at, revoked_by) \
         SELECT detail, MAX(created_at), MAX(user_name) FROM audit_events WHERE action = 'host.delete' \
         AND detail NOT IN (SELECT inner_ip FROM hosts) AND detail NOT IN (SELECT address FROM revoked_hosts) \
         AND detail NOT IN (SELECT address FROM agent_certificates WHERE status IN ('ISSUED', 'CURRENT')) \
         GROUP BY detail",
    ),
    (
        "root servers",
        "CREATE TABLE root_server_lists (cluster_name VARCHAR(64) NOT NULL, ob_cluster_id BIGINT NOT NULL, \
         cluster_role VARCHAR(16) NOT NULL, servers TEXT NOT NULL, readonly_servers TEXT NOT NULL, \
         reported_at BIGINT NOT NULL, reporter VARCHAR(64) NOT NULL, created_at BIGINT NOT NULL, \
         updated_at BIGINT NOT NULL, PRIMARY KEY (cluster_name, ob_cluster_id))",
    ),
    // Parts of the name of the file. NULL only until the store is opened next: see `package::complete`.
    ("version of packages", "ALTER TABLE packages ADD COLUMN version VARCHAR(128)"),
    ("system of packages", "ALTER TABLE packages ADD COLUMN operating_system VARCHAR(128)"),
    ("architecture of packages", "ALTER TABLE packages ADD COLUMN architecture VARCHAR(128)"),
];

/// Whose SQL a statement is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    /// MySQL, MariaDB, and OceanBase in MySQL mode.
    #[cfg_attr(not(test), expect(dead_code, reason = "the store opens SQLite files only"))]
    MySql,
}

impl Dialect {
    fn statement(self, sql: &'static str) -> Cow<'static, str> {
        match self {
            Self::Sqlite => sql.into(),
            Self::MySql => {
                let sql = sql.replace(" TEXT", " LONGTEXT");
                let table = sql.starts_with("CREATE TABLE");
                (if table { sql + " DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" } else { sql }).into()
            }
        }
    }
}

pub(super) fn migrator(dialect: Dialect) -> Migrator {
    let migrations = (1..).zip(STATEMENTS).map(|(version, (description, sql))| {
        // Nothing but the constants above is in it.
        let sql = AssertSqlSafe(dialect.statement(sql).into_owned()).into_sql_str();
        Migration::new(version, (*description).into(), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coordinator::store::{
            Store,
            agent::certificates,
            audit::{self, Change},
            host::{self, HostDetails},
        },
        tls::{CertificateFacts, Fingerprint},
    };
    use std::net::IpAddr;

    #[test]
    fn nothing_is_cut_and_no_names_are_mixed_up_on_mysql() {
        for (description, sql) in STATEMENTS {
            let text = Dialect::MySql.statement(sql);
            assert!(!text.contains(" TEXT"), "{description}: TEXT ends at 64 KiB");
            let table = text.starts_with("CREATE TABLE");
            assert_eq!(table, text.ends_with("COLLATE utf8mb4_bin"), "{description}");
        }
        insta::assert_snapshot!(
            STATEMENTS.iter().map(|(_, sql)| Dialect::MySql.statement(sql) + ";\n").collect::<String>()
        );
    }

    /// As if the statement were not carried out yet.
    #[tokio::test]
    async fn hosts_that_were_removed_by_earlier_versions_are_revoked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let store = Store::open(&path).await.unwrap();
        let [gone, enrolled, back]: [IpAddr; 3] =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|address| address.parse().unwrap());
        let mut transaction = store.begin().await.unwrap();
        for address in [gone, gone, enrolled, back] {
            let detail = address.to_string();
            let change =
                Change { user: "admin", action: "host.delete", object: "host 1", detail: &detail, trace_id: "" };
            audit::write(&mut transaction, &[change]).await.unwrap();
        }
        let facts = CertificateFacts {
            serial: "01".into(),
            fingerprint: Fingerprint::of(b"01"),
            not_before: 0,
            not_after: 1,
            addresses: vec![],
        };
        certificates::insert(&mut transaction, enrolled, &facts).await.unwrap();
        host::insert(&mut transaction, back, 62898, 62899, &HostDetails::default()).await.unwrap();
        let undone = sqlx::query("DELETE FROM _sqlx_migrations WHERE description = 'removed hosts are revoked'");
        assert_eq!(undone.execute(&mut *transaction).await.unwrap().rows_affected(), 1);
        transaction.commit().await.unwrap();
        store.close().await;

        let store = Store::open(&path).await.unwrap();
        let mut reader = store.readers().acquire().await.unwrap();
        for (address, revoked) in [(gone, true), (enrolled, false), (back, false)] {
            let by = certificates::revocation(&mut reader, address).await.unwrap().map(|found| found.by);
            assert_eq!(by.as_deref(), revoked.then_some("admin"), "{address}");
        }
    }

    #[test]
    fn sqlite_reads_what_is_written() {
        assert!(STATEMENTS.iter().all(|(_, sql)| Dialect::Sqlite.statement(sql) == *sql));
    }
}
