//! Reads what is left of a request that was refused before its end. A client that is still sending when its connection
//! closes sees a broken pipe instead of the answer, and takes the coordinator for dead.

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use futures_util::{Stream, StreamExt as _};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

const MAX_DISCARDED_BYTES: usize = 512 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

type Home = Arc<Mutex<Option<BodyDataStream>>>;

/// A body that returns to its home when its reader drops it before its end.
struct Lent {
    body: Option<BodyDataStream>,
    home: Home,
}

impl Stream for Lent {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let item = std::task::ready!(body.poll_next_unpin(context));
        if !matches!(item, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(item)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

pub(in crate::api) async fn linger(request: Request, next: Next) -> Response {
    let home = Home::default();
    let request = request.map(|body| {
        let body = Some(body.into_data_stream());
        Body::from_stream(Lent { body, home: Arc::clone(&home) })
    });
    let response = next.run(request).await;
    let rest = home.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(rest) = rest.filter(|_| !response.status().is_success()) {
        // Past the bounds the connection closes, as it would have at once.
        let _ = tokio::time::timeout(PATIENCE, discard(rest)).await;
    }
    response
}

async fn discard(mut rest: BodyDataStream) {
    let mut discarded = 0_usize;
    while let Some(Ok(chunk)) = rest.next().await {
        discarded = discarded.saturating_add(chunk.len());
        if discarded > MAX_DISCARDED_BYTES {
            return;
        }
    }
}
