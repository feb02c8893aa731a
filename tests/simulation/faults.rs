//! What breaks, when, and for how long.

use super::{
    network::{HIGHEST_LATENCY, LOWEST_LATENCY},
    tasks::host_name,
    world::{COORDINATOR, World},
};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use turmoil::Sim;

#[derive(Debug, Clone)]
enum Fault {
    Crash(String),
    /// What the coordinator and the host send each other is lost.
    Partition(String),
    /// It comes late.
    Hold(String),
    Repair(String),
    Release(String),
    Restart(String),
}

/// Faults still to come, and the repairs of those that came.
pub(super) struct Faults {
    /// Of a message. A lost one breaks its link: for TCP that is a partition which begins and ends by chance. Where there
    /// is such loss, no other partitions are.
    pub(super) loss: f64,
    hosts: Vec<String>,
    planned: Vec<(Duration, Fault)>,
}

const LONGEST_DOWNTIME: Duration = Duration::from_secs(4);
const LONGEST_PARTITION: Duration = Duration::from_secs(20);
/// Of a program that ended by itself: systemd waits a moment.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// In real time.
const CLOSING: Duration = Duration::from_secs(60);

impl Faults {
    /// Only restarts of what crashes by itself.
    pub(super) fn none(hosts: i64) -> Self {
        Self { loss: 0.0, hosts: (1..=hosts).map(host_name).collect(), planned: Vec::new() }
    }

    pub(super) fn plan(random: &mut fastrand::Rng, hosts: i64, until: Duration) -> Self {
        let loss = if random.u8(0..4) == 0 { 0.002 } else { 0.0 };
        let mut planned = Vec::new();
        for _ in 0..random.usize(2..9) {
            let at = until.mul_f64(random.f64());
            let host = host_name(random.i64(1..=hosts));
            let long = at + LONGEST_PARTITION.mul_f64(random.f64());
            match random.u8(0..6) {
                0..3 => planned.push((at, Fault::Crash(host))),
                3 => planned.push((at, Fault::Crash(COORDINATOR.into()))),
                _ if loss > 0.0 => {}
                4 => planned.extend([(at, Fault::Partition(host.clone())), (long, Fault::Repair(host))]),
                _ => planned.extend([(at, Fault::Hold(host.clone())), (long, Fault::Release(host))]),
            }
        }
        Self { loss, hosts: (1..=hosts).map(host_name).collect(), planned }
    }

    /// Nothing breaks any more, and what is broken is repaired.
    pub(super) fn mend(&mut self, sim: &mut Sim<'_>, world: &World) {
        world.note_at(sim.elapsed(), "network", "everything is mended");
        self.loss = 0.0;
        sim.set_fail_rate(self.loss);
        self.repair_all(sim);
        let now = sim.elapsed();
        self.planned.retain_mut(|(at, fault)| match fault {
            Fault::Crash(_) | Fault::Partition(_) | Fault::Hold(_) => false,
            Fault::Repair(_) | Fault::Release(_) | Fault::Restart(_) => {
                *at = now;
                true
            }
        });
    }

    fn repair_all(&self, sim: &mut Sim<'_>) {
        for host in &self.hosts {
            sim.repair(COORDINATOR, host.as_str());
        }
    }

    pub(super) fn step(&mut self, sim: &mut Sim<'_>, world: &World, directory: &Path) {
        let now = sim.elapsed();
        for host in world.take_crashes() {
            self.crash(sim, &host, world, directory);
        }
        let (due, later) = self.planned.drain(..).partition(|(at, _)| *at <= now);
        self.planned = later;
        let due: Vec<(Duration, Fault)> = due;
        for (_, fault) in due {
            world.note_at(now, "network", format!("{fault:?}"));
            match &fault {
                Fault::Crash(host) => self.crash(sim, host, world, directory),
                Fault::Partition(host) => sim.partition(COORDINATOR, host.as_str()),
                Fault::Hold(host) => sim.hold(COORDINATOR, host.as_str()),
                Fault::Repair(host) => sim.repair(COORDINATOR, host.as_str()),
                Fault::Release(host) => sim.release(COORDINATOR, host.as_str()),
                Fault::Restart(host) => sim.bounce(host.as_str()),
            }
        }
    }

    pub(super) fn crash(&mut self, sim: &mut Sim<'_>, host: &str, world: &World, directory: &Path) {
        let restarts = |fault: &Fault| matches!(fault, Fault::Restart(other) if other == host);
        if self.planned.iter().any(|(_, fault)| restarts(fault)) {
            return;
        }
        // tokio drops the tasks of a runtime in an order that no seed decides, and each closes its connections: where
        // all messages have one fate, the order makes no difference.
        sim.set_fail_rate(0.0);
        if self.loss > 0.0 {
            self.repair_all(sim);
        }
        sim.set_max_message_latency(LOWEST_LATENCY);
        sim.crash(host);
        sim.set_max_message_latency(HIGHEST_LATENCY);
        sim.set_fail_rate(self.loss);
        wait_until_closed(&directory.join(host));
        let downtime = RESTART_AFTER.max(world.delay(LONGEST_DOWNTIME));
        self.planned.push((sim.elapsed() + downtime, Fault::Restart(host.into())));
    }
}

/// SQLite closes a journal in a thread of its own, and the last to close takes the write-ahead log away.
fn wait_until_closed(state_dir: &Path) {
    let begun = Instant::now();
    while state_dir.join("journal.db-wal").exists() {
        assert!(begun.elapsed() < CLOSING, "the journal of a crashed agent is not closed");
        std::thread::yield_now();
    }
}
