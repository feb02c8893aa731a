//! Connections to agents that can be cut.
//!
//!  1. A host is looked at on every connection: before it is called, and again when its certificate is known, before
//!     anything is said to it.
//!  2. A connection takes its line to the scissors before that look, so that a host which loses its trust meanwhile is
//!     cut off as well.
//!  3. What is cut ends for everyone who still holds it, calls under way included.

use super::address::AgentAddress;
use crate::tls::{CallerTls, CertificateFacts, Fingerprint, TlsError};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rustls::pki_types::ServerName;
use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Why an agent is not spoken to, although its certificate is one of the authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("host {host} is revoked since {:.0}, by {by}", Timestamp::from_microsecond(*.since).unwrap_or_default())]
    Revoked {
        host: IpAddr,
        /// Microseconds since 1970.
        since: i64,
        by: String,
    },
    #[error("host {host} shows the certificate {shown}, which is not the one that was issued to it")]
    OtherCertificate { host: IpAddr, shown: Fingerprint },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Distrust(#[from] Distrust),
    #[error(transparent)]
    Certificate(#[from] TlsError),
    #[error("the coordinator cannot tell whether the host is trusted")]
    Undecided(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Decides which agents are spoken to.
pub trait Gate: Send + Sync {
    /// `shown` is the host's certificate, once it is known.
    fn check(&self, host: IpAddr, shown: Option<Fingerprint>) -> BoxFuture<'_, Result<(), DialError>>;
}

/// Trusts whoever the authority has signed.
pub struct OpenGate;

impl Gate for OpenGate {
    fn check(&self, _host: IpAddr, _shown: Option<Fingerprint>) -> BoxFuture<'_, Result<(), DialError>> {
        Box::pin(async { Ok(()) })
    }
}

/// One line for each host that was ever called; cutting it ends all connections to that host.
#[derive(Default)]
pub(super) struct Scissors(Mutex<HashMap<IpAddr, CancellationToken>>);

impl Scissors {
    fn line(&self, host: IpAddr) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host).or_default().clone()
    }

    pub(super) fn cut(&self, host: IpAddr) {
        if let Some(line) = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&host) {
            line.cancel();
        }
    }
}

/// Connects, and looks at who answers.
pub(super) async fn dial(
    address: AgentAddress,
    tls: CallerTls,
    gate: Arc<dyn Gate>,
    scissors: Arc<Scissors>,
) -> Result<Cuttable<TlsStream<TcpStream>>, DialError> {
    let host = address.0.ip();
    let line = scissors.line(host);
    gate.check(host, None).await?;
    let stream = TcpStream::connect(address.0).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(tls.current()).connect(ServerName::IpAddress(host.into()), stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = CertificateFacts::of_der(shown.ok_or(TlsError::Malformed)?)?;
    gate.check(host, Some(shown.fingerprint)).await?;
    Ok(Cuttable { stream, line: Box::pin(line.cancelled_owned()) })
}

/// A connection that ends when its line is cut.
pub(super) struct Cuttable<S> {
    stream: S,
    line: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Cuttable<S> {
    /// Fails once the line is cut, and wakes the task when it is.
    fn whole(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.line.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the host lost its trust")),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.whole(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.whole(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.whole(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{AgentTls, CertificateAuthority, Role, install_crypto_provider};
    use std::{net::Ipv4Addr, time::Duration};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_rustls::TlsAcceptor;

    #[tokio::test]
    async fn whoever_waits_on_a_connection_hears_that_it_was_cut() {
        let host: IpAddr = "192.0.2.1".parse().unwrap();
        let scissors = Scissors::default();
        let (near, mut far) = tokio::io::duplex(64);
        let line = scissors.line(host);
        let mut near = Cuttable { stream: near, line: Box::pin(line.cancelled_owned()) };
        near.write_all(b"before").await.unwrap();
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            near.read_exact(&mut byte).await.map(|_| byte).and(near.read_exact(&mut byte).await)
        });
        far.write_all(b"x").await.unwrap();
        scissors.cut("192.0.2.2".parse().unwrap());
        scissors.cut(host);
        let read = tokio::time::timeout(Duration::from_secs(10), reader).await.expect("whoever waits is woken");
        let error = read.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(!scissors.line(host).is_cancelled(), "the host may be trusted again");
    }

    /// Trusts nobody whose certificate it has not seen.
    struct Revoked;

    impl Gate for Revoked {
        fn check(&self, host: IpAddr, shown: Option<Fingerprint>) -> BoxFuture<'_, Result<(), DialError>> {
            let revoked = Distrust::Revoked { host, since: 0, by: "admin".into() };
            Box::pin(async move { if shown.is_none() { Err(revoked.into()) } else { Ok(()) } })
        }
    }

    #[tokio::test]
    async fn a_revoked_host_is_not_even_called() {
        install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let identity = authority.issue(Role::Coordinator, "test", &[]).unwrap().identity(&authority);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = AgentAddress(listener.local_addr().unwrap());
        let dialed = dial(address, CallerTls::new(&identity).unwrap(), Arc::new(Revoked), Arc::default());
        tokio::select! {
            biased;
            _ = listener.accept() => panic!("the host is called"),
            dialed = dialed => assert!(matches!(dialed, Err(DialError::Distrust(Distrust::Revoked { .. })))),
        }
    }

    /// Trusts a host that is revoked while it is looked at for the last time.
    struct TooLate(Arc<Scissors>);

    impl Gate for TooLate {
        fn check(&self, host: IpAddr, shown: Option<Fingerprint>) -> BoxFuture<'_, Result<(), DialError>> {
            if shown.is_some() {
                self.0.cut(host);
            }
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn a_host_that_is_revoked_during_the_last_look_is_cut_off() {
        install_crypto_provider();
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::load_or_create(directory.path()).unwrap();
        let identity =
            |role| authority.issue(role, "test", &[Ipv4Addr::LOCALHOST.into()]).unwrap().identity(&authority);
        let acceptor = TlsAcceptor::from(AgentTls::new(&identity(Role::Agent)).unwrap().current());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = AgentAddress(listener.local_addr().unwrap());
        let agent = tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.unwrap() });
        let scissors = Arc::<Scissors>::default();
        let gate = Arc::new(TooLate(Arc::clone(&scissors)));
        let tls = CallerTls::new(&identity(Role::Coordinator)).unwrap();
        let mut connection = dial(address, tls, gate, scissors).await.unwrap();
        // The other end stays open, so only the cut can end the wait.
        let _agent = agent.await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(10), connection.read_u8()).await;
        assert_eq!(read.expect("the connection is cut").unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(connection.write_u8(0).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
