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
            audit, host, now_micros,
            obproxy::{self, SealedSecrets},
            package, requests,
            task::{
                self, Append, AppendError, LoadError, LoadedTask, LogPosition, TaskId,
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
use std::{path::PathBuf, sync::Arc, time::Duration};
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
        Box::pin(async move {
            let mut connection = self.store.engine_readers().acquire().await.map_err(StoreError::from)?;
            task::load(&mut connection, id).await
        })
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
            let mut connection = self.store.engine_readers().acquire().await?;
            let host = host::get(&mut connection, host_id).await?;
            Ok(host.map(|host| AgentAddress::new(host.inner_ip, host.agent_port)))
        })
    }

    fn secrets<'a>(
        &'a self,
        plan: &'a TaskPlan,
        names: &'static [&'static str],
    ) -> BoxFuture<'a, Result<Vec<NamedSecret>, PreparationError>> {
        Box::pin(async move {
            let mut connection = self.store.engine_readers().acquire().await.map_err(StoreError::from)?;
            let id = plan.obproxy_cluster_id.unwrap_or(0);
            let cluster = obproxy::get(&mut connection, id).await?.ok_or(PreparationError::NoCluster(id))?;
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
            let mut connection = self.store.engine_readers().acquire().await?;
            let package = package::by_file_name(&mut connection, &package.file_name()).await?;
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

/// Answers what came of each. Nothing in a group depends on its neighbours: whoever has written waits for the commit
/// before the next write to the same task.
async fn write_all(connection: &mut AnyConnection, group: &[Write]) -> Result<Vec<Written>, StoreError> {
    let (mut places, mut appends, mut logs) = (Vec::new(), Vec::<&Append>::new(), Vec::new());
    let mut results = Vec::with_capacity(group.len());
    for (place, request) in group.iter().enumerate() {
        let written = match request {
            Write::Append(append) => {
                places.push(place);
                appends.push(append);
                Ok(())
            }
            Write::Log(LogText { task, node, attempt, position, text }) => {
                logs.push(LogPart { task: *task, node: *node, attempt: *attempt, position: *position, text });
                Ok(())
            }
            Write::Claim { task, epoch } => task::claim(connection, *task, *epoch).await,
            Write::Problem { task, epoch, problem, status } => {
                task::set_problem(connection, *task, *epoch, problem.as_deref(), *status).await
            }
            Write::Rows { task, epoch, change } => match task::is_claimed(connection, *task, *epoch).await? {
                true => change.carry_out(connection).await.map_err(AppendError::from),
                false => Err(AppendError::Fenced(*task)),
            },
            Write::Acknowledged { task, next_sequence } => {
                task::set_acknowledged(connection, *task, *next_sequence).await
            }
        };
        results.push(match written {
            Err(AppendError::Store(error)) => return Err(error),
            // What was refused has changed nothing, so its neighbours can be committed.
            written => written,
        });
    }
    for (place, appended) in places.into_iter().zip(task::append_all(connection, &appends).await?) {
        if let Some(result) = results.get_mut(place) {
            *result = appended;
        }
    }
    task::append_logs(connection, &logs).await?;
    Ok(results)
}
