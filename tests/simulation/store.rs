//! The coordinator's store as one coordinator sees it: it belongs to the world, so it outlives every coordinator, and it
//! fails, waits or loses an answer when the world says so.

use super::{
    perils::{Defect, Trouble},
    tables::Tables,
    traps::{Action, SLOW, Side},
    world::{COORDINATOR, World},
};
use crate::{
    coordinator::{
        agents::AgentAddress,
        engine::{NamedSecret, PreparationError, TaskStore, Unwritten, Write, Written},
        store::{
            StoreError,
            task::{Append, LoadError, LoadedTask, LogPosition, TaskId},
        },
    },
    graph::NodeIndex,
    operations::TaskPlan,
    steps::values::PackageRef,
};
use futures_util::future::BoxFuture;
use std::{path::PathBuf, sync::Arc, time::Duration};

pub(super) struct MemoryStore {
    pub(super) world: Arc<World>,
    /// The host of the coordinator.
    pub(super) host: String,
}

const SLOWEST_COMMIT: Duration = Duration::from_millis(20);

/// How often a coordinator that is cut off looks whether it still is.
const LOOK: Duration = Duration::from_millis(100);

fn disk_full() -> StoreError {
    StoreError::DiskFull(sqlx::Error::WorkerCrashed)
}

fn lost() -> StoreError {
    StoreError::Sql(sqlx::Error::WorkerCrashed)
}

impl MemoryStore {
    /// Reads, if the world lets it.
    async fn read<T>(&self, read: impl FnOnce(&mut Tables) -> T) -> Result<T, StoreError> {
        if self.world.read_fails(&self.host) { Err(lost()) } else { Ok(read(&mut self.world.tables())) }
    }

    fn write(&self, group: &[Write]) -> Result<Vec<Written>, Unwritten> {
        let mut tables = self.world.tables();
        if self.world.has(Defect::AnyOwner) {
            tables.let_in(group);
        }
        let without = |write: &Write| match write {
            Write::Append(append) => Write::Append(Box::new(Append { resumes: false, ..(**append).clone() })),
            other => other.clone(),
        };
        let forgetful: Vec<Write>;
        let group = if self.world.has(Defect::NotReserved) || self.world.has(Defect::ReservedEarly) {
            forgetful = group.iter().map(without).collect();
            &forgetful
        } else {
            group
        };
        let results = tables.commit(group).map_err(|error| {
            if error.is_conflict() {
                self.world.violation(format!("what is there is written again: {group:?}"));
            }
            Unwritten::Undone(error)
        })?;
        for (write, result) in group.iter().zip(&results) {
            let (Write::Append(append), Ok(())) = (write, result) else { continue };
            for event in &append.events {
                let run = event.run().map(|(node, attempt)| format!(" {node}/{attempt}")).unwrap_or_default();
                self.world.note(COORDINATOR, format!("task {}: {}{run}", append.task, event.kind()));
            }
            let row = &tables.rows[&append.task];
            if !row.is_sound() {
                self.world.violation(format!("task {}: the rows do not say what the events say", append.task));
            }
        }
        for task in tables.unreserved() {
            self.world.violation(format!("task {task} runs without its reservations"));
        }
        Ok(results)
    }
}

impl TaskStore for MemoryStore {
    fn next_epoch(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(self.read(|tables| {
            let epoch = tables.next_epoch(self.world.has(Defect::EpochsOfClock));
            tables.starts(&self.host, epoch);
            epoch
        }))
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        Box::pin(self.read(|tables| tables.unfinished()))
    }

    fn running(&self, epoch: i64) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        let sweeps = !self.world.has(Defect::NoSweep);
        Box::pin(self.read(move |tables| if sweeps { tables.running(epoch) } else { Vec::new() }))
    }

    fn unacknowledged(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        Box::pin(self.read(|tables| tables.unacknowledged()))
    }

    fn load(&self, id: TaskId) -> BoxFuture<'_, Result<LoadedTask, LoadError>> {
        Box::pin(async move { self.read(|tables| tables.load(id)).await? })
    }

    fn commit<'a>(&'a self, group: &'a [Write]) -> BoxFuture<'a, Result<Vec<Written>, Unwritten>> {
        Box::pin(async move {
            tokio::time::sleep(self.world.delay(SLOWEST_COMMIT)).await;
            while self.world.is_cut_off(&self.host) {
                tokio::time::sleep(LOOK).await;
            }
            let trouble = match self.world.spring_in_store(group, Side::Before) {
                Some(action) => Some(action.before()),
                None => self.world.spring_in_store(group, Side::After).map(Action::after),
            };
            match trouble.or_else(|| self.world.trouble(&self.host)) {
                None => self.write(group),
                Some(Trouble::Slow { written: false }) => {
                    tokio::time::sleep(SLOW).await;
                    self.write(group)
                }
                Some(Trouble::Slow { written: true }) => {
                    let results = self.write(group);
                    tokio::time::sleep(SLOW).await;
                    results
                }
                Some(Trouble::Full) => Err(Unwritten::Undone(disk_full())),
                Some(Trouble::AnswerLost { written }) => {
                    if written {
                        // Nobody learns of it.
                        drop(self.write(group));
                    }
                    Err(Unwritten::InDoubt(lost()))
                }
                Some(Trouble::Crash { written }) => {
                    if written {
                        // Nobody learns of it.
                        drop(self.write(group));
                    }
                    self.world.crash_here(&self.host).await
                }
            }
        })
    }

    fn log_position(
        &self,
        task: TaskId,
        node: NodeIndex,
        attempt: u32,
    ) -> BoxFuture<'_, Result<LogPosition, StoreError>> {
        Box::pin(async move {
            match self.read(|tables| tables.log_position(task, node, attempt)).await {
                Err(_) if self.world.has(Defect::LogFromBegin) => Ok(LogPosition::default()),
                answer => answer,
            }
        })
    }

    fn agent_address(&self, host_id: i64) -> BoxFuture<'_, Result<Option<AgentAddress>, StoreError>> {
        Box::pin(self.read(move |tables| tables.agent(host_id)))
    }

    fn secrets<'a>(
        &'a self,
        _plan: &'a TaskPlan,
        names: &'static [&'static str],
    ) -> BoxFuture<'a, Result<Vec<NamedSecret>, PreparationError>> {
        Box::pin(async {
            let secrets = self.read(|_| names.iter().map(|name| (*name, "secret".to_owned().into())).collect());
            Ok(secrets.await?)
        })
    }

    fn package_path<'a>(&'a self, package: &'a PackageRef) -> BoxFuture<'a, Result<Option<PathBuf>, StoreError>> {
        Box::pin(self.read(|_| self.world.packages().map(|directory| directory.join(package.file_name()))))
    }

    fn expire(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}
