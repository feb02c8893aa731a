//! Agents without an engine: a driver that submits, watches and acknowledges until every outcome is in.

use super::{
    LIMIT, agents,
    hosts::{Memory, SimulatedHost},
    network,
    steps::thing,
    world::{Count, Line, World},
};
use crate::{
    agent::runner::simulated::{install, refresh, sync_parameters},
    coordinator::agents::{Agent, AgentAddress, CallError},
    graph::Direction,
    rpc::v1,
    steps::{AgentStep, OBPROXY_SYS_PASSWORD, fingerprint},
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

const AGENTS: usize = 3;

fn name(agent: usize) -> String {
    format!("host-{agent}")
}

fn script() -> [AgentStep; 3] {
    [install(), sync_parameters(), refresh()]
}

fn request(step: &AgentStep, operation_id: Uuid) -> v1::SubmitRequest {
    let secret = |name: &&str| v1::Secret { name: (*name).into(), value: b"secret".to_vec() };
    assert!(step.secrets().iter().all(|name| *name == OBPROXY_SYS_PASSWORD));
    v1::SubmitRequest {
        key: Some(v1::OperationKey { operation_id: operation_id.to_string(), attempt: 1 }),
        epoch: 1,
        fingerprint: fingerprint(step, Direction::Execute),
        direction: v1::Direction::Execute.into(),
        step: Some(v1::Step::from(step)),
        undoes_operation_id: String::new(),
        undoes_effect: v1::Effect::Unspecified.into(),
        secrets: step.secrets().iter().map(secret).collect(),
        timeout: None,
    }
}

/// Asks until the outcome is known.
async fn outcome(agent: &Agent, request: v1::SubmitRequest) -> v1::Outcome {
    loop {
        if let Ok(outcome) = ask(agent, request.clone()).await {
            return outcome;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn ask(agent: &Agent, request: v1::SubmitRequest) -> anyhow::Result<v1::Outcome> {
    let key = request.key.clone();
    agent.submit(request).await?;
    let mut stream = agent.watch(v1::WatchRequest { key, after_sequence: 0, log_offset: 0 }).await?;
    while let Some(message) = tokio::time::timeout(Duration::from_secs(30), stream.message()).await?? {
        if let Some(v1::watch_response::Item::Event(v1::Event { outcome: Some(outcome), .. })) = message.item {
            return Ok(outcome);
        }
    }
    anyhow::bail!("no outcome")
}

async fn acknowledge(agent: &Agent, key: v1::OperationKey) {
    while let Err(CallError::Unknown { .. }) = agent.acknowledge(key.clone(), 1).await {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn drive(world: Arc<World>) -> turmoil::Result {
    let pool = Arc::new(network::pool());
    let mut hosts = tokio::task::JoinSet::new();
    for host in (0..AGENTS).map(name) {
        let agent = pool.agent(AgentAddress::new(turmoil::lookup(host.as_str()), network::AGENT_PORT))?;
        for step in script() {
            let (world, agent, host) = (Arc::clone(&world), agent.clone(), host.clone());
            hosts.spawn(async move {
                let request = request(&step, Uuid::now_v7());
                let key = request.key.clone().unwrap();
                let outcome = outcome(&agent, request).await;
                world.note(&host, format!("{} ended {:?}", step.kind(), outcome.result()));
                acknowledge(&agent, key).await;
            });
        }
    }
    while let Some(ended) = hosts.join_next().await {
        ended?;
    }
    Ok(())
}

fn run(seed: u64, memory: Memory) -> (Vec<Line>, Arc<World>) {
    let world = World::new(seed);
    let directory = agents::state_directory();
    let mut sim = super::simulation(seed);
    for host in (0..AGENTS).map(name) {
        let state_dir = directory.path().join(&host);
        let carrier = SimulatedHost { world: Arc::clone(&world), name: host, memory, failures: 0.0 };
        agents::add(&mut sim, &world, carrier, state_dir);
    }
    sim.client("driver", drive(Arc::clone(&world)));
    let mut random = fastrand::Rng::with_seed(!seed);
    let crashes: Vec<(Duration, String)> =
        (0..4).map(|_| (Duration::from_secs(10).mul_f64(random.f64()), name(random.usize(0..AGENTS)))).collect();
    let mut down: Vec<(Duration, String)> = Vec::new();
    let mut crashes = crashes;
    while !sim.step().unwrap() {
        let now = sim.elapsed();
        assert!(now < LIMIT);
        crashes.retain(|(at, host)| {
            if *at > now {
                return true;
            }
            if !down.iter().any(|(_, other)| other == host) {
                sim.crash(host.as_str());
                world.note(host, format!("crashed {now:?}"));
                down.push((now + Duration::from_secs(1), host.clone()));
            }
            false
        });
        down.retain(|(until, host)| {
            if *until > now {
                return true;
            }
            sim.bounce(host.as_str());
            false
        });
    }
    (world.record(), world)
}

#[test]
fn agents_that_crash_make_everything_once_and_the_same_in_every_run() {
    for seed in 0..50 {
        let (first, world) = run(seed, Memory::Looks);
        let (second, _) = run(seed, Memory::Looks);
        for (one, two) in first.iter().zip(&second) {
            assert_eq!(one, two, "seed {seed}");
        }
        assert_eq!(first.len(), second.len());
        for host in (0..AGENTS).map(name) {
            for step in script() {
                assert_eq!(world.count(&thing(&host, &step).unwrap()), Count { made: 1, taken_back: 0 }, "seed {seed}");
            }
        }
    }
}

#[test]
fn a_host_that_does_not_look_up_what_it_began_is_caught() {
    let caught = (0..50).filter(|seed| !run(*seed, Memory::Begins).1.repeated().is_empty()).count();
    assert!(caught > 10, "caught in {caught} of 50 seeds");
    println!("caught in {caught} of 50 seeds");
}
