//! Whole runs of the CLI, against a coordinator with prepared answers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is fine where it fails a test")]

mod enrolment;
mod errors;
mod fake;
mod objects;
mod subtasks;
mod tasks;
mod tls;
