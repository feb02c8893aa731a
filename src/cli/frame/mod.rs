//! What every command passes, and what several of them take.

pub(super) mod args;
pub(super) mod context;
pub(super) mod kind;
pub(super) mod once;
pub(super) mod resolve;
pub(super) mod values;
