//! The real engine as a host of a simulation, with an operator before it.

use super::{network, operator::Operator, store::MemoryStore, tasks::local_thing, world::World};
use crate::{
    coordinator::engine::{AttemptLog, Engine, EngineMetrics, EngineParts, LocalRun, LocalSteps, Outcome},
    graph::{Direction, Effect, Failure},
    steps::CoordinatorStep,
};
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

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
        local: Arc::new(SimulatedLocalSteps { world: Arc::clone(&world), host: host.clone() }),
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
        Operator::new(&world, &engine).work().await
    };
    tokio::select! {
        biased;
        () = fatal.cancelled() => world.crash_here(&host).await,
        ended = work => ended,
    }
}

/// Steps of the coordinator's own, on a thing of the world instead of a row.
struct SimulatedLocalSteps {
    world: Arc<World>,
    host: String,
}

const LONGEST_LOCAL_WORK: Duration = Duration::from_secs(1);

impl LocalSteps for SimulatedLocalSteps {
    fn run<'a>(&'a self, run: LocalRun<'a>, log: &'a mut AttemptLog) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let world = &self.world;
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
                // The real ones change their rows under the claim of the task.
                if !world.tables().owns(&self.host, run.step) {
                    return Outcome::Abandoned;
                }
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
