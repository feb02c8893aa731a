//! The daemon of a database host: accepts operations, carries them out, keeps their journal.
//!
//! [`step`] is the seam: above it the service, the runner and the journal know nothing of rpm or obproxy,
//! below it the host knows nothing of gRPC or journals.

pub mod host;
pub mod step;
