//! The real engine as a host of a simulation, with an operator before it.

use super::{
    network,
    store::MemoryStore,
    tasks::local_thing,
    world::{COORDINATOR, World},
};
use crate::{
    coordinator::{
        engine::{AttemptLog, Engine, EngineMetrics, EngineParts, LocalRun, LocalSteps, Outcome},
        store::task::TaskId,
    },
    graph::{Command, Direction, Effect, Failure, NodeIndex, Operation, TaskStatus},
    steps::CoordinatorStep,
};
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

const OPERATOR_LOOKS_EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// Adds the host whose coordinator starts with the simulation and after every crash.
pub(super) fn add(sim: &mut turmoil::Sim<'_>, world: &Arc<World>, host: &str) {
    let (world, name) = (Arc::clone(world), host.to_owned());
    sim.host(host, move || run(Arc::clone(&world), name.clone()));
}

async fn run(world: Arc<World>, host: String) -> turmoil::Result {
    world.runs_on(&host);
    let (shutdown, fatal) = (CancellationToken::new(), CancellationToken::new());
    let parts = EngineParts {
        // Few, so that tasks wait for each other.
        running_tasks: 2,
        tasks: Arc::new(MemoryStore { world: Arc::clone(&world), host: host.clone() }),
        local: Arc::new(SimulatedLocalSteps(Arc::clone(&world))),
        agents: Arc::new(network::pool()),
        metrics: EngineMetrics::register(&prometheus::Registry::new())?,
        shutdown,
        fatal: fatal.clone(),
    };
    let work = async {
        let engine = match Engine::start(parts).await {
            Ok(engine) => engine,
            Err(error) => {
                world.note(&host, format!("does not start: {error}"));
                return world.crash_here(&host).await;
            }
        };
        world.note(&host, format!("starts with epoch {}", engine.epoch()));
        loop {
            look(&world, &engine).await;
            tokio::time::sleep(OPERATOR_LOOKS_EVERY).await;
        }
    };
    tokio::select! {
        biased;
        () = fatal.cancelled() => world.crash_here(&host).await,
        ended = work => ended,
    }
}

/// Wakes the drivers of new tasks, as the API does, and takes a decision now and then.
async fn look(world: &World, engine: &Engine) {
    let tasks: Vec<TaskId> = world.tables().rows.keys().copied().collect();
    for id in &tasks {
        let Some((status, operation, nodes)) = world
            .tables()
            .rows
            .get(id)
            .map(|row| (row.record.status, row.record.operation, row.record.plan.nodes.len()))
        else {
            continue;
        };
        if status == TaskStatus::Running {
            drop(engine.wake(*id));
        }
        let command = match world.is_calm() {
            true => (status == TaskStatus::Failed).then(|| finish(world, *id, operation)),
            false => whim(world, nodes),
        };
        if let Some(command) = command {
            let answer = tokio::time::timeout(PATIENCE, engine.command(*id, command, "operator")).await;
            let answer = match answer {
                Ok(Ok(())) => "done",
                Ok(Err(_)) => "refused",
                Err(_) => "no answer",
            };
            world.note(COORDINATOR, format!("task {id}: operator says {command:?}: {answer}"));
        }
    }
}

/// Leads a task that came to rest to one of its two ends.
fn finish(world: &World, id: TaskId, operation: Operation) -> Command {
    if operation == Operation::Rollback || world.is_given_up(id) { Command::Rollback } else { Command::Retry }
}

/// What an operator does who does not look at the state first.
fn whim(world: &World, nodes: usize) -> Option<Command> {
    if !world.chance(0.12) {
        return None;
    }
    let node = NodeIndex(u32::try_from(world.below(nodes)).unwrap());
    Some(match world.below(12) {
        0..4 => Command::Retry,
        4 | 5 => Command::Rollback,
        6 => Command::Cancel,
        7 | 8 => Command::CancelSubtask(node),
        9 | 10 => Command::RetrySubtask(node),
        _ => Command::SkipSubtask(node),
    })
}

/// Steps of the coordinator's own, on a thing of the world instead of a row.
struct SimulatedLocalSteps(Arc<World>);

const LONGEST_LOCAL_WORK: Duration = Duration::from_secs(1);

impl LocalSteps for SimulatedLocalSteps {
    fn run<'a>(&'a self, run: LocalRun<'a>, log: &'a mut AttemptLog) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let world = &self.0;
            tokio::select! {
                biased;
                () = run.cancel.cancelled() => return Outcome::Failed(failure("CANCELED", "the step was canceled")),
                () = tokio::time::sleep(world.delay(LONGEST_LOCAL_WORK)) => {}
            }
            let finishes = matches!((run.step, run.direction), (CoordinatorStep::Finish(_), Direction::Execute));
            if finishes && world.does_finish_fail() {
                return Outcome::Failed(failure("SCRIPTED", "the last step fails by the script"));
            }
            if let Some(thing) = local_thing(run.step) {
                match (run.direction, world.identity_of(&thing)) {
                    (Direction::Execute, None) => world.make(&thing, &format!("{}", world.count(&thing).made)),
                    (Direction::Undo, Some(_)) => world.take_back(&thing),
                    (Direction::Execute, Some(_)) | (Direction::Undo, None) => {}
                }
            }
            match log.line("done").await {
                Ok(()) => Outcome::Succeeded { effect: Effect::Done, output: Vec::new() },
                Err(_closed) => Outcome::Abandoned,
            }
        })
    }
}

fn failure(reason: &str, message: &str) -> Failure {
    Failure {
        reason: reason.into(),
        message: message.into(),
        causes: Vec::new(),
        next_move: "retry".into(),
        exit_code: None,
        signal: None,
        log_tail: Vec::new(),
        effect: Effect::None,
    }
}
