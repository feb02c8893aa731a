//! The real host in a directory of its own: real rpm, real processes, the real shim.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a panic is fine where it fails a test"
)]

mod crashes;
mod dying;
mod first_start;
mod installation;
mod packages;
mod place;
#[path = "../support/ports.rs"]
mod ports;
mod proxies;
mod removal;
mod secrets;
#[path = "../support/skip.rs"]
mod skip;
mod stopping;
mod taken_ports;
