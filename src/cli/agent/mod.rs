//! Hosts' agents: how they are enrolled and revoked.

pub(super) mod enrolment;
