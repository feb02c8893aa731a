//! Whole runs of the CLI, against a coordinator with prepared answers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is fine where it fails a test")]

mod account;
mod consent;
mod enrolment;
mod errors;
mod fake;
mod formats;
mod logs;
mod names;
mod objects;
mod obproxy;
mod overview;
mod packages;
mod site;
mod subtasks;
mod tasks;
mod terminal;
mod tls;
