//! X1 to X5.

use crate::place::{NEW, OLD, Place, signal};
use nix::sys::signal::Signal;

#[test]
fn a_signal_ends_it_with_one() {
    for version in [OLD, NEW] {
        let mut place = Place::new("signal", version);
        place.start("");
        place.login();
        assert_eq!(place.stop(), Some(1), "X2");
        assert!(place.log().contains("receive signal(sig=15)"), "X1");
        place.start_with::<&str>(&[]);
        place.login();
        signal(place.pids()[0], Signal::SIGKILL);
        assert_eq!(place.ended(), None);
        place.start_with::<&str>(&[]);
        place.login(); // X4
    }
}

#[test]
fn the_local_command_ends_it_after_a_while() {
    let mut place = Place::new("command", NEW);
    place.start("");
    place.login().query("ALTER PROXYCONFIG SET proxy_local_cmd=1").unwrap();
    assert_eq!(place.ended(), Some(0), "X5");
    place.start_with::<&str>(&[]);
    assert_eq!(crate::place::value(&mut place.login(), "proxy_local_cmd"), "0", "S3");
}
