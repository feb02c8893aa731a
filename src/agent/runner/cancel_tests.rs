//! Cancellations that overtake what they cancel.

use super::{
    simulated::{Behaviour, install, order, reached, undo_of},
    tests::{Lab, Started, failure},
    *,
};
use crate::graph::Effect;

#[tokio::test]
async fn what_was_canceled_before_it_came_never_runs() {
    let lab = Lab::new(Behaviour::Succeed);
    let started = lab.start().await;
    let late = order(install());
    let canceled = started.runner.cancel(late.key, 1).await.unwrap();
    assert_eq!((canceled.phase, canceled.sequence), (Phase::Finished, 1));
    assert!(matches!(canceled.outcome, Some(Outcome::Canceled(_))), "{canceled:?}");
    assert_eq!(failure(&canceled).effect, Effect::None);
    assert_eq!(started.runner.cancel(late.key, 1).await.unwrap(), canceled);

    // Neither now nor after a crash, whatever its content is.
    started.crash().await;
    let Started { runner, .. } = lab.start().await;
    assert_eq!(runner.submit(late.clone()).await.unwrap().record, canceled);
    assert_eq!(runner.journal().events(canceled.position, 0).await.unwrap().len(), 1);
    assert!(lab.carrier.calls().is_empty());
    // It holds no lock, and the attempt that follows is another one.
    let next = Order { key: Key { attempt: 2, ..late.key }, ..late };
    runner.submit(next.clone()).await.unwrap();
    reached(&runner, next.key, Phase::Finished).await;
    assert_eq!(lab.carrier.calls().len(), 1);
}

#[tokio::test]
async fn a_cancel_and_a_submit_that_race_agree_on_one_outcome() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let Started { runner, .. } = lab.start().await;
    for _ in 0..20 {
        let order = order(install());
        let (canceled, submitted) = tokio::join!(runner.cancel(order.key, 1), runner.submit(order.clone()));
        let (canceled, submitted) = (canceled.unwrap(), submitted.unwrap().record);
        assert!(matches!(canceled.outcome, Some(Outcome::Canceled(_))), "{canceled:?}");
        assert_eq!(canceled.position, submitted.position);
        assert_eq!(runner.get(order.key).await.unwrap(), canceled);
    }
}

#[tokio::test]
async fn a_coordinator_that_was_superseded_cancels_nothing_in_advance() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let order = Order { epoch: 2, ..order(install()) };
    runner.cancel(Key { attempt: 7, ..order.key }, 2).await.unwrap();
    assert_eq!(runner.cancel(order.key, 1).await.unwrap_err(), Refused::StaleEpoch { given: 1, highest: 2 });
    assert!(matches!(runner.get(order.key).await, Err(Refused::NotFound { .. })));
}

#[tokio::test]
async fn an_undo_takes_back_nothing_for_what_never_came() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let first = order(install());
    runner.submit(first.clone()).await.unwrap();
    reached(&runner, first.key, Phase::Finished).await;
    runner.cancel(Key { attempt: 2, ..first.key }, 1).await.unwrap();
    let undo = undo_of(&first, Effect::Unknown);
    let undo = Order { key: Key { attempt: 3, ..undo.key }, ..undo };
    runner.submit(undo.clone()).await.unwrap();
    reached(&runner, undo.key, Phase::Finished).await;
    let told = lab.carrier.calls().last().unwrap().undoes.clone();
    assert_eq!(told.iter().map(|undone| undone.effect).collect::<Vec<_>>(), [Effect::Done]);
}

#[tokio::test]
async fn the_note_of_a_cancellation_goes_with_its_age_even_if_nobody_acknowledges_it() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let (acknowledged, forgotten) = (order(install()).key, order(install()).key);
    for key in [acknowledged, forgotten] {
        runner.cancel(key, 1).await.unwrap();
    }
    runner.acknowledge(acknowledged, 1).await.unwrap();
    assert_eq!(runner.collect(Duration::from_secs(60), u64::MAX).await.unwrap(), 0);
    assert_eq!(runner.collect(Duration::ZERO, u64::MAX).await.unwrap(), 2);
}

#[tokio::test]
async fn a_cancel_is_not_held_up_by_a_step_that_does_not_stop() {
    let lab = Lab::new(Behaviour::Deaf);
    let Started { runner, .. } = lab.start().await;
    let order = order(install());
    runner.submit(order.clone()).await.unwrap();
    reached(&runner, order.key, Phase::Running).await;
    let (canceled, ()) = tokio::join!(runner.cancel(order.key, 1), async {
        // The wait has begun once the step was told.
        let run = runner.runs().get(&order.key).cloned().unwrap();
        run.cancel.cancelled().await;
        tests::pass(CANCEL_LIMIT + Duration::from_secs(1)).await;
    });
    assert!(matches!(canceled, Err(Refused::StillStopping { .. })), "{canceled:?}");
    // Its lock is not given to anybody meanwhile.
    assert!(matches!(runner.submit(simulated::order(install())).await, Err(Refused::Locked { .. })));
    lab.carrier.gate.add_permits(1);
    reached(&runner, order.key, Phase::Finished).await;
}

#[tokio::test]
async fn a_step_that_is_stopped_after_a_restart_does_not_know_what_it_left() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let started = lab.start().await;
    let order = order(install());
    started.runner.submit(order.clone()).await.unwrap();
    reached(&started.runner, order.key, Phase::Running).await;
    started.crash().await;

    let Started { runner, .. } = lab.start().await;
    let canceled = runner.cancel(order.key, order.epoch).await.unwrap();
    let Some(Outcome::Canceled(failure)) = canceled.outcome else { panic!("{canceled:?}") };
    assert_eq!(failure.effect, Effect::Unknown);
}
