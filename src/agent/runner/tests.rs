use super::{
    simulated::{Behaviour, PASSWORD, Simulated, check, install, order, reached, refresh, sync_parameters, undo_of},
    *,
};
use crate::{agent::journal::JournalFailure, graph::Effect};
use std::{fs, path::Path};
use tokio::task::JoinHandle;

pub(super) struct Lab {
    directory: tempfile::TempDir,
    pub(super) carrier: Arc<Simulated>,
}

pub(super) struct Started {
    pub(super) runner: Arc<Runner>,
    writer: JoinHandle<Result<(), JournalFailure>>,
}

impl Lab {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        Self { directory, carrier: Simulated::new(behaviour) }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) async fn start(&self) -> Started {
        let (journal, writer) = Journal::open(self.path()).await.unwrap();
        let runner = Runner::new(journal, LogStore::new(self.path().join("logs")), self.carrier.clone());
        runner.recover().await.unwrap();
        Started { runner, writer }
    }
}

impl Started {
    /// The agent dies: nothing is finished, nothing is stopped on the host.
    pub(super) async fn crash(self) {
        self.runner.abandon();
        drop(self.runner);
        tokio::time::timeout(Duration::from_secs(60), self.writer).await.unwrap().unwrap().unwrap();
    }
}

pub(super) fn failure(record: &Record) -> &crate::graph::Failure {
    match record.outcome.as_ref().unwrap() {
        Outcome::Failed(failure) | Outcome::Canceled(failure) | Outcome::Interrupted(failure) => failure,
        Outcome::Succeeded { .. } => panic!("{record:?} succeeded"),
    }
}

#[tokio::test]
async fn an_operation_runs_once_however_often_it_is_submitted() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let Started { runner, .. } = lab.start().await;
    let order = order(install());
    let first = runner.submit(order.clone()).await.unwrap().record;
    assert_eq!((first.phase, first.sequence), (Phase::Accepted, 1));
    reached(&runner, order.key, Phase::Running).await;
    assert_eq!(runner.submit(order.clone()).await.unwrap().record.phase, Phase::Running);
    lab.carrier.gate.add_permits(1);
    let finished = reached(&runner, order.key, Phase::Finished).await;
    let output = vec![("path".to_owned(), "/home/admin".to_owned())];
    assert_eq!(finished.outcome, Some(Outcome::Succeeded { effect: Effect::Done, output }));
    assert_eq!(runner.submit(order).await.unwrap().record, finished);
    assert_eq!(lab.carrier.calls().len(), 1);
}

#[tokio::test]
async fn a_coordinator_that_only_made_a_check_is_the_newest_all_the_same() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    runner.submit(Order { epoch: 2, ..order(check()) }).await.unwrap();
    let refused = Refused::StaleEpoch { given: 1, highest: 2 };
    let old = order(install());
    assert_eq!(runner.submit(old.clone()).await.unwrap_err(), refused);
    assert_eq!(runner.cancel(old.key, 1).await.unwrap_err(), refused);
    assert_eq!(runner.acknowledge(old.key, 1).await.unwrap_err(), refused);
    assert_eq!(lab.carrier.calls().len(), 1);
}

#[tokio::test]
async fn what_speaks_against_a_submit_is_told() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let Started { runner, .. } = lab.start().await;
    let first = Order { epoch: 5, ..order(install()) };
    runner.submit(first.clone()).await.unwrap();

    let other = Order { fingerprint: "other".into(), ..first.clone() };
    assert!(matches!(runner.submit(other).await, Err(Refused::OtherContent { attempt: 1, .. })));

    let old = Order { epoch: 4, ..order(refresh()) };
    assert_eq!(runner.submit(old).await.unwrap_err(), Refused::StaleEpoch { given: 4, highest: 5 });
    let old_check = Order { epoch: 4, ..order(check()) };
    assert_eq!(runner.submit(old_check).await.unwrap_err(), Refused::StaleEpoch { given: 4, highest: 5 });
    assert_eq!(runner.cancel(first.key, 4).await.unwrap_err(), Refused::StaleEpoch { given: 4, highest: 5 });
    assert_eq!(runner.acknowledge(first.key, 4).await.unwrap_err(), Refused::StaleEpoch { given: 4, highest: 5 });

    let second = Order { epoch: 5, ..order(install()) };
    let holder = first.key.operation_id.to_string();
    assert_eq!(runner.submit(second.clone()).await.unwrap_err(), Refused::Locked { lock: "rpmdb".into(), holder });
    assert!(matches!(runner.get(second.key).await, Err(Refused::NotFound { .. })));

    assert!(matches!(
        runner.acknowledge(first.key, 5).await,
        Err(Refused::Precondition { reason: "NOT_FINISHED", .. })
    ));
    lab.carrier.gate.add_permits(1);
    reached(&runner, first.key, Phase::Finished).await;
    runner.submit(second.clone()).await.unwrap();
    reached(&runner, second.key, Phase::Finished).await;

    runner.draining().cancel();
    assert_eq!(runner.submit(order(refresh())).await.unwrap_err(), Refused::Draining);
}

#[tokio::test]
async fn a_check_leaves_no_trace_and_answers_at_once() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let order = order(check());
    let submitted = runner.submit(order.clone()).await.unwrap();
    assert_eq!(submitted.record.phase, Phase::Finished);
    assert!(matches!(submitted.record.outcome, Some(Outcome::Succeeded { .. })));
    assert_eq!(submitted.log, b"begin\nend\n");
    assert!(matches!(runner.get(order.key).await, Err(Refused::NotFound { .. })));
    assert_eq!(fs::read_dir(lab.path().join("logs")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_failure_tells_causes_exit_code_and_the_end_of_the_log() {
    let lab = Lab::new(Behaviour::Fail);
    let Started { runner, .. } = lab.start().await;
    let order = order(install());
    runner.submit(order.clone()).await.unwrap();
    let record = reached(&runner, order.key, Phase::Finished).await;
    let told = failure(&record);
    assert_eq!((told.reason.as_str(), told.exit_code, told.effect), ("RPM_FAILED", Some(1), Effect::Unknown));
    assert_eq!(told.causes, ["the package is damaged"]);
    assert_eq!(told.log_tail, ["begin"]);
}

#[tokio::test]
async fn a_panic_costs_its_operation_only() {
    let lab = Lab::new(Behaviour::Panic);
    let Started { runner, .. } = lab.start().await;
    let broken = order(install());
    runner.submit(broken.clone()).await.unwrap();
    let record = reached(&runner, broken.key, Phase::Finished).await;
    assert_eq!((failure(&record).reason.as_str(), failure(&record).effect), ("PANIC", Effect::Unknown));
    lab.carrier.behave(Behaviour::Succeed);
    let next = order(install());
    runner.submit(next.clone()).await.unwrap();
    reached(&runner, next.key, Phase::Finished).await;
}

#[tokio::test]
async fn cancel_answers_when_nothing_runs() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let Started { runner, .. } = lab.start().await;
    let order = order(refresh());
    runner.submit(order.clone()).await.unwrap();
    let canceled = runner.cancel(order.key, 1).await.unwrap();
    assert!(matches!(canceled.outcome, Some(Outcome::Canceled(_))), "{canceled:?}");
    assert_eq!(runner.cancel(order.key, 1).await.unwrap(), canceled);
}

/// The clock stands still but for this step, because the journal's thread is not seen by a paused clock.
pub(super) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn an_operation_that_takes_too_long_is_stopped() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let Started { runner, .. } = lab.start().await;
    let order = Order { timeout: Some(Duration::from_secs(600)), ..order(install()) };
    runner.submit(order.clone()).await.unwrap();
    reached(&runner, order.key, Phase::Running).await;
    pass(Duration::from_secs(601)).await;
    let record = reached(&runner, order.key, Phase::Finished).await;
    assert!(matches!(record.outcome, Some(Outcome::Failed(_))));
    assert_eq!(failure(&record).reason, "TIMEOUT");
    assert_eq!(failure(&record).log_tail.last().map(String::as_str), Some("stopped"));
}

#[tokio::test]
async fn a_check_that_takes_too_long_is_stopped() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let Started { runner, .. } = lab.start().await;
    let order = Order { timeout: Some(Duration::from_secs(600)), ..order(check()) };
    let submit = tokio::spawn(async move { runner.submit(order).await });
    while lab.carrier.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    pass(Duration::from_secs(601)).await;
    assert_eq!(failure(&submit.await.unwrap().unwrap().record).reason, "TIMEOUT");
}

#[tokio::test]
async fn after_a_crash_in_any_phase_the_operation_has_one_effect() {
    for phase in [Phase::Accepted, Phase::Starting, Phase::Running] {
        let lab = Lab::new(Behaviour::HoldAt(phase));
        let started = lab.start().await;
        let order = order(install());
        started.runner.submit(order.clone()).await.unwrap();
        reached(&started.runner, order.key, phase).await;
        started.crash().await;

        lab.carrier.behave(Behaviour::Succeed);
        let started = lab.start().await;
        let record = reached(&started.runner, order.key, Phase::Finished).await;
        assert!(matches!(record.outcome, Some(Outcome::Succeeded { .. })), "{phase:?}: {record:?}");
        let calls = lab.carrier.calls();
        let chosen = (phase > Phase::Accepted).then(|| format!("unit-{}", order.key.run_id()));
        assert_eq!(calls.last().unwrap().identity, chosen, "{phase:?}");
        assert_eq!(lab.carrier.effects.lock().unwrap().len(), 1, "{phase:?}");
        // The outcome outlives the next crash, and the step is not carried out again.
        let count = calls.len();
        started.crash().await;
        let started = lab.start().await;
        assert_eq!(started.runner.submit(order.clone()).await.unwrap().record, record);
        assert_eq!(lab.carrier.calls().len(), count);
        // The lock went with the outcome.
        started.runner.submit(simulated::order(install())).await.unwrap();
    }
}

#[tokio::test]
async fn secrets_survive_a_restart_and_are_nowhere_in_clear() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let started = lab.start().await;
    let order = order(sync_parameters());
    assert!(!format!("{order:?}").contains(PASSWORD));
    started.runner.submit(order.clone()).await.unwrap();
    reached(&started.runner, order.key, Phase::Running).await;
    assert_hidden(lab.path());
    started.crash().await;
    assert_hidden(lab.path());

    lab.carrier.behave(Behaviour::Succeed);
    let started = lab.start().await;
    reached(&started.runner, order.key, Phase::Finished).await;
    assert_eq!(lab.carrier.calls().last().unwrap().password.as_deref(), Some(PASSWORD));
    assert_hidden(lab.path());
}

fn assert_hidden(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_hidden(&path);
        } else {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
            assert!(!found, "{} holds the password", path.display());
        }
    }
}

#[tokio::test]
async fn undo_is_told_every_attempt_that_was_made() {
    let lab = Lab::new(Behaviour::Fail);
    let Started { runner, .. } = lab.start().await;
    let first = order(install());
    runner.submit(first.clone()).await.unwrap();
    reached(&runner, first.key, Phase::Finished).await;
    lab.carrier.behave(Behaviour::Succeed);
    let second = Order { key: Key { attempt: 2, ..first.key }, ..first.clone() };
    runner.submit(second.clone()).await.unwrap();
    reached(&runner, second.key, Phase::Finished).await;

    let undo = undo_of(&first, Effect::Unknown);
    runner.submit(undo.clone()).await.unwrap();
    reached(&runner, undo.key, Phase::Finished).await;
    let undoes = lab.carrier.calls().last().unwrap().undoes.clone();
    let told: Vec<_> = undoes.iter().map(|undone| (undone.identity.as_deref(), undone.effect)).collect();
    let (one, two) = (format!("unit-{}", first.key.run_id()), format!("unit-{}", second.key.run_id()));
    assert_eq!(told, [(Some(one.as_str()), Effect::Unknown), (Some(two.as_str()), Effect::Done)]);
    assert!(lab.carrier.effects.lock().unwrap().is_empty());
}

#[tokio::test]
async fn undo_leaves_alone_what_an_earlier_undo_took_back() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let first = order(install());
    let undo = undo_of(&first, Effect::Done);
    for order in [&first, &undo] {
        runner.submit(order.clone()).await.unwrap();
        reached(&runner, order.key, Phase::Finished).await;
    }
    let again = Order { key: Key { attempt: 2, ..undo.key }, ..undo.clone() };
    runner.submit(again.clone()).await.unwrap();
    reached(&runner, again.key, Phase::Finished).await;
    assert!(lab.carrier.calls().last().unwrap().undoes.is_empty());

    let second = Order { key: Key { attempt: 2, ..first.key }, ..first.clone() };
    let undo_second = Order { key: Key { attempt: 3, ..undo.key }, ..undo };
    for order in [&second, &undo_second] {
        runner.submit(order.clone()).await.unwrap();
        reached(&runner, order.key, Phase::Finished).await;
    }
    let undoes = lab.carrier.calls().last().unwrap().undoes.clone();
    let told: Vec<_> = undoes.iter().filter_map(|undone| undone.identity.clone()).collect();
    assert_eq!(told, [format!("unit-{}", second.key.run_id())]);
}

#[tokio::test]
async fn a_submit_that_comes_after_its_own_undo_is_refused() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let late = order(install());
    let undo = undo_of(&late, Effect::Unknown);
    let undo = Order { key: Key { attempt: 2, ..undo.key }, ..undo };
    runner.submit(undo.clone()).await.unwrap();
    reached(&runner, undo.key, Phase::Finished).await;
    let refused = runner.submit(late.clone()).await.unwrap_err();
    assert!(matches!(refused, Refused::Precondition { reason: "SUPERSEDED", .. }), "{refused}");
    assert!(lab.carrier.effects.lock().unwrap().is_empty());
    // The attempt that follows the undo in a retry has its number.
    let next = Order { key: Key { attempt: 2, ..late.key }, ..late };
    runner.submit(next.clone()).await.unwrap();
    reached(&runner, next.key, Phase::Finished).await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_grants_no_more_time() {
    let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
    let started = lab.start().await;
    let order = Order { timeout: Some(Duration::from_secs(300)), ..order(refresh()) };
    started.runner.submit(order.clone()).await.unwrap();
    reached(&started.runner, order.key, Phase::Running).await;
    started.crash().await;
    let ahead = "UPDATE operations SET accept_us = accept_us + 86400000000, deadline_us = deadline_us + 86400000000";
    simulated::damage(lab.path(), ahead).await;
    let started = lab.start().await;
    let given = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match lab.carrier.calls().get(1) {
                Some(call) => return call.timeout,
                None => tokio::task::yield_now().await,
            }
        }
    });
    let given = given.await.unwrap().unwrap();
    assert!(given <= Duration::from_secs(300), "{given:?}");
    started.crash().await;
}

#[tokio::test]
async fn undo_ends_an_attempt_that_still_runs_before_it_begins() {
    for crash in [false, true] {
        let lab = Lab::new(Behaviour::HoldAt(Phase::Running));
        let mut started = lab.start().await;
        let order = order(install());
        started.runner.submit(order.clone()).await.unwrap();
        reached(&started.runner, order.key, Phase::Running).await;
        if crash {
            started.crash().await;
            started = lab.start().await;
        }
        let undo = undo_of(&order, Effect::Unknown);
        started.runner.submit(undo.clone()).await.unwrap();
        reached(&started.runner, undo.key, Phase::Finished).await;
        let record = started.runner.get(order.key).await.unwrap();
        assert!(matches!(record.outcome, Some(Outcome::Canceled(_))), "{record:?}");
        assert!(lab.carrier.effects.lock().unwrap().is_empty());
        assert_eq!(lab.carrier.calls().last().unwrap().run_id, undo.key.run_id());
    }
}

#[tokio::test]
async fn undo_of_what_the_journal_does_not_know_takes_the_word_of_the_coordinator() {
    let lab = Lab::new(Behaviour::Succeed);
    let Started { runner, .. } = lab.start().await;
    let undo = undo_of(&order(install()), Effect::Done);
    runner.submit(undo.clone()).await.unwrap();
    reached(&runner, undo.key, Phase::Finished).await;
    let calls = lab.carrier.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].direction, crate::graph::Direction::Undo);
    assert_eq!((calls[0].undoes[0].identity.clone(), calls[0].undoes[0].effect), (None, Effect::Done));
}

#[test]
fn only_a_once_step_that_was_begun_is_given_up() {
    for policy in [Policy::Pure, Policy::Rerun, Policy::Probe, Policy::Once] {
        for phase in [Phase::Accepted, Phase::Starting, Phase::Running] {
            let begun_once = policy == Policy::Once && phase != Phase::Accepted;
            let expected = if begun_once { AfterRestart::Interrupt } else { AfterRestart::CarryOn };
            assert_eq!(after_restart(policy, phase), expected, "{policy:?} {phase:?}");
        }
    }
}
