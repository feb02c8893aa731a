//! What lets an agent in: tokens for its enrolment, and the certificates it was given.

pub mod certificates;
pub mod enrolment_tokens;
