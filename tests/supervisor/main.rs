//! What every supervisor promises, tried with real processes.
//!
//! The same cases run for each: `OBLET_TEST_SUPERVISOR` says `direct` (the default) or `systemd`, `OBLET_TEST_AGENT` names
//! an `oblet-agent` other than the one that was built along. For systemd the program of this test is copied to a host
//! where systemd is PID 1, and run there by root with `--include-ignored --test-threads=1`: cases that need a systemd are
//! ignored elsewhere, so that none counts that did not run, and one starts D-Bus anew under the others.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a panic is fine where it fails a test")]

mod place;
mod promises;
mod restarts;
mod secluded;
#[path = "../support/skip.rs"]
mod skip;
mod systemctl;
mod units;
