//! The coordinator's REST API: where it is, who asks it, and what it answers.

pub(super) mod args;
pub(super) mod client;
pub(super) mod contexts;
pub(super) mod event_stream;
pub(super) mod settings;
pub(super) mod sse;
