//! The one place that knows the generated stubs and `tonic::Status`, so that the gRPC library can be exchanged.

mod status;

pub use status::{Refused, fault_reason, violates};

/// Stubs of `oblet.agent.v1`.
pub mod v1 {
    #![allow(
        unreachable_pub,
        unused_qualifications,
        clippy::allow_attributes_without_reason,
        clippy::semicolon_if_nothing_returned,
        reason = "generated code"
    )]
    tonic::include_proto!("oblet.agent.v1");

    impl std::fmt::Debug for Secret {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
        }
    }
}

/// Descriptor of the contract, for gRPC reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent_descriptor.bin"));

/// Longest chunk of a package.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;
