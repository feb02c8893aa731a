//! What every request passes, and what every answer is made with.

pub(in crate::api) mod around;
pub(in crate::api) mod auth;
pub(crate) mod commit;
pub(in crate::api) mod cross_site;
pub(in crate::api) mod envelope;
pub(in crate::api) mod error;
pub(in crate::api) mod extract;
pub(in crate::api) mod gate;
pub(in crate::api) mod limits;
pub(in crate::api) mod linger;
pub(in crate::api) mod metrics;
pub(in crate::api) mod once;
pub(in crate::api) mod query;
pub(in crate::api) mod refusals;
pub(in crate::api) mod requester;
pub(in crate::api) mod state;
pub(in crate::api) mod streams;
pub(in crate::api) mod trace;
pub(in crate::api) mod words;
