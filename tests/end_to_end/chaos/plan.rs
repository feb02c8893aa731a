//! What happens in a round: drawn from the seed and the round's number alone, so that any round can be had again.

use std::{fmt, time::Duration};

/// SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn of_round(seed: u64, round: u64) -> Self {
        let mut dice = Self(seed);
        dice.0 = dice.draw() ^ round;
        dice
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let index = usize::try_from(self.below(of.len() as u64)).unwrap();
        of[index]
    }
}

/// What is under way when the blow falls.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    Agent(usize),
    Coordinator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// `kill -9`; what an agent started lives on.
    Kill,
    /// `kill -9` of agents together with the shims of jobs and of services that do not serve yet; what those of jobs started
    /// lives on.
    KillWithShims,
    /// SIGSTOP, and SIGCONT later.
    Pause,
}

#[derive(Debug, Clone)]
pub(super) struct Blow {
    pub(super) victims: Vec<Victim>,
    pub(super) how: How,
    /// From the request on; of a second blow from the return of the first one's victims on.
    pub(super) after: Duration,
    /// How long the victims are away.
    pub(super) outage: Duration,
}

#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) scenario: Scenario,
    /// Of the first host; and of the second.
    pub(super) faults: [Option<Fault>; 2],
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
        Self { number, scenario, faults, blows, gives_up: dice.one_in(2), again: dice.one_in(2) }
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
    let outage = match how {
        How::Pause => dice.millis(100, 2000),
        How::Kill | How::KillWithShims if dice.one_in(2) => Duration::ZERO,
        How::Kill | How::KillWithShims => dice.millis(0, 1000),
    };
    // The earlier of two: on a quiet machine the later moments meet tasks that are over.
    let after = dice.millis(0, longest).min(dice.millis(0, longest));
    Blow { victims, how, after, outage }
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

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(index) => write!(f, "agent {}", index + 1),
            Self::Coordinator => f.write_str("coordinator"),
        }
    }
}

impl Blow {
    /// The programs by their kinds: what the table at the end counts by.
    pub(super) fn kind(&self) -> String {
        use Victim::{Agent, Coordinator};
        self.how.tell(match self.victims.as_slice() {
            [Agent(_)] => "agent",
            [Agent(_), Agent(_)] => "both agents",
            [Coordinator] => "coordinator",
            _ => "agent and coordinator",
        })
    }
}

impl How {
    fn tell(self, whom: &str) -> String {
        match self {
            Self::Kill => format!("kill {whom}"),
            Self::KillWithShims => format!("kill {whom} and shims"),
            Self::Pause => format!("pause {whom}"),
        }
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.victims.iter().map(Victim::to_string).collect();
        f.write_str(&self.how.tell(&names.join(" and ")))
    }
}
