//! What a blow is, and how it is told.

use super::plan::Work;
use std::{fmt, time::Duration};

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
    /// For what it is meant; it may hit more.
    pub(super) aim: Work,
    pub(super) victims: Vec<Victim>,
    pub(super) how: How,
    /// From the begin of its stage on: that is the request, or the return of the victims of the blow before.
    pub(super) after: Duration,
    /// How long the victims are away.
    pub(super) outage: Duration,
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
