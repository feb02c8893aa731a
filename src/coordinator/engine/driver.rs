use super::{
    CommandError, MAX_RUNNING_PER_TASK, Order, Shared,
    acknowledge::{Acknowledgements, Unfinished},
    attempt::Outcome,
    flight::Flight,
    hosts::Agents,
    journal::Closed,
    store::Write,
    turns::Turn,
};
use crate::{
    coordinator::store::{
        StoreError,
        locks::Holder,
        now_micros,
        task::{AppendError, Draft, LoadError, LoadedTask, TaskId},
    },
    graph::{Direction, Dispatch, Event, Failure, NodeIndex, SubtaskStatus, TaskState, TaskStatus, plan},
    operations::{PlannedNode, TaskPlan},
    steps::{AgentStep, Step},
    telemetry::chain,
};
use futures_util::FutureExt as _;
use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long to wait before a full disk is tried again.
const DISK_FULL_DELAY: Duration = Duration::from_secs(1);

/// Drives one task. It owns the state; everything else sends it messages.
pub(super) struct Driver {
    shared: Arc<Shared>,
    id: TaskId,
    plan: Arc<TaskPlan>,
    state: TaskState,
    /// Subtasks that run at a time, at most.
    width: usize,
    next_sequence: i64,
    dispatched_at: HashMap<NodeIndex, i64>,
    agents: Arc<Agents>,
    flights: JoinSet<(Dispatch, Outcome)>,
    cancels: BTreeMap<NodeIndex, CancellationToken>,
    acknowledgements: Acknowledgements,
    turn: Arc<Turn>,
}

/// Why a driver stops before its task is over.
enum Stopped {
    Fenced,
    Closed,
    Shutdown,
    /// Another task has what this one needs to run; nothing was written.
    Reserved(Holder),
    /// The task itself is at fault; an operator has to look.
    Problem(String),
}

impl From<Closed> for Stopped {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl Driver {
    /// Claims the task and replays its journal. None: nothing can be done about it, and what there was to say is said.
    pub(super) async fn load(shared: Arc<Shared>, id: TaskId, turn: Arc<Turn>) -> Option<Self> {
        match Self::claim(&shared, id).await {
            Ok(loaded) => Some(Self::new(shared, id, loaded, turn)),
            Err(Stopped::Problem(problem)) => {
                give_up(&shared, id, problem).await;
                None
            }
            Err(Stopped::Reserved(holder)) => {
                give_up(&shared, id, holder.to_string()).await;
                None
            }
            Err(Stopped::Fenced) => {
                tracing::warn!(task = %id, "the task belongs to a newer coordinator, or does not exist");
                None
            }
            Err(Stopped::Closed | Stopped::Shutdown) => None,
        }
    }

    async fn claim(shared: &Shared, id: TaskId) -> Result<LoadedTask, Stopped> {
        write(shared, id, || Write::Claim { task: id, epoch: shared.epoch }).await?;
        let loaded = loop {
            match shared.tasks.load(id).await {
                Ok(loaded) => break loaded,
                Err(LoadError::Store(error)) => wait_for_store(shared, id, &error).await?,
                Err(LoadError::Absent(_) | LoadError::Superseded(_)) => return Err(Stopped::Fenced),
                Err(error) => return Err(Stopped::Problem(chain(&error))),
            }
        };
        if loaded.record.problem.is_some() {
            let status = loaded.state.status();
            write(shared, id, || Write::Problem { task: id, epoch: shared.epoch, problem: None, status }).await?;
        }
        Ok(loaded)
    }

    fn new(shared: Arc<Shared>, id: TaskId, loaded: LoadedTask, turn: Arc<Turn>) -> Self {
        let plan = Arc::new(loaded.record.plan);
        let agents = Arc::new(Agents::new(Arc::clone(&shared)));
        let mut acknowledgements = Acknowledgements::new(Arc::clone(&agents), Arc::clone(&plan));
        if !loaded.record.acknowledged {
            acknowledgements.gather(&loaded.ended);
        }
        Self {
            shared,
            id,
            width: width(&plan),
            plan,
            state: loaded.state,
            next_sequence: loaded.next_sequence,
            dispatched_at: loaded.dispatched_at.into_iter().collect(),
            agents,
            flights: JoinSet::new(),
            cancels: BTreeMap::new(),
            acknowledgements,
            turn,
        }
    }

    /// Nothing of it runs, and something is to be begun.
    pub(super) fn can_wait(&self) -> bool {
        self.state.status() == TaskStatus::Running && self.state.subtasks().all(|(_, subtask)| subtask.flight.is_none())
    }

    /// Answers the acknowledgements that are still on their way when the task has come to rest.
    ///
    /// `first` is an order that came before the driver was here.
    pub(super) async fn run(mut self, first: Option<Order>, mut orders: mpsc::Receiver<Order>) -> Option<Unfinished> {
        let ended = self.drive(first, &mut orders).await;
        self.flights.shutdown().await;
        match ended {
            Ok(()) => {
                tracing::info!(task = %self.id, status = %self.state.status(), "task has ended");
                return Some(self.acknowledgements.left(self.shared, self.id, self.next_sequence));
            }
            Err(Stopped::Fenced) => tracing::warn!(task = %self.id, "another coordinator has taken the task over"),
            Err(Stopped::Problem(problem)) => give_up(&self.shared, self.id, problem).await,
            Err(Stopped::Reserved(holder)) => give_up(&self.shared, self.id, holder.to_string()).await,
            Err(Stopped::Closed | Stopped::Shutdown) => {}
        }
        None
    }

    async fn drive(&mut self, first: Option<Order>, orders: &mut mpsc::Receiver<Order>) -> Result<(), Stopped> {
        self.resume();
        if let Some(order) = first {
            self.obey(order).await?;
        }
        self.advance(Vec::new()).await?;
        let shutdown = self.shared.shutdown.clone();
        loop {
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
                biased;
                () = shutdown.cancelled() => return Err(Stopped::Shutdown),
                Some(landed) = self.flights.join_next() => {
                    let mut all = vec![landed];
                    all.extend(std::iter::from_fn(|| self.flights.try_join_next()));
                    self.land(all).await?;
                }
                Some(order) = orders.recv() => self.obey(order).await?,
            }
        }
    }

    /// Asks again for whatever was handed out before a restart.
    fn resume(&mut self) {
        let open = |(node, subtask): (NodeIndex, &crate::graph::SubtaskState)| {
            let direction = subtask.flight?;
            Some(Dispatch { node, attempt: subtask.attempt, direction })
        };
        let open: Vec<Dispatch> = self.state.subtasks().filter_map(open).collect();
        for dispatch in open {
            self.launch(dispatch, true);
        }
        self.cancel_what_was_canceled();
    }

    async fn obey(&mut self, order: Order) -> Result<(), Stopped> {
        let answer = match self.state.decide(order.command, &order.by) {
            Ok(event) => {
                let before = (self.state.clone(), self.next_sequence);
                match self.advance(vec![event]).await {
                    // It stays at rest.
                    Err(Stopped::Reserved(holder)) => {
                        (self.state, self.next_sequence) = before;
                        Err(CommandError::Reserved(holder))
                    }
                    advanced => Ok(advanced?),
                }
            }
            Err(refusal) => Err(refusal.into()),
        };
        let _ = order.reply.send(answer);
        Ok(())
    }

    async fn land(&mut self, landed: Vec<Result<(Dispatch, Outcome), tokio::task::JoinError>>) -> Result<(), Stopped> {
        let mut events = Vec::with_capacity(landed.len());
        let mut ended = Vec::with_capacity(landed.len());
        let mut abandoned = false;
        for flight in landed {
            match flight {
                Ok((dispatch, outcome)) => match event(dispatch, outcome) {
                    Some(event) => {
                        self.cancels.remove(&dispatch.node);
                        events.push(event);
                        ended.push(dispatch);
                    }
                    None => abandoned = true,
                },
                // The flight stays open in the journal, so a fresh driver asks again.
                Err(error) => {
                    tracing::error!(task = %self.id, %error, "an attempt was aborted");
                    abandoned = true;
                }
            }
        }
        if !events.is_empty() {
            self.advance(events).await?;
            // W5: only after the outcome is committed.
            self.acknowledgements.gather(&ended);
        }
        if abandoned { Err(Stopped::Closed) } else { Ok(()) }
    }

    /// Appends what happened together with what follows from it, and then does what follows.
    async fn advance(&mut self, events: Vec<Event>) -> Result<(), Stopped> {
        let problem = |error| Stopped::Problem(format!("refusing to write an impossible event: {error}"));
        let mut draft = Draft::new(&self.state);
        for event in events {
            draft.apply(&mut self.state, event).map_err(problem)?;
        }
        let dispatches = plan(&self.state, self.width);
        for Dispatch { node, attempt, direction } in dispatches.iter().copied() {
            draft.apply(&mut self.state, Event::Dispatched { node, attempt, direction }).map_err(problem)?;
        }
        if draft.is_empty() {
            return Ok(());
        }
        let at = now_micros();
        let append = draft.finish((self.id, self.shared.epoch, self.next_sequence), &self.state, at);
        self.next_sequence = append.next_sequence();
        // Until this returns, the state is ahead of the journal, and nobody acts on it.
        write(&self.shared, self.id, || Write::Append(Box::new(append.clone()))).await?;
        self.cancel_what_was_canceled();
        for dispatch in dispatches {
            self.dispatched_at.insert(dispatch.node, at);
            self.launch(dispatch, false);
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

    fn launch(&mut self, dispatch: Dispatch, resumed: bool) {
        let Some(subtask) = self.state.subtask(dispatch.node) else { return };
        let cancel = CancellationToken::new();
        self.cancels.insert(dispatch.node, cancel.clone());
        let flight = Flight {
            shared: Arc::clone(&self.shared),
            id: self.id,
            plan: Arc::clone(&self.plan),
            agents: Arc::clone(&self.agents),
            dispatch,
            resumed,
            // Only the first run of a subtask certainly has no log yet.
            has_log: resumed || dispatch.attempt > 1 || dispatch.direction == Direction::Undo,
            operation: subtask.operation,
            effect: subtask.effect,
            dispatched_at: self.dispatched_at.get(&dispatch.node).copied().unwrap_or_else(now_micros),
            cancel,
            flying: Arc::new(self.turn.flight()),
        };
        self.flights.spawn(async move { (dispatch, survive(flight.fly()).await) });
    }
}

/// How many subtasks of a task run at a time: where whoever asked for it has said how many hosts are upgraded at a time,
/// the waves of its graph are as wide as that, and nothing holds them up.
fn width(plan: &TaskPlan) -> usize {
    let is_upgrade = |node: &PlannedNode| matches!(node.step, Step::Agent(AgentStep::UpgradeAgent(_)));
    if !plan.nodes.iter().any(is_upgrade) {
        return MAX_RUNNING_PER_TASK;
    }
    let mut waves: HashMap<&[NodeIndex], usize> = HashMap::new();
    for node in &plan.nodes {
        *waves.entry(&node.upstreams).or_default() += 1;
    }
    waves.into_values().max().unwrap_or(0).max(MAX_RUNNING_PER_TASK)
}

/// What an outcome is in the journal; an abandoned attempt leaves no trace there.
fn event(dispatch: Dispatch, outcome: Outcome) -> Option<Event> {
    let Dispatch { node, attempt, direction } = dispatch;
    match (outcome, direction) {
        (Outcome::Succeeded { effect, output }, Direction::Execute) => {
            Some(Event::Succeeded { node, attempt, effect, output })
        }
        (Outcome::Failed(failure), Direction::Execute) => Some(Event::Failed { node, attempt, failure }),
        (Outcome::Succeeded { .. }, Direction::Undo) => Some(Event::Undone { node, attempt }),
        (Outcome::Failed(failure), Direction::Undo) => Some(Event::UndoFailed { node, attempt, failure }),
        (Outcome::Abandoned, _) => None,
    }
}

/// Writes until the store takes it or the program ends: while the disk is full the task waits.
async fn write(shared: &Shared, id: TaskId, what: impl Fn() -> Write) -> Result<(), Stopped> {
    loop {
        match shared.journal.write(what()).await? {
            Ok(()) => return Ok(()),
            Err(AppendError::Fenced(_)) => return Err(Stopped::Fenced),
            Err(AppendError::Reserved(holder)) => return Err(Stopped::Reserved(holder)),
            // The journal has this already and differs: to try again would fail for ever.
            Err(AppendError::Store(error)) if error.is_conflict() => return Err(Stopped::Problem(chain(&error))),
            Err(AppendError::Store(error)) => wait_for_store(shared, id, &error).await?,
        }
    }
}

async fn wait_for_store(shared: &Shared, id: TaskId, error: &StoreError) -> Result<(), Stopped> {
    tracing::error!(task = %id, error = chain(error), "waiting for the store");
    tokio::select! {
        () = tokio::time::sleep(DISK_FULL_DELAY) => Ok(()),
        () = shared.shutdown.cancelled() => Err(Stopped::Shutdown),
    }
}

/// The task is left as it is, visibly; it costs no other.
pub(super) async fn give_up(shared: &Shared, id: TaskId, problem: String) {
    tracing::error!(task = %id, problem, "the task needs an operator");
    shared.metrics.problems.inc();
    let what =
        || Write::Problem { task: id, epoch: shared.epoch, problem: Some(problem.clone()), status: TaskStatus::Failed };
    if let Err(Stopped::Fenced) = write(shared, id, what).await {
        tracing::warn!(task = %id, "another coordinator has taken the task over");
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
            effect: crate::graph::Effect::Unknown,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        operations::{operate_agents, upgrade_agents},
        steps::{AgentOperation, AgentPackage},
    };
    use std::num::NonZeroUsize;

    #[test]
    fn as_many_agents_are_upgraded_at_a_time_as_was_asked_for() {
        let package = AgentPackage {
            package: "oblet-agent-0.2.0-1.x86_64.rpm".parse().unwrap(),
            sha256: "a".repeat(64).parse().unwrap(),
        };
        let hosts: Vec<i64> = (1..=200).collect();
        let at_a_time = |parallel| {
            let plan = upgrade_agents(&hosts, std::slice::from_ref(&package), NonZeroUsize::new(parallel).unwrap());
            super::plan(&TaskState::new(plan.graph().unwrap()), width(&plan)).len()
        };
        for parallel in [1, 4, 10, 11, 64, 200] {
            assert_eq!(at_a_time(parallel), parallel);
        }
        assert_eq!(width(&operate_agents(AgentOperation::Restart, &hosts)), MAX_RUNNING_PER_TASK);
    }
}
