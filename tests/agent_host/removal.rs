//! Proxies that go: what of them is left, what comes back in a rollback, and agents that die meanwhile.

use crate::{
    dying::{Life, Work},
    installation::{assert_configured, steps_of_an_installation},
    place::{
        Place, VERSIONS, Version, context, elsewhere, instance, is_refused, login, parameter, rpm_is_missing,
        supervisor,
    },
};
use oblet::{
    agent::{
        HostView as _,
        step::{Carrier as _, Undoes},
    },
    graph::Effect,
    steps::{
        AgentStep, InstallPackage, Instance, RefreshConfig, RetireExporter, StartObproxy, UninstallObproxy,
        values::Sha256,
    },
};
use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

fn uninstall(install: &AgentStep, start: &StartObproxy) -> UninstallObproxy {
    UninstallObproxy {
        start: start.clone(),
        instance: instance(start),
        parameters: vec![parameter("proxy_mem_limited", "4G"), parameter("syslog_level", "INFO")],
        sha256: Some(digest(install)),
        keep_logs: true,
    }
}

fn digest(install: &AgentStep) -> Sha256 {
    let AgentStep::InstallPackage(InstallPackage { sha256, .. }) = install else { panic!("{install:?}") };
    sha256.clone()
}

/// Files below the home of packages.
fn installed(place: &Place) -> Vec<PathBuf> {
    let homes = fs::read_dir(place.dir.path().join("root/home/admin")).into_iter().flatten();
    let programs = homes.map(|home| home.unwrap().path().join("bin/obproxy"));
    programs.filter(|program| program.exists()).collect()
}

/// What is beside the directories of proxies.
fn kept(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.dir.path().join("root/run/obproxy")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

async fn goes_and_comes_back(version: Version) {
    let place = Place::new();
    let (steps, start) = steps_of_an_installation(&place, version);
    for (number, step) in steps.iter().enumerate() {
        place.execute(step, &format!("i{number}"), None).await.result.unwrap();
    }
    let removal = AgentStep::UninstallObproxy(uninstall(&steps[0], &start));
    let retirement = AgentStep::RetireExporter(RetireExporter { instance: instance(&start) });

    let gone = place.execute(&removal, "r", None).await;
    assert_eq!(gone.result.unwrap().effect, Effect::Done, "{version:?}");
    assert!(place.programs().is_empty() && installed(&place).is_empty() && place.host.instances().is_empty());
    assert!(!place.instance_dir(&start).exists() && !place.record(&start).exists());
    let [logs] = &kept(&place)[..] else { panic!("{:?}", kept(&place)) };
    let name = logs.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("{}.removed-2", start.sql_port)), "{name}");
    let left: Vec<_> = fs::read_dir(logs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["log"], "hashes of passwords are in the others");
    assert!(logs.join("log/obproxy.log").exists());
    let retired = place.execute(&retirement, "x", None).await;
    assert_eq!(retired.result.unwrap().effect, Effect::Done);
    assert_eq!(place.host.config_generation(), 4);

    place.execute(&removal, "again", None).await.result.unwrap();
    assert_eq!(place.execute(&retirement, "x-again", None).await.result.unwrap().effect, Effect::None);
    assert_eq!(kept(&place).len(), 1);

    for (undone, quiet) in [(Effect::Done, "u"), (Effect::None, "quiet")] {
        assert_eq!(place.undo(&retirement, &format!("{quiet}-x"), std::slice::from_ref(&retired.undoes)).await, undone);
        assert_eq!(place.undo(&removal, quiet, std::slice::from_ref(&gone.undoes)).await, undone, "{}", place.told());
        assert_configured(&place, &start);
        assert_eq!(place.programs().len(), 1);
        let instances = place.host.instances();
        assert!(instances.len() == 1 && instances[0].alive);
    }
    assert_eq!(place.host.config_generation(), 6);
    assert!(!place.told().contains("not-to-be-seen"));
}

#[tokio::test]
async fn a_proxy_goes_with_all_that_came_with_it_and_a_rollback_brings_it_back() {
    if rpm_is_missing() {
        return;
    }
    for version in VERSIONS {
        goes_and_comes_back(version).await;
    }
}

#[tokio::test]
async fn nothing_is_taken_back_of_a_removal_that_was_not_begun() {
    if rpm_is_missing() {
        return;
    }
    let (place, start) = Place::with_obproxy(Version::New, &[]).await;
    let step = AgentStep::UninstallObproxy(UninstallObproxy {
        sha256: None,
        ..uninstall(&place.put_obproxy(Version::New, &[]).0, &start)
    });
    let nothing = Undoes { identity: None, effect: Effect::None };
    assert_eq!(place.undo(&step, "u", &[nothing]).await, Effect::None);
    assert!(place.programs().is_empty());
}

#[tokio::test]
async fn a_package_stays_while_another_proxy_needs_it() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let (install, first) = place.put_obproxy(Version::New, &[]);
    let second = elsewhere(&first);
    place.execute(&install, "i", None).await.result.unwrap();
    for start in [&first, &second] {
        let run = format!("s{}", start.sql_port);
        place.execute(&AgentStep::StartObproxy(start.clone()), &run, None).await.result.unwrap();
    }
    // It does not run at the moment, and needs its program as well.
    stop(&place, &second).await;
    place.execute(&AgentStep::UninstallObproxy(uninstall(&install, &first)), "r1", None).await.result.unwrap();
    assert!(place.programs().is_empty());
    assert_eq!(installed(&place).len(), 1);
    let dropped = UninstallObproxy { keep_logs: false, ..uninstall(&install, &second) };
    place.execute(&AgentStep::UninstallObproxy(dropped), "r2", None).await.result.unwrap();
    assert!(installed(&place).is_empty());
    assert!(!place.instance_dir(&second).exists() && !place.out(&second).exists());
    assert_eq!(kept(&place).len(), 1, "the logs of the first");
}

/// Ends the proxy of this step as its administrator would.
async fn stop(place: &Place, start: &StartObproxy) {
    let record: serde_json::Value = serde_json::from_slice(&fs::read(place.record(start)).unwrap()).unwrap();
    let run = place.runs().join(record["run"].as_str().unwrap());
    supervisor().stop(&run, Duration::from_secs(10)).await.unwrap();
}

/// Else a proxy that cannot start could never be removed by a retry, which takes back first.
#[tokio::test]
async fn a_proxy_that_did_not_serve_is_not_started_by_a_rollback() {
    if rpm_is_missing() {
        return;
    }
    let (place, start) = Place::with_obproxy(Version::New, &[]).await;
    let (install, _) = place.put_obproxy(Version::New, &[]);
    place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
    let listing = RefreshConfig { instance: instance(&start) };
    place.execute(&AgentStep::RefreshConfig(listing), "c", None).await.result.unwrap();
    stop(&place, &start).await;
    let step = AgentStep::UninstallObproxy(uninstall(&install, &start));
    let first = place.execute(&step, "r1", None).await;
    // The second attempt finds nothing any more, and what the first found still counts.
    let second = place.execute(&step, "r2", None).await;
    assert_eq!(second.undoes.effect, Effect::Done);
    assert_eq!(place.undo(&step, "u", &[first.undoes.clone(), second.undoes]).await, Effect::Done);
    assert!(place.programs().is_empty() && installed(&place).is_empty());
    assert_eq!(place.host.instances().len(), 1, "it is as known as before");
    assert!(place.told().contains("so none is started"), "{}", place.told());
    assert_eq!(place.undo(&step, "u2", &[first.undoes]).await, Effect::None);
}

#[tokio::test]
async fn two_proxies_that_go_at_once_take_their_package_along_and_come_back() {
    if rpm_is_missing() {
        return;
    }
    let place = Place::new();
    let (install, first) = place.put_obproxy(Version::New, &[]);
    let second = elsewhere(&first);
    place.execute(&install, "i", None).await.result.unwrap();
    let steps = [&first, &second].map(|start| AgentStep::UninstallObproxy(uninstall(&install, start)));
    for start in [&first, &second] {
        let run = format!("s{}", start.sql_port);
        place.execute(&AgentStep::StartObproxy(start.clone()), &run, None).await.result.unwrap();
    }
    for round in ["1", "2"] {
        // Each looks at the packages while the directory of the other is still on its way.
        for start in [&first, &second] {
            let directory = place.instance_dir(start).join("sharding-config");
            (0..5000).for_each(|number| fs::write(directory.join(number.to_string()), "").unwrap());
        }
        let runs = ["a", "b"].map(|run| format!("{run}{round}"));
        let (one, other) =
            tokio::join!(place.execute(&steps[0], &runs[0], None), place.execute(&steps[1], &runs[1], None));
        assert!(place.programs().is_empty() && installed(&place).is_empty(), "{}", place.told());
        let undoes = [[one.undoes], [other.undoes]];
        let names = ["ua", "ub"].map(|run| format!("{run}{round}"));
        let undone =
            tokio::join!(place.undo(&steps[0], &names[0], &undoes[0]), place.undo(&steps[1], &names[1], &undoes[1]));
        assert_eq!(undone, (Effect::Done, Effect::Done));
        for start in [&first, &second] {
            login(start, &place.passwords.sys).unwrap();
        }
    }
}

#[tokio::test]
async fn logs_that_a_link_leads_to_stay_with_their_link() {
    if rpm_is_missing() {
        return;
    }
    let (place, start) = Place::with_obproxy(Version::New, &[]).await;
    let (install, _) = place.put_obproxy(Version::New, &[]);
    place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
    stop(&place, &start).await;
    let (own, elsewhere) = (place.instance_dir(&start).join("log"), place.dir.path().join("elsewhere"));
    fs::rename(&own, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &own).unwrap();
    place.execute(&AgentStep::UninstallObproxy(uninstall(&install, &start)), "r", None).await.result.unwrap();
    assert!(elsewhere.join("obproxy.log").exists());
    assert_eq!(fs::read_link(kept(&place)[0].join("log")).unwrap(), elsewhere);

    // Without its logs the link goes, and never what it leads to.
    place.execute(&install, "i2", None).await.result.unwrap();
    place.execute(&AgentStep::StartObproxy(start.clone()), "s2", None).await.result.unwrap();
    stop(&place, &start).await;
    fs::remove_dir_all(&own).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &own).unwrap();
    let all = UninstallObproxy { keep_logs: false, ..uninstall(&install, &start) };
    place.execute(&AgentStep::UninstallObproxy(all), "r2", None).await.result.unwrap();
    assert!(elsewhere.join("obproxy.log").exists() && !place.instance_dir(&start).exists());
}

#[tokio::test]
async fn a_package_that_somebody_else_has_installed_stays() {
    if rpm_is_missing() {
        return;
    }
    let (place, start) = Place::with_obproxy(Version::New, &[]).await;
    let (install, _) = place.put_obproxy(Version::New, &[]);
    place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
    // As it is after an administrator has erased it and installed it again.
    let note = place.dir.path().join("state/installed").join(format!("{}.json", start.package));
    assert!(note.exists());
    fs::write(&note, "\"1\"").unwrap();
    place.execute(&AgentStep::UninstallObproxy(uninstall(&install, &start)), "r", None).await.result.unwrap();
    assert!(place.programs().is_empty());
    assert_eq!(installed(&place).len(), 1);
    assert!(place.told().contains("this agent has not installed it"), "{}", place.told());
}

#[tokio::test]
async fn a_proxy_of_another_cluster_at_the_port_is_left_alone() {
    if rpm_is_missing() {
        return;
    }
    let (place, start) = Place::with_obproxy(Version::New, &[]).await;
    let (install, _) = place.put_obproxy(Version::New, &[]);
    place.execute(&AgentStep::StartObproxy(start.clone()), "s", None).await.result.unwrap();
    let other = StartObproxy { app_name: "another".parse().unwrap(), ..start.clone() };
    let step = AgentStep::UninstallObproxy(uninstall(&install, &other));
    let attempt = place.execute(&step, "r", None).await;
    let error = attempt.result.unwrap_err();
    assert_eq!((error.reason, error.effect), ("NOT_THIS_PROXY", Effect::None));
    login(&start, &place.passwords.sys).unwrap();
    // One of the same cluster that came after the one that is to go.
    let later = Instance { server_id: 9, ..instance(&start) };
    place.execute(&AgentStep::RefreshConfig(RefreshConfig { instance: later }), "c", None).await.result.unwrap();
    let step = AgentStep::UninstallObproxy(uninstall(&install, &start));
    let error = place.execute(&step, "r2", None).await.result.unwrap_err();
    assert_eq!((error.reason, error.effect), ("NOT_THIS_PROXY", Effect::None));
    login(&start, &place.passwords.sys).unwrap();
}

/// Removals make more changes than these.
const LEAST_CHANGES: usize = 25;
const THREADS: usize = 4;

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A host of its own with a proxy that serves, and the removal of that. A thread of its own starts the proxy: whoever traces
/// an agent waits for all children of his thread.
fn furnished(version: Version, run_id: &str) -> (Place, Life) {
    let run_id = run_id.to_owned();
    thread::spawn(move || furnish(version, run_id)).join().unwrap()
}

fn furnish(version: Version, run_id: String) -> (Place, Life) {
    run(async {
        let place = Place::new();
        let (install, start) = place.put_obproxy(version, &[]);
        place.execute(&install, &format!("{run_id}-i"), None).await.result.unwrap();
        place.execute(&AgentStep::StartObproxy(start.clone()), &format!("{run_id}-s"), None).await.result.unwrap();
        let life = Life {
            work: Work::Uninstall,
            place: place.dir.path().to_owned(),
            run_id,
            start,
            sha256: Some(digest(&install)),
            sys_password: place.passwords.sys.clone(),
            observer_password: place.passwords.observer.clone(),
        };
        (place, life)
    })
}

/// The agent dies before one change of a removal. Every other removal is then carried out, and every other taken back.
fn dies_at(version: Version, change: usize) -> bool {
    let (place, life) = furnished(version, &format!("r{change}"));
    let (died, _) = life.die_at(change);
    run(async {
        let host = Place::open(&life.place);
        if change.is_multiple_of(2) {
            let again = context(&life.run_id, life.identity(), life.identities(), &life.passwords(), life.log());
            let done = host.execute(&life.step(), &again).await;
            assert!(done.is_ok(), "change {change}: {done:?}: {}", fs::read_to_string(life.log()).unwrap());
            place.assert_no_instance(&life.start);
            assert!(place.programs().is_empty() && installed(&place).is_empty(), "change {change}");
        } else {
            let undo =
                context(&format!("{}-undo", life.run_id), None, life.identities(), &life.passwords(), life.log());
            let undoes = [Undoes { identity: life.identity(), effect: Effect::Unknown }];
            let done = host.undo(&life.step(), &undo, &undoes).await;
            assert!(done.is_ok(), "change {change}: {done:?}: {}", fs::read_to_string(life.log()).unwrap());
            assert_eq!(place.programs().len(), 1, "change {change}");
            login(&life.start, &life.sys_password).unwrap();
            assert!(is_refused(login(&life.start, "wrong")));
            // The next removal takes it whole.
            let gone =
                context(&format!("{}-later", life.run_id), None, life.identities(), &life.passwords(), life.log());
            host.execute(&life.step(), &gone).await.unwrap();
            place.assert_no_instance(&life.start);
            assert!(installed(&place).is_empty(), "change {change}");
        }
    });
    died
}

/// A third of the changes, to have the test over in time: the other version has another third.
fn dies_at_some_changes(version: Version, first: usize) {
    // Odd, so that as many removals are taken back as are carried out.
    const STRIDE: usize = 3;
    if rpm_is_missing() {
        return;
    }
    let (_place, whole) = furnished(version, "whole");
    let (died, changes) = whole.die_at(usize::MAX);
    assert!(!died && changes >= LEAST_CHANGES, "{version:?}: only {changes} changes were seen");
    let (next, deaths) = (AtomicUsize::new(first), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let change = next.fetch_add(STRIDE, Ordering::Relaxed);
                    if change > changes {
                        break;
                    }
                    deaths.fetch_add(usize::from(dies_at(version, change)), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(deaths.into_inner() >= LEAST_CHANGES / STRIDE, "{version:?}");
}

#[test]
fn the_removal_of_an_old_proxy_whose_agent_died_ends_or_is_taken_back() {
    dies_at_some_changes(Version::Old, 1);
}

#[test]
fn the_removal_of_a_new_proxy_whose_agent_died_ends_or_is_taken_back() {
    dies_at_some_changes(Version::New, 2);
}
