//! The coordinator as a whole: its health, its version, who changed what, and what is scraped.

pub(super) mod audit;
pub(super) mod status;
pub(super) mod support;
pub(super) mod target;
pub(super) mod version;
