//! The program `sql-login` against the stand-in.

use crate::place::{ADMIN, NEW, PASSWORD, Place, hash};
use std::process::{Command, Output};

fn ask(place: &Place, variable: &str, secret: &str, statement: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sql-login"));
    command.args(["127.0.0.1", &place.sql_port.to_string(), ADMIN]).args(statement);
    command.env_remove("OBLET_SQL_PASSWORD").env_remove("OBLET_SQL_HASH").env(variable, secret).output().unwrap()
}

#[test]
fn password_or_hash_open_and_the_statement_can_be_chosen() {
    let mut place = Place::new("sql-login", NEW);
    place.start("");
    place.login();
    for (variable, secret) in [("OBLET_SQL_PASSWORD", PASSWORD), ("OBLET_SQL_HASH", &hash(PASSWORD))] {
        let told = ask(&place, variable, secret, &[]);
        assert!(String::from_utf8(told.stdout).unwrap().starts_with("binary info\tObProxy-OceanBase 4.3.1.0-1.el8"));
        let version = ask(&place, variable, secret, &["select proxy_version()"]);
        assert_eq!(String::from_utf8(version.stdout).unwrap(), "4.3.1.0\n");
    }
    let refused = ask(&place, "OBLET_SQL_HASH", &hash("wrong"), &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("refused with 1045"));
}
