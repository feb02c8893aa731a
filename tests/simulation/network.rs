//! tonic on the simulated network.

use super::traps;
use crate::coordinator::{agents::AgentPool, channel::Wire};
use futures_util::stream;
use std::{
    io,
    net::Ipv4Addr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

pub(super) const AGENT_PORT: u16 = 7443;
pub(super) const LOWEST_LATENCY: Duration = Duration::from_millis(1);
pub(super) const HIGHEST_LATENCY: Duration = Duration::from_millis(100);

/// Connections to the host that calls this.
pub(super) async fn listen() -> io::Result<impl Stream<Item = io::Result<Connection>>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, AGENT_PORT)).await?;
    Ok(stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await;
        Some((accepted.map(|(stream, _peer)| Connection(stream)), listener))
    }))
}

/// A pool that calls agents over the simulated network.
pub(super) fn pool() -> AgentPool {
    AgentPool::dialing(|address| {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address.0).await?) as Box<dyn Wire>) })
    })
}

pub(super) struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        // What came is gone with the connection.
        if buf.filled().len() > before && traps::resets() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
