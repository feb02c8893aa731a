//! Proxies that die, stay, and are in the way.

use crate::place::{ADDRESS, PACKAGE, Place, VERSIONS, Version, login, rpm_is_missing, running, start_step, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use oblet::{
    agent::{
        host::ProcessId,
        step::{Carrier as _, Undoes},
    },
    graph::Effect,
    steps::{AgentStep, SetObproxyPasswords, StartObproxy},
};
use std::{fs, net::TcpListener};

#[tokio::test]
async fn a_proxy_that_dies_at_once_is_reported_with_its_last_words() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    place.execute(&place.put(PACKAGE, "#!/bin/sh\necho no room for $observer_sys_password\nexit 3\n"), "i", None).await;
    let start = start_step();
    let dir = place.instance_dir(&start);
    let step = AgentStep::StartObproxy(start.clone());
    let attempt = place.execute(&step, "r1", None).await;
    let error = attempt.result.unwrap_err();
    assert_eq!((error.reason, error.exit_code), ("DEAD_ON_ARRIVAL", Some(3)));
    assert!(error.message.contains("no room for"), "{}", error.message);
    assert!(!error.message.contains("not-to-be-seen"));
    assert!(dir.exists() && place.record(&start).exists());
    assert_eq!(place.undo(&step, "u1", std::slice::from_ref(&attempt.undoes)).await, Effect::Done);
    place.assert_nothing_is_left(&start, "r1");
    assert_eq!(place.undo(&step, "u2", &[attempt.undoes]).await, Effect::None);
}

/// A proxy that never serves, whose agent has died while it waited for that.
async fn left_alone(version: Version) -> (Place, StartObproxy, Option<String>, ProcessId) {
    let (mut place, start) = Place::with_obproxy(version, &[("standin_bad_metrics", "1")]).await;
    let step = AgentStep::StartObproxy(start.clone());
    let (context, store) = place.context("r1", None);
    {
        let running = place.host.execute(&step, &context);
        tokio::pin!(running);
        tokio::select! {
            _ = &mut running => panic!("a proxy without metrics does not serve"),
            () = until("the program", || place.told().contains("waiting: ")) => {}
        }
    }
    let identity = store.0.lock().unwrap().clone();
    let before = running(&place.runs().join("r1")).await;
    place.host = Place::open(place.dir.path());
    (place, start, identity, before)
}

#[tokio::test]
async fn what_the_journal_has_forgotten_is_stopped_by_its_record() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start, _, before) = left_alone(version).await;
        let forgotten = [Undoes { identity: None, effect: Effect::Done }];
        let other = AgentStep::StartObproxy(StartObproxy { app_name: "other".parse().unwrap(), ..start.clone() });
        assert_eq!(place.undo(&other, "u1", &forgotten).await, Effect::None);
        assert!(before.is_alive(), "it belongs to another task");
        let step = AgentStep::StartObproxy(start);
        assert_eq!(place.undo(&step, "u2", &forgotten).await, Effect::Done);
        assert!(!before.is_alive());
        assert_eq!(place.undo(&step, "u3", &forgotten).await, Effect::None);
    }
}

#[tokio::test]
async fn a_proxy_outlives_the_agent_is_adopted_and_stopped() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (place, start, identity, before) = left_alone(version).await;
        let step = AgentStep::StartObproxy(start.clone());

        let other = AgentStep::StartObproxy(StartObproxy { app_name: "other".parse().unwrap(), ..start.clone() });
        let refused = place.execute(&other, "r2", None).await.result.unwrap_err();
        assert_eq!(refused.reason, "PORT_TAKEN");
        assert!(refused.message.contains(&format!("pid {}", before.pid)), "{}", refused.message);
        assert!(refused.message.starts_with("oblet runs") && !refused.next_move.contains("stop"), "{refused:?}");

        // Adopted, it still does not serve; a cancel stops it.
        let (context, _) = place.context("r1", identity.clone());
        let cancel = context.cancel.clone();
        let adopted = async {
            until("the adoption", || place.told().contains("before the agent's restart")).await;
            assert!(before.is_alive());
            cancel.cancel();
        };
        let (result, ()) = tokio::join!(place.host.execute(&step, &context), adopted);
        assert_eq!(result.unwrap_err().reason, "CANCELED");
        assert!(!before.is_alive());
        let undoes = [Undoes { identity, effect: Effect::Unknown }];
        assert_eq!(place.undo(&step, "u1", &undoes).await, Effect::Done);
        place.assert_nothing_is_left(&start, "r1");
        assert_eq!(place.undo(&step, "u2", &undoes).await, Effect::None);
    }
}

#[tokio::test]
async fn a_proxy_that_another_operation_has_started_is_not_stopped_by_one_that_fails() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        let (mut place, start) = Place::with_obproxy(version, &[]).await;
        let step = AgentStep::StartObproxy(start.clone());
        place.execute(&step, "r1", None).await.result.unwrap();
        let right = place.passwords.sys.clone();
        place.passwords.sys = "of-another-cluster".into();
        let attempt = place.execute(&step, "r2", None).await;
        let error = attempt.result.unwrap_err();
        assert_eq!((error.reason, error.effect), ("LOGIN_REFUSED", Effect::None));
        assert_eq!(place.undo(&step, "u2", &[attempt.undoes]).await, Effect::None);
        login(&start, &right).unwrap();
    }
}

#[tokio::test]
async fn strangers_on_the_port_and_in_the_directory_are_left_alone() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    place.execute(&place.put(PACKAGE, "#!/bin/sh\nexit 0\n"), "i", None).await;
    let start = start_step();
    let step = AgentStep::StartObproxy(start.clone());
    let listener = TcpListener::bind((ADDRESS, start.sql_port.get())).unwrap();
    let taken = place.execute(&step, "r1", None).await.result.unwrap_err();
    assert_eq!(taken.reason, "PORT_TAKEN");
    assert!(taken.message.contains(&format!("pid {}", std::process::id())), "{}", taken.message);
    drop(listener);

    let dir = place.instance_dir(&start);
    fs::create_dir_all(dir.join("etc")).unwrap();
    let attempt = place.execute(&step, "r2", None).await;
    assert_eq!(attempt.result.unwrap_err().reason, "DIRECTORY_TAKEN");
    assert_eq!(place.undo(&step, "u2", &[attempt.undoes]).await, Effect::None);
    assert!(dir.join("etc").exists());
}

/// As on a host that is too busy for some seconds.
#[tokio::test]
async fn a_proxy_that_answers_late_still_gets_its_passwords() {
    if rpm_is_missing() {
        return;
    }
    let (place, start) = Place::with_obproxy(VERSIONS[0], &[]).await;
    place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
    let programs: Vec<Pid> = place.programs().into_iter().map(Pid::from_raw).collect();
    let send = |signal| programs.iter().for_each(|pid| kill(*pid, signal).unwrap());
    send(Signal::SIGSTOP);
    let set = AgentStep::SetObproxyPasswords(SetObproxyPasswords { sql_port: start.sql_port });
    let set = place.execute(&set, "p", None);
    let busy = async {
        until("the first login to be given up", || place.told().contains("asking again")).await;
        send(Signal::SIGCONT);
    };
    let (set, ()) = tokio::join!(set, busy);
    set.result.unwrap();
    login(&start, &place.passwords.sys).unwrap();
}

#[tokio::test]
async fn what_an_earlier_run_left_is_unknown_while_nobody_can_look() {
    let place = Place::new();
    let start = start_step();
    let step = AgentStep::StartObproxy(start.clone());
    let named = || Some(r#"{"run":"r1","directory_existed":false}"#.to_owned());
    let run = place.runs().join("r1");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("claim"), "{").unwrap();
    let error = place.execute(&step, "r1", named()).await.result.unwrap_err();
    assert_eq!((error.reason, error.effect), ("SUPERVISOR", Effect::Unknown));

    fs::remove_dir_all(run).unwrap();
    let record = place.record(&start);
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    fs::write(&record, "{").unwrap();
    let error = place.execute(&step, "r1", named()).await.result.unwrap_err();
    assert_eq!((error.reason, error.effect), ("STATE_UNREADABLE", Effect::Unknown));
    let fresh = place.execute(&step, "r2", None).await.result.unwrap_err();
    assert_eq!((fresh.reason, fresh.effect), ("STATE_UNREADABLE", Effect::None));
}
