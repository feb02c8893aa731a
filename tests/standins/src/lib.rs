//! Programs that stand in for OceanBase's own in tests and in the demo, and the package that carries one of them.

pub mod client;
pub mod mysql;
pub mod obproxy;
pub mod package;
