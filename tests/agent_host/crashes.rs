//! The agent is killed before each change that it makes on its way to a proxy that serves; then it comes back, or the
//! operation is taken back.
//!
//!  1. A crash, and the same attempt again: one proxy runs, and it takes the password of its cluster and no other, not
//!     the one of its first start and not one that it had before.
//!  2. A crash, or two of them, and the undo: nothing runs, nothing is left.
//!  3. A crash while a password is set, and the same attempt again: the proxy has it, and its log does not tell.

use crate::{
    dying::{Life, Work},
    place::{
        ADDRESS, ADMIN, Place, VERSIONS, Version, context, elsewhere, is_refused, item, login, proxy_hash,
        rpm_is_missing,
    },
};
use oblet::{
    agent::step::{Carrier as _, Undoes},
    graph::Effect,
    steps::StartObproxy,
};
use oblet_standins::{client::Client, mysql::unhex};
use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// The start of a proxy makes more changes than these in every version.
const LEAST_CHANGES: usize = 60;
/// Most of the time each of them waits for a process.
const THREADS: usize = 4;
const OLD_PASSWORD: &str = "of-another-time";

/// A host with the stand-in, below which many attempts are made.
struct Graveyard {
    place: Place,
    start: StartObproxy,
    changes: usize,
}

impl Graveyard {
    fn open(version: Version) -> Self {
        let (place, start) = run(Place::with_obproxy(version, &[]));
        let mut graveyard = Self { place, start, changes: 0 };
        let (died, changes) = graveyard.life("whole".into()).die_at(usize::MAX);
        assert!(!died && changes >= LEAST_CHANGES, "{version:?}: only {changes} changes were seen");
        graveyard.changes = changes;
        graveyard
    }

    fn life(&self, run_id: String) -> Life {
        let passwords = self.place.passwords.clone();
        Life {
            work: Work::Start,
            place: self.place.dir.path().to_owned(),
            run_id,
            start: elsewhere(&self.start),
            sha256: None,
            sys_password: passwords.sys,
            observer_password: passwords.observer,
        }
    }

    /// Calls the case for each change, several at a time; answers for how many of them the agent has died.
    fn each_change(&self, case: impl Fn(usize) -> bool + Sync) -> usize {
        let (next, deaths) = (AtomicUsize::new(1), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    loop {
                        let change = next.fetch_add(1, Ordering::Relaxed);
                        if change > self.changes {
                            break;
                        }
                        deaths.fetch_add(usize::from(case(change)), Ordering::Relaxed);
                    }
                });
            }
        });
        deaths.into_inner()
    }

    /// Processes of the proxy of this step.
    fn proxies(&self, life: &Life) -> usize {
        let dir = self.place.instance_dir(&life.start);
        let pids = self.place.programs().into_iter();
        pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)).count()
    }

    /// Hashes on the command lines of all first starts of this attempt.
    fn one_time_hashes(&self, life: &Life) -> Vec<String> {
        let runs = fs::read_dir(self.place.runs()).unwrap().map(|run| run.unwrap());
        let is_own = |name: &str| name.starts_with(&format!("{}-", life.run_id)) && name.contains("-first");
        let own = runs.filter(|run| is_own(run.file_name().to_str().unwrap()));
        let launches = own.filter_map(|run| fs::read_to_string(run.path().join("launch")).ok());
        let hash = |launch: String| {
            let (_, rest) = launch.split_once("obproxy_sys_password=").unwrap();
            rest.chars().take(40).collect()
        };
        launches.map(hash).collect()
    }

    fn assert_only_the_right_password_opens(&self, life: &Life) {
        let mut client = login(&life.start, &life.sys_password).unwrap();
        assert_eq!(item(&mut client, "observer_sys_password"), proxy_hash(&life.observer_password));
        for wrong in ["", OLD_PASSWORD, &life.observer_password] {
            assert!(is_refused(login(&life.start, wrong)), "{}: {wrong:?} opens it", life.run_id);
        }
        let hashes = self.one_time_hashes(life);
        assert!(!hashes.is_empty());
        for hash in hashes {
            let port = life.start.sql_port.get();
            let login = Client::login_by_hash(&ADDRESS.to_string(), port, ADMIN, unhex(&hash).unwrap());
            assert!(is_refused(login), "{}: the hash of a first start opens it", life.run_id);
        }
    }

    fn execute_again(&self, life: &Life) {
        run(async {
            let host = Place::open(&life.place);
            let again = context(&life.run_id, life.identity(), life.identities(), &life.passwords(), life.log());
            if let Err(error) = host.execute(&life.step(), &again).await {
                panic!("{}: {error}: {}", life.run_id, fs::read_to_string(life.log()).unwrap());
            }
        });
    }

    fn undo(&self, life: &Life) {
        run(async {
            let host = Place::open(&life.place);
            let context = context("undo", None, life.identities(), &life.passwords(), life.log());
            let undoes = [Undoes { identity: life.identity(), effect: Effect::Unknown }];
            host.undo(&life.step(), &context, &undoes).await.unwrap();
        });
        assert_eq!(self.proxies(life), 0, "{}", life.run_id);
    }

    /// What a proxy of the same step has left that ran at another time, with another password.
    fn put_old_configuration(&self, life: &Life, stored: &str) {
        let etc = self.place.instance_dir(&life.start).join("etc");
        fs::create_dir_all(&etc).unwrap();
        let configuration = format!("local_bound_ip={ADDRESS}\nobproxy_sys_password={}\n", proxy_hash(OLD_PASSWORD));
        fs::write(etc.join(stored), configuration).unwrap();
        self.place.put_record_of_another_time(&life.start);
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Each change has its turn in one of two tests, to have both of them over in time.
fn comes_back(version: Version, turn: usize) {
    if rpm_is_missing() {
        return;
    }
    let graveyard = Graveyard::open(version);
    let stored = if version == Version::Old { "obproxy_config.bin" } else { "proxyconfig_v1.db" };
    let deaths = graveyard.each_change(|change| {
        if change % 2 != turn {
            return false;
        }
        let life = graveyard.life(format!("back{change}"));
        // In every other case the directory is one of a proxy that had other passwords.
        if change / 2 % 2 == 0 {
            graveyard.put_old_configuration(&life, stored);
        }
        let (died, _) = life.die_at(change);
        graveyard.execute_again(&life);
        assert_eq!(graveyard.proxies(&life), 1, "{}", life.run_id);
        graveyard.assert_only_the_right_password_opens(&life);
        graveyard.undo(&life);
        died
    });
    assert_deaths(version, 2 * deaths, graveyard.changes);
}

/// The second death comes where the record still names a run that its attempt has given up.
fn dies_twice(version: Version) {
    const STRIDE: usize = 3;
    if rpm_is_missing() {
        return;
    }
    let mut graveyard = Graveyard::open(version);
    // The record is written, and its proxy is not yet started as a service.
    let first = (1..graveyard.changes).step_by(STRIDE).find(|change| {
        let life = graveyard.life(format!("probe{change}"));
        life.die_at(*change);
        graveyard.place.record(&life.start).exists()
    });
    let first = first.unwrap() + STRIDE;
    // The record is written again before that.
    graveyard.changes = first;
    let deaths = graveyard.each_change(|second| {
        let life = graveyard.life(format!("twice{second}"));
        life.die_at(first);
        assert!(graveyard.place.record(&life.start).exists());
        // As if it had come to the service, and died before that had begun.
        fs::create_dir(graveyard.place.runs().join(&life.run_id)).unwrap();
        let (died, _) = life.die_at(second);
        graveyard.undo(&life);
        graveyard.place.assert_no_instance(&life.start);
        died
    });
    assert_eq!(deaths, first);
}

/// The proxy runs all the time; what is set differs from one attempt to the next.
fn gets_its_password(version: Version) {
    /// A login, a statement and its log.
    const LEAST: usize = 5;
    if rpm_is_missing() {
        return;
    }
    let graveyard = Graveyard::open(version);
    let whole = graveyard.life("runs".into());
    graveyard.execute_again(&whole);
    let set = |run_id: String| {
        let observer_password = format!("observer-of-{run_id}");
        Life { work: Work::SetPasswords, run_id, observer_password, ..whole.clone() }
    };
    // On a thread of its own: this one is the parent of what holds the proxy.
    let die_at = |life: &Life, change| thread::scope(|scope| scope.spawn(|| life.die_at(change)).join().unwrap());
    let (_, changes) = die_at(&set("set".into()), usize::MAX);
    assert!(changes >= LEAST, "{version:?}: only {changes} changes were seen");
    let mut deaths = 0;
    for change in 1..=changes {
        let life = set(format!("set{change}"));
        deaths += usize::from(die_at(&life, change).0);
        login(&life.start, &life.sys_password).unwrap();
        graveyard.execute_again(&life);
        let start_of_the_proxy = Life { run_id: whole.run_id.clone(), ..life.clone() };
        graveyard.assert_only_the_right_password_opens(&start_of_the_proxy);
        let log = fs::read_to_string(graveyard.place.instance_dir(&life.start).join("log/obproxy.log")).unwrap();
        for password in [&life.sys_password, &life.observer_password] {
            assert!(!log.contains(&proxy_hash(password)) && !log.contains(password), "{}", life.run_id);
        }
    }
    assert!(deaths >= LEAST, "{version:?}: died at {deaths} of {changes} changes");
    graveyard.undo(&whole);
}

fn is_taken_back(version: Version) {
    if rpm_is_missing() {
        return;
    }
    let graveyard = Graveyard::open(version);
    let deaths = graveyard.each_change(|change| {
        let life = graveyard.life(format!("gone{change}"));
        let (died, _) = life.die_at(change);
        // Each third one dies once more on its way back, somewhere else.
        let twice = change % 3 == 0;
        if twice {
            life.die_at(change * 7 % graveyard.changes + 1);
        }
        graveyard.undo(&life);
        if twice {
            // A run that was given up keeps its files until the journal forgets the operation, lest it begin late.
            graveyard.place.assert_no_instance(&life.start);
        } else {
            graveyard.place.assert_nothing_is_left(&life.start, &life.run_id);
        }
        died
    });
    assert_deaths(version, deaths, graveyard.changes);
}

/// The last changes of a start come in a number that differs a little from time to time.
fn assert_deaths(version: Version, deaths: usize, changes: usize) {
    assert!(deaths >= LEAST_CHANGES, "{version:?}: died at {deaths} of {changes} changes");
}

#[test]
fn an_old_proxy_whose_agent_died_at_an_odd_change_gets_its_password_alone() {
    comes_back(Version::Old, 1);
}

#[test]
fn an_old_proxy_whose_agent_died_at_an_even_change_gets_its_password_alone() {
    comes_back(Version::Old, 0);
}

#[test]
fn a_new_proxy_whose_agent_died_at_an_odd_change_gets_its_password_alone() {
    comes_back(Version::New, 1);
}

#[test]
fn a_new_proxy_whose_agent_died_at_an_even_change_gets_its_password_alone() {
    comes_back(Version::New, 0);
}

#[test]
fn an_old_proxy_whose_agent_died_at_any_change_can_be_taken_back() {
    is_taken_back(Version::Old);
}

#[test]
fn a_new_proxy_whose_agent_died_at_any_change_can_be_taken_back() {
    is_taken_back(Version::New);
}

#[test]
fn a_proxy_whose_agent_died_twice_can_be_taken_back() {
    for version in VERSIONS {
        dies_twice(version);
    }
}

#[test]
fn a_proxy_whose_agent_died_while_it_set_a_password_gets_it_in_the_end() {
    for version in VERSIONS {
        gets_its_password(version);
    }
}
