//! TLS in front of gRPC: handshakes beside each other, each with a deadline, and a line in the log for those that fail.
//!
//! tonic does the same by itself, but says nothing of a failure and waits for a silent client for ever. Who cannot get
//! in is the first thing an operator asks after certificates were exchanged.

use crate::{
    doorkeeper::{Bounds, Doorkeeper, Guarded, PAUSE_AFTER_ERROR},
    tls::AgentTls,
};
use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};

const DEADLINE: Duration = Duration::from_secs(10);
/// Until they have shown a certificate all who connect are strangers, and the silent ones make room.
const BOUNDS: Bounds = Bounds { in_all: 512, per_address: 256 };
/// A scanner or a coordinator with an old certificate tries for days.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Questions whether connections are still accepted.
pub(super) type Beats = mpsc::Receiver<oneshot::Sender<()>>;

/// Connections that have proved who they are, each to the `tls` of its moment.
pub(super) fn over_tls(
    incoming: impl Stream<Item = io::Result<TcpStream>> + Send + 'static,
    tls: AgentTls,
    beats: Beats,
) -> ReceiverStream<io::Result<TlsStream<Guarded<TcpStream>>>> {
    let (ready, connections) = mpsc::channel(1);
    tokio::spawn(accept(incoming, tls, beats, ready));
    ReceiverStream::new(connections)
}

/// Ends when nobody takes connections any more.
async fn accept(
    incoming: impl Stream<Item = io::Result<TcpStream>>,
    tls: AgentTls,
    mut beats: Beats,
    ready: mpsc::Sender<io::Result<TlsStream<Guarded<TcpStream>>>>,
) {
    let doorkeeper = Doorkeeper::new(BOUNDS);
    let failures = Arc::new(Failures::default());
    let mut incoming = std::pin::pin!(incoming);
    loop {
        let next = tokio::select! {
            Some(beat) = beats.recv() => {
                // Who asked may have lost patience.
                let _ = beat.send(());
                continue;
            }
            next = incoming.next() => next,
            () = ready.closed() => None,
        };
        let Some(connection) = next else { return };
        let admitted = connection.and_then(|connection| Ok(doorkeeper.admit(connection.peer_addr()?, connection)));
        let connection = match admitted {
            Ok(connection) => connection,
            Err(error) => {
                // The system has no descriptor to spare, or the client has left already.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        let (acceptor, failures, ready) = (TlsAcceptor::from(tls.current()), Arc::clone(&failures), ready.clone());
        tokio::spawn(async move {
            if let Some(connection) = shake_hands(connection, &acceptor, &failures).await {
                connection.get_ref().0.vouch();
                // A server that is going down takes no more.
                let _ = ready.send(Ok(connection)).await;
            }
        });
    }
}

async fn shake_hands(
    connection: Guarded<TcpStream>,
    acceptor: &TlsAcceptor,
    failures: &Failures,
) -> Option<TlsStream<Guarded<TcpStream>>> {
    let peer = connection.get_ref().peer_addr();
    let shaken = tokio::time::timeout(DEADLINE, acceptor.accept(connection)).await;
    let error: &dyn fmt::Display = match &shaken {
        Ok(Ok(_)) => return shaken.ok().and_then(Result::ok),
        Ok(Err(error)) => error,
        Err(_) => &"the client fell silent",
    };
    if let Some(untold) = failures.count(Instant::now()) {
        let peer = peer.as_ref().map_or_else(|_| "unknown".into(), SocketAddr::to_string);
        tracing::warn!(peer, %error, untold, "a TLS handshake failed");
    }
    None
}

/// Failures since the log was told.
#[derive(Default)]
struct Failures(Mutex<(Option<Instant>, u64)>);

impl Failures {
    /// Whether to tell of this one, and how many were not told since the last.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, untold) = &mut *state;
        if told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            *untold += 1;
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_failures_is_told_in_few_lines_that_count_them() {
        let failures = Failures::default();
        let start = Instant::now();
        let tell = |milliseconds| failures.count(start + Duration::from_millis(milliseconds));
        assert_eq!(tell(0), Some(0));
        assert_eq!([tell(1), tell(5000), tell(9999)], [None; 3]);
        assert_eq!(tell(10_000), Some(3));
        assert_eq!([tell(10_001), tell(30_000)], [None, Some(1)]);
    }
}
