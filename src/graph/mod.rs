//! The task graph: pure data, one transition function, one planner.
//!
//! Guarantees:
//!  1. State is only the fold of events through [`TaskState::apply`]; the same events give the same state, live and at recovery.
//!  2. An event that the state does not allow is an [`IllegalTransition`]; the state is then unchanged.
//!  3. A subtask runs only after all its upstreams succeeded, and is undone only after all its downstreams are back at PENDING.
//!  4. Whatever was dispatched and not undone is undone in a rollback, also when it failed.
//!
//! `docs/durability.md` numbers them in full, and the tests check them by those numbers.
//! The semantics are those of OCP's own engine, read off its open relative ocp-express.
//! Nothing here does IO, reads a clock or waits.

mod command;
mod event;
mod model;
mod planner;
mod state;
#[cfg(test)]
mod tests;
mod transition;

pub use command::{Command, Refusal};
pub use event::{Direction, Effect, Event, Failure};
pub(crate) use model::wire_enum;
pub use model::{Graph, GraphError, Node, NodeIndex, Operation, SubtaskStatus, TaskStatus};
pub use planner::{Dispatch, plan};
pub use state::{SubtaskState, TaskState};
pub use transition::IllegalTransition;
