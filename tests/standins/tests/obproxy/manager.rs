//! The way of a manager that never lets a lasting password be seen: D9, A4, A8.

use crate::place::{ADMIN, NEW, OLD, Place, hash, value};

#[test]
fn a_first_start_with_a_password_for_once_leaves_all_in_the_stored_configuration() {
    for version in [OLD, NEW] {
        let mut place = Place::new("manager", version);
        let mut flags = place.flags();
        flags.extend(["-o".to_owned(), format!("obproxy_sys_password={}", hash("once"))]);
        place.start_with(&flags);
        let mut client = place.try_login(ADMIN, "once").unwrap();
        for (name, set) in [
            ("proxy_mem_limited", "4G"),
            ("local_bound_ip", "127.0.0.1"),
            ("observer_sys_password", "read only"),
            ("obproxy_sys_password", "for good"),
        ] {
            client.query(&format!("ALTER PROXYCONFIG SET {name} = '{set}'")).unwrap();
        }
        assert_eq!(place.stop(), Some(1));
        // As a daemon, and nothing of the first start in its arguments.
        assert_eq!(place.output::<&str>(&[]).status.code(), Some(0));
        let mut client = place.try_login(ADMIN, "for good").unwrap();
        assert_eq!(value(&mut client, "proxy_mem_limited"), "4G");
        assert_eq!(value(&mut client, "observer_sys_password"), hash("read only"));
        assert!(std::net::TcpStream::connect(("127.0.0.2", place.sql_port)).is_err());
        assert!(place.refusal(ADMIN, "once").contains("1045"));
    }
}
