//! What stands before the coordinator's listeners: bounds of connections, and times after which silence ends one.

use crate::doorkeeper::{Bounds, Doorkeeper, Guarded, Standing};
use axum::{Extension, middleware::AddExtension};
use axum_server::{Address, Server, accept::Accept, tls_rustls::RustlsAcceptor, tls_rustls::RustlsConfig};
use hyper_util::rt::TokioTimer;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tower::Layer as _;

/// Operators, scripts and Prometheus; whoever follows a task is told something every few seconds, so he is not silent.
pub(super) const REST: Bounds = Bounds { in_all: 2048, per_address: 512 };
/// A proxy asks once a minute and leaves.
pub(super) const CONFIG_SERVICE: Bounds = Bounds { in_all: 1024, per_address: 64 };
/// For the head of a request, and between two requests on one connection. Longer than the clients in use keep a silent
/// connection (90 s: Go, reqwest) and than the minute at which many of them ask again, so that the end of the silence does
/// not meet the next request on its way.
const SILENCE: Duration = Duration::from_secs(120);
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(20);

/// Has the doorkeeper see each connection first; its requests carry its [`Standing`](crate::doorkeeper::Standing).
#[derive(Clone)]
pub(super) struct GuardAcceptor(Arc<Doorkeeper>);

impl<S> Accept<TcpStream, S> for GuardAcceptor {
    type Stream = Guarded<TcpStream>;
    type Service = AddExtension<S, Standing>;
    type Future = std::future::Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let admitted = stream.peer_addr().map(|peer| self.0.admit(peer, stream));
        std::future::ready(admitted.map(|stream| {
            let service = Extension(stream.standing()).layer(service);
            (stream, service)
        }))
    }
}

fn patient<A: Address, Acceptor>(mut server: Server<A, Acceptor>) -> Server<A, Acceptor> {
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(SILENCE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(PING_ANSWER);
    server
}

pub(super) fn https(
    listener: std::net::TcpListener,
    config: RustlsConfig,
    bounds: Bounds,
) -> io::Result<Server<SocketAddr, RustlsAcceptor<GuardAcceptor>>> {
    let guard = GuardAcceptor(Doorkeeper::new(bounds));
    Ok(patient(axum_server::from_tcp(listener)?.acceptor(RustlsAcceptor::new(config).acceptor(guard))))
}

pub(super) fn http(listener: std::net::TcpListener, bounds: Bounds) -> io::Result<Server<SocketAddr, GuardAcceptor>> {
    let guard = GuardAcceptor(Doorkeeper::new(bounds));
    Ok(patient(axum_server::from_tcp(listener)?.acceptor(guard).http1_only()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn idle_and_half_sent_connections_keep_nobody_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = http(listener, Bounds { in_all: 32, per_address: 16 }).unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = tokio::spawn(server.serve(router.into_make_service()));
        let mut held = Vec::new();
        for number in 0..300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                // The other end may have shown it out already.
                let _ = stream.write_all(b"GET / HT").await;
            }
            held.push(stream);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("here"), "{answer}");
        server.abort();
    }

    /// As whoever follows a log: a connection that has authenticated and then says nothing for long.
    #[tokio::test]
    async fn strangers_who_speak_do_not_end_a_connection_that_has_authenticated() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = http(listener, Bounds { in_all: 32, per_address: 16 }).unwrap();
        let login = get(|Extension(standing): Extension<Standing>| async move { standing.keep() });
        let router = Router::new().route("/login", login);
        let server = tokio::spawn(server.serve(router.into_make_service()));
        let mut follower = TcpStream::connect(address).await.unwrap();
        let request = b"GET /login HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut buffer = [0; 256];
        for held in 0..2 {
            follower.write_all(request).await.unwrap();
            let length = follower.read(&mut buffer).await.unwrap();
            assert!(buffer[..length].starts_with(b"HTTP/1.1 200"), "{held}: {:?}", &buffer[..length]);
            let mut strangers = Vec::new();
            for _ in 0..200 {
                let mut stranger = TcpStream::connect(address).await.unwrap();
                // The other end may have shown it out already.
                let _ = stranger.write_all(b"G").await;
                strangers.push(stranger);
            }
        }
        server.abort();
    }
}
