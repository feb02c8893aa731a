//! HTTP/2 to one agent, connected with the first call and again after a loss.
//!
//! tonic's own channel passes each call through a queue to a task of its own and from there to the connection's. With a
//! thousand agents those queues are 10 MiB, and each call wakes one task more.

use super::{
    address::AgentAddress,
    connection::{DialError, Distrust},
};
use futures_util::future::BoxFuture;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
    http::{Uri, uri::Scheme},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
    time::timeout,
};
use tonic::{body::Body, codegen::Service};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A call whose answer does not begin within this time has lost it.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection is given up when nobody answers, also when nothing is asked.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What an agent may send before it is read: answers are small, and parts of logs have 64 KiB at most.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// What a connection is made of.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Makes connections to agents.
pub(crate) type Dial = dyn Fn(AgentAddress) -> Dialed + Send + Sync;
pub(crate) type Dialed = BoxFuture<'static, Result<Box<dyn Wire>, DialError>>;

/// Why a call brought no answer; whether the agent got it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    Slow,
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Uri(#[from] hyper::http::Error),
}

impl ChannelError {
    pub(crate) fn distrust(&self) -> Option<&Distrust> {
        match self {
            Self::Dial(DialError::Distrust(distrust)) => Some(distrust),
            _ => None,
        }
    }

    /// The host answers that nothing listens on the port.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Dial(DialError::Io(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Cheap to clone; all clones share a connection.
#[derive(Clone)]
pub(crate) struct Channel(Arc<Line>);

struct Line {
    address: AgentAddress,
    dial: Arc<Dial>,
    /// Held while it is connected, so that one connection serves all that wait for it.
    sender: Mutex<Option<SendRequest<Body>>>,
}

impl Channel {
    pub(crate) fn new(address: AgentAddress, dial: Arc<Dial>) -> Self {
        Self(Arc::new(Line { address, dial, sender: Mutex::default() }))
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let line = Arc::clone(&self.0);
        Box::pin(async move { line.send(request).await })
    }
}

impl Line {
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, ChannelError> {
        let mut sender = self.sender().await?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        // What encrypts the connection is below HTTP.
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.address.to_string()).path_and_query(path);
        *request.uri_mut() = uri.build()?;
        timeout(ANSWER_TIMEOUT, sender.send_request(request)).await.map_or(Err(ChannelError::Silent), |sent| Ok(sent?))
    }

    async fn sender(&self) -> Result<SendRequest<Body>, ChannelError> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let connected = timeout(CONNECT_TIMEOUT, self.connect()).await.map_err(|_elapsed| ChannelError::Slow)?;
        let sender = connected?;
        *kept = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<SendRequest<Body>, ChannelError> {
        let wire = (self.dial)(self.address).await?;
        let handshake = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(wire));
        let (sender, connection) = handshake.await?;
        // It ends with the last sender, or with the connection; whoever waits for an answer is told why.
        tokio::spawn(connection);
        Ok(sender)
    }
}
