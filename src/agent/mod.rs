//! The daemon of a database host: accepts operations, carries them out, keeps their journal.
//!
//! [`step`] is the seam: above it the service, the runner and the journal know nothing of rpm or obproxy,
//! below it the host knows nothing of gRPC or journals.

mod certificates;
pub mod config;
mod describe;
pub mod enroll;
mod exporter;
mod handshake;
pub mod host;
pub mod journal;
pub mod logs;
pub mod operation;
mod packages;
mod reload;
pub mod runner;
mod server;
mod service;
pub mod step;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub use describe::HostView;
pub use exporter::serve_metrics;
pub use reload::{Reload, ReloadError};
#[cfg(test)]
pub(crate) use server::start_on;
pub use server::{Agent, AgentError, Limits, Settings, listen, start};
