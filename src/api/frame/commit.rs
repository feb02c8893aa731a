//! Commits a request's changes, and does what follows from them.
//!
//! A handler is dropped wherever it waits when its client hangs up or its time is over, and the store finishes a commit
//! all the same. So the two run in a task of their own, for which the handler only waits: whatever was committed is
//! followed by what it calls for, and a handler that is dropped before has changed nothing.

use super::{error::ApiError, query::DryRun};
use crate::coordinator::store::StoreError;
use sqlx::{Any, Transaction};
use tokio::task::JoinError;
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
    let commit = async move { transaction.commit().await.map_err(StoreError::from) };
    let both = whole(commit, |()| follow).await.map_err(|error| ApiError::internal(&error))?;
    Ok(both?)
}

/// Carries out both in a task of their own, whatever becomes of whoever waits for it.
pub(crate) async fn whole<C, T, E, F>(
    commit: impl Future<Output = Result<C, E>> + Send + 'static,
    follow: impl FnOnce(C) -> F + Send + 'static,
) -> Result<Result<T, E>, JoinError>
where
    C: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let both = async move { Ok(follow(commit.await?).await) };
    #[cfg(test)]
    if crate::simulation::drops_with_its_client() {
        return Ok(both.await);
    }
    tokio::spawn(both.in_current_span()).await
}
