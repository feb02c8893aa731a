//! The real host in a directory of its own: real rpm, real processes, the real shim.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a panic is fine where it fails a test"
)]

mod installation;
mod packages;
mod place;
mod proxies;
mod stopping;
