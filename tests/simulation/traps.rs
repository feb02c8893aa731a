//! Fail points: both sides of every write and call between "handed out" and "the agent may forget it".
//!
//! A trap is set for one work (node and direction) of the only task of a simulation, and springs once.

use super::{
    perils::{Defect, Trouble},
    world::{COORDINATOR, World},
};
use crate::{
    agent::journal::JournalError,
    coordinator::{engine::Write, store::task::TaskId},
    graph::{Direction, Event, NodeIndex},
    rpc::{
        Refused,
        v1::{OperationKey, PutPackageResponse, SubmitRequest},
    },
};
use std::{cell::RefCell, sync::Arc, time::Duration};
use tonic::Code;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// W1: the coordinator commits that the work is handed out.
    Dispatch,
    /// W1: it calls the agent.
    Submit,
    /// An operator or the clock ends it: the coordinator calls the agent.
    Cancel,
    /// W2: the agent commits that it has it.
    Accept,
    /// W3: the identity of what is about to be made.
    Starting,
    /// W3: that it was made.
    Running,
    /// W4: the outcome.
    Finish,
    /// W5: the coordinator commits the outcome.
    Outcome,
    /// W5: it tells the agent so.
    Acknowledge,
    /// W5: the agent commits that it may forget.
    Acknowledged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// The program dies.
    Crash,
    /// Before: the disk is full, the call does not get through. After: it is done, but that is not learned.
    Error,
    /// It takes half a minute.
    Slow,
}

impl Action {
    /// As what becomes of a commit.
    pub(super) fn before(self) -> Trouble {
        match self {
            Self::Crash => Trouble::Crash { written: false },
            Self::Error => Trouble::Full,
            Self::Slow => Trouble::Slow { written: false },
        }
    }

    pub(super) fn after(self) -> Trouble {
        match self {
            Self::Crash => Trouble::Crash { written: true },
            Self::Error => Trouble::AnswerLost { written: true },
            Self::Slow => Trouble::Slow { written: true },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trap {
    pub(super) node: NodeIndex,
    pub(super) direction: Direction,
    pub(super) point: Point,
    pub(super) side: Side,
    pub(super) action: Action,
}

pub(super) const ONLY_TASK: TaskId = TaskId(1);
pub(super) const SLOW: Duration = Duration::from_secs(30);

thread_local! {
    /// The world of the simulation that runs on this thread, for code that cannot be handed one.
    static CURRENT: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// Keeps the world within reach of the fail points in the product's own code.
pub(super) struct Within;

impl Within {
    pub(super) fn new(world: &Arc<World>) -> Self {
        CURRENT.set(Some(Arc::clone(world)));
        Self
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

fn current() -> Option<Arc<World>> {
    CURRENT.with_borrow(Clone::clone)
}

/// The call got lost, or its answer.
pub(crate) struct Lost;

/// Far from the numbers of attempts.
const FRESH: u32 = 1000;

/// When a call was made, in the time of the simulation, and about what.
pub(crate) struct Asked {
    at: Duration,
    about: Option<OperationKey>,
}

/// Comes to the begin of a call of the coordinator.
pub(crate) async fn asks(point: Point) -> Result<Asked, Lost> {
    reach(point, Side::Before).await?;
    Ok(Asked { at: turmoil::sim_elapsed().unwrap_or_default(), about: None })
}

/// The same for the call that hands out work.
pub(crate) async fn submits(mut message: SubmitRequest) -> Result<(Asked, SubmitRequest), Lost> {
    if let Some(world) = current()
        && let Some(key) = &mut message.key
        && world.has(Defect::FreshKeys)
        && world.has_no_answer(key)
    {
        key.attempt += FRESH;
    }
    let asked = asks(Point::Submit).await?;
    Ok((Asked { about: message.key.clone(), ..asked }, message))
}

/// The clock of the host on which this code runs, in a simulation.
pub(crate) fn now_micros() -> Option<i64> {
    let micros = i64::try_from(turmoil::since_epoch()?.as_micros()).unwrap();
    Some(micros + current().map_or(0, |world| world.clock()))
}

/// Whether the connection is reset from which something was just read.
pub(super) fn resets() -> bool {
    current().is_some_and(|world| world.happens(|odds| odds.resets))
}

/// Whoever acknowledges an outcome must have it in the store.
pub(crate) fn acknowledges(key: &OperationKey) {
    let Some(world) = current() else { return };
    let is_written = world.tables().rows.values().any(|row| row.has_outcome(key));
    if !is_written {
        world.violation(format!("attempt {} of an operation is acknowledged before its outcome is kept", key.attempt));
    }
}

/// Comes to its end, with what the agent answered.
pub(crate) async fn answered<T>(point: Point, asked: Asked, answer: &Result<T, tonic::Status>) -> Result<(), Lost> {
    if let Some(world) = current() {
        let refusal = answer.as_ref().err().map(tonic::Status::code);
        world.answered(asked.at, refusal);
        if let (Some(key), Some(Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)) =
            (&asked.about, refusal)
        {
            world.had_no_answer(key);
        }
    }
    reach(point, Side::After).await
}

async fn reach(point: Point, side: Side) -> Result<(), Lost> {
    let Some(world) = current() else { return Ok(()) };
    match world.spring(point, side) {
        None => Ok(()),
        Some(Action::Crash) => world.crash_here(COORDINATOR).await,
        Some(Action::Error) => Err(Lost),
        Some(Action::Slow) => {
            tokio::time::sleep(SLOW).await;
            Ok(())
        }
    }
}

/// So much of a package was received.
pub(crate) async fn received(answer: &Result<PutPackageResponse, Refused>) {
    let is_part = answer.as_ref().is_ok_and(|answer| answer.next_offset > 0 && !answer.complete);
    if let Some(world) = current().filter(|_| is_part)
        && let Some(host) = world.host()
    {
        world.may_crash(&host, |odds| 3.0 * odds.package_crashes).await;
    }
}

/// Whether a package counts as whole whatever it is.
pub(crate) fn takes_any_digest() -> bool {
    current().is_some_and(|world| world.has(Defect::AnyDigest))
}

/// Whether what a request committed is followed by nothing if its client leaves.
pub(crate) fn drops_with_its_client() -> bool {
    current().is_some_and(|world| world.has(Defect::DropsWithClient))
}

/// Comes to one end of a write of an agent's journal; `work` is the type that says which.
pub(crate) async fn journal(work: &str, side: Side) -> Result<(), JournalError> {
    let Some(world) = current() else { return Ok(()) };
    let Some(host) = world.host() else { return Ok(()) };
    let sprung = world.journal_point(&host, work).and_then(|point| world.spring(point, side));
    match sprung.or_else(|| world.journal_trouble(&host)) {
        None => Ok(()),
        Some(Action::Crash) => world.crash_here(&host).await,
        Some(Action::Error) if side == Side::Before => Err(JournalError::DiskFull),
        Some(Action::Error) => {
            world.crash(&host);
            Err(JournalError::Stopped)
        }
        Some(Action::Slow) => {
            tokio::time::sleep(SLOW).await;
            Ok(())
        }
    }
}

impl World {
    /// What the trap does, if this is where it is set. From then on it is gone.
    pub(super) fn spring(&self, point: Point, side: Side) -> Option<Action> {
        let trap = self.trap().filter(|trap| (trap.point, trap.side) == (point, side))?;
        let tables = self.tables();
        let row = tables.rows.get(&ONLY_TASK)?;
        let is_meant = match point {
            Point::Acknowledge | Point::Acknowledged => row.has_ended(trap.node, trap.direction),
            _ => row.in_flight() == Some((trap.node, trap.direction)),
        };
        drop(tables);
        is_meant.then(|| self.sprung(trap))
    }

    /// The same for a commit of the coordinator's store, which says by itself what it is about.
    pub(super) fn spring_in_store(&self, group: &[Write], side: Side) -> Option<Action> {
        let trap = self.trap().filter(|trap| trap.side == side)?;
        let is_meant = |event: &Event| match trap.point {
            Point::Dispatch => matches!(event, Event::Dispatched { node, direction, .. }
                if (*node, *direction) == (trap.node, trap.direction)),
            Point::Outcome => {
                event.ended().is_some_and(|ended| (ended.node, ended.direction) == (trap.node, trap.direction))
            }
            _ => false,
        };
        let appended = |write: &Write| matches!(write, Write::Append(append) if append.events.iter().any(is_meant));
        group.iter().any(appended).then(|| self.sprung(trap))
    }

    fn sprung(&self, trap: Trap) -> Action {
        self.note("trap", format!("{trap:?}"));
        self.set_trap(None);
        trap.action
    }

    /// Which write of a journal `work` is: its type is named after the method that makes it.
    fn journal_point(&self, host: &str, work: &str) -> Option<Point> {
        let points = [
            ("::accept::", Point::Accept),
            ("::advance::", if self.chooses(host) { Point::Starting } else { Point::Running }),
            ("::finish::", Point::Finish),
            ("::acknowledge::", Point::Acknowledged),
        ];
        points.into_iter().find_map(|(method, point)| work.contains(method).then_some(point))
    }
}
