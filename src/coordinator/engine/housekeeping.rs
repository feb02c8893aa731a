//! What is done from time to time: tasks that nobody drives are taken up, outcomes that agents do not know to be safe are
//! told again, and what is kept for a time only is removed.

use super::{Engine, acknowledge};
use futures_util::{StreamExt as _, stream};
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Each costs one look at an index.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(60);
/// The first round comes soon, because a coordinator that starts may have missed many.
const FIRST_ROUND: Duration = Duration::from_secs(5);
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);
/// Hosts that are gone take the longest, and must not hold up the others.
const TASKS_AT_A_TIME: usize = 32;

pub(super) async fn keep(engine: Engine) {
    let shutdown = engine.shared.shutdown.clone();
    let sweeps = async {
        let mut timer = every(SWEEP_EVERY, SWEEP_EVERY);
        loop {
            timer.tick().await;
            sweep(&engine).await;
        }
    };
    let rounds = async {
        let mut timer = every(FIRST_ROUND, ACKNOWLEDGE_EVERY);
        loop {
            timer.tick().await;
            acknowledge_again(&engine).await;
        }
    };
    let expiry = async {
        let mut timer = every(FIRST_ROUND, EXPIRE_EVERY);
        loop {
            timer.tick().await;
            if let Err(error) = engine.shared.tasks.expire().await {
                tracing::warn!(error = crate::telemetry::chain(&error), "what is too old stays for another hour");
            }
        }
    };
    // Each by its own clock: none waits for what holds up another.
    let _: Option<((), (), ())> = shutdown.run_until_cancelled(async { tokio::join!(sweeps, rounds, expiry) }).await;
}

fn every(first: Duration, period: Duration) -> Interval {
    let mut timer = interval_at(Instant::now() + first, period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// A driver is lost when the one who made the task went away before it was woken, and when a driver broke off.
pub(super) async fn sweep(engine: &Engine) {
    // A task whose driver ends while the store is asked came to rest.
    let before = engine.driven_tasks();
    match engine.shared.tasks.running(engine.epoch()).await {
        Ok(running) => {
            for id in running.into_iter().filter(|id| !before.contains(id)) {
                if engine.wake(id).is_some() {
                    engine.shared.metrics.swept.inc();
                    tracing::warn!(task = %id, "a running task had no driver; it is resumed");
                }
            }
        }
        Err(error) => tracing::warn!(error = crate::telemetry::chain(&error), "the store cannot be asked"),
    }
}

async fn acknowledge_again(engine: &Engine) {
    match engine.shared.tasks.unacknowledged().await {
        Ok(ids) => {
            let again = async |id| {
                if !engine.is_driven(id) {
                    acknowledge::again(&engine.shared, id).await;
                }
            };
            stream::iter(ids).for_each_concurrent(TASKS_AT_A_TIME, again).await;
        }
        Err(error) => tracing::warn!(error = crate::telemetry::chain(&error), "the store cannot be asked"),
    }
}
