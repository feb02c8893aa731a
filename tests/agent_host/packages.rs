//! Packages, with the real rpm.

use crate::place::{PACKAGE, Place, launch, rpm_is_missing, supervisor, until};
use futures_util::future::BoxFuture;
use oblet::{
    agent::step::{Carrier as _, IdentityStore, StepContext, Undoes},
    graph::Effect,
};
use std::{fs, sync::Arc};

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
async fn a_damaged_database_is_not_taken_for_an_empty_one() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    let database = place.dir.path().join("root/var/lib/rpm");
    fs::create_dir_all(&database).unwrap();
    fs::write(database.join("rpmdb.sqlite"), "no database".repeat(1000)).unwrap();
    let error = place.execute(&step, "r1", None).await.result.unwrap_err();
    assert_eq!((error.reason, error.effect), ("RPM_DATABASE", Effect::None), "{}", error.message);
    assert!(!place.program().exists());
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
async fn a_database_that_does_not_answer_after_a_restart_leaves_the_effect_unknown_and_the_undo_erases() {
    if rpm_is_missing() {
        return;
    }
    for (question, effect) in [("--qf", Effect::Unknown), ("-ql", Effect::Done)] {
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *{question}*) test ! -e \"$HOME/broken\" || exit 1 ;; esac\nexec /usr/bin/rpm \"$@\"\n"
        );
        let place = Place::with_rpm(&script);
        let step = place.put(PACKAGE, "#!/bin/sh\n");
        let first = place.execute(&step, "r1", None).await;
        first.result.unwrap();
        let broken = place.dir.path().join("state/broken");
        fs::write(&broken, "").unwrap();
        let resumed = place.execute(&step, "r1", first.undoes.identity).await;
        let error = resumed.result.unwrap_err();
        assert_eq!((error.reason, error.effect), ("RPM_DATABASE", effect), "{question}");
        fs::remove_file(broken).unwrap();
        assert_eq!(place.undo(&step, "u1", &[resumed.undoes]).await, Effect::Done);
        assert!(!place.program().exists());
    }
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

/// A journal whose disk is full from the moment on at which the effect has begun.
struct FullDisk;

impl IdentityStore for FullDisk {
    fn choose(&self, _identity: String) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn confirm(&self) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::StorageFull)) })
    }
}

#[tokio::test]
async fn an_rpm_that_may_still_run_has_not_said_what_it_leaves() {
    let script = "#!/bin/sh\ncase \"$*\" in\n*--initdb*) exec touch \"$2/rpmdb.sqlite\" ;;\n*--qf*) exit 0 ;;\n\
                  *-iv*) exec sleep 600 ;;\nesac\n";
    let place = Place::with_rpm(script);
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    let (context, _) = place.context("r1", None);
    let context = StepContext { identities: Arc::new(FullDisk), ..context };
    let error = place.host.execute(&step, &context).await.unwrap_err();
    assert_eq!((error.reason, error.effect), ("JOURNAL", Effect::Unknown));
}

#[tokio::test]
async fn a_database_whose_making_was_broken_off_counts_for_nothing() {
    let script = "#!/bin/sh\ncase \"$*\" in\n*--initdb*) touch \"$2/rpmdb.sqlite\"; test -e \"$HOME/quick\" || exec sleep 600 ;;\n\
                  *--qf*) exit 0 ;;\nesac\n";
    let place = Place::with_rpm(script);
    let step = place.put(PACKAGE, "#!/bin/sh\n");
    let (context, _) = place.context("r1", None);
    let database = place.dir.path().join("root/var/lib/rpm/rpmdb.sqlite");
    {
        let making = place.host.execute(&step, &context);
        tokio::pin!(making);
        let begun = || fs::read_dir(place.dir.path().join("root/var/lib")).is_ok_and(|mut made| made.next().is_some());
        tokio::select! {
            _ = &mut making => panic!("it waits for rpm"),
            () = until("the beginning of the database", begun) => {}
        }
    }
    assert!(!database.exists());
    fs::write(place.dir.path().join("state/quick"), "").unwrap();
    place.execute(&step, "r2", None).await;
    assert!(database.exists());
}

#[tokio::test]
async fn a_package_from_which_somebody_runs_is_not_erased() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    // A program of the machine stands for the one of the package, so that the process executes that very file.
    let sleep = fs::read("/bin/sleep").unwrap();
    let step = place.put(PACKAGE, sleep);
    let installed = place.execute(&step, "r1", None).await;
    installed.result.unwrap();
    let mut other = std::process::Command::new(place.program()).arg("600").spawn().unwrap();
    let undone = place.undo(&step, "u1", std::slice::from_ref(&installed.undoes)).await;
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(undone, Effect::None);
    assert!(place.program().exists());
    assert_eq!(place.undo(&step, "u2", &[installed.undoes]).await, Effect::Done);
    assert!(!place.program().exists());
}
