//! What the operator reads, and is asked on a terminal.

pub(super) mod args;
pub(super) mod connection;
pub(super) mod error;
pub(super) mod output;
pub(super) mod prompt;
pub(super) mod table;
pub(super) mod yaml;
