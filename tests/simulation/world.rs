//! What outlives every program of a simulation: the hosts that steps change, and the record of what happened.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

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
    pub(super) at: Duration,
    pub(super) host: String,
    pub(super) what: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} {:<12} {}", self.at.as_secs_f64(), self.host, self.what)
    }
}

pub(super) struct State {
    pub(super) random: fastrand::Rng,
    pub(super) record: Vec<Line>,
    /// What is there, and the identity under which it was made.
    things: BTreeMap<Thing, String>,
    counts: BTreeMap<Thing, Count>,
    /// Made twice by one attempt: (thing, identity).
    repeated: Vec<(Thing, String)>,
    made_by: BTreeMap<(Thing, String), u32>,
}

pub(super) struct World(Mutex<State>);

impl World {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            random: fastrand::Rng::with_seed(seed),
            record: Vec::new(),
            things: BTreeMap::new(),
            counts: BTreeMap::new(),
            repeated: Vec::new(),
            made_by: BTreeMap::new(),
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Adds a line to the record.
    pub(super) fn note(&self, host: &str, what: impl Into<String>) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.state().record.push(Line { at, host: host.into(), what: what.into() });
    }

    /// Between nothing and `longest`, mostly short.
    pub(super) fn delay(&self, longest: Duration) -> Duration {
        let share = self.state().random.f64().powi(4);
        longest.mul_f64(share)
    }

    pub(super) fn chance(&self, probability: f64) -> bool {
        self.state().random.f64() < probability
    }

    /// The identity under which a thing was made, if it is there.
    pub(super) fn made_as(&self, thing: &Thing) -> Option<String> {
        self.state().things.get(thing).cloned()
    }

    pub(super) fn make(&self, thing: &Thing, identity: &str) {
        self.note(&thing.host, format!("makes {}", thing.what));
        let mut state = self.state();
        state.things.insert(thing.clone(), identity.into());
        state.counts.entry(thing.clone()).or_default().made += 1;
        let times = state.made_by.entry((thing.clone(), identity.into())).or_default();
        *times += 1;
        if *times > 1 {
            state.repeated.push((thing.clone(), identity.into()));
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

    /// Things that one attempt made more than once.
    pub(super) fn repeated(&self) -> Vec<Thing> {
        self.state().repeated.iter().map(|(thing, _)| thing.clone()).collect()
    }

    /// Everything that is there.
    pub(super) fn things(&self) -> Vec<Thing> {
        self.state().things.keys().cloned().collect()
    }

    pub(super) fn record(&self) -> Vec<Line> {
        self.state().record.clone()
    }
}
