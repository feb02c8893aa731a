//! What outlives every program of a simulation: the hosts that steps change, the coordinator's store, and the record of
//! what happened.

use super::{
    tables::Tables,
    traps::{Action, Trap},
};
use crate::coordinator::store::task::TaskId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

pub(super) const COORDINATOR: &str = "coordinator";

/// Something that a step makes on a host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Thing {
    pub(super) host: String,
    /// The step, its arguments included, without what is random.
    pub(super) what: String,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.what, self.host)
    }
}

/// How often something was made and taken back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) made: u32,
    pub(super) taken_back: u32,
}

/// One line of the record; the same in every run of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    at: Duration,
    host: String,
    what: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} {:<12} {}", self.at.as_secs_f64(), self.host, self.what)
    }
}

/// What can become of a commit of the coordinator's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Slow { written: bool },
    Full,
    AnswerLost { written: bool },
    Crash { written: bool },
}

/// How likely things go wrong by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Odds {
    /// That a step fails, at each of two places.
    pub(super) step_fails: f64,
    /// That it takes very long, at each of three places.
    pub(super) step_gets_stuck: f64,
    /// That the agent crashes, at each of four places in a step.
    pub(super) agent_crashes: f64,
    /// That a commit of the store is in trouble.
    pub(super) store_fails: f64,
    /// That a read of the store gets no answer.
    pub(super) reads_fail: f64,
    /// That a write of an agent's journal is, at each of its two sides.
    pub(super) journal_fails: f64,
}

/// What an agent answered to a call that bears an epoch.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// Host of the coordinator that called.
    caller: String,
    asked_at: Duration,
    refusal: Option<tonic::Code>,
}

pub(super) struct State {
    seed: u64,
    calm: bool,
    given_up: bool,
    random: fastrand::Rng,
    record: Vec<Line>,
    odds: Odds,
    /// What is there, and the identity under which it was made.
    things: BTreeMap<Thing, String>,
    counts: BTreeMap<Thing, Count>,
    made_as: BTreeMap<(Thing, String), u32>,
    in_hand: BTreeSet<Thing>,
    violations: Vec<String>,
    crashes: Vec<String>,
    trap: Option<Trap>,
    cut_off: Option<String>,
    /// Which host a runtime is.
    runtimes: HashMap<tokio::runtime::Id, String>,
    answers: Vec<Answer>,
    /// Hosts with a step that is about to choose an identity.
    choosing: BTreeSet<String>,
    /// The last step of a task fails the first time.
    finish_fails: bool,
}

pub(super) struct World {
    state: Mutex<State>,
    tables: Mutex<Tables>,
}

impl World {
    pub(super) fn new(seed: u64, odds: Odds) -> Arc<Self> {
        let state = State {
            seed,
            calm: false,
            given_up: false,
            random: fastrand::Rng::with_seed(seed),
            record: Vec::new(),
            odds,
            things: BTreeMap::new(),
            counts: BTreeMap::new(),
            made_as: BTreeMap::new(),
            in_hand: BTreeSet::new(),
            violations: Vec::new(),
            crashes: Vec::new(),
            trap: None,
            cut_off: None,
            runtimes: HashMap::new(),
            answers: Vec::new(),
            choosing: BTreeSet::new(),
            finish_fails: false,
        };
        Arc::new(Self { state: Mutex::new(state), tables: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap()
    }

    /// From here on nothing goes wrong by itself.
    pub(super) fn calm(&self) {
        let mut state = self.state();
        (state.odds, state.calm) = (Odds::default(), true);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.state().calm
    }

    /// The operator rolls this task back if it fails, and does not retry it.
    pub(super) fn is_given_up(&self, task: TaskId) -> bool {
        let state = self.state();
        state.given_up || state.seed.wrapping_add(task.0.unsigned_abs()).is_multiple_of(3)
    }

    /// The operator rolls back whatever fails.
    pub(super) fn give_up(&self) {
        self.state().given_up = true;
    }

    /// Adds a line to the record.
    pub(super) fn note(&self, host: &str, what: impl Into<String>) {
        self.note_at(turmoil::sim_elapsed().unwrap_or_default(), host, what);
    }

    pub(super) fn note_at(&self, at: Duration, host: &str, what: impl Into<String>) {
        self.state().record.push(Line { at, host: host.into(), what: what.into() });
    }

    /// Something that must never happen.
    pub(super) fn violation(&self, what: String) {
        self.state().violations.push(what);
    }

    /// Between nothing and `longest`, mostly short.
    pub(super) fn delay(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.state().random.f64().powi(4))
    }

    pub(super) fn chance(&self, probability: f64) -> bool {
        self.state().random.f64() < probability
    }

    pub(super) fn below(&self, end: usize) -> usize {
        self.state().random.usize(0..end)
    }

    pub(super) fn step_fails(&self) -> bool {
        let odds = self.state().odds.step_fails;
        self.chance(odds)
    }

    pub(super) fn step_gets_stuck(&self) -> bool {
        let odds = self.state().odds.step_gets_stuck;
        self.chance(odds)
    }

    /// What becomes of a write of the journal of the agent on `host`.
    pub(super) fn journal_trouble(&self, host: &str) -> Option<Action> {
        let odds = self.state().odds.journal_fails;
        if !self.chance(odds) {
            return None;
        }
        let action = [Action::Crash, Action::Error, Action::Slow][self.below(3)];
        self.note(host, format!("the journal: {action:?}"));
        Some(action)
    }

    pub(super) async fn agent_may_crash(&self, host: &str) {
        let odds = self.state().odds.agent_crashes;
        if self.chance(odds) {
            let _: () = self.crash_here(host).await;
        }
    }

    /// What becomes of the commit that is about to be made on `host`.
    pub(super) fn trouble(&self, host: &str) -> Option<Trouble> {
        let odds = self.state().odds.store_fails;
        if !self.chance(odds) {
            return None;
        }
        let trouble = match self.below(7) {
            0 => Trouble::Slow { written: false },
            1 => Trouble::Slow { written: true },
            2 => Trouble::Full,
            3 => Trouble::AnswerLost { written: false },
            4 => Trouble::AnswerLost { written: true },
            5 => Trouble::Crash { written: false },
            _ => Trouble::Crash { written: true },
        };
        self.note(host, format!("the store: {trouble:?}"));
        Some(trouble)
    }

    /// Whether the coordinator on `host` gets no answer to a read of its store.
    pub(super) fn read_fails(&self, host: &str) -> bool {
        let odds = self.state().odds.reads_fail;
        let fails = self.chance(odds);
        if fails {
            self.note(host, "the store cannot be read");
        }
        fails
    }

    /// Crashes the program on `host`, which does nothing more.
    pub(super) async fn crash_here<T>(&self, host: &str) -> T {
        self.crash(host);
        std::future::pending().await
    }

    pub(super) fn crash(&self, host: &str) {
        self.note(host, "crashes");
        self.state().crashes.push(host.into());
    }

    /// The code that calls this runs on `host`.
    pub(super) fn runs_on(&self, host: &str) {
        self.state().runtimes.insert(tokio::runtime::Handle::current().id(), host.into());
    }

    /// The host on which the code that calls this runs.
    pub(super) fn host(&self) -> Option<String> {
        self.state().runtimes.get(&tokio::runtime::Handle::current().id()).cloned()
    }

    /// An agent answered the coordinator that calls this.
    pub(super) fn answered(&self, asked_at: Duration, refusal: Option<tonic::Code>) {
        if let Some(caller) = self.host() {
            self.state().answers.push(Answer { caller, asked_at, refusal });
        }
    }

    /// How many calls agents took, and how many they refused for their epoch, of those that `caller` made since then.
    pub(super) fn taken_and_fenced(&self, caller: &str, since: Duration) -> (usize, usize) {
        let state = self.state();
        let count = |refusal| {
            let fits =
                |answer: &&Answer| answer.caller == caller && answer.asked_at >= since && answer.refusal == refusal;
            state.answers.iter().filter(fits).count()
        };
        (count(None), count(Some(tonic::Code::FailedPrecondition)))
    }

    /// From here on the store does not answer the coordinator on this host, and all others.
    pub(super) fn cut_off(&self, host: Option<&str>) {
        self.state().cut_off = host.map(Into::into);
    }

    pub(super) fn is_cut_off(&self, host: &str) -> bool {
        self.state().cut_off.as_deref() == Some(host)
    }

    pub(super) fn trap(&self) -> Option<Trap> {
        self.state().trap
    }

    pub(super) fn set_trap(&self, trap: Option<Trap>) {
        self.state().trap = trap;
    }

    /// A step on `host` is about to choose an identity, or has done so.
    pub(super) fn choose(&self, host: &str, chooses: bool) {
        let mut state = self.state();
        if chooses {
            state.choosing.insert(host.into());
        } else {
            state.choosing.remove(host);
        }
    }

    pub(super) fn chooses(&self, host: &str) -> bool {
        self.state().choosing.contains(host)
    }

    pub(super) fn let_finish_fail(&self) {
        self.state().finish_fails = true;
    }

    pub(super) fn does_finish_fail(&self) -> bool {
        std::mem::take(&mut self.state().finish_fails)
    }

    /// Hosts whose program has to be crashed.
    pub(super) fn take_crashes(&self) -> Vec<String> {
        std::mem::take(&mut self.state().crashes)
    }

    /// The identity under which a thing was made, if it is there.
    pub(super) fn identity_of(&self, thing: &Thing) -> Option<String> {
        self.state().things.get(thing).cloned()
    }

    pub(super) fn make(&self, thing: &Thing, identity: &str) {
        self.note(&thing.host, format!("makes {}", thing.what));
        let mut state = self.state();
        state.things.insert(thing.clone(), identity.into());
        state.counts.entry(thing.clone()).or_default().made += 1;
        let times = state.made_as.entry((thing.clone(), identity.into())).or_default();
        *times += 1;
        if *times > 1 {
            state.violations.push(format!("one attempt made {thing} more than once"));
        }
    }

    pub(super) fn take_back(&self, thing: &Thing) {
        self.note(&thing.host, format!("takes back {}", thing.what));
        let mut state = self.state();
        state.things.remove(thing);
        state.counts.entry(thing.clone()).or_default().taken_back += 1;
    }

    pub(super) fn count(&self, thing: &Thing) -> Count {
        self.state().counts.get(thing).copied().unwrap_or_default()
    }

    /// Marks a thing as worked on until the mark is dropped; nobody else may work on it meanwhile.
    pub(super) fn take_in_hand(self: &Arc<Self>, thing: &Thing) -> InHand {
        if !self.state().in_hand.insert(thing.clone()) {
            self.violation(format!("two operations work on {thing} at a time"));
        }
        InHand { world: Arc::clone(self), thing: thing.clone() }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    pub(super) fn take_record(&self) -> Vec<Line> {
        std::mem::take(&mut self.state().record)
    }

    /// The record as text.
    pub(super) fn told(&self) -> String {
        self.state().record.iter().map(|line| format!("{line}\n")).collect()
    }
}

pub(super) struct InHand {
    world: Arc<World>,
    thing: Thing,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.world.state().in_hand.remove(&self.thing);
    }
}
