//! What breaks, when, and for how long.

use super::{
    journals,
    network::{HIGHEST_LATENCY, LOWEST_LATENCY},
    packages,
    perils::{Peril, Perils},
    tasks::host_name,
    world::{COORDINATOR, STANDBY, World},
};
use std::{path::Path, time::Duration};
use turmoil::Sim;

#[derive(Debug, Clone)]
enum Fault {
    Crash(String),
    /// What a coordinator and a host send each other is lost.
    Partition(String, String),
    /// What the first sends the second is lost.
    OneWay(String, String),
    /// It comes late.
    Hold(String, String),
    Repair(String, String),
    Release(String, String),
    Restart(String),
    /// The clock of a host is so many seconds ahead.
    Clock(String, i64),
    /// The store does not answer a coordinator, until it answers all.
    CutOff(Option<String>),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    CrashAgent,
    CrashCoordinator,
    Partition,
    Hold,
    OneWay,
    Clock,
    CutOff,
}

/// Faults still to come, and the repairs of those that came.
pub(super) struct Faults {
    /// Of a message. A lost one breaks its link: for TCP that is a partition which begins and ends by chance. Where there
    /// is such loss, no other partitions are.
    pub(super) loss: f64,
    hosts: Vec<String>,
    coordinators: Vec<String>,
    planned: Vec<(Duration, Fault)>,
}

const LONGEST_DOWNTIME: Duration = Duration::from_secs(4);
const LONGEST_PARTITION: Duration = Duration::from_secs(20);
/// In seconds.
const FARTHEST_CLOCK: i64 = 7200;
/// Of a program that ended by itself: systemd waits a moment.
const RESTART_AFTER: Duration = Duration::from_secs(1);

impl Faults {
    /// Only restarts of what crashes by itself.
    pub(super) fn none(hosts: i64) -> Self {
        let hosts = (1..=hosts).map(host_name).collect();
        Self { loss: 0.0, hosts, coordinators: vec![COORDINATOR.into()], planned: Vec::new() }
    }

    /// Faults of these kinds; with a second coordinator they come to either.
    pub(super) fn plan(random: &mut fastrand::Rng, hosts: i64, until: Duration, perils: Perils, standby: bool) -> Self {
        let mut faults = Self::none(hosts);
        if standby {
            faults.coordinators.push(STANDBY.into());
        }
        if perils == Perils::All && random.u8(0..4) == 0 {
            faults.loss = 0.002;
        }
        for _ in 0..random.usize(2..9) {
            faults.add(random, until, perils);
        }
        faults
    }

    fn add(&mut self, random: &mut fastrand::Rng, until: Duration, perils: Perils) {
        let at = until.mul_f64(random.f64());
        let long = at + LONGEST_PARTITION.mul_f64(random.f64());
        let host = random.choice(&self.hosts).unwrap().clone();
        let coordinator = random.choice(&self.coordinators).unwrap().clone();
        let link = || (coordinator.clone(), host.clone());
        let ((a, b), (c, d)) = (link(), link());
        match random.choice(self.kinds(perils)) {
            None => {}
            Some(Kind::CrashAgent) => self.planned.push((at, Fault::Crash(host))),
            Some(Kind::CrashCoordinator) => self.planned.push((at, Fault::Crash(coordinator))),
            Some(Kind::Partition) => {
                self.planned.extend([(at, Fault::Partition(a, b)), (long, Fault::Repair(c, d))]);
            }
            Some(Kind::Hold) => self.planned.extend([(at, Fault::Hold(a, b)), (long, Fault::Release(c, d))]),
            Some(Kind::OneWay) => {
                let (from, to) = if random.bool() { (a, b) } else { (b, a) };
                self.planned.extend([(at, Fault::OneWay(from, to)), (long, Fault::Repair(c, d))]);
            }
            Some(Kind::Clock) => {
                let seconds = random.i64(-FARTHEST_CLOCK..FARTHEST_CLOCK);
                let whose = if random.bool() { coordinator } else { host };
                // A machine that comes up has the wrong time now and then.
                self.planned.extend([(at, Fault::Clock(whose.clone(), seconds)), (at, Fault::Crash(whose))]);
            }
            Some(Kind::CutOff) => {
                self.planned.extend([(at, Fault::CutOff(Some(coordinator))), (long, Fault::CutOff(None))]);
            }
        }
    }

    fn kinds(&self, perils: Perils) -> Vec<Kind> {
        let mut kinds = Vec::new();
        let breaks = self.loss == 0.0;
        if perils == Perils::All {
            kinds.extend([Kind::CrashAgent, Kind::CrashAgent, Kind::CrashCoordinator]);
            kinds.extend(breaks.then_some([Kind::Partition, Kind::Hold]).into_iter().flatten());
        }
        kinds.extend((perils.include(Peril::Packages)).then_some(Kind::CrashAgent));
        kinds.extend((perils == Perils::Only(Peril::Wal)).then_some(Kind::CrashAgent));
        kinds.extend((perils.include(Peril::OneWay) && breaks).then_some(Kind::OneWay));
        kinds.extend(perils.include(Peril::Clocks).then_some(Kind::Clock));
        kinds.extend((self.coordinators.len() > 1).then_some(Kind::CutOff));
        kinds
    }

    /// Nothing breaks any more, and what is broken is repaired.
    pub(super) fn mend(&mut self, sim: &mut Sim<'_>, world: &World) {
        world.note_at(sim.elapsed(), "network", "everything is mended");
        self.loss = 0.0;
        sim.set_fail_rate(self.loss);
        self.repair_all(sim);
        let now = sim.elapsed();
        self.planned.retain_mut(|(at, fault)| match fault {
            Fault::Crash(_)
            | Fault::Partition(..)
            | Fault::OneWay(..)
            | Fault::Hold(..)
            | Fault::Clock(..)
            | Fault::CutOff(Some(_)) => false,
            Fault::Repair(..) | Fault::Release(..) | Fault::Restart(_) | Fault::CutOff(None) => {
                *at = now;
                true
            }
        });
    }

    fn repair_all(&self, sim: &mut Sim<'_>) {
        for coordinator in &self.coordinators {
            for host in &self.hosts {
                sim.repair(coordinator.as_str(), host.as_str());
            }
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
                Fault::Partition(a, b) => sim.partition(a.as_str(), b.as_str()),
                Fault::OneWay(from, to) => sim.partition_oneway(from.as_str(), to.as_str()),
                Fault::Hold(a, b) => sim.hold(a.as_str(), b.as_str()),
                Fault::Repair(a, b) => sim.repair(a.as_str(), b.as_str()),
                Fault::Release(a, b) => sim.release(a.as_str(), b.as_str()),
                Fault::Restart(host) => sim.bounce(host.as_str()),
                Fault::Clock(host, seconds) => world.set_clock(host, seconds * 1_000_000),
                Fault::CutOff(coordinator) => world.cut_off(coordinator.as_deref()),
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
        journals::keep(world, host, &directory.join(host));
        world.set_crashing(true);
        sim.crash(host);
        world.set_crashing(false);
        sim.set_max_message_latency(HIGHEST_LATENCY);
        sim.set_fail_rate(self.loss);
        journals::wait_until_closed(&directory.join(host));
        packages::damage(world, &directory.join(host));
        let downtime = RESTART_AFTER.max(world.delay(LONGEST_DOWNTIME));
        self.planned.push((sim.elapsed() + downtime, Fault::Restart(host.into())));
    }
}
