//! What a daemon tells the service manager that started it, in the protocol of sd_notify(3). Without one, nothing.
//!
//! The variables of the protocol are read once and taken out of the environment, so that no child can speak in the
//! daemon's name or believes that it was handed sockets.

mod heartbeats;

pub use heartbeats::Heartbeats;

use sd_notify::NotifyState;
use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The protocol's variables, also those that no daemon of ours uses.
const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
/// How often the status sentence may change.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// While it starts, a daemon asks for so much more time, and asks again well before that is over.
const EXTENSION: Duration = Duration::from_secs(60);
const EXTEND_EVERY: Duration = Duration::from_secs(15);
/// A start that takes longer hangs.
const LONGEST_START: Duration = Duration::from_secs(30 * 60);

/// The service manager; clones speak to the same.
#[derive(Debug, Clone)]
pub struct ServiceManager {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads the environment and takes the protocol's variables out of it.
    ///
    /// Call it first in `main`: the environment must not change once there are threads.
    pub fn take_from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|address| connect(&address).ok()).map(Arc::new);
        let watchdog = sd_notify::watchdog_enabled().filter(|period| socket.is_some() && !period.is_zero());
        for name in VARIABLES {
            #[expect(unsafe_code, reason = "the only way to keep a variable from children; no thread runs yet")]
            // SAFETY: called first in main, so no other thread can read or write the environment.
            unsafe {
                env::remove_var(name);
            }
        }
        Self { socket, watchdog }
    }

    /// Recovered and listening.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// Settings and certificates are read again; ends with [`Self::ready`].
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// No more work is taken.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Asks for more time while `start` goes on, within limits.
    pub async fn while_starting<T>(&self, start: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let mut start = std::pin::pin!(start);
        let mut ticks = interval(EXTEND_EVERY);
        loop {
            tokio::select! {
                biased;
                started = &mut start => return started,
                _ = ticks.tick() => {
                    // The first tick comes at once, and asks for nothing that a quick start needs.
                    if (EXTEND_EVERY..LONGEST_START).contains(&begun.elapsed()) {
                        self.extend_timeout(EXTENSION);
                    }
                }
            }
        }
    }

    /// Feeds the watchdog as long as every part of the daemon makes progress, and shows `status`. Never ends.
    pub async fn attend(&self, heartbeats: Heartbeats, status: impl FnMut() -> String) {
        tokio::join!(self.feed(heartbeats), self.show(status));
    }

    async fn feed(&self, heartbeats: Heartbeats) {
        let Some(period) = self.watchdog else { return std::future::pending().await };
        // Fed at half the period, answered within a third of it: an interval is never longer than the period.
        let mut ticks = interval(period / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match heartbeats.beat(period / 3).await {
                Ok(()) => self.tell(&[NotifyState::Watchdog]),
                Err(silent) => tracing::error!(
                    parts = silent.join(", "),
                    "the watchdog is not fed: not every part of the program makes progress"
                ),
            }
        }
    }

    async fn show(&self, mut status: impl FnMut() -> String) {
        let mut shown = None;
        let mut ticks = interval(STATUS_EVERY);
        loop {
            ticks.tick().await;
            let sentence = status();
            if shown.as_ref() != Some(&sentence) {
                self.tell(&[NotifyState::Status(&sentence)]);
                shown = Some(sentence);
            }
        }
    }

    fn extend_timeout(&self, by: Duration) {
        self.tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// Never an error of the daemon: a manager that does not listen finds out by itself.
    fn tell(&self, news: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let text: String = news.iter().map(|line| format!("{line}\n")).collect();
        if let Err(error) = socket.send(text.as_bytes()) {
            tracing::warn!(%error, "the service manager cannot be notified");
        }
    }
}

/// A path, or after an @ a name without a file.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // Whoever does not read must not stop the daemon.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    const PERIOD: Duration = Duration::from_secs(60);

    struct Manager {
        heard: UnixDatagram,
        service: ServiceManager,
    }

    impl Manager {
        fn new() -> Self {
            let (ours, heard) = UnixDatagram::pair().unwrap();
            heard.set_nonblocking(true).unwrap();
            Self { heard, service: ServiceManager { socket: Some(Arc::new(ours)), watchdog: Some(PERIOD) } }
        }

        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 4096];
            let next = || self.heard.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec());
            std::iter::from_fn(next).map(|text| String::from_utf8(text).unwrap()).collect()
        }

        fn feedings(&self) -> usize {
            self.heard().iter().filter(|news| *news == "WATCHDOG=1\n").count()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_part_stops_the_feeding_and_idle_parts_do_not() {
        let manager = Manager::new();
        let stuck = Arc::new(AtomicBool::new(false));
        let mut heartbeats = Heartbeats::default();
        heartbeats.add("idle", || async {});
        heartbeats.add("slow", || tokio::time::sleep(PERIOD / 4));
        let is_stuck = Arc::clone(&stuck);
        heartbeats.add("writer", move || {
            let is_stuck = is_stuck.load(Ordering::Relaxed);
            async move {
                if is_stuck {
                    std::future::pending::<()>().await;
                }
            }
        });
        let service = manager.service.clone();
        let feeder = tokio::spawn(async move { service.feed(heartbeats).await });

        for _ in 0..10 {
            tokio::time::sleep(PERIOD).await;
            assert!(manager.feedings() > 0, "an idle daemon would be killed");
        }
        stuck.store(true, Ordering::Relaxed);
        tokio::time::sleep(PERIOD).await;
        manager.feedings();
        tokio::time::sleep(PERIOD * 10).await;
        assert_eq!(manager.feedings(), 0, "a stuck daemon would live for ever");

        stuck.store(false, Ordering::Relaxed);
        tokio::time::sleep(PERIOD).await;
        assert!(manager.feedings() > 0, "what goes on again is fed again");
        feeder.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_is_told_only_when_it_changes() {
        let manager = Manager::new();
        let (service, running) = (manager.service.clone(), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&running);
        let shower = tokio::spawn(async move {
            service.show(|| format!("{} operations running", seen.load(Ordering::Relaxed))).await;
        });
        tokio::time::sleep(STATUS_EVERY * 10).await;
        running.store(3, Ordering::Relaxed);
        tokio::time::sleep(STATUS_EVERY * 10).await;
        assert_eq!(manager.heard(), ["STATUS=0 operations running\n", "STATUS=3 operations running\n"]);
        shower.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_start_asks_for_time_and_one_that_hangs_asks_no_more() {
        let manager = Manager::new();
        manager.service.while_starting(async {}).await;
        assert!(manager.heard().is_empty());
        manager.service.while_starting(tokio::time::sleep(EXTENSION)).await;
        assert!(manager.heard().iter().any(|news| news == "EXTEND_TIMEOUT_USEC=60000000\n"));
        let hangs = manager.service.while_starting(std::future::pending::<()>());
        assert!(tokio::time::timeout(LONGEST_START, hangs).await.is_err());
        let asked = manager.heard().len();
        let limit = usize::try_from(LONGEST_START.as_secs() / EXTEND_EVERY.as_secs()).unwrap();
        assert!(asked <= limit, "{asked}");
    }

    #[test]
    fn a_reload_carries_the_time_at_which_it_began() {
        let manager = Manager::new();
        manager.service.reloading();
        manager.service.ready();
        let heard = manager.heard();
        assert!(heard[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{heard:?}");
        assert_eq!(heard[1], "READY=1\n");
    }

    #[test]
    fn sockets_without_a_file_are_understood() {
        let name = format!("oblet-test-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        connect(format!("@{name}").as_ref()).unwrap().send(b"READY=1").unwrap();
        assert_eq!(listener.recv(&mut [0; 16]).unwrap(), 7);
    }
}
