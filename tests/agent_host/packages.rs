//! Packages, with the real rpm.

use crate::place::{PACKAGE, Place, launch, rpm_is_missing, supervisor};
use oblet::{
    agent::step::{Carrier as _, Undoes},
    graph::Effect,
};
use std::fs;

#[tokio::test]
async fn a_package_is_installed_once_and_erased_only_by_its_installer() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    let first = place.execute(&step, "r1", None).await;
    let done = first.result.unwrap();
    assert_eq!(done.effect, Effect::Done);
    let home = place.dir.path().join("root/home/admin/obproxy-1.0").display().to_string();
    assert_eq!(done.output, [("home".to_owned(), home)]);
    assert!(place.program().exists());

    let second = place.execute(&step, "r2", None).await;
    assert_eq!(second.undoes.effect, Effect::None);
    assert_eq!(place.undo(&step, "u2", &[second.undoes]).await, Effect::None);
    assert!(place.program().exists());

    let again = place.execute(&step, "r1", first.undoes.identity.clone()).await;
    assert_eq!(again.undoes.effect, Effect::Done, "after a crash the attempt still knows that it installed it");

    let newer = place.put("obproxy-2.0-1.el7.noarch", "#!/bin/sh\n");
    let refused = place.execute(&newer, "r3", None).await.result.unwrap_err();
    assert_eq!(refused.reason, "OTHER_VERSION");
    assert!(refused.message.contains(PACKAGE), "{}", refused.message);

    let unknown = Undoes { effect: Effect::Unknown, ..first.undoes };
    assert_eq!(place.undo(&step, "u1", std::slice::from_ref(&unknown)).await, Effect::Done);
    assert!(!place.program().exists());
    assert_eq!(place.undo(&step, "u1-again", &[unknown]).await, Effect::None);
}

#[tokio::test]
async fn a_package_that_came_before_rpm_was_begun_is_somebody_elses() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    place.execute(&step, "other", None).await.result.unwrap();
    let named = || Some(r#"{"run":"r1","was_installed":false}"#.to_owned());
    assert_eq!(place.execute(&step, "r1", named()).await.undoes.effect, Effect::None);
    let unknown = Undoes { identity: named(), effect: Effect::Unknown };
    assert_eq!(place.undo(&step, "u1", &[unknown]).await, Effect::None);
    assert!(place.program().exists());
}

#[tokio::test]
async fn a_stopped_rpm_is_asked_for_what_it_left() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    place.execute(&step, "r0", None).await.result.unwrap();
    // It has installed the package and is still at its scriptlets when the agent comes back.
    let run = place.dir.path().join("state/runs/r1");
    supervisor().start(&run, &launch(place.dir.path(), "exec sleep 600")).await.unwrap();
    let (context, _) = place.context("r1", Some(r#"{"run":"r1","was_installed":false}"#.to_owned()));
    context.cancel.cancel();
    let error = place.host.execute(&step, &context).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("CANCELED", Effect::Done));
}

#[tokio::test]
async fn a_refusal_of_rpm_carries_its_words() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    // Where a directory has to be, there is a file.
    fs::write(place.dir.path().join("root/home"), "").unwrap();
    let attempt = place.execute(&step, "r1", None).await;
    let error = attempt.result.unwrap_err();
    assert_eq!((error.reason, error.effect), ("RPM_FAILED", Effect::None), "{}", error.message);
    assert!(error.exit_code.is_some_and(|code| code != 0));
    assert_eq!(place.undo(&step, "u1", &[attempt.undoes]).await, Effect::None);
}
