//! What steps make, how often, and who works on it.

use super::world::World;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
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

#[derive(Default)]
pub(super) struct Things {
    /// With the identity under which each was made.
    there: BTreeMap<Thing, String>,
    counts: BTreeMap<Thing, Count>,
    made_as: BTreeSet<(Thing, String)>,
    in_hand: BTreeSet<Thing>,
}

impl World {
    /// The identity under which a thing was made, if it is there.
    pub(super) fn identity_of(&self, thing: &Thing) -> Option<String> {
        self.things().there.get(thing).cloned()
    }

    pub(super) fn make(&self, thing: &Thing, identity: &str) {
        self.note(&thing.host, format!("makes {}", thing.what));
        let mut things = self.things();
        things.there.insert(thing.clone(), identity.into());
        things.counts.entry(thing.clone()).or_default().made += 1;
        if !things.made_as.insert((thing.clone(), identity.into())) {
            self.violation(format!("one attempt made {thing} more than once"));
        }
    }

    /// Whether it ever was made under this identity.
    pub(super) fn was_made(&self, thing: &Thing, identity: &str) -> bool {
        self.things().made_as.contains(&(thing.clone(), identity.into()))
    }

    pub(super) fn take_back(&self, thing: &Thing) {
        self.note(&thing.host, format!("takes back {}", thing.what));
        let mut things = self.things();
        things.there.remove(thing);
        things.counts.entry(thing.clone()).or_default().taken_back += 1;
    }

    pub(super) fn count(&self, thing: &Thing) -> Count {
        self.things().counts.get(thing).copied().unwrap_or_default()
    }

    /// Marks a thing as worked on until the mark is dropped; nobody else may work on it meanwhile.
    pub(super) fn take_in_hand(self: &Arc<Self>, thing: &Thing) -> InHand {
        if !self.things().in_hand.insert(thing.clone()) {
            self.violation(format!("two operations work on {thing} at a time"));
        }
        InHand { world: Arc::clone(self), thing: thing.clone() }
    }
}

pub(super) struct InHand {
    world: Arc<World>,
    thing: Thing,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.world.things().in_hand.remove(&self.thing);
    }
}
