//! The coordinator: keeps state, builds nothing by itself, drives tasks through agents.

pub mod secrets;
pub mod store;
