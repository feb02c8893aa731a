//! Commits a request's changes, and does what follows from them.
//!
//! A handler is dropped wherever it waits when its client hangs up or its time is over, and the store finishes a commit
//! all the same. So the two run in a task of their own, for which the handler only waits: whatever was committed is
//! followed by what it calls for, and a handler that is dropped before has changed nothing.

use super::{error::ApiError, query::DryRun};
use crate::coordinator::store::StoreError;
use sqlx::{Any, Transaction};
use tracing::Instrument as _;

/// Keeps what a request has changed, from which nothing else follows, unless the request only tries it.
pub(in crate::api) async fn commit_unless(
    DryRun(dry_run): DryRun,
    transaction: Transaction<'static, Any>,
) -> Result<(), ApiError> {
    let done = if dry_run { transaction.rollback().await } else { transaction.commit().await };
    done.map_err(|error| StoreError::from(error).into())
}

pub(in crate::api) async fn commit_and<T: Send + 'static>(
    transaction: Transaction<'static, Any>,
    follow: impl Future<Output = T> + Send + 'static,
) -> Result<T, ApiError> {
    let both = async move {
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(follow.await)
    };
    tokio::spawn(both.in_current_span()).await.map_err(|error| ApiError::internal(&error))?
}
