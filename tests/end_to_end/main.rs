//! The whole system on real parts: real programs, real mutual TLS, the real `rpm` with a database of its own, and a
//! stand-in for obproxy that is really installed, started, logged in to and scraped.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and what it prints is shown then"
)]

mod cancel;
mod chaos;
mod crashes;
mod disk;
mod enrolment;
mod install;
mod lab;
mod network;
#[path = "../support/ports.rs"]
mod ports;
mod power;
mod preparation;
mod removal;
#[path = "../support/rest.rs"]
mod rest;
mod rollback;
#[path = "../support/skip.rs"]
mod skip;
mod small_disk;
mod tokens;
mod upgrade;
