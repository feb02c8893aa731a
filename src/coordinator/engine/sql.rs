//! The engine's store in SQL.

use super::store::{LogText, NamedSecret, PreparationError, TaskStore, Unwritten, Write, Written};
use crate::{
    coordinator::{
        agents::AgentAddress,
        config::{REQUEST_KEY_DAYS, Retention},
        secrets::Vault,
        store::{
            Store, StoreError,
            agent::{certificates, enrolment_tokens},
            audit, now_micros,
            obproxy::SealedSecrets,
            package, requests,
            task::{
                self, AppendError, LoadError, LoadedTask, LogPosition, Places, TaskId,
                logs::{self, LogPart},
            },
        },
    },
    graph::NodeIndex,
    operations::TaskPlan,
    steps::{OBPROXY_SYS_PASSWORD, values::PackageRef},
};
use futures_util::future::BoxFuture;
use sqlx::AnyConnection;
use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::watch;

pub struct SqlTaskStore {
    pub store: Store,
    pub vault: Arc<Vault>,
    pub packages_dir: PathBuf,
    /// That of the moment.
    pub retention: watch::Receiver<Retention>,
}

impl TaskStore for SqlTaskStore {
    fn next_epoch(&self) -> BoxFuture<'_, Result<i64, StoreError>> {
        Box::pin(task::next_epoch(&self.store))
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        Box::pin(task::unfinished(self.store.engine_readers()))
    }

    fn running(&self, epoch: i64) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        Box::pin(task::running(self.store.engine_readers(), epoch))
    }

    fn unacknowledged(&self) -> BoxFuture<'_, Result<Vec<TaskId>, StoreError>> {
        Box::pin(task::unacknowledged(self.store.engine_readers()))
    }

    fn load(&self, id: TaskId) -> BoxFuture<'_, Result<LoadedTask, LoadError>> {
        Box::pin(async move { self.store.together().tasks.get(id).await?.ok_or(LoadError::Absent(id))?.replay() })
    }

    fn commit<'a>(&'a self, group: &'a [Write]) -> BoxFuture<'a, Result<Vec<Written>, Unwritten>> {
        Box::pin(async move {
            let mut transaction = self.store.begin_patiently().await.map_err(Unwritten::Undone)?;
            let results = write_all(&mut transaction, group).await.map_err(Unwritten::Undone)?;
            match transaction.commit().await.map_err(StoreError::from) {
                Ok(()) => Ok(results),
                Err(full @ StoreError::DiskFull(_)) => Err(Unwritten::Undone(full)),
                Err(error) => Err(Unwritten::InDoubt(error)),
            }
        })
    }

    fn log_position(
        &self,
        task: TaskId,
        node: NodeIndex,
        attempt: u32,
    ) -> BoxFuture<'_, Result<LogPosition, StoreError>> {
        Box::pin(task::log_position(self.store.engine_readers(), task, node, attempt))
    }

    fn agent_address(&self, host_id: i64) -> BoxFuture<'_, Result<Option<AgentAddress>, StoreError>> {
        Box::pin(async move {
            let host = self.store.together().hosts.get(host_id).await?;
            Ok(host.map(|host| AgentAddress::new(host.inner_ip, host.agent_port)))
        })
    }

    fn secrets<'a>(
        &'a self,
        plan: &'a TaskPlan,
        names: &'static [&'static str],
    ) -> BoxFuture<'a, Result<Vec<NamedSecret>, PreparationError>> {
        Box::pin(async move {
            let id = plan.obproxy_cluster_id.unwrap_or(0);
            let cluster = self.store.together().clusters.get(id).await?.ok_or(PreparationError::NoCluster(id))?;
            let open = |name: &'static str| {
                let sealed = match name {
                    OBPROXY_SYS_PASSWORD => &cluster.secrets.obproxy_sys_password,
                    _ => &cluster.secrets.observer_sys_password,
                };
                Ok((name, self.vault.open(&SealedSecrets::place(id, name), sealed)?))
            };
            names.iter().map(|name| open(name)).collect()
        })
    }

    fn package_path<'a>(&'a self, package: &'a PackageRef) -> BoxFuture<'a, Result<Option<PathBuf>, StoreError>> {
        Box::pin(async move {
            let package = self.store.together().packages.get(package.file_name()).await?;
            Ok(package.map(|package| package::path(&self.packages_dir, &package)))
        })
    }

    fn expire(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async {
            let before =
                |age: Duration| now_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
            let mut transaction = self.store.begin_patiently().await?;
            requests::expire(&mut transaction, before(Duration::from_secs(u64::from(REQUEST_KEY_DAYS) * 86_400)))
                .await?;
            let Retention { logs, log_limit_bytes, tasks } = *self.retention.borrow();
            enrolment_tokens::expire(&mut transaction, before(tasks)).await?;
            certificates::expire(&mut transaction, before(tasks)).await?;
            transaction.commit().await?;
            let limit = i64::try_from(log_limit_bytes).unwrap_or(i64::MAX);
            while logs::expire(&self.store, before(logs), limit).await? > 0 {}
            while task::expire(&self.store, before(tasks), task::NEWEST_KEPT).await? > 0 {}
            while audit::expire(&self.store, before(tasks)).await? > 0 {}
            Ok(())
        })
    }
}

/// Answers what came of each.
async fn write_all(connection: &mut AnyConnection, group: &[Write]) -> Result<Vec<Written>, StoreError> {
    if !claims_decide(group) {
        return write_together(connection, group).await;
    }
    let mut results = Vec::with_capacity(group.len());
    for write in group {
        results.extend(write_together(connection, std::slice::from_ref(write)).await?);
    }
    Ok(results)
}

/// Whether a claim of this very group decides about another write of it. The engine waits for a claim before it writes.
pub(crate) fn claims_decide(group: &[Write]) -> bool {
    let claim = |write: &Write| if let Write::Claim { task, .. } = write { Some(*task) } else { None };
    let claims: HashSet<TaskId> = group.iter().filter_map(claim).collect();
    !claims.is_empty() && group.iter().filter(|write| claims.contains(&write.task())).count() > claims.len()
}

/// The same for a group in which nothing depends on its neighbours: whoever has written waits for the commit before the
/// next write to the same task.
async fn write_together(connection: &mut AnyConnection, group: &[Write]) -> Result<Vec<Written>, StoreError> {
    let places = match group {
        // It looks by itself.
        [Write::Append(_)] => Places::new(),
        _ => task::places(connection, group.iter().filter_map(claimed)).await?,
    };
    let holds = |task, epoch| match places.get(&task) {
        Some(place) if place.epoch == epoch => Ok(()),
        _ => Err(AppendError::Fenced(task)),
    };
    let (mut appends, mut claims) = (Part::default(), Part::default());
    let (mut known, mut logs) = (Vec::new(), Vec::new());
    let mut results = Vec::with_capacity(group.len());
    for (index, request) in group.iter().enumerate() {
        let written = match request {
            Write::Append(append) => appends.add(index, append.as_ref()),
            Write::Claim { task, epoch } => claims.add(index, (*task, *epoch)),
            Write::Acknowledged { task, next_sequence } => {
                known.push((*task, *next_sequence));
                Ok(())
            }
            Write::Log(LogText { task, epoch, node, attempt, position, text }) => {
                let holds = holds(*task, *epoch);
                if holds.is_ok() {
                    logs.push(LogPart { task: *task, node: *node, attempt: *attempt, position: *position, text });
                }
                holds
            }
            Write::Problem { task, epoch, problem, status } => {
                task::set_problem(connection, *task, *epoch, problem.as_deref(), *status).await
            }
            Write::Rows { task, epoch, change } => match holds(*task, *epoch) {
                Ok(()) => change.carry_out(connection).await.map_err(AppendError::from),
                fenced => fenced,
            },
        };
        results.push(match written {
            Err(AppendError::Store(error)) => return Err(error),
            // What was refused has changed nothing, so its neighbours can be committed.
            written => written,
        });
    }
    claims.answer(&mut results, task::claim_all(connection, &claims.what, &places).await?);
    appends.answer(&mut results, task::append_all(connection, &appends.what, &places).await?);
    task::set_acknowledged(connection, &known).await?;
    task::append_logs(connection, &logs).await?;
    Ok(results)
}

/// The task whose epoch decides about a write, where it is looked at together with others.
fn claimed(write: &Write) -> Option<TaskId> {
    let looks_itself = matches!(write, Write::Problem { .. } | Write::Acknowledged { .. });
    (!looks_itself).then(|| write.task())
}

/// Requests of a group that are carried out together, with their places in it.
struct Part<T> {
    indexes: Vec<usize>,
    what: Vec<T>,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self { indexes: Vec::new(), what: Vec::new() }
    }
}

impl<T> Part<T> {
    /// What comes of it is told later.
    fn add(&mut self, index: usize, what: T) -> Written {
        self.indexes.push(index);
        self.what.push(what);
        Ok(())
    }

    fn answer(&self, results: &mut [Written], answers: Vec<Written>) {
        for (index, answer) in self.indexes.iter().zip(answers) {
            if let Some(result) = results.get_mut(*index) {
                *result = answer;
            }
        }
    }
}
