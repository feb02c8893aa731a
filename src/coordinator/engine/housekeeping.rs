//! What is done from time to time: outcomes that agents do not know to be safe are told again, and what is kept for a
//! time only is removed.

use super::{Engine, acknowledge};
use futures_util::{StreamExt as _, stream};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

const ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(60);
/// The first round comes soon, because a coordinator that starts may have missed many.
const FIRST_ROUND: Duration = Duration::from_secs(5);
const EXPIRE_EVERY_ROUNDS: u32 = 60;
/// Hosts that are gone take the longest, and must not hold up the others.
const TASKS_AT_A_TIME: usize = 32;

pub(super) async fn keep(engine: Engine) {
    let shutdown = engine.shared.shutdown.clone();
    let rounds = async {
        let mut timer = interval_at(Instant::now() + FIRST_ROUND, ACKNOWLEDGE_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in (0..EXPIRE_EVERY_ROUNDS).cycle() {
            timer.tick().await;
            acknowledge_again(&engine).await;
            if round == 0
                && let Err(error) = engine.shared.tasks.expire().await
            {
                tracing::warn!(error = crate::telemetry::chain(&error), "what is too old stays for another hour");
            }
        }
    };
    let _ = shutdown.run_until_cancelled(rounds).await;
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
