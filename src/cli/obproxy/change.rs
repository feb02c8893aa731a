//! Changes of an OBProxy cluster that start no task.

use serde_json::{Map, Value, json};

use super::{
    FIELDS,
    args::{AddLinkArgs, AddressArgs, ObLink, RemoveLinkArgs},
};
use crate::cli::{
    console::error::CliError,
    frame::{
        args::dry_run_query,
        context::Context,
        kind::{CLUSTER, CLUSTERS},
        resolve,
    },
};

pub(super) fn wire_link(link: &ObLink) -> Value {
    json!({"clusterName": link.cluster, "obClusterId": link.id, "username": link.user})
}

pub(super) async fn set_address(context: &Context<'_>, args: &AddressArgs) -> Result<(), CliError> {
    let doing = format!("change the address of OBProxy cluster {}", args.cluster);
    let id = resolve::id(context, &doing, &CLUSTER, &args.cluster).await?;
    let mut body = Map::new();
    if args.no_address || args.address.is_some() {
        body.insert("address".into(), json!(args.address));
    }
    if args.no_port || args.port.is_some() {
        body.insert("port".into(), json!(args.port));
    }
    let query = dry_run_query(args.trial.dry_run);
    let data = context.client.patch(&doing, &format!("{CLUSTERS}/{id}"), query, &Value::Object(body)).await?;
    if args.trial.dry_run {
        context.dry_run_note(&doing);
    }
    context.output.entry(&data, FIELDS, "/name")
}

pub(super) async fn add_links(context: &Context<'_>, args: &AddLinkArgs) -> Result<(), CliError> {
    let names: Vec<_> = args.links.iter().map(|link| link.cluster.as_str()).collect();
    let (names, cluster) = (names.join(", "), &args.cluster);
    let doing = format!("connect OBProxy cluster {cluster} to {names}");
    let id = resolve::id(context, &doing, &CLUSTER, cluster).await?;
    let body: Value = args.links.iter().map(wire_link).collect();
    let query = dry_run_query(args.trial.dry_run);
    context.client.post(&doing, &format!("{CLUSTERS}/{id}/obLinks/batchAdd"), query, Some(&body)).await?;
    if args.trial.dry_run {
        context.dry_run_note(&doing);
    } else {
        context.output.note(&format!("OBProxy cluster {cluster} is connected to {names}."));
    }
    context.output.changed(&json!({"id": id}), id)
}

pub(super) async fn remove_link(context: &Context<'_>, args: &RemoveLinkArgs) -> Result<(), CliError> {
    let (cluster, ob_cluster) = (&args.cluster, &args.ob_cluster);
    let doing = format!("disconnect OBProxy cluster {cluster} from {ob_cluster}");
    let id = resolve::id(context, &doing, &CLUSTER, cluster).await?;
    context.confirm(args.consent, args.trial, ob_cluster, &doing)?;
    let query = dry_run_query(args.trial.dry_run);
    context.client.delete(&doing, &format!("{CLUSTERS}/{id}/obLinks/{ob_cluster}"), query).await?;
    if args.trial.dry_run {
        context.dry_run_note(&doing);
    } else {
        context.output.note(&format!("OBProxy cluster {cluster} is not connected to {ob_cluster} any more."));
    }
    context.output.changed(&json!({"id": id}), id)
}
