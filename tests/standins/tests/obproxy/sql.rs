//! S1 to S21.

use crate::place::{NEW, OLD, Place, code_of, value};

fn started(test: &str, version: &'static str) -> Place {
    let mut place = Place::new(test, version);
    place.start("");
    place
}

fn texts(row: &[Option<String>]) -> Vec<&str> {
    row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")).collect()
}

#[test]
fn the_configuration_is_shown_with_the_columns_of_the_version() {
    for (version, columns) in [(OLD, 5), (NEW, 7)] {
        let place = started("columns", version);
        let mut client = place.login();
        let rows = client.query("SHOW PROXYCONFIG").unwrap();
        assert!(rows.len() > 60 && rows.iter().all(|row| row.len() == columns), "S1, V3");
        let row = client.query("show proxyconfig like 'listen_port';").unwrap();
        let port = place.sql_port.to_string();
        let expected = ["listen_port", &port, "obproxy listen port", "true", "SYS", "(1024,65536)", "LEVEL_GLOBAL"];
        assert_eq!(texts(&row[0]), expected[..columns], "S3");
        let known = rows.iter().any(|row| row[0].as_deref() == Some("rpc_listen_port"));
        assert_eq!(known, version == NEW, "V1");
    }
}

#[test]
fn like_looks_at_case_and_at_one_name_in_its_own_way() {
    let place = started("like", NEW);
    let mut client = place.login();
    let mut count = |pattern: &str| client.query(&format!("SHOW PROXYCONFIG LIKE '{pattern}'")).unwrap().len();
    assert_eq!(count("Listen_Port"), 0, "S5");
    assert_eq!(count("no_such_item"), 0, "S5");
    assert_eq!(count("%listen_port"), 3, "S5");
    assert_eq!(count("proxy__d"), 1, "S5");
    assert_eq!(count("syslog_leve_"), 1, "S6");
    let odd = client.query("SHOW PROXYCONFIG LIKE 'syslog_level'").unwrap();
    assert!(odd.len() > 1 && odd.iter().all(|row| row.len() == 4), "S6");
    let rows = started("like", OLD).login().query("SHOW PROXYCONFIG").unwrap();
    let level = rows.iter().map(|row| texts(row)).find(|row| row[0] == "syslog_level").unwrap();
    assert_eq!(level[1], "WARN", "V4");
}

#[test]
fn changes_and_virtual_settings_are_shown() {
    let place = started("diff", NEW);
    let mut client = place.login();
    client.query("ALTER PROXYCONFIG SET max_connections=61000").unwrap();
    let rows = client.query("SHOW PROXYCONFIG DIFF").unwrap();
    let names: Vec<&str> = rows.iter().map(|row| texts(row)[0]).collect();
    assert!(names.contains(&"max_connections") && names.contains(&"app_name") && !names.contains(&"idc_name"), "S7");
    assert!(client.query("SHOW PROXYCONFIG ALL").unwrap().iter().all(|row| row.len() == 8), "S7");
    let mut old = started("diff", OLD);
    assert_eq!(code_of(old.login().query("SHOW PROXYCONFIG DIFF")), 5010);
    old.stop();
}

#[test]
fn statements_have_their_answers() {
    for version in [OLD, NEW] {
        let place = started("statements", version);
        let mut client = place.login();
        for (statement, code) in [
            ("SHOW PROXYINFO", 5010),
            ("ALTER PROXYCONFIG SET", 5010),
            ("ALTER PROXYCONFIG SET idc_name=a.b", 5010),
            ("DROP TABLE t", 5010),
            ("SELECT 1", 1235),
            ("select version()", 1235),
            ("select @@version", 1235),
            ("UPDATE proxy_config SET value=1", 1235),
            ("SHOW PROXYCLUSTER", 4018),
            ("select * from no_such_table", 4016),
            ("ALTER PROXYCONFIG SET app_name='x'", 1235),
            ("ALTER PROXYCONFIG SET client_max_connections=-5", 4147),
            ("ALTER PROXYCONFIG SET proxy_mem_limited='1'", 4147),
            ("ALTER PROXYCONFIG SET enable_qos='maybe'", 4147),
            ("ALTER PROXYCONFIG SET listen_port=80", 4147),
            ("ALTER PROXYCONFIG SET syslog_level='LOUD'", 4170),
            ("ALTER PROXYCONFIG SET idc_name='it''s'", 4016),
            ("ALTER PROXYCONFIG SET proxy_local_cmd=2", 1235),
            ("ALTER PROXYCONFIG SET proxy_local_cmd=5", 4147),
            ("ALTER PROXYCONFIG SET no_such_item=1", if version == NEW { 5099 } else { 1193 }),
        ] {
            assert_eq!(code_of(client.query(statement)), code, "{statement}");
        }
        for statement in [
            "PING PROXY",
            "set autocommit=1",
            "ALTER PROXYCONFIG SET rootservice_list='bad'",
            "ALTER PROXYCONFIG SET Enable_QoS = 1",
            "ALTER PROXYCONFIG SET syslog_level=INFO",
        ] {
            assert!(client.query(statement).unwrap().is_empty(), "{statement}");
        }
        assert_eq!(value(&mut client, "enable_qos"), "True", "S4, S15");
        let number = client.query("select proxy_version()").unwrap();
        assert_eq!(texts(&number[0]), [version.split('-').next().unwrap()], "S12");
        let binary = client.query("SHOW PROXYINFO BINARY").unwrap();
        assert_eq!(binary[0][0].as_deref(), Some("binary info"), "S8");
        assert!(binary[0][1].as_deref().unwrap().starts_with(&format!("ObProxy-OceanBase {version}")), "S8");
        let upgrade = client.query("SHOW PROXYINFO UPGRADE").unwrap();
        assert!(upgrade[0][1].as_deref().unwrap().contains("HU_STATE_WAIT_HU_CMD"), "S9");
    }
}

#[test]
fn log_levels_are_those_of_the_version() {
    for (version, known, unknown) in [(OLD, "WARN", "WDIAG"), (NEW, "WDIAG", "LOUD")] {
        let place = started("levels", version);
        let mut client = place.login();
        client.query(&format!("ALTER PROXYCONFIG SET monitor_log_level={known}")).unwrap();
        let refused = client.query(&format!("ALTER PROXYCONFIG SET monitor_log_level={unknown}"));
        assert_eq!(code_of(refused), 4170, "S18, V4");
    }
}
