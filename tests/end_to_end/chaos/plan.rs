//! What happens in a round: drawn from the seed and the round's number alone, so that any round can be had again.

use super::{
    blow::{Blow, How, Victim},
    dice::Dice,
};
use std::{fmt, time::Duration};

/// What a blow can hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// The proxies of the first two hosts, in every round.
    Proxies,
    /// A host comes in with a one-time token.
    Enrolment,
    /// The certificate of an agent becomes old.
    Renewal,
    /// A host is removed as soon as its task lets go of it, and comes back.
    Removal,
    /// A task that nobody takes up again gives free what it reserved, and another one takes it.
    Locks,
    /// The disk of an agent is full for a while.
    Disk,
    /// Clients leave before they are answered, and ask again.
    Clients,
    /// Clients open streams and never read them.
    Streams,
    /// A proxy is removed.
    Offline,
}

/// How often some work is drawn, and how it is hit.
struct Odds {
    work: Work,
    /// In parts of the sum of all.
    weight: u64,
    /// About as long as it takes: in this time falls the blow that is meant for it.
    longest_millis: u64,
    /// Of eight such blows so many hit the agent of its host; the others hit the coordinator, or both.
    agent: u64,
    draw: fn(&mut Dice) -> Errand,
}

const ODDS: [Odds; 8] = [
    Odds {
        work: Work::Enrolment,
        weight: 4,
        longest_millis: 350,
        agent: 4,
        draw: |dice| Errand::Enrolment { rival: dice.one_in(2) },
    },
    Odds { work: Work::Renewal, weight: 3, longest_millis: 900, agent: 3, draw: |_| Errand::Renewal },
    Odds {
        work: Work::Removal,
        weight: 3,
        longest_millis: 250,
        agent: 2,
        draw: |dice| Errand::Removal { revoked: dice.one_in(2) },
    },
    Odds { work: Work::Locks, weight: 3, longest_millis: 350, agent: 1, draw: |_| Errand::Locks },
    Odds {
        work: Work::Disk,
        weight: 3,
        longest_millis: 1500,
        agent: 5,
        draw: |dice| Errand::Disk { full_after: dice.millis(0, 600), full_for: dice.millis(100, 1200) },
    },
    Odds {
        work: Work::Clients,
        weight: 3,
        longest_millis: 150,
        agent: 1,
        draw: |dice| Errand::Clients { patience: dice.millis(0, 25) },
    },
    Odds { work: Work::Streams, weight: 2, longest_millis: 0, agent: 0, draw: |_| Errand::Streams },
    Odds { work: Work::Offline, weight: 4, longest_millis: 350, agent: 5, draw: |_| Errand::Offline },
];
pub(super) fn errands_there_are() -> impl Iterator<Item = Work> {
    ODDS.iter().map(|odds| odds.work)
}

/// Beside the proxies, in a round.
const ERRANDS: usize = 2;

/// Of all blows of a run at most so many percent may hit nothing.
pub(super) const MOST_MISSES: usize = 20;
/// Of those that are meant for some work at most so many percent may miss it.
pub(super) const MOST_MISSES_OF_ONE: usize = 50;
/// Fewer blows than these say nothing.
pub(super) const FEWEST_BLOWS: usize = 6;

#[derive(Debug, Clone, Copy)]
pub(super) enum Errand {
    /// With a rival, who has the same token and uses it at the same moment.
    Enrolment {
        rival: bool,
    },
    Renewal,
    /// Whether its agent loses its trust as well.
    Removal {
        revoked: bool,
    },
    Locks,
    Disk {
        /// From the request on.
        full_after: Duration,
        full_for: Duration,
    },
    Clients {
        /// How long they wait for an answer.
        patience: Duration,
    },
    Streams,
    Offline,
}

/// An errand in its round.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) errand: Errand,
    /// It has a host of its own, behind those of the proxies.
    pub(super) host: Option<usize>,
    /// With which blow's stage it begins.
    pub(super) stage: usize,
}

/// What is done with the proxies when the blow falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    Install,
    /// A step failed; the task is rolled back.
    Rollback,
    /// A step failed, its cause was removed; the task is retried.
    Retry,
    /// After this time the first task is canceled as a whole, and of the second what runs.
    Cancel(Duration),
}

/// Why a step fails at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The package's own `%pre` scriptlet refuses.
    Scriptlet,
    /// Something else lies where the instance's directory belongs.
    Directory,
    /// The proxy does not know one of the parameters; nothing can mend that.
    Parameter,
}

/// Hosts of the proxies.
pub(super) const PROXIES: usize = 2;

#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) scenario: Scenario,
    /// Of the first host; and of the second.
    pub(super) faults: [Option<Fault>; 2],
    pub(super) errands: Vec<Drawn>,
    pub(super) blows: Vec<Blow>,
    /// Whether a canceled task is rolled back in the end; otherwise it is retried.
    pub(super) gives_up: bool,
    /// Whether the proxies are added once more after a rollback.
    pub(super) again: bool,
}

impl Round {
    pub(super) fn draw(seed: u64, number: u64) -> Self {
        let mut dice = Dice::of_round(seed, number);
        let scenario = match number % 6 {
            0 | 3 => Scenario::Install,
            1 | 4 => Scenario::Rollback,
            2 => Scenario::Retry,
            _ => Scenario::Cancel(dice.millis(0, 1000)),
        };
        let fault = match scenario {
            Scenario::Install | Scenario::Cancel(_) => None,
            Scenario::Rollback => Some(dice.pick(&[Fault::Parameter, Fault::Directory])),
            Scenario::Retry => Some(dice.pick(&[Fault::Scriptlet, Fault::Directory])),
        };
        // Parameters belong to the cluster and therefore to both hosts.
        let both = fault == Some(Fault::Parameter) || !dice.one_in(3);
        let faults = [fault, fault.filter(|_| both)];
        let mut blows = vec![blow(&mut dice, scenario)];
        if dice.one_in(4) {
            blows.push(Blow { after: dice.millis(0, 500), ..blow(&mut dice, scenario) });
        }
        let errands = errands(&mut dice, fault, &mut blows);
        Self { number, scenario, faults, errands, blows, gives_up: dice.one_in(2), again: dice.one_in(2) }
    }

    pub(super) fn hosts(&self) -> usize {
        PROXIES + self.errands.iter().filter(|drawn| drawn.host.is_some()).count()
    }
}

/// Draws errands, and for most of them a stage with a blow of their own; the others begin with the proxies.
fn errands(dice: &mut Dice, fault: Option<Fault>, blows: &mut Vec<Blow>) -> Vec<Drawn> {
    // With such a parameter the cluster takes no proxy anywhere.
    let takes_one = |odds: &&Odds| [Work::Disk, Work::Offline].contains(&odds.work);
    let possible = |odds: &&Odds| !takes_one(odds) || fault != Some(Fault::Parameter);
    let mut left: Vec<&Odds> = ODDS.iter().filter(possible).collect();
    let mut hosts = PROXIES..;
    let mut drawn = Vec::new();
    for _ in 0..ERRANDS {
        let odds = left.remove(weighted(dice, &left));
        let host = if odds.work == Work::Streams { None } else { hosts.next() };
        let mut stage = 0;
        if let (Some(host), false) = (host, dice.one_in(4)) {
            stage = blows.len();
            blows.push(blow_at(dice, odds, host));
        }
        drawn.push(Drawn { errand: (odds.draw)(dice), host, stage });
    }
    drawn
}

fn weighted(dice: &mut Dice, of: &[&Odds]) -> usize {
    let mut point = dice.below(of.iter().map(|odds| odds.weight).sum());
    let fits = |odds: &&Odds| {
        let fits = point < odds.weight;
        point = point.saturating_sub(odds.weight);
        fits
    };
    of.iter().position(fits).unwrap()
}

impl Errand {
    pub(super) fn work(self) -> Work {
        match self {
            Self::Enrolment { .. } => Work::Enrolment,
            Self::Renewal => Work::Renewal,
            Self::Removal { .. } => Work::Removal,
            Self::Locks => Work::Locks,
            Self::Disk { .. } => Work::Disk,
            Self::Clients { .. } => Work::Clients,
            Self::Streams => Work::Streams,
            Self::Offline => Work::Offline,
        }
    }
}

fn blow_at(dice: &mut Dice, odds: &Odds, host: usize) -> Blow {
    use Victim::{Agent, Coordinator};
    let victims = match dice.below(8) {
        number if number < odds.agent => vec![Agent(host)],
        7 => vec![Agent(host), Coordinator],
        _ => vec![Coordinator],
    };
    let how = if dice.one_in(8) { How::Pause } else { How::Kill };
    let after = dice.millis(0, odds.longest_millis);
    Blow { aim: odds.work, victims, how, after, outage: outage(dice, how) }
}

fn outage(dice: &mut Dice, how: How) -> Duration {
    match how {
        How::Pause => dice.millis(100, 2000),
        How::Kill | How::KillWithShims if dice.one_in(2) => Duration::ZERO,
        How::Kill | How::KillWithShims => dice.millis(0, 1000),
    }
}

fn blow(dice: &mut Dice, scenario: Scenario) -> Blow {
    use Victim::{Agent, Coordinator};
    let victims = match dice.below(8) {
        0 | 1 => vec![Agent(0)],
        2 | 3 => vec![Agent(1)],
        4 | 5 => vec![Coordinator],
        6 => vec![Agent(usize::try_from(dice.below(2)).unwrap()), Coordinator],
        _ => vec![Agent(0), Agent(1)],
    };
    let how = match dice.below(8) {
        0 => How::Pause,
        1 | 2 if victims != [Coordinator] => How::KillWithShims,
        _ => How::Kill,
    };
    // A little longer than the work itself takes.
    let longest = match scenario {
        Scenario::Rollback => 450,
        Scenario::Retry => 700,
        Scenario::Install | Scenario::Cancel(_) => 1200,
    };
    let outage = outage(dice, how);
    // The earlier of two: on a quiet machine the later moments meet tasks that are over.
    let after = dice.millis(0, longest).min(dice.millis(0, longest));
    Blow { aim: Work::Proxies, victims, how, after, outage }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Install => "install",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
            Self::Cancel(_) => "cancel",
        })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Proxies => "proxies",
            Self::Enrolment => "enrolment",
            Self::Renewal => "renewal",
            Self::Removal => "removal",
            Self::Locks => "locks",
            Self::Disk => "full disk",
            Self::Clients => "clients",
            Self::Streams => "streams",
            Self::Offline => "offline",
        })
    }
}
