//! Names of requests.

use std::{fmt, sync::Arc};

/// Names a request in the answer, in the log and in the tasks that it made.
#[derive(Debug, Clone)]
pub(in crate::api) struct TraceId(Arc<str>);

impl TraceId {
    pub(in crate::api) fn random() -> Self {
        let (_, low) = uuid::Uuid::now_v7().as_u64_pair();
        Self(format!("{low:016x}").into())
    }

    pub(in crate::api) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
