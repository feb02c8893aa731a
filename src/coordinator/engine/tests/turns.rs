//! Steps of many tasks on one host.

use super::{
    Lab, issue,
    takeover::{at_rest, chain, create, open, start},
};
use crate::{
    agent::{operation::Phase, runner::simulated::Behaviour},
    coordinator::{
        agents::AgentPool,
        engine::MAX_RUNNING_PER_HOST,
        store::{host, task::TaskId},
    },
    graph::{NodeIndex, TaskStatus},
    steps::{CheckInstance, Step},
    tls::Role,
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A check of another port for each, so that the agent itself would take them all.
fn step(port: i64) -> Step {
    CheckInstance { ports: vec![port.try_into().unwrap()], architecture: "x86_64".parse().unwrap(), disk_bytes: 1 }
        .into()
}

#[tokio::test]
async fn on_one_host_four_steps_run_and_the_others_wait_for_their_turn() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running)).await;
    let directory = lab.directory.path();
    let store = open(directory).await;
    let mut transaction = store.begin().await.unwrap();
    let address = lab.agent.address();
    host::insert(&mut transaction, address.ip(), address.port(), 1, &host::HostDetails::default()).await.unwrap();
    transaction.commit().await.unwrap();
    let mut tasks = Vec::new();
    for port in 2000..2006 {
        tasks.push(create(&store, &chain(vec![step(port)]), false).await);
    }
    let shutdown = CancellationToken::new();
    let pool = AgentPool::new(&issue(directory, Role::Coordinator)).unwrap();
    let engine = start(directory, store.clone(), pool, shutdown.clone()).await;
    let waits = |task: &&TaskId| {
        let wait = engine.waits(**task).remove(&NodeIndex(0));
        wait.is_some_and(|wait| wait.what.starts_with("its turn on host"))
    };
    let counted = async {
        loop {
            let (run, wait) = (lab.carrier.calls().len(), tasks.iter().filter(waits).count());
            if run + wait == tasks.len() {
                return (run, wait);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(60), counted).await.expect("each runs or waits");
    assert_eq!(counted, (MAX_RUNNING_PER_HOST, 2));
    assert_eq!(MAX_RUNNING_PER_HOST, 4, "as the documentation says");
    lab.carrier.gate.add_permits(tasks.len());
    for task in tasks {
        assert_eq!(at_rest(&store, task).await, TaskStatus::Successful);
    }
    shutdown.cancel();
    engine.stopped().await;
}
