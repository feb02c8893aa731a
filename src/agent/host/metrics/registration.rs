//! Puts an instance on one of the agent's lists and takes it off again. The identity of the step is what the list said
//! before, so that an undo restores it.

use crate::{
    agent::{
        host::{
            Host,
            adapter::Adapter,
            managed::{List, Managed},
        },
        step::{Done, StepContext, StepError, Undoes},
    },
    graph::Effect,
    steps::{ExposeExporter, Instance, RefreshConfig, RetireExporter},
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Identity {
    previous: Option<Instance>,
}

fn unwritable(error: std::io::Error) -> StepError {
    StepError::new(
        "STATE_UNWRITABLE",
        "the list of managed instances could not be written",
        "free space in the agent's state directory, then retry the subtask",
    )
    .because(error)
}

impl Adapter for RefreshConfig {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(enter(&host.managed, List::Instances, &self.instance, context))
    }

    fn undo<'a>(
        &'a self,
        host: &'a Host,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { undo(&host.managed, List::Instances, &self.instance, context, undoes) })
    }
}

impl Adapter for ExposeExporter {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(expose(host, self, context))
    }

    fn undo<'a>(
        &'a self,
        host: &'a Host,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { undo(&host.managed, List::Exporters, &self.instance, context, undoes) })
    }
}

impl Adapter for RetireExporter {
    fn execute<'a>(&'a self, host: &'a Host, context: &'a StepContext) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(leave(&host.managed, List::Exporters, &self.instance, context))
    }

    fn undo<'a>(
        &'a self,
        host: &'a Host,
        context: &'a StepContext,
        undoes: &'a [Undoes],
    ) -> BoxFuture<'a, Result<Done, StepError>> {
        Box::pin(async { list_again(&host.managed, List::Exporters, &self.instance, context, undoes) })
    }
}

async fn expose(host: &Host, step: &ExposeExporter, context: &StepContext) -> Result<Done, StepError> {
    let (address, port) = (host.settings.reach(), step.instance.exporter_port.get());
    let summary = host.scraper.check(address, port).await.map_err(|error| {
        StepError::new(
            "EXPORTER_UNFIT",
            format!("port {port} serves no valid metrics"),
            format!("look at http://{address}:{port}/metrics and the log of the instance, then retry the subtask"),
        )
        .because(error)
    })?;
    context.log.line(&format!("port {port} serves {} samples of {} metrics", summary.samples, summary.families));
    enter(&host.managed, List::Exporters, &step.instance, context).await
}

async fn enter(managed: &Managed, list: List, wanted: &Instance, context: &StepContext) -> Result<Done, StepError> {
    let (kind, port) = (wanted.kind, wanted.sql_port);
    let begun = context.identity.as_deref().and_then(|text| serde_json::from_str::<Identity>(text).ok());
    let previous = managed.get(list, kind, port);
    if previous.as_ref() == Some(wanted) && begun.is_none() {
        context.log.line(&format!("{} {port} is listed", kind.as_str()));
        return Ok(Done::already());
    }
    if begun.is_none() {
        let identity = serde_json::to_string(&Identity { previous }).map_err(std::io::Error::from);
        context.choose_identity(identity.map_err(unwritable)?).await?;
    }
    managed.set(list, kind, port, Some(wanted)).map_err(unwritable)?;
    context.confirm_identity().await?;
    context.log.line(&format!("{} {port} listed, generation {}", kind.as_str(), managed.generation()));
    Ok(Done::made())
}

/// Takes an instance off a list. What stands there of another instance is not of this step.
async fn leave(managed: &Managed, list: List, gone: &Instance, context: &StepContext) -> Result<Done, StepError> {
    let (kind, port) = (gone.kind, gone.sql_port);
    if managed.get(list, kind, port).is_none_or(|listed| listed.server_id != gone.server_id) {
        context.log.line(&format!("{} {port} of proxy {} is not listed", kind.as_str(), gone.server_id));
        return Ok(if context.identity.is_some() { Done::made() } else { Done::already() });
    }
    if context.identity.is_none() {
        let identity = serde_json::to_string(&Identity { previous: managed.get(list, kind, port) });
        context.choose_identity(identity.map_err(std::io::Error::from).map_err(unwritable)?).await?;
    }
    managed.set(list, kind, port, None).map_err(unwritable)?;
    context.confirm_identity().await?;
    context.log.line(&format!("{} {port} taken off the list, generation {}", kind.as_str(), managed.generation()));
    Ok(Done::made())
}

/// Lists what the first attempt has taken off, unless something else has its place.
fn list_again(
    managed: &Managed,
    list: List,
    gone: &Instance,
    context: &StepContext,
    undoes: &[Undoes],
) -> Result<Done, StepError> {
    let (kind, port) = (gone.kind, gone.sql_port);
    let identity = undoes.iter().filter(|undo| undo.effect != Effect::None).find_map(|undo| undo.identity.as_deref());
    let identity = identity.and_then(|text| serde_json::from_str::<Identity>(text).ok());
    // The journal forgets after its retention. The coordinator still knows that the instance was taken off the list.
    let forgotten = identity.is_none() && undoes.iter().any(|undo| undo.effect == Effect::Done);
    let previous = identity.and_then(|identity| identity.previous).or_else(|| forgotten.then(|| gone.clone()));
    let Some(previous) = previous else { return Ok(Done::already()) };
    if managed.get(list, kind, port).is_some() {
        context.log.line(&format!("{} {port} is listed", kind.as_str()));
        return Ok(Done::already());
    }
    managed.set(list, kind, port, Some(&previous)).map_err(unwritable)?;
    context.log.line(&format!("{} {port} listed again, generation {}", kind.as_str(), managed.generation()));
    Ok(Done::made())
}

fn undo(
    managed: &Managed,
    list: List,
    added: &Instance,
    context: &StepContext,
    undoes: &[Undoes],
) -> Result<Done, StepError> {
    // The first attempt that changed the list knows what stood there before the operation.
    let Some(first) = undoes.iter().find(|undo| undo.effect != Effect::None) else { return Ok(Done::already()) };
    let identity = first.identity.as_deref().and_then(|text| serde_json::from_str::<Identity>(text).ok());
    let (kind, port) = (added.kind, added.sql_port);
    let begun = identity.is_some() || first.effect == Effect::Done;
    if !begun || managed.get(list, kind, port).as_ref() != Some(added) {
        context.log.line(&format!("{} {port} is not listed by this operation", kind.as_str()));
        return Ok(Done::already());
    }
    let previous = identity.and_then(|identity| identity.previous);
    let changed = managed.set(list, kind, port, previous.as_ref()).map_err(unwritable)?;
    context.log.line(&format!("{} {port} taken off the list, generation {}", kind.as_str(), managed.generation()));
    Ok(if changed { Done::made() } else { Done::already() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::host::testing::{Identities, context},
        steps::InstanceKind,
    };
    use std::sync::Arc;

    fn instance(cluster_id: i64) -> Instance {
        Instance {
            kind: InstanceKind::Obproxy,
            sql_port: 2883.try_into().unwrap(),
            exporter_port: 2884.try_into().unwrap(),
            cluster_name: "odp".parse().unwrap(),
            cluster_id,
            server_id: 1,
        }
    }

    #[tokio::test]
    async fn listing_twice_changes_once_and_undo_restores_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let managed = Managed::open(dir.path()).unwrap();
        let enter_with = async |entry: &Instance| {
            let store = Arc::new(Identities::default());
            let context = StepContext { identities: store.clone(), ..context("r") };
            let done = enter(&managed, List::Instances, entry, &context).await.unwrap();
            let identity = store.0.lock().unwrap().clone();
            Undoes { identity, effect: done.effect }
        };
        let first = enter_with(&instance(1)).await;
        assert_eq!((first.effect, managed.generation()), (Effect::Done, 1));
        let again = enter_with(&instance(1)).await;
        assert_eq!((again.effect, managed.generation()), (Effect::None, 1));
        let other = enter_with(&instance(2)).await;

        let take_back =
            |entry, undoes: Undoes| undo(&managed, List::Instances, &entry, &context("u"), &[undoes]).unwrap().effect;
        assert_eq!(take_back(instance(2), again), Effect::None);
        assert_eq!(take_back(instance(2), other.clone()), Effect::Done);
        assert_eq!(managed.all(List::Instances), [instance(1)]);
        assert_eq!(take_back(instance(2), other), Effect::None);
        assert_eq!(take_back(instance(1), first), Effect::Done);
        assert!(Managed::open(dir.path()).unwrap().all(List::Instances).is_empty());
        assert_eq!(managed.generation(), 4);
    }

    #[tokio::test]
    async fn a_crash_after_the_write_still_counts_as_made() {
        let dir = tempfile::tempdir().unwrap();
        let managed = Managed::open(dir.path()).unwrap();
        let entry = instance(1);
        managed.set(List::Exporters, entry.kind, entry.sql_port, Some(&entry)).unwrap();
        let context = StepContext { identity: Some("{\"previous\":null}".into()), ..context("r") };
        assert_eq!(enter(&managed, List::Exporters, &entry, &context).await.unwrap(), Done::made());
        assert_eq!(managed.generation(), 1);
    }

    #[tokio::test]
    async fn what_left_a_list_comes_back_also_when_the_journal_has_forgotten_it() {
        let dir = tempfile::tempdir().unwrap();
        let managed = Managed::open(dir.path()).unwrap();
        let (own, other) = (instance(1), Instance { server_id: 2, ..instance(1) });
        let put = |entry: &Instance| managed.set(List::Exporters, entry.kind, entry.sql_port, Some(entry)).unwrap();
        let leave = async || {
            let context = StepContext { identities: Arc::new(Identities::default()), ..context("r") };
            leave(&managed, List::Exporters, &own, &context).await.unwrap().effect
        };
        let again = |effect| {
            let undoes = [Undoes { identity: None, effect }];
            list_again(&managed, List::Exporters, &own, &context("u"), &undoes).unwrap().effect
        };
        put(&own);
        assert_eq!((leave().await, leave().await), (Effect::Done, Effect::None));
        assert_eq!(again(Effect::None), Effect::None);
        assert!(managed.all(List::Exporters).is_empty());
        assert_eq!((again(Effect::Done), again(Effect::Done)), (Effect::Done, Effect::None));
        assert_eq!(managed.all(List::Exporters), std::slice::from_ref(&own));
        put(&other);
        assert_eq!((leave().await, again(Effect::Done)), (Effect::None, Effect::None));
        assert_eq!(managed.all(List::Exporters), std::slice::from_ref(&other));
    }
}
