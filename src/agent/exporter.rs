//! The listener of the agent's metrics.

use axum::Router;
use std::{io, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A scrape that lasts longer is not worth waiting for.
const GRACE: Duration = Duration::from_secs(2);

/// Serves scrapes until `shutdown`.
pub async fn serve_metrics(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = server.into_future() => ended,
        () = overdue => Ok(()),
    }
}
