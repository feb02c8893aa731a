//! What is removed, and what stays.

use super::{
    simulated::{Behaviour, install, order, reached, refresh},
    tests::{Lab, Started},
    *,
};
use crate::agent::logs::MAX_LOG_BYTES;
use std::{fs, time::SystemTime};

async fn finish(runner: &Arc<Runner>, orders: &[Order]) {
    for order in orders {
        runner.submit(order.clone()).await.unwrap();
        reached(runner, order.key, Phase::Finished).await;
    }
}

#[tokio::test]
async fn only_acknowledged_operations_are_forgotten() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let (kept, gone) = (order(install()), order(refresh()));
    finish(&runner, &[kept.clone(), gone.clone()]).await;
    runner.acknowledge(gone.key, 1).await.unwrap();
    runner.acknowledge(gone.key, 1).await.unwrap();
    assert_eq!(runner.collect(Duration::from_secs(60), u64::MAX).await.unwrap(), 0);
    assert_eq!(runner.collect(Duration::ZERO, u64::MAX).await.unwrap(), 1);
    assert!(matches!(runner.get(gone.key).await, Err(Refused::NotFound { .. })));
    assert_eq!(runner.logs().len(&gone.key.run_id()), 0);
    assert!(runner.logs().len(&kept.key.run_id()) > 0);
    runner.get(kept.key).await.unwrap();
}

#[tokio::test]
async fn logs_above_the_limit_go_oldest_first_and_only_if_they_are_acknowledged() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let orders: Vec<Order> = (0..5).map(|_| order(refresh())).collect();
    finish(&runner, &orders).await;
    let log = |order: &Order| lab.path().join("logs").join(format!("{}.log", order.key.run_id()));
    for (age, order) in orders.iter().rev().enumerate() {
        let file = fs::File::options().write(true).open(log(order)).unwrap();
        file.set_len(1000).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60 * age as u64)).unwrap();
    }
    // The oldest one is not acknowledged.
    for order in &orders[1..] {
        runner.acknowledge(order.key, 1).await.unwrap();
    }
    let retention = Duration::from_secs(3600);
    runner.collect(retention, 5000).await.unwrap();
    assert!(orders.iter().all(|order| log(order).exists()));
    runner.collect(retention, 3500).await.unwrap();
    let left: Vec<bool> = orders.iter().map(|order| log(order).exists()).collect();
    assert_eq!(left, [true, false, false, true, true]);
    runner.collect(retention, 0).await.unwrap();
    let left: Vec<bool> = orders.iter().map(|order| log(order).exists()).collect();
    assert_eq!(left, [true, false, false, false, false]);
    // The records are not a question of room.
    for order in &orders {
        runner.get(order.key).await.unwrap();
    }
}

#[tokio::test]
async fn a_log_without_a_record_goes_with_its_age_and_strange_files_stay() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let logs = lab.path().join("logs");
    let (young, old) = (order(refresh()).key.run_id(), order(refresh()).key.run_id());
    for name in [&young, &old] {
        runner.logs().open(name).unwrap();
    }
    fs::write(logs.join("notes.txt"), "mine").unwrap();
    let past = SystemTime::now() - Duration::from_secs(7200);
    for name in [format!("{old}.log"), "notes.txt".into()] {
        fs::File::options().write(true).open(logs.join(name)).unwrap().set_modified(past).unwrap();
    }
    runner.collect(Duration::from_secs(3600), u64::MAX).await.unwrap();
    assert!(logs.join(format!("{young}.log")).exists() && logs.join("notes.txt").exists());
    assert!(!logs.join(format!("{old}.log")).exists());
}

#[tokio::test]
async fn runs_are_let_go_with_the_record_of_their_operation() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let (kept, gone) = (order(install()), order(refresh()));
    finish(&runner, &[kept.clone(), gone.clone()]).await;
    for key in [kept.key, gone.key] {
        runner.acknowledge(key, 1).await.unwrap();
    }
    let runs = [kept.key.run_id(), gone.key.run_id(), format!("{}-2", gone.key.run_id()), "of-somebody-else".into()];
    *lab.carrier.runs.lock().unwrap() = runs.to_vec();
    runner.collect(Duration::from_secs(60), u64::MAX).await.unwrap();
    assert_eq!(lab.carrier.runs(), runs, "an acknowledged attempt may still be undone");
    simulated::damage(lab.path(), "UPDATE operations SET finish_us = finish_us - 120000000 WHERE position = 2").await;
    runner.collect(Duration::from_secs(60), u64::MAX).await.unwrap();
    assert_eq!(lab.carrier.runs(), [kept.key.run_id(), "of-somebody-else".into()]);
}

#[tokio::test]
async fn the_log_of_a_step_is_bounded_while_it_runs() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let Started { runner, .. } = lab.start().await;
    let order = order(refresh());
    runner.submit(order.clone()).await.unwrap();
    reached(&runner, order.key, Phase::Running).await;
    let path = lab.path().join("logs").join(format!("{}.log", order.key.run_id()));
    let child = async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        fs::File::options().append(true).open(&path).unwrap().set_len(2 * MAX_LOG_BYTES).unwrap();
        while fs::metadata(&path).unwrap().len() == 2 * MAX_LOG_BYTES {
            tests::pass(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(86_400), child).await.unwrap();
    let bytes = runner.logs().len(&order.key.run_id());
    assert_eq!(fs::metadata(&path).unwrap().len(), bytes);
    lab.carrier.gate.add_permits(1);
    reached(&runner, order.key, Phase::Finished).await;
    let mark = runner.logs().read(&order.key.run_id(), MAX_LOG_BYTES, 100).unwrap();
    assert_eq!((mark.len() as u64, mark.starts_with(b"\n[truncated")), (bytes - MAX_LOG_BYTES, true));
}
