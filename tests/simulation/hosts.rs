//! A host whose effects outlive its agent, carried out by the rules of [`crate::agent::step`].

use super::{perils::Defect, tasks::thing, things::Thing, world::World};
use crate::{
    agent::{
        HostView,
        step::{Carrier, Done, StepContext, StepError, Undoes},
    },
    graph::{Direction, Effect},
    rpc::v1,
    steps::AgentStep,
};
use futures_util::future::BoxFuture;
use std::{path::PathBuf, sync::Arc, time::Duration};

#[derive(Clone)]
pub(super) struct SimulatedHost {
    pub(super) world: Arc<World>,
    pub(super) name: String,
    pub(super) state_dir: PathBuf,
}

const LONGEST_WORK: Duration = Duration::from_secs(8);
/// Beyond the timeout of most steps.
const STUCK: Duration = Duration::from_secs(40);

impl SimulatedHost {
    async fn work(&self, context: &StepContext) -> Result<(), ()> {
        let takes =
            if self.world.happens(|odds| odds.step_gets_stuck) { STUCK } else { self.world.delay(LONGEST_WORK) };
        tokio::select! {
            biased;
            () = context.cancel.cancelled() => Err(()),
            () = tokio::time::sleep(takes) => Ok(()),
        }
    }

    fn fails(&self, effect: Effect) -> Result<(), StepError> {
        if self.world.happens(|odds| odds.step_fails) {
            self.world.note(&self.name, format!("fails, effect {effect:?}"));
            return Err(StepError::new("SCRIPTED", "the step fails by the script", "retry").leaving(effect));
        }
        Ok(())
    }

    async fn make(&self, thing: &Thing, context: &StepContext) -> Result<Done, StepError> {
        let _in_hand = self.world.take_in_hand(thing);
        let canceled = |effect| move |()| StepError::canceled("the step").leaving(effect);
        self.work(context).await.map_err(canceled(Effect::None))?;
        self.fails(Effect::None)?;
        let there = self.world.identity_of(thing);
        match (&context.identity, there) {
            (None, Some(there)) => {
                if there == context.run_id {
                    self.world.violation(format!("the agent does not know that it chose an identity for {thing}"));
                }
                return Ok(Done::already());
            }
            (Some(identity), Some(there)) if *identity == there && !self.world.has(Defect::HostBegins) => {}
            (Some(identity), _) => self.world.make(thing, identity),
            (None, None) => {
                let identity = context.run_id.clone();
                self.world.may_crash(&self.name, |odds| odds.agent_crashes).await;
                self.world.choose(&self.name, true);
                let chosen = context.choose_identity(identity.clone()).await;
                self.world.choose(&self.name, false);
                chosen?;
                self.world.may_crash(&self.name, |odds| odds.agent_crashes).await;
                self.work(context).await.map_err(canceled(Effect::None))?;
                self.world.make(thing, &identity);
            }
        }
        self.world.may_crash(&self.name, |odds| odds.agent_crashes).await;
        context.confirm_identity().await?;
        self.work(context).await.map_err(canceled(Effect::Unknown))?;
        self.fails(Effect::Done)?;
        self.world.may_crash(&self.name, |odds| odds.agent_crashes).await;
        Ok(Done::made())
    }
}

impl Carrier for SimulatedHost {
    fn execute<'a>(&'a self, step: &'a AgentStep, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            self.world.note(&self.name, format!("begins {}", step.kind()));
            context.log.line("begin");
            self.use_packages(step, Direction::Execute).await;
            let done = match thing(&self.name, step) {
                Some(thing) => self.make(&thing, context).await,
                None => {
                    self.work(context).await.map(|()| Done::already()).map_err(|()| StepError::canceled("the check"))
                }
            };
            context.log.line("end");
            done
        })
    }

    fn undo<'a>(
        &'a self,
        step: &'a AgentStep,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async move {
            self.world.note(&self.name, format!("undoes {}", step.kind()));
            self.use_packages(step, Direction::Undo).await;
            let Some(thing) = thing(&self.name, step) else { return Ok(Done::already()) };
            let canceled = |()| StepError::canceled("the undo").leaving(Effect::Unknown);
            let _in_hand = self.world.take_in_hand(&thing);
            self.work(context).await.map_err(canceled)?;
            self.fails(Effect::Unknown)?;
            self.world.may_crash(&self.name, |odds| odds.undo_crashes).await;
            let is_to_go = |identity: &String| match self.world.identity_of(&thing) {
                Some(there) => there == *identity,
                None => self.world.has(Defect::UndoesAgain) && self.world.was_made(&thing, identity),
            };
            if !undoes.iter().filter_map(|undone| undone.identity.as_ref()).any(is_to_go) {
                return Ok(Done::already());
            }
            self.world.take_back(&thing);
            self.world.may_crash(&self.name, |odds| odds.undo_crashes).await;
            self.work(context).await.map_err(canceled)?;
            self.world.may_crash(&self.name, |odds| odds.undo_crashes).await;
            Ok(Done::made())
        })
    }
}

impl HostView for SimulatedHost {
    fn instances(&self) -> Vec<v1::ManagedInstance> {
        Vec::new()
    }

    fn config_generation(&self) -> u64 {
        0
    }
}
