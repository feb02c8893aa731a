//! What goes wrong by itself, and what is wrong on purpose.

use super::{traps::Action, world::World};

/// A kind of fault that can be let loose alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peril {
    /// The coordinator's store cannot be read.
    Reads,
    /// Agents crash inside an undo.
    Undos,
    /// Operators release what a task at rest has reserved, so that another takes it.
    Releases,
    /// Messages are lost on their way to a host and not on their way back, or the other way round.
    OneWay,
    /// Connections are reset.
    Resets,
    /// Clocks are set, forward and back, also that of a coordinator that is about to start.
    Clocks,
    /// Clients leave before they have their answer, ask for the same twice, and read no stream.
    Clients,
    /// There is a second coordinator.
    Standby,
    /// There is a second coordinator, and at either an operator releases what a task at rest has reserved.
    Rivals,
    /// Agents crash before and after they have a package, and what they have of it is damaged.
    Packages,
    /// Agents crash, and the write-ahead log of their journal stays as it was in that moment.
    Wal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Perils {
    All,
    /// Beside this one, only steps fail, and an operator retries and rolls back.
    Only(Peril),
    /// The same without it.
    None,
}

impl Perils {
    pub(super) fn include(self, peril: Peril) -> bool {
        self == Self::All || self == Self::Only(peril)
    }
}

/// A rule that is broken on purpose. The checks have to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Defect {
    /// A host begins again without looking up what an earlier agent began.
    HostBegins,
    /// An agent begins every life with an empty journal.
    AgentForgets,
    /// A host takes back what an earlier agent has taken back.
    UndoesAgain,
    /// A log that cannot be read is written from its begin.
    LogFromBegin,
    /// What was reserved is not reserved again before a task runs again.
    NotReserved,
    /// It is reserved again when an operator decides, instead of when the task runs.
    ReservedEarly,
    /// The coordinator asks under another key after a call that had no answer.
    FreshKeys,
    /// Epochs follow the clock alone.
    EpochsOfClock,
    /// Nobody looks for tasks that were never woken.
    NoSweep,
    /// A task belongs to whoever asks.
    AnyOwner,
    /// A crash damages packages that were whole.
    WholeIsDamaged,
    /// What a request committed is followed by nothing if its client leaves meanwhile.
    DropsWithClient,
    /// A request that is sent again is carried out again.
    KeysIgnored,
    /// An agent does not look at the digest of what it received.
    AnyDigest,
    /// An agent begins with what the file of its journal says, without the write-ahead log beside it.
    WalIgnored,
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
    /// The same for each of three places in an undo.
    pub(super) undo_crashes: f64,
    /// That a commit of the store is in trouble.
    pub(super) store_fails: f64,
    /// That a read of the store gets no answer.
    pub(super) reads_fail: f64,
    /// That a write of an agent's journal is in trouble, at each of its two sides.
    pub(super) journal_fails: f64,
    /// That a connection is reset when an agent reads from it.
    pub(super) resets: f64,
    /// That a client leaves early, or asks twice.
    pub(super) clients: f64,
    /// That an operator who looks at a task at rest releases its reservations.
    pub(super) releases: f64,
    /// That a decision is slow on its way from its request to the engine.
    pub(super) slow_decisions: f64,
    /// That an agent crashes after it has received a part of a package, and just before it uses one.
    pub(super) package_crashes: f64,
    /// That a crash damages what an agent has of a package.
    pub(super) damages: f64,
    /// That a crash leaves the write-ahead log of a journal as it was.
    pub(super) wal_stays: f64,
    /// That an operator who looks at a task that failed leads it to its end.
    pub(super) decides: f64,
    /// That one who decides by whim cancels something.
    pub(super) cancels: f64,
}

impl Odds {
    pub(super) fn draw(random: &mut fastrand::Rng, perils: Perils) -> Self {
        let everything = perils == Perils::All;
        let releases = if perils == Perils::Only(Peril::Rivals) { Peril::Rivals } else { Peril::Releases };
        let mut draw = |peril: Option<Peril>, together: f64, alone: f64| {
            let random = random.f64();
            let counts = peril.is_none_or(|peril| perils.include(peril));
            let odds = if everything { together * random } else { alone };
            if counts { odds } else { 0.0 }
        };
        Self {
            // A fault that is alone needs tasks that are retried and rolled back.
            step_fails: draw(None, 0.06, 0.12),
            step_gets_stuck: draw(None, 0.03, 0.0),
            agent_crashes: draw(None, 0.15, 0.0),
            undo_crashes: draw(Some(Peril::Undos), 0.2, 0.4),
            store_fails: draw(None, 0.03, 0.0),
            reads_fail: draw(Some(Peril::Reads), 0.06, 0.2),
            journal_fails: draw(None, 0.03, 0.0),
            resets: draw(Some(Peril::Resets), 0.02, 0.02),
            clients: draw(Some(Peril::Clients), 0.3, 0.3),
            releases: draw(Some(releases), 0.1, 0.4),
            slow_decisions: draw(Some(Peril::Rivals), 0.1, 1.0),
            package_crashes: draw(Some(Peril::Packages), 0.2, 0.2),
            damages: draw(Some(Peril::Packages), 1.0, 0.9),
            wal_stays: draw(Some(Peril::Wal), 1.0, 1.0),
            decides: if everything { 0.0 } else { 0.5 },
            cancels: if everything { 0.4 } else { 0.0 },
        }
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

impl World {
    /// Whether it happens, by the odds for it.
    pub(super) fn happens(&self, odds: impl FnOnce(&Odds) -> f64) -> bool {
        let odds = odds(&self.odds());
        self.chance(odds)
    }

    /// What becomes of a write of the journal of the agent on `host`.
    pub(super) fn journal_trouble(&self, host: &str) -> Option<Action> {
        if !self.happens(|odds| odds.journal_fails) {
            return None;
        }
        let action = [Action::Crash, Action::Error, Action::Slow][self.below(3)];
        self.note(host, format!("the journal: {action:?}"));
        Some(action)
    }

    pub(super) async fn may_crash(&self, host: &str, odds: impl FnOnce(&Odds) -> f64) {
        if self.happens(odds) {
            let _: () = self.crash_here(host).await;
        }
    }

    /// What becomes of the commit that is about to be made on `host`.
    pub(super) fn trouble(&self, host: &str) -> Option<Trouble> {
        if !self.happens(|odds| odds.store_fails) {
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
        let fails = self.happens(|odds| odds.reads_fail);
        if fails {
            self.note(host, "the store cannot be read");
        }
        fails
    }
}
