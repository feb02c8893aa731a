//! Proxies that die, stay, and are in the way.

use crate::place::{PACKAGE, Place, rpm_is_missing, running, start_step, until};
use oblet::{
    agent::{
        host::ProcessId,
        step::{Carrier as _, Undoes},
    },
    graph::Effect,
    steps::{AgentStep, StartObproxy},
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
    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());
    let step = AgentStep::StartObproxy(start);
    let attempt = place.execute(&step, "r1", None).await;
    let error = attempt.result.unwrap_err();
    assert_eq!((error.reason, error.exit_code), ("DEAD_ON_ARRIVAL", Some(3)));
    assert!(error.message.contains("no room for"), "{}", error.message);
    assert!(!error.message.contains("not-to-be-seen"));
    assert!(dir.join(".oblet.json").exists());
    assert_eq!(place.undo(&step, "u1", std::slice::from_ref(&attempt.undoes)).await, Effect::Done);
    assert!(!dir.exists());
    assert_eq!(place.undo(&step, "u2", &[attempt.undoes]).await, Effect::None);
}

/// A proxy whose agent has died while it waited for the ports.
async fn left_alone(place: &mut Place) -> (StartObproxy, Option<String>, ProcessId) {
    place.execute(&place.put(PACKAGE, "#!/bin/sh\necho \"$@\" > arguments\nexec sleep 600\n"), "i", None).await;
    let start = start_step();
    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());
    let step = AgentStep::StartObproxy(start.clone());
    let (context, store) = place.context("r1", None);
    {
        let running = place.host.execute(&step, &context);
        tokio::pin!(running);
        tokio::select! {
            _ = &mut running => panic!("a sleeping proxy does not serve"),
            () = until("the program", || dir.join("arguments").exists()) => {}
        }
    }
    let identity = store.0.lock().unwrap().clone();
    let named: serde_json::Value = serde_json::from_str(identity.as_deref().unwrap()).unwrap();
    let run = place.dir.path().join("state/runs").join(named["run"].as_str().unwrap());
    place.host = Place::open(place.dir.path());
    let before = running(&run).await;
    (start, identity, before)
}

#[tokio::test]
async fn what_the_journal_has_forgotten_is_stopped_by_its_marker() {
    if rpm_is_missing() {
        return;
    }
    let mut place = Place::new();
    let (start, _, before) = left_alone(&mut place).await;
    let forgotten = [Undoes { identity: None, effect: Effect::Done }];
    let other = AgentStep::StartObproxy(StartObproxy { app_name: "other".parse().unwrap(), ..start.clone() });
    assert_eq!(place.undo(&other, "u1", &forgotten).await, Effect::None);
    assert!(before.is_alive(), "it belongs to another task");
    let step = AgentStep::StartObproxy(start);
    assert_eq!(place.undo(&step, "u2", &forgotten).await, Effect::Done);
    assert!(!before.is_alive());
    assert_eq!(place.undo(&step, "u3", &forgotten).await, Effect::None);
}

#[tokio::test]
async fn a_proxy_outlives_the_agent_is_adopted_and_stopped() {
    if rpm_is_missing() {
        return;
    }
    let mut place = Place::new();
    let (start, identity, before) = left_alone(&mut place).await;
    let step = AgentStep::StartObproxy(start.clone());
    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());

    let other = AgentStep::StartObproxy(StartObproxy { app_name: "other".parse().unwrap(), ..start });
    let refused = place.execute(&other, "r2", None).await.result.unwrap_err();
    assert_eq!(refused.reason, "PORT_TAKEN");
    assert!(refused.message.contains(&format!("pid {}", before.pid)), "{}", refused.message);

    // Adopted, it still does not serve; a cancel stops it.
    let (context, _) = place.context("r1", identity.clone());
    let cancel = context.cancel.clone();
    let log = place.dir.path().join("log");
    let adopted = async {
        until("the adoption", || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("before the agent's restart"))
        })
        .await;
        assert!(before.is_alive());
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(place.host.execute(&step, &context), adopted);
    assert_eq!(result.unwrap_err().reason, "CANCELED");
    assert!(!before.is_alive());
    let undoes = [Undoes { identity, effect: Effect::Unknown }];
    assert_eq!(place.undo(&step, "u1", &undoes).await, Effect::Done);
    assert!(!dir.exists());
    assert_eq!(place.undo(&step, "u2", &undoes).await, Effect::None);
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
    let listener = TcpListener::bind(("127.0.0.1", start.sql_port.get())).unwrap();
    let taken = place.execute(&step, "r1", None).await.result.unwrap_err();
    assert_eq!(taken.reason, "PORT_TAKEN");
    assert!(taken.message.contains(&format!("pid {}", std::process::id())), "{}", taken.message);
    drop(listener);

    let dir = place.dir.path().join("root/run/obproxy").join(start.sql_port.to_string());
    fs::create_dir_all(dir.join("etc")).unwrap();
    let attempt = place.execute(&step, "r2", None).await;
    assert_eq!(attempt.result.unwrap_err().reason, "DIRECTORY_TAKEN");
    assert_eq!(place.undo(&step, "u2", &[attempt.undoes]).await, Effect::None);
    assert!(dir.join("etc").exists());
}
