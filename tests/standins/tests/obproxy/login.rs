//! A1 to A16.

use crate::place::{ADMIN, NEW, OLD, PASSWORD, Place, hash, value};
use oblet_standins::{client::Client, mysql};

#[test]
fn the_built_in_password_is_known_to_nobody() {
    let mut place = Place::new("built-in", NEW);
    place.start_with(&place.flags());
    let expected = "refused with 1045: Access denied for user 'root@proxysys'@'127.0.0.1' (using password: NO)";
    assert_eq!(place.refusal(ADMIN, ""), expected, "A3, A10");
    assert!(place.refusal(ADMIN, "guess").ends_with("(using password: YES)"), "A10");

    let mut place = Place::new("built-in", OLD);
    place.start_with(&place.flags());
    place.try_login(ADMIN, "").unwrap(); // V5
}

#[test]
fn the_command_line_takes_the_hash() {
    for version in [OLD, NEW] {
        for (given, password) in [(hash(PASSWORD), Some(PASSWORD)), (String::new(), Some("")), ("plain".into(), None)] {
            let mut place = Place::new("given", version);
            let mut arguments = place.flags();
            arguments.extend(["-o".to_owned(), format!("obproxy_sys_password={given}")]);
            place.start_with(&arguments);
            match password {
                Some(password) => drop(place.try_login(ADMIN, password).unwrap()), // A4, A5
                None => {
                    assert!(place.refusal(ADMIN, "plain").contains("1045"), "A6");
                    assert!(place.refusal(ADMIN, "").contains("1045"), "A6");
                }
            }
        }
    }
    let mut place = Place::new("quotes", NEW);
    let mut arguments = place.flags();
    arguments.extend(["-o", "obproxy_sys_password=''"].map(str::to_owned));
    place.start_with(&arguments);
    assert!(place.refusal(ADMIN, "").contains("1045"), "A7");
}

#[test]
fn alter_takes_plain_text_and_old_sessions_stay() {
    for version in [OLD, NEW] {
        let mut place = Place::new("alter", version);
        place.start("");
        let mut client = place.login();
        client.query("ALTER PROXYCONFIG SET obproxy_sys_password='it''s \\'new\\''").unwrap();
        assert_eq!(value(&mut client, "obproxy_sys_password"), hash("it's 'new'"), "A8, A9");
        assert!(place.refusal(ADMIN, PASSWORD).contains("1045"), "A9");
        place.try_login("root@proxysys#x", "it's 'new'").unwrap(); // A2
        client.query(&format!("ALTER PROXYCONFIG SET obproxy_sys_password='{}'", hash("x"))).unwrap();
        place.try_login(ADMIN, &hash("x")).unwrap(); // A8
        client.query("ALTER PROXYCONFIG SET observer_sys_password='o', observer_sys_password1=''").unwrap();
        assert_eq!(value(&mut client, "observer_sys_password"), hash("o"), "A8");
        assert_eq!(value(&mut client, "observer_sys_password1"), "", "A8");
    }
}

#[test]
fn a_hash_opens_the_door() {
    let mut place = Place::new("hash", NEW);
    place.start("");
    place.login();
    let hash = mysql::unhex(&hash(PASSWORD)).unwrap();
    Client::login_by_hash("127.0.0.1", place.sql_port, ADMIN, hash).unwrap(); // A11
}

#[test]
fn other_users_end_in_other_ways() {
    let mut place = Place::new("users", NEW);
    place.start("");
    for user in ["root", "root@sys", "foo@proxysys", "root@sys#obdemo"] {
        assert!(place.refusal(user, "").starts_with("no answer"), "A14, A16: {user}");
    }
    assert!(place.refusal("inspector@proxysys", "").contains("1045"), "A15");
    assert!(place.refusal("root@sys#other", "").contains("4669: cluster not exist"), "A16");
}
