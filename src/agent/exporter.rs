//! The listener of the agent's metrics. It is open to whoever reaches it, so all that strangers can do to it is bounded.

use crate::doorkeeper::{Bounds, Doorkeeper, PAUSE_AFTER_ERROR};
use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{io, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// A scrape that lasts longer is not worth waiting for.
const GRACE: Duration = Duration::from_secs(2);
/// Several Prometheus servers and a few operators, at a few connections each.
const BOUNDS: Bounds = Bounds { in_all: 64, per_address: 16 };
/// For the head of a request, and for the pause between two on one connection. Prometheus asks every 15 s, and connects
/// anew after a longer pause.
const SILENCE: Duration = Duration::from_secs(30);

/// Serves scrapes until `shutdown`.
pub async fn serve_metrics(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    let doorkeeper = Doorkeeper::new(BOUNDS);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let stream = TokioIo::new(doorkeeper.admit(peer, stream));
                let mut server = hyper::server::conn::http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(SILENCE);
                let connection = server.serve_connection(stream, TowerToHyperService::new(router.clone()));
                let shutdown = shutdown.clone();
                connections.spawn(async move {
                    let mut connection = std::pin::pin!(connection);
                    // How a connection to a stranger ends is nobody's concern.
                    tokio::select! {
                        _ = connection.as_mut() => return,
                        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
                    }
                    let _ = connection.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the metrics cannot be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    // Whoever has not finished by now is dropped.
    let _ = tokio::time::timeout(GRACE, ended).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    async fn serve() -> (std::net::SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new().route("/metrics", get(|| async { "up 1\n" }));
        tokio::spawn(serve_metrics(listener, router, shutdown.clone()));
        (address, shutdown)
    }

    #[tokio::test]
    async fn strangers_with_sockets_keep_nobody_from_the_metrics() {
        let (address, shutdown) = serve().await;
        let _shutdown = shutdown.drop_guard();
        let mut held = Vec::new();
        for number in 0..500 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTT").await.unwrap();
            }
            held.push(stream);
        }
        let mut scrape = TcpStream::connect(address).await.unwrap();
        scrape.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        scrape.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("up 1\n"), "{answer}");
        // Nearly all of them were shown out: the other end of their sockets is gone.
        let mut gone = 0;
        for mut stream in held {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await;
            gone += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
            if gone > 400 {
                return;
            }
        }
        panic!("only {gone} of 500 were shown out");
    }
}
