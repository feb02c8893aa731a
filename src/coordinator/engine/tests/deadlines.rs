//! Deadlines are counted from the dispatch, however often the coordinator starts meanwhile.

use super::{
    Lab, issue,
    takeover::{at_rest, chain, create, open, start},
};
use crate::{
    agent::runner::simulated::{Behaviour, refresh},
    coordinator::{
        agents::AgentPool,
        store::{host, task},
    },
    graph::TaskStatus,
    steps::Step,
    tls::Role,
};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_step_that_was_handed_out_long_ago_is_not_begun_after_a_restart() {
    let lab = Lab::new(Behaviour::Succeed).await;
    let directory = lab.directory.path();
    let store = open(directory).await;
    let mut transaction = store.begin().await.unwrap();
    let address = lab.agent.address();
    host::insert(&mut transaction, address.ip(), address.port(), 1, &host::HostDetails::default()).await.unwrap();
    transaction.commit().await.unwrap();
    // Its dispatch is of 1970.
    let task = create(&store, &chain(vec![Step::Agent(refresh())]), true).await;
    let shutdown = CancellationToken::new();
    let pool = AgentPool::new(&issue(directory, Role::Coordinator)).unwrap();
    let engine = start(directory, store.clone(), pool, shutdown.clone()).await;
    assert_eq!(at_rest(&store, task).await, TaskStatus::Failed);
    let mut connection = store.readers().acquire().await.unwrap();
    let record = task::get(&mut connection, task).await.unwrap().unwrap();
    let failure = record.subtasks[0].failure.as_ref().unwrap();
    assert_eq!(failure.reason, "TIMEOUT", "{failure:?}");
    assert_eq!(lab.carrier.calls().len(), 0, "it is not submitted anew");
    shutdown.cancel();
    engine.stopped().await;
}
