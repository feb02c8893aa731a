//! What the documentation says of the code, compared with the code.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails, and the repository is known to be there"
)]

mod arrows;
mod circles;
mod facts;
mod metrics;
mod named_tests;
mod pages;
mod source;
mod statuses;
