//! One simulation from its seed to its end.

use super::{
    EPOCH, LIMIT, TICK, agents, checks, coordinator,
    faults::Faults,
    network, packages,
    perils::{Defect, Odds, Peril, Perils},
    requests::Request,
    rows::Row,
    tasks,
    traps::Within,
    world::{COORDINATOR, Line, STANDBY, World},
};
use std::time::Duration;

const HOSTS: i64 = 3;
/// So long everything goes wrong; then all is mended, and whatever is left has to come to its end.
const TURMOIL: Duration = Duration::from_secs(30);
/// The same where few faults come, so that they meet something.
const LONG_TURMOIL: Duration = Duration::from_secs(60);
/// Longest life of a simulation in which little goes wrong.
const SHORT_LIMIT: Duration = Duration::from_secs(240);
/// So long nothing may happen any more.
const AFTERMATH: Duration = Duration::from_secs(3);

/// What a simulation came to.
pub(super) struct Report {
    pub(super) record: Vec<Line>,
    pub(super) violations: Vec<String>,
}

pub(super) fn simulation<'a>(seed: u64) -> turmoil::Sim<'a> {
    // The backoff of the coordinator takes its jitter from here.
    fastrand::seed(seed);
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(std::time::UNIX_EPOCH + EPOCH)
        .tick_duration(TICK)
        .simulation_duration(LIMIT)
        .min_message_latency(network::LOWEST_LATENCY)
        .max_message_latency(network::HIGHEST_LATENCY)
        .repair_rate(0.05)
        .build()
}

pub(super) fn run(seed: u64, perils: Perils, defect: Option<Defect>) -> Report {
    let mut random = fastrand::Rng::with_seed(!seed);
    let (turmoil, limit) = if perils == Perils::All { (TURMOIL, LIMIT) } else { (LONG_TURMOIL, SHORT_LIMIT) };
    let world = World::with(seed, Odds::draw(&mut random, perils), defect);
    let _within = Within::new(&world);
    let directory = agents::state_directory();
    let packages = directory.path().join("uploaded");
    world.keep_packages(&packages);
    let mut sim = simulation(seed);
    agents::add(&mut sim, &world, HOSTS, directory.path());
    coordinator::add(&mut sim, &world, COORDINATOR);
    let of_two = perils.include(Peril::Standby) || perils.include(Peril::Rivals);
    let has_standby = of_two && (perils != Perils::All || random.u8(0..4) == 0);
    if has_standby {
        coordinator::add(&mut sim, &world, STANDBY);
    }
    let requests = (0..random.u16(1..4)).map(|key| {
        let plan = tasks::plan(&mut random, key, HOSTS);
        packages::upload(&packages, key, &plan);
        Request { key, plan, due: TURMOIL.mul_f64(0.5 * random.f64()) }
    });
    let requests: Vec<Request> = requests.collect();
    let asked = requests.len();
    world.change_requests(|all| all.extend(requests));
    let mut faults = Faults::plan(&mut random, HOSTS, turmoil, perils, has_standby);
    sim.set_fail_rate(faults.loss);

    while sim.elapsed() < limit {
        sim.step().unwrap();
        faults.step(&mut sim, &world, directory.path());
        let now = sim.elapsed();
        if now >= turmoil && !world.is_calm() {
            world.calm();
            faults.mend(&mut sim, &world);
        }
        if world.is_calm() && world.requests().is_empty() && world.tables().rows.values().all(Row::is_over) {
            break;
        }
    }
    let end = sim.elapsed() + AFTERMATH;
    while sim.elapsed() < end {
        sim.step().unwrap();
        faults.step(&mut sim, &world, directory.path());
    }
    checks::at_the_end(&world);
    let made = world.tables().rows.len();
    if made != asked {
        world.violation(format!("{asked} requests made {made} tasks"));
    }
    for host in (1..=HOSTS).map(tasks::host_name) {
        faults.crash(&mut sim, &host, &world, directory.path());
        checks::agent_at_the_end(&world, &host, &directory.path().join(&host));
    }
    Report { record: world.take_record(), violations: world.violations() }
}
