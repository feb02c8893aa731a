//! The driver that the agent and the coordinator use can speak to the stand-in.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is fine where it fails a test")]

#[path = "support/ports.rs"]
mod ports;

use oblet_standins::{mysql, program};
use sqlx::{
    Connection as _, Executor as _, Row as _,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode},
};
use std::{process::Stdio, time::Duration};

#[tokio::test]
async fn driver_logs_in_and_reads_rows() {
    let root = tempfile::tempdir().unwrap();
    let (sql, exporter) = (ports::own(), ports::own());
    let hash = mysql::hex(&mysql::sha1(&[b"secret"]));
    let mut obproxy = tokio::process::Command::new(program("obproxy").unwrap())
        .args(["-N", "-p", &sql.to_string(), "-l", &exporter.to_string(), "-n", "demo", "-r", "127.0.0.1:2881"])
        .args(["-o", &format!("local_bound_ip=127.0.0.1,obproxy_sys_password={hash}")])
        .env("OBPROXY_ROOT", root.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();

    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(sql)
        .username("root@proxysys")
        .password("secret")
        .ssl_mode(MySqlSslMode::Disabled)
        // Else the driver begins with statements that obproxy's own tenant refuses.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false);
    let login = async {
        loop {
            match MySqlConnection::connect_with(&options).await {
                Err(sqlx::Error::Io(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                end => return end,
            }
        }
    };
    let mut connection = tokio::time::timeout(Duration::from_secs(20), login).await.unwrap().unwrap();
    connection.ping().await.unwrap();
    connection.execute(sqlx::raw_sql("ALTER PROXYCONFIG SET proxy_mem_limited='4G'")).await.unwrap();
    let row = connection.fetch_one(sqlx::raw_sql("SHOW PROXYCONFIG LIKE 'proxy_mem_limited'")).await.unwrap();
    assert_eq!(row.get::<String, _>("value"), "4G");

    let refused = MySqlConnection::connect_with(&options.clone().password("wrong")).await.unwrap_err();
    assert!(refused.to_string().contains("1045"), "{refused}");
    obproxy.kill().await.unwrap();
}
