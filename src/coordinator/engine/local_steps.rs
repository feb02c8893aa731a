//! The seam to the steps that the coordinator carries out itself. The real ones are `coordinator::local`; tests bring
//! simulated ones.

use super::{attempt::Outcome, log::AttemptLog, waits::WaitPlace};
use crate::{graph::Direction, steps::CoordinatorStep};
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One run of a step of the coordinator.
pub struct LocalRun<'a> {
    pub step: &'a CoordinatorStep,
    pub direction: Direction,
    pub deadline: Instant,
    pub cancel: &'a CancellationToken,
    pub place: &'a WaitPlace,
}

/// Carries out steps that need no host.
pub trait LocalSteps: Send + Sync {
    fn run<'a>(&'a self, run: LocalRun<'a>, log: &'a mut AttemptLog) -> BoxFuture<'a, Outcome>;
}
