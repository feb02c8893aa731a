//! The ways in which it ends.

use super::{Proxy, config::Config, kind, log::Log, version::Rules};
use nix::sys::signal::{SigSet, Signal};
use std::{
    path::Path,
    process,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

/// X1: the slowest end that was seen.
const LONGEST_DELAY: Duration = Duration::from_millis(700);

fn signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// Threads that are started later leave the signals to the one that waits for them.
pub(super) fn hold_signals() -> nix::Result<()> {
    signals().thread_block()
}

/// X1, X2. With which code a daemon ends is silent; 1 is what its supervisor has to bear.
pub(super) fn on_signal(root: &Path, rules: &'static Rules, config: &Config) {
    let log = Log::open(root, rules);
    let delay = item_time(config, "delay_exit_time").min(LONGEST_DELAY);
    thread::spawn(move || {
        let Ok(signal) = signals().wait() else { return };
        log.info(&format!("receive signal(sig={})", signal as i32));
        thread::sleep(delay);
        process::exit(1);
    });
}

/// X5: the command is looked at now and then.
pub(super) fn on_command(proxy: Arc<Proxy>) {
    thread::spawn(move || {
        loop {
            thread::sleep(proxy.with_config(|config| item_time(config, "proxy_hot_upgrade_check_interval")));
            if proxy.told_to_exit.load(Ordering::Relaxed) {
                proxy.log.info("exit by proxy_local_cmd");
                process::exit(0);
            }
        }
    });
}

/// A fault: it dies on its own.
pub(super) fn after_a_while(proxy: &Arc<Proxy>) {
    if proxy.faults.die_after_ms == 0 {
        return;
    }
    let proxy = Arc::clone(proxy);
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(proxy.faults.die_after_ms));
        proxy.log.death("the stand-in dies as it was told to", -4016);
        process::exit(proxy.faults.exit_code);
    });
}

fn item_time(config: &Config, name: &str) -> Duration {
    let microseconds = kind::microseconds(config.get(name)).and_then(|time| u64::try_from(time).ok());
    Duration::from_micros(microseconds.unwrap_or_default())
}
