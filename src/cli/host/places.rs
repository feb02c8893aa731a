//! Regions, data centres and types of hosts: the same commands for all three.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::{
    console::{
        error::CliError,
        table::{Column, column},
    },
    frame::{
        args::{Consent, Trial, dry_run_query},
        context::Context,
        kind::Kind,
        resolve,
    },
};

const NAMES: &[Column] = &[column("name", "/name")];

pub(crate) const REGION: Kind =
    Kind { what: "region", path: "api/v2/compute/regions", names: NAMES, list_command: "oblet region list" };
pub(crate) const IDC: Kind =
    Kind { what: "IDC", path: "api/v2/compute/idcs", names: NAMES, list_command: "oblet idc list" };
pub(crate) const HOST_TYPE: Kind =
    Kind { what: "host type", path: "api/v2/compute/hostTypes", names: NAMES, list_command: "oblet host-type list" };

const COLUMNS: &[Column] =
    &[column("ID", "/id"), column("NAME", "/name"), column("DESCRIPTION", "/description").free()];
const IDC_COLUMNS: &[Column] = &[
    column("ID", "/id"),
    column("NAME", "/name"),
    column("REGION", "/region/name"),
    column("DESCRIPTION", "/description").free(),
];

const FIELDS: &[Column] = &[column("Id", "/id"), column("Name", "/name"), column("Description", "/description")];
const IDC_FIELDS: &[Column] = &[
    column("Id", "/id"),
    column("Name", "/name"),
    column("Region", "/region/name"),
    column("Description", "/description"),
];

/// Commands about the places and kinds of hosts; only what a new entry takes differs.
#[derive(Debug, Subcommand)]
pub(crate) enum Place<A: Args> {
    /// List them
    List,
    /// Add one
    Add(A),
    /// Remove one that no host uses
    Remove(SiteRemoval),
}

#[derive(Debug, Args)]
pub(crate) struct SiteAdd {
    /// Its name
    pub(crate) name: String,
    /// Free text
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

#[derive(Debug, Args)]
pub(crate) struct IdcAdd {
    #[command(flatten)]
    pub(crate) site: SiteAdd,
    /// Id or name of its region
    #[arg(long, value_name = "REGION")]
    pub(crate) region: String,
}

#[derive(Debug, Args)]
pub(crate) struct SiteRemoval {
    /// Its id or name
    #[arg(value_name = "ID|NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) consent: Consent,
    #[command(flatten)]
    pub(crate) trial: Trial,
}

pub(crate) async fn run(context: &Context<'_>, kind: &Kind, command: &Place<SiteAdd>) -> Result<(), CliError> {
    match command {
        Place::List => list(context, kind, COLUMNS).await,
        Place::Add(site) => add(context, kind, FIELDS, site, Map::new()).await,
        Place::Remove(removal) => remove(context, kind, removal).await,
    }
}

pub(crate) async fn run_idc(context: &Context<'_>, command: &Place<IdcAdd>) -> Result<(), CliError> {
    match command {
        Place::List => list(context, &IDC, IDC_COLUMNS).await,
        Place::Add(IdcAdd { site, region }) => {
            let doing = format!("add IDC {}", site.name);
            let region = resolve::id(context, &doing, &REGION, region).await?;
            let body = Map::from_iter([("regionId".to_owned(), json!(region))]);
            add(context, &IDC, IDC_FIELDS, site, body).await
        }
        Place::Remove(removal) => remove(context, &IDC, removal).await,
    }
}

async fn list(context: &Context<'_>, kind: &Kind, columns: &[Column]) -> Result<(), CliError> {
    let data = context.client.list(&format!("list the {}s", kind.what), kind.path).await?;
    context.output.list(&data, columns, "/id")
}

async fn add(
    context: &Context<'_>,
    kind: &Kind,
    fields: &[Column],
    site: &SiteAdd,
    mut body: Map<String, Value>,
) -> Result<(), CliError> {
    body.insert("name".into(), json!(site.name));
    if let Some(description) = &site.description {
        body.insert("description".into(), json!(description));
    }
    let doing = format!("add {} {}", kind.what, site.name);
    let query = dry_run_query(site.trial.dry_run);
    let data = context.client.post(&doing, kind.path, query, Some(&Value::Object(body))).await?;
    if site.trial.dry_run {
        context.dry_run_note(&doing);
    }
    context.output.entry(&data, fields, "/id")
}

async fn remove(context: &Context<'_>, kind: &Kind, removal: &SiteRemoval) -> Result<(), CliError> {
    let doing = format!("remove {} {}", kind.what, removal.name);
    let id = resolve::id(context, &doing, kind, &removal.name).await?;
    context.remove(&doing, kind, id, &removal.name, removal.consent, removal.trial).await
}
