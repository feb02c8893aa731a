//! Steps that only hold a graph together.

pub(super) mod finish;
pub(super) mod start;
pub(super) mod wait;
