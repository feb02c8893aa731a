//! What the agent makes of the journal it finds.

use super::{
    simulated::{Behaviour, PASSWORD, install, order, reached, refresh, sync_parameters, undo_of},
    tests::{Lab, Started, failure},
    *,
};
use crate::{
    agent::operation::UndoTarget,
    graph::{Direction, Effect},
    steps::{AgentStep, SyncObproxyParameters, fingerprint},
};
use std::{collections::BTreeSet, fs, path::Path, time::Instant};
use uuid::Uuid;

fn assert_given_up(record: &Record) {
    assert!(matches!(record.outcome, Some(Outcome::Interrupted(_))), "{record:?}");
    let told = failure(record);
    assert_eq!((told.reason.as_str(), told.effect), ("UNREADABLE_RECORD", Effect::Unknown));
    assert!(told.next_move.contains("look at the host"), "{}", told.next_move);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_costs_its_operation_only() {
    for damage in [
        "UPDATE operations SET step = '{' WHERE position = 1",
        "UPDATE operations SET step = '{\"kind\":\"move_mountain\"}', step_kind = 'move_mountain' WHERE position = 1",
        "UPDATE operations SET phase = 0 WHERE position = 1",
        "UPDATE operations SET phase = 77 WHERE position = 1",
        "UPDATE operations SET secrets = x'00' WHERE position = 1",
        "UPDATE operations SET undoes_operation_id = 'nobody' WHERE position = 1",
    ] {
        let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
        let started = lab.start().await;
        let (damaged, good) = (order(install()), order(refresh()));
        for order in [&damaged, &good] {
            started.runner.submit(order.clone()).await.unwrap();
            reached(&started.runner, order.key, Phase::Running).await;
        }
        started.crash().await;
        simulated::damage(lab.path(), damage).await;
        lab.carrier.behave(Behaviour::Succeed);
        let Started { runner, .. } = lab.start().await;
        let record = runner.get(damaged.key).await.unwrap();
        assert_given_up(&record);
        assert_eq!(runner.submit(damaged.clone()).await.unwrap().record, record, "{damage}");
        let record = reached(&runner, good.key, Phase::Finished).await;
        assert!(matches!(record.outcome, Some(Outcome::Succeeded { .. })), "{record:?}");
        // Its lock is free again, and its end can be acknowledged.
        runner.submit(order(install())).await.unwrap();
        runner.acknowledge(damaged.key, 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_record_whose_name_is_lost_frees_its_lock_and_is_forgotten() {
    for damage in ["UPDATE operations SET operation_id = '../../etc/passwd'", "UPDATE operations SET attempt = -1"] {
        let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
        let started = lab.start().await;
        let damaged = order(install());
        started.runner.submit(damaged.clone()).await.unwrap();
        reached(&started.runner, damaged.key, Phase::Running).await;
        started.crash().await;
        simulated::damage(lab.path(), damage).await;
        let Started { runner, .. } = lab.start().await;
        assert!(matches!(runner.get(damaged.key).await, Err(Refused::NotFound { .. })), "{damage}");
        assert_eq!(runner.submit(order(install())).await.unwrap().record.phase, Phase::Accepted);
        assert_eq!(runner.collect(Duration::ZERO, u64::MAX).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn an_outcome_survives_damage_to_its_phase() {
    let lab = Lab::new(Behaviour::Succeed);
    let started = lab.start().await;
    let strange = order(install());
    started.runner.submit(strange.clone()).await.unwrap();
    let before = reached(&started.runner, strange.key, Phase::Finished).await;
    simulated::damage(lab.path(), "UPDATE operations SET phase = 9").await;
    // Until the agent starts again, only who asks for it hears of it.
    assert!(matches!(started.runner.submit(strange.clone()).await, Err(Refused::Internal(_))));
    assert!(matches!(started.runner.acknowledge(strange.key, 1).await, Err(Refused::Internal(_))));
    started.runner.submit(order(refresh())).await.unwrap();
    started.crash().await;
    let Started { runner, .. } = lab.start().await;
    let record = runner.get(strange.key).await.unwrap();
    assert_eq!((record.phase, record.outcome), (Phase::Finished, before.outcome));
    let next = order(install());
    runner.submit(next.clone()).await.unwrap();
    reached(&runner, next.key, Phase::Finished).await;
}

/// Operations that do not stand in each other's way.
fn parameters_of(port: i64) -> Order {
    let step = AgentStep::SyncObproxyParameters(SyncObproxyParameters {
        sql_port: port.try_into().unwrap(),
        parameters: Vec::new(),
    });
    Order { fingerprint: fingerprint(&step, Direction::Execute), step, ..order(sync_parameters()) }
}

/// Leaves operations in the journal as an agent does that died with all of them under way.
async fn left_behind(directory: &Path, orders: &[Order]) {
    let (journal, writer) = Journal::open(directory).await.unwrap();
    for order in orders {
        assert!(matches!(journal.accept(order).await.unwrap(), Accepted::Fresh(_)));
    }
    drop(journal);
    writer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_thousand_unfinished_operations_are_taken_up_once_each() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let orders: Vec<Order> = (0..1000).map(|number| parameters_of(10_000 + number)).collect();
    left_behind(lab.path(), &orders).await;
    // A tenth of them cannot be read.
    simulated::damage(lab.path(), "UPDATE operations SET step = '' WHERE position % 10 = 0").await;
    let begun = Instant::now();
    let Started { runner, .. } = lab.start().await;
    println!("1,000 unfinished operations: ready after {} ms", begun.elapsed().as_millis());

    // Who comes after the start does not stand behind all of them.
    let fresh = order(install());
    runner.submit(fresh.clone()).await.unwrap();
    reached(&runner, fresh.key, Phase::Running).await;
    assert_eq!(lab.carrier.calls().len(), RECOVERED_AT_ONCE + 1);
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 500, "{open} files are open");

    lab.carrier.behave(Behaviour::Succeed);
    lab.carrier.gate.add_permits(Semaphore::MAX_PERMITS >> 1);
    for (number, order) in orders.iter().enumerate() {
        let record = reached(&runner, order.key, Phase::Finished).await;
        if number % 10 == 9 {
            assert_given_up(&record);
        } else {
            assert!(matches!(record.outcome, Some(Outcome::Succeeded { .. })), "{record:?}");
        }
    }
    println!("1,000 unfinished operations: over after {} ms", begun.elapsed().as_millis());
    let calls = lab.carrier.calls();
    let runs: BTreeSet<&str> = calls.iter().map(|call| call.run_id.as_str()).collect();
    assert_eq!((calls.len(), runs.len()), (901, 901));
    assert!(calls.iter().all(|call| call.password.is_some() == (call.run_id != fresh.key.run_id())));
    assert!(calls.iter().flat_map(|call| &call.password).all(|password| password == PASSWORD));
}

#[tokio::test]
async fn who_waits_for_a_turn_can_be_canceled_undone_and_runs_out_of_time() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let mut orders: Vec<Order> = (0..40).map(|number| parameters_of(10_000 + number)).collect();
    let (canceled, undone) = (orders[37].clone(), orders[38].clone());
    orders[39].timeout = Some(Duration::from_secs(600));
    let late = orders[39].clone();
    // As of a step that began before the agent died: what it left has to be stopped.
    left_behind(lab.path(), &orders).await;
    simulated::damage(lab.path(), "UPDATE operations SET phase = 3, identity = 'unit' WHERE position > 35").await;
    let Started { runner, .. } = lab.start().await;
    let told = async {
        while runner.logs().len(&canceled.key.run_id()) == 0 {
            tokio::task::yield_now().await;
        }
        runner.logs().read(&canceled.key.run_id(), 0, 100).unwrap()
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    assert!(told.starts_with(b"waiting: the agent takes up 32 operations"), "{told:?}");

    let record = runner.cancel(canceled.key, 1).await.unwrap();
    assert!(matches!(record.outcome, Some(Outcome::Canceled(_))), "{record:?}");
    let undo = undo_of(&undone, Effect::Unknown);
    assert!(matches!(undo.undoes, Some(UndoTarget { .. })));
    runner.submit(undo.clone()).await.unwrap();
    reached(&runner, undo.key, Phase::Finished).await;
    assert!(matches!(runner.get(undone.key).await.unwrap().outcome, Some(Outcome::Canceled(_))));
    tests::pass(Duration::from_secs(601)).await;
    assert_eq!(failure(&reached(&runner, late.key, Phase::Finished).await).reason, "TIMEOUT");
    // Each of them was asked to stop what it had left.
    for order in [&canceled, &undone, &late] {
        let call = lab.carrier.calls().into_iter().find(|call| call.run_id == order.key.run_id()).unwrap();
        assert_eq!(call.identity.as_deref(), Some("unit"));
    }
}

/// Copies a state directory that an earlier agent has written.
fn old_state(version: &str, lab: &Lab) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state").join(version);
    for name in ["journal.db", "journal.key"] {
        fs::copy(kept.join(name), lab.path().join(name)).unwrap();
    }
}

/// Operation `number` of the kept journals.
fn kept(number: u128) -> Key {
    Key { operation_id: Uuid::from_u128(0x0196_0000_0000_7000_8000_0000_0000_0000 + number), attempt: 1 }
}

#[tokio::test]
async fn a_journal_of_schema_version_1_is_taken_over() {
    let lab = Lab::new(Behaviour::Succeed);
    old_state("agent-journal-v1", &lab);
    let started = lab.start().await;
    let Started { runner, .. } = &started;
    let succeeded = Outcome::Succeeded {
        effect: Effect::Done,
        output: vec![("home".into(), "/home/admin/obproxy-1.9.1.1".into())],
    };
    for (number, phase) in [(1, Phase::Finished), (2, Phase::Acknowledged)] {
        let record = runner.get(kept(number)).await.unwrap();
        assert_eq!((record.phase, record.outcome.as_ref(), record.epoch), (phase, Some(&succeeded), 7));
    }
    for number in [3, 4] {
        let record = reached(runner, kept(number), Phase::Finished).await;
        // Their ten minutes are over, which the steps hear from the first moment on.
        assert!(record.outcome.is_some(), "{record:?}");
    }
    let calls = lab.carrier.calls();
    let call = |number| calls.iter().find(|call| call.run_id == kept(number).run_id()).unwrap();
    assert_eq!(call(3).identity.as_deref(), Some("unit-3"));
    assert_eq!(call(4).password.as_deref(), Some(PASSWORD));
    assert_given_up(&runner.get(kept(5)).await.unwrap());
    assert_eq!(runner.journal().list(0, 10, false).await.unwrap().records.len(), 5);
    assert_eq!(runner.journal().highest_epoch(), 7);
    runner.submit(Order { epoch: 7, ..order(install()) }).await.unwrap();
    started.crash().await;
    assert_eq!(schema_version(lab.path()).await, 2);
}

async fn schema_version(directory: &Path) -> i64 {
    use sqlx::ConnectOptions as _;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(directory.join("journal.db"));
    let mut connection = options.connect().await.unwrap();
    sqlx::query_scalar("SELECT value FROM meta WHERE name = 'schema'").fetch_one(&mut connection).await.unwrap()
}
