use super::{
    MAX_RUNNING_PER_TASK, Order, Shared,
    attempt::{AgentAttempt, Outcome, backoff},
    journal::Closed,
    local,
    log::AttemptLog,
    waits::WaitPlace,
};
use crate::{
    coordinator::{
        agents::{AgentAddress, CallError},
        store::{
            StoreError, clusters, hosts, now_micros, packages,
            tasks::{self, Append, AppendError, LoadError, TaskId},
        },
    },
    graph::{
        Direction, Dispatch, Effect, Event, Failure, NodeIndex, Operation, SubtaskStatus, TaskState, TaskStatus, plan,
    },
    operations::{PlannedNode, TaskPlan},
    rpc::v1,
    steps::{AgentStep, CoordinatorStep, OBPROXY_SYS_PASSWORD, Step},
};
use futures_util::FutureExt as _;
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// How long to wait before a full disk is tried again.
const DISK_FULL_DELAY: Duration = Duration::from_secs(1);

/// Drives one task. It owns the state; everything else sends it messages.
pub(super) struct Driver {
    shared: Arc<Shared>,
    id: TaskId,
    plan: Arc<TaskPlan>,
    state: TaskState,
    next_sequence: i64,
    dispatched_at: HashMap<NodeIndex, i64>,
    /// Outcomes of an earlier driver, whose acknowledgements may have got lost with it.
    ended: Vec<Dispatch>,
    flights: JoinSet<(Dispatch, Outcome)>,
    cancels: HashMap<NodeIndex, CancellationToken>,
}

/// Why a driver stops before its task is over.
enum Stopped {
    Fenced,
    Closed,
    Shutdown,
}

impl From<Closed> for Stopped {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl Driver {
    pub(super) async fn load(shared: Arc<Shared>, id: TaskId) -> Result<Self, LoadError> {
        let loaded = tasks::claim(&shared.store, id, shared.epoch).await?;
        Ok(Self {
            shared,
            id,
            plan: Arc::new(loaded.record.plan),
            state: loaded.state,
            next_sequence: loaded.next_sequence,
            dispatched_at: loaded.dispatched_at.into_iter().collect(),
            ended: loaded.ended,
            flights: JoinSet::new(),
            cancels: HashMap::new(),
        })
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        match self.drive(&mut orders).await {
            Ok(()) => tracing::info!(task = %self.id, status = %self.state.status(), "task came to rest"),
            Err(Stopped::Fenced) => tracing::warn!(task = %self.id, "another coordinator has taken the task over"),
            Err(Stopped::Closed | Stopped::Shutdown) => {}
        }
        self.flights.shutdown().await;
    }

    async fn drive(&mut self, orders: &mut mpsc::Receiver<Order>) -> Result<(), Stopped> {
        self.resume();
        let shutdown = self.shared.shutdown.clone();
        loop {
            self.dispatch().await?;
            if self.flights.is_empty() && self.state.status() != TaskStatus::Running {
                // Orders that are in the queue still belong to this driver; later ones start another.
                orders.close();
                match orders.recv().await {
                    Some(order) => self.obey(order).await?,
                    None => return Ok(()),
                }
                continue;
            }
            tokio::select! {
                Some(ended) = self.flights.join_next() => match ended {
                    Ok((dispatch, outcome)) => self.land(dispatch, outcome).await?,
                    // The flight stays open in the journal, so a fresh driver asks again.
                    Err(error) => {
                        tracing::error!(task = %self.id, %error, "an attempt broke off");
                        return Err(Stopped::Closed);
                    }
                },
                Some(order) = orders.recv() => self.obey(order).await?,
                () = shutdown.cancelled() => return Err(Stopped::Shutdown),
            }
        }
    }

    /// Asks again for whatever was handed out before a restart.
    fn resume(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        self.acknowledge(ended);
        let open: Vec<Dispatch> = self
            .state
            .subtasks()
            .filter_map(|(node, subtask)| {
                let direction = subtask.flight?;
                Some(Dispatch { node, attempt: subtask.attempt, direction })
            })
            .collect();
        for dispatch in open {
            self.launch(dispatch);
        }
        self.cancel_what_was_canceled();
    }

    async fn dispatch(&mut self) -> Result<(), Stopped> {
        let dispatches = plan(&self.state, MAX_RUNNING_PER_TASK);
        if dispatches.is_empty() {
            return Ok(());
        }
        let event = |d: &Dispatch| Event::Dispatched { node: d.node, attempt: d.attempt, direction: d.direction };
        let at = self.append(dispatches.iter().map(event).collect()).await?;
        for dispatch in dispatches {
            self.dispatched_at.insert(dispatch.node, at);
            self.launch(dispatch);
        }
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<(), Stopped> {
        match self.state.decide(order.command, &order.by) {
            Ok(event) => {
                self.append(vec![event]).await?;
                self.cancel_what_was_canceled();
                let _ = order.reply.send(Ok(()));
            }
            Err(refusal) => {
                let _ = order.reply.send(Err(refusal));
            }
        }
        Ok(())
    }

    fn cancel_what_was_canceled(&self) {
        for (node, token) in &self.cancels {
            if self.state.subtask(*node).is_some_and(|subtask| subtask.status == SubtaskStatus::Canceling) {
                token.cancel();
            }
        }
    }

    async fn land(&mut self, dispatch: Dispatch, outcome: Outcome) -> Result<(), Stopped> {
        let Dispatch { node, attempt, direction } = dispatch;
        self.cancels.remove(&node);
        let event = match (outcome, direction) {
            (Outcome::Abandoned, _) => return Err(Stopped::Fenced),
            (Outcome::Succeeded { effect, output }, Direction::Execute) => {
                Event::Succeeded { node, attempt, effect, output }
            }
            (Outcome::Failed(failure), Direction::Execute) => Event::Failed { node, attempt, failure },
            (Outcome::Succeeded { .. }, Direction::Undo) => Event::Undone { node, attempt },
            (Outcome::Failed(failure), Direction::Undo) => Event::UndoFailed { node, attempt, failure },
        };
        self.append(vec![event]).await?;
        self.acknowledge(vec![dispatch]);
        Ok(())
    }

    /// Append, then apply: the state is what the journal says, never more.
    async fn append(&mut self, events: Vec<Event>) -> Result<i64, Stopped> {
        let mut state = self.state.clone();
        for event in &events {
            if let Err(error) = state.apply(event) {
                tracing::error!(task = %self.id, %error, "refusing to write an impossible event");
                return Err(Stopped::Closed);
            }
        }
        let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
        let at = now_micros();
        let append =
            Append { task: self.id, epoch: self.shared.epoch, sequence: self.next_sequence, events, state, at };
        loop {
            match self.shared.journal.append(append.clone()).await? {
                Ok(()) => break,
                Err(AppendError::Fenced(_)) => return Err(Stopped::Fenced),
                Err(AppendError::Store(error)) => {
                    tracing::error!(task = %self.id, error = crate::telemetry::chain(&error), "waiting for the store");
                    tokio::select! {
                        () = tokio::time::sleep(DISK_FULL_DELAY) => {}
                        () = self.shared.shutdown.cancelled() => return Err(Stopped::Shutdown),
                    }
                }
            }
        }
        self.state = append.state;
        self.next_sequence += count;
        Ok(at)
    }

    fn launch(&mut self, dispatch: Dispatch) {
        let Some(subtask) = self.state.subtask(dispatch.node) else { return };
        let cancel = CancellationToken::new();
        self.cancels.insert(dispatch.node, cancel.clone());
        let flight = Flight {
            shared: Arc::clone(&self.shared),
            id: self.id,
            plan: Arc::clone(&self.plan),
            dispatch,
            operation: subtask.operation,
            effect: subtask.effect,
            dispatched_at: self.dispatched_at.get(&dispatch.node).copied().unwrap_or_else(now_micros),
            cancel,
        };
        self.flights.spawn(async move { (dispatch, survive(flight.fly()).await) });
    }

    /// W5: only after the outcome is committed. What is not told here is told by the next driver of the task.
    fn acknowledge(&self, ended: Vec<Dispatch>) {
        let key = |dispatch: Dispatch| {
            let node = self.plan.node(dispatch.node).filter(|node| is_journaled(node))?;
            Some((node.host_id, operation_key(node, dispatch)))
        };
        let keys: Vec<_> = ended.into_iter().filter_map(key).collect();
        let (shared, shutdown) = (Arc::clone(&self.shared), self.shared.shutdown.clone());
        tokio::spawn(shutdown.run_until_cancelled_owned(async move {
            for (host_id, key) in keys {
                acknowledge(&shared, host_id, key).await;
            }
        }));
    }
}

const ACKNOWLEDGEMENTS: usize = 10;

async fn acknowledge(shared: &Shared, host_id: Option<i64>, key: v1::OperationKey) {
    let Ok(Ok(agent)) = agent_of(shared, host_id).await else { return };
    for delay in backoff().take(ACKNOWLEDGEMENTS) {
        match agent.acknowledge(key.clone(), epoch_of(shared)).await {
            Err(CallError::Unknown { .. }) => tokio::time::sleep(delay).await,
            // Forgotten meanwhile, or never begun there.
            Ok(()) | Err(CallError::NotFound { .. }) => return,
            Err(error) => return tracing::debug!(%error, "an outcome is not acknowledged"),
        }
    }
}

/// A panic costs its attempt, not the driver: a task that nobody drives would stay RUNNING until a restart.
pub(super) async fn survive(work: impl Future<Output = Outcome>) -> Outcome {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        Outcome::Failed(Failure {
            reason: "PANIC".into(),
            message: "the coordinator failed inside the attempt".into(),
            causes: Vec::new(),
            next_move: "report the panic in the coordinator's log as a bug of oblet; retry the subtask".into(),
            exit_code: None,
            signal: None,
            log_tail: Vec::new(),
            effect: Effect::Unknown,
        })
    })
}

fn is_journaled(node: &PlannedNode) -> bool {
    matches!(&node.step, Step::Agent(step) if step.info().policy != crate::steps::Policy::Pure)
}

fn epoch_of(shared: &Shared) -> u64 {
    u64::try_from(shared.epoch).unwrap_or(0)
}

fn operation_key(node: &PlannedNode, dispatch: Dispatch) -> v1::OperationKey {
    let operation_id = node.operation_id(dispatch.direction).to_string();
    v1::OperationKey { operation_id, attempt: dispatch.attempt }
}

type AgentResult = Result<crate::coordinator::agents::Agent, CallError>;

/// The agent of a host, or why there is none.
async fn agent_of(shared: &Shared, host_id: Option<i64>) -> Result<AgentResult, StoreError> {
    let mut connection = shared.store.readers().acquire().await?;
    let host = match host_id {
        Some(id) => hosts::get(&mut connection, id).await?,
        None => None,
    };
    let host = host.ok_or_else(|| StoreError::Sql(sqlx::Error::RowNotFound))?;
    Ok(shared.agents.agent(AgentAddress::new(host.inner_ip, host.agent_port)))
}

/// One piece of work that was handed out.
struct Flight {
    shared: Arc<Shared>,
    id: TaskId,
    plan: Arc<TaskPlan>,
    dispatch: Dispatch,
    operation: Operation,
    effect: Effect,
    dispatched_at: i64,
    cancel: CancellationToken,
}

impl Flight {
    async fn fly(self) -> Outcome {
        let Dispatch { node, attempt, direction } = self.dispatch;
        let Some(planned) = self.plan.node(node).cloned() else { return Outcome::Abandoned };
        let position = tasks::log_position(self.shared.store.readers(), self.id, node, attempt).await;
        let journal = self.shared.journal.clone();
        let mut log = AttemptLog::new(journal, self.id, node, attempt, position.unwrap_or_default());
        if log.header(self.operation).await.is_err() {
            return Outcome::Abandoned;
        }
        // What the request wrote is taken back with the whole task only: a retry still needs it.
        let kept = self.operation == Operation::Retry
            && matches!(planned.step, Step::Coordinator(CoordinatorStep::PrepareObproxyInstall(_)));
        if direction == Direction::Undo && (kept || !planned.info().undoable) {
            return match log.line("nothing to take back").await {
                Ok(()) => Outcome::Succeeded { effect: Effect::None, output: Vec::new() },
                Err(Closed) => Outcome::Abandoned,
            };
        }
        let deadline = self.deadline(&planned);
        match &planned.step {
            Step::Coordinator(step) => {
                local::run(
                    &self.shared,
                    step,
                    direction,
                    deadline,
                    (&self.cancel, &self.wait_place(&planned)),
                    &mut log,
                )
                .await
            }
            Step::Agent(step) => match self.agent_attempt(&planned, step, deadline).await {
                Ok(attempt) => attempt.run(&mut log).await,
                Err(error) => Outcome::Failed(preparation_failure(&error)),
            },
        }
    }

    fn wait_place(&self, planned: &PlannedNode) -> WaitPlace {
        let timeout = planned.info().timeout.and_then(|timeout| i64::try_from(timeout.as_micros()).ok());
        let until = timeout.map(|timeout| self.dispatched_at.saturating_add(timeout));
        WaitPlace::new(Arc::clone(&self.shared.waits), self.id, self.dispatch.node, until)
    }

    /// Counted from the dispatch, also across a restart.
    fn deadline(&self, planned: &PlannedNode) -> Option<Instant> {
        let timeout = planned.info().timeout?;
        let elapsed = Duration::from_micros(u64::try_from(now_micros() - self.dispatched_at).unwrap_or(0));
        Some(Instant::now() + timeout.saturating_sub(elapsed))
    }

    async fn agent_attempt(
        &self,
        planned: &PlannedNode,
        step: &AgentStep,
        deadline: Option<Instant>,
    ) -> Result<AgentAttempt, PreparationError> {
        let direction = self.dispatch.direction;
        let agent = agent_of(&self.shared, planned.host_id).await?.map_err(PreparationError::Agent)?;
        let (secrets, package) = match direction {
            Direction::Execute => (self.secrets(step).await?, self.package(step).await?),
            Direction::Undo => (Vec::new(), None),
        };
        let undoes = (direction == Direction::Undo).then(|| (planned.execute_id.to_string(), self.effect));
        Ok(AgentAttempt {
            agent,
            permits: self.shared.host_permits(planned.host_id.unwrap_or(0)),
            step: step.clone(),
            direction,
            key: operation_key(planned, self.dispatch),
            epoch: epoch_of(&self.shared),
            undoes,
            secrets,
            package,
            deadline,
            cancel: self.cancel.clone(),
            place: self.wait_place(planned),
        })
    }

    async fn secrets(&self, step: &AgentStep) -> Result<Vec<(&'static str, Zeroizing<String>)>, PreparationError> {
        if step.secrets().is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.shared.store.readers().acquire().await.map_err(StoreError::from)?;
        let id = self.plan.obproxy_cluster_id.unwrap_or(0);
        let cluster = clusters::get(&mut connection, id).await?.ok_or(PreparationError::NoCluster(id))?;
        let open = |name: &'static str| {
            let sealed = match name {
                OBPROXY_SYS_PASSWORD => &cluster.secrets.obproxy_sys_password,
                _ => &cluster.secrets.observer_sys_password,
            };
            let plain = self.shared.vault.open(&format!("obproxy_cluster/{id}/{name}"), sealed)?;
            Ok((name, plain))
        };
        step.secrets().iter().map(|name| open(name)).collect()
    }

    async fn package(&self, step: &AgentStep) -> Result<Option<std::path::PathBuf>, PreparationError> {
        let AgentStep::InstallPackage(install) = step else { return Ok(None) };
        let mut connection = self.shared.store.readers().acquire().await.map_err(StoreError::from)?;
        let package = packages::by_file_name(&mut connection, &install.package.file_name()).await?;
        Ok(package.map(|package| packages::path(&self.shared.packages_dir, &package)))
    }
}

/// Why work could not even be handed out.
#[derive(Debug, thiserror::Error)]
enum PreparationError {
    #[error("the coordinator's store cannot be read")]
    Store(#[from] StoreError),
    #[error("the agent cannot be called")]
    Agent(#[source] CallError),
    #[error("proxy cluster {0} does not exist")]
    NoCluster(i64),
    #[error("the passwords of the proxy cluster cannot be opened")]
    Secret(#[from] crate::coordinator::secrets::SecretError),
}

fn preparation_failure(error: &PreparationError) -> Failure {
    Failure {
        reason: "NOT_PREPARED".into(),
        message: error.to_string(),
        causes: crate::telemetry::causes(error),
        next_move: "see the coordinator's log, then retry the subtask".into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect: Effect::None,
    }
}
