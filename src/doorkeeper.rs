//! Bounds what strangers cost a listener.
//!
//! Who connects is let in, always, so a flood keeps nobody out for long. Once a listener, or one address at it, has as many
//! connections as it may, the one that has been silent for longest goes. A stranger who holds sockets therefore loses
//! them, while whoever speaks stays: a scrape or a request is over before its turn comes.
//!
//! A stranger can speak too, a byte at a time. Whoever has proved who he is therefore stays while there are strangers, and
//! only a part of all connections, and of those of one address, is kept so: there is always a stranger to show out.

use crate::descriptors;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// After the system refused a connection (no descriptor is free) nothing is gained by asking again at once.
pub(crate) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(250);

/// Which part of the descriptors of a process one listener may use: a daemon has three at most, and needs the rest itself.
const PART_OF_DESCRIPTORS: usize = 8;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) in_all: usize,
    pub(crate) per_address: usize,
}

impl Bounds {
    /// Fewer where the process may have few descriptors, so that strangers never use up all of them.
    fn within(self, descriptors: usize) -> Self {
        let in_all = self.in_all.min((descriptors / PART_OF_DESCRIPTORS).max(2));
        Self { in_all, per_address: self.per_address.min(in_all) }
    }
}

#[derive(Debug)]
struct Guest {
    address: IpAddr,
    /// When it was last heard or told something, in milliseconds since the doorkeeper began.
    last_active: AtomicU64,
    /// Has proved who it is. Written only by who holds the guests.
    is_known: AtomicBool,
    shown_out: CancellationToken,
}

#[derive(Debug, Default)]
struct Guests {
    next: u64,
    by_number: BTreeMap<u64, Arc<Guest>>,
}

/// Knows the connections of one listener.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    bounds: Bounds,
    began: Instant,
    guests: Mutex<Guests>,
}

impl Doorkeeper {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let bounds = bounds.within(descriptors::limit());
        Arc::new(Self { bounds, began: Instant::now(), guests: Mutex::default() })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Lets a connection in; shows another one out if there are too many.
    pub(crate) fn admit<S>(self: &Arc<Self>, peer: SocketAddr, stream: S) -> Guarded<S> {
        let guest = Arc::new(Guest {
            address: peer.ip().to_canonical(),
            last_active: AtomicU64::new(self.now()),
            is_known: AtomicBool::new(false),
            shown_out: CancellationToken::new(),
        });
        let mut guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        let same_address = |other: &&Arc<Guest>| other.address == guest.address;
        if guests.by_number.values().filter(same_address).count() >= self.bounds.per_address {
            guests.show_out(|other| other.address == guest.address);
        } else if guests.by_number.len() >= self.bounds.in_all {
            guests.show_out(|_| true);
        }
        let number = guests.next;
        guests.next += 1;
        guests.by_number.insert(number, Arc::clone(&guest));
        drop(guests);
        let shown_out = Box::pin(guest.shown_out.clone().cancelled_owned());
        Guarded { stream, shown_out, guest, number, doorkeeper: Arc::clone(self) }
    }

    /// Keeps a connection as long as there are strangers. Of those that are kept, the one that has been silent for longest
    /// becomes a stranger again if they are half of all that there may be.
    fn keep(&self, number: u64) {
        let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was shown out meanwhile is not among them.
        let Some(guest) = guests.by_number.get(&number) else { return };
        if guest.is_known() {
            return;
        }
        for (same_address, bound) in [(true, self.bounds.per_address), (false, self.bounds.in_all)] {
            let among = |other: &&Arc<Guest>| other.is_known() && (!same_address || other.address == guest.address);
            if guests.by_number.values().filter(among).count() >= bound / 2
                && let Some(silent) = guests.by_number.values().filter(among).min_by_key(|other| other.last_active())
            {
                silent.is_known.store(false, Ordering::Relaxed);
            }
        }
        guest.is_known.store(true, Ordering::Relaxed);
    }

    fn forget(&self, number: u64) {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).by_number.remove(&number);
    }

    /// Connections at this moment.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner).by_number.len()
    }
}

impl Guest {
    fn last_active(&self) -> u64 {
        self.last_active.load(Ordering::Relaxed)
    }

    fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }
}

impl Guests {
    /// The one of these that has been silent for longest, a stranger if there is one.
    fn show_out(&mut self, among: impl Fn(&Guest) -> bool) {
        let candidates = self.by_number.iter().filter(|(_, guest)| among(guest));
        let silent = candidates.min_by_key(|(_, guest)| (guest.is_known(), guest.last_active()));
        if let Some(number) = silent.map(|(number, _)| *number)
            && let Some(guest) = self.by_number.remove(&number)
        {
            guest.shown_out.cancel();
        }
    }
}

/// A connection that may be ended to make room.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    shown_out: Pin<Box<WaitForCancellationFutureOwned>>,
    guest: Arc<Guest>,
    number: u64,
    doorkeeper: Arc<Doorkeeper>,
}

impl<S> Guarded<S> {
    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// It is no stranger's any more: it is counted no longer, and makes room for nobody.
    pub(crate) fn vouch(&self) {
        self.doorkeeper.forget(self.number);
    }

    /// What its requests need to tell that it has proved who it is.
    pub(crate) fn standing(&self) -> Standing {
        Standing { number: self.number, doorkeeper: Arc::clone(&self.doorkeeper) }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.shown_out.as_mut().poll(context) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection made room for others"))
            }
            Poll::Pending => Ok(()),
        }
    }

    fn is_active(&self) {
        self.guest.last_active.store(self.doorkeeper.now(), Ordering::Relaxed);
    }
}

/// How a listener sees the connection over which a request came.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    number: u64,
    doorkeeper: Arc<Doorkeeper>,
}

impl Standing {
    /// It has proved who it is: it stays as long as there are strangers, within bounds.
    pub(crate) fn keep(&self) {
        self.doorkeeper.keep(self.number);
    }
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        self.doorkeeper.forget(self.number);
    }
}

impl Connected for Guarded<TcpStream> {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.is_active();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.is_active();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.is_active();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    fn connect(doorkeeper: &Arc<Doorkeeper>, address: &str) -> (Guarded<DuplexStream>, DuplexStream) {
        let (here, there) = duplex(64);
        (doorkeeper.admit(SocketAddr::new(address.parse().unwrap(), 1), here), there)
    }

    async fn is_shown_out(guarded: &mut Guarded<DuplexStream>) -> bool {
        let mut buffer = [0; 8];
        let read = tokio::time::timeout(Duration::from_millis(1), guarded.read(&mut buffer)).await;
        matches!(read, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted)
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_make_room_for_those_who_come() {
        let doorkeeper = Doorkeeper::new(Bounds { in_all: 3, per_address: 2 });
        let (mut first, mut client) = connect(&doorkeeper, "192.0.2.1");
        tokio::time::advance(Duration::from_secs(1)).await;
        let (mut second, _second) = connect(&doorkeeper, "::ffff:192.0.2.1");
        tokio::time::advance(Duration::from_secs(1)).await;
        client.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(first.read(&mut buffer).await.unwrap(), 5);

        let (mut third, _third) = connect(&doorkeeper, "192.0.2.1");
        assert!(is_shown_out(&mut second).await, "of one address, whoever has been silent for longest");
        assert!(!is_shown_out(&mut first).await && !is_shown_out(&mut third).await);
        drop(second);

        tokio::time::advance(Duration::from_secs(1)).await;
        let (mut fourth, _fourth) = connect(&doorkeeper, "192.0.2.4");
        let (mut fifth, _fifth) = connect(&doorkeeper, "192.0.2.5");
        assert_eq!(doorkeeper.count(), 3);
        assert!(is_shown_out(&mut first).await || is_shown_out(&mut third).await);
        assert!(!is_shown_out(&mut fourth).await && !is_shown_out(&mut fifth).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_who_speaks_does_not_show_out_who_is_known_and_silent() {
        let doorkeeper = Doorkeeper::new(Bounds { in_all: 4, per_address: 4 });
        let (mut follower, _follower) = connect(&doorkeeper, "192.0.2.1");
        follower.standing().keep();
        let mut strangers = Vec::new();
        for number in 0..20 {
            tokio::time::advance(Duration::from_secs(1)).await;
            // From the same address, and from others.
            let (mut stranger, mut client) = connect(&doorkeeper, ["192.0.2.1", "192.0.2.2"][number % 2]);
            client.write_all(b"x").await.unwrap();
            assert_eq!(stranger.read(&mut [0; 8]).await.unwrap(), 1);
            strangers.push((stranger, client));
            assert!(doorkeeper.count() <= 4);
        }
        assert!(!is_shown_out(&mut follower).await);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_half_of_the_connections_are_kept() {
        let doorkeeper = Doorkeeper::new(Bounds { in_all: 6, per_address: 4 });
        let mut known = Vec::new();
        for address in ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.3"] {
            tokio::time::advance(Duration::from_secs(1)).await;
            let pair = connect(&doorkeeper, address);
            pair.0.standing().keep();
            pair.0.standing().keep();
            known.push(pair);
        }
        let kept: Vec<_> = known.iter().map(|(guarded, _)| guarded.guest.is_known()).collect();
        assert_eq!(kept, [false, false, false, true, true, true]);
        let (mut newcomer, _newcomer) = connect(&doorkeeper, "192.0.2.9");
        assert!(is_shown_out(&mut known[0].0).await && !is_shown_out(&mut newcomer).await);
    }

    #[test]
    fn strangers_never_use_up_all_descriptors() {
        let bounds = Bounds { in_all: 2048, per_address: 512 };
        assert_eq!(bounds.within(65_536), bounds);
        assert_eq!(bounds.within(1024), Bounds { in_all: 128, per_address: 128 });
        assert_eq!(bounds.within(0), Bounds { in_all: 2, per_address: 2 });
    }

    #[tokio::test]
    async fn whoever_leaves_is_forgotten() {
        let doorkeeper = Doorkeeper::new(Bounds { in_all: 10, per_address: 10 });
        let guests: Vec<_> = (0..5).map(|_| connect(&doorkeeper, "192.0.2.1")).collect();
        assert_eq!(doorkeeper.count(), 5);
        drop(guests);
        assert_eq!(doorkeeper.count(), 0);
    }
}
