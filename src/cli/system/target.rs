use clap::Subcommand;
use serde_json::Value;

use crate::cli::{
    console::{
        error::CliError,
        output::{Shape, entries},
        table::{Column, column, text},
    },
    frame::context::Context,
};

/// The rows are built from groups of targets, so the columns only have headings.
const COLUMNS: &[Column] = &[column("TARGET", ""), column("LABELS", "").free()];

#[derive(Debug, Subcommand)]
pub(crate) enum Target {
    /// List the targets
    List,
}

pub(crate) async fn run(context: &Context<'_>, command: &Target) -> Result<(), CliError> {
    match command {
        Target::List => list(context).await,
    }
}

/// The answer is in the format of Prometheus's HTTP service discovery.
async fn list(context: &Context<'_>) -> Result<(), CliError> {
    let data = context.client.get("list the targets", "api/v2/prometheus/targets").await?;
    let rows: Vec<(String, String)> = entries(&data)
        .iter()
        .flat_map(|group| {
            let addresses = group.get("targets").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            addresses.iter().map(|address| (text(Some(address)), labels(group)))
        })
        .collect();
    match context.output.shape() {
        Shape::Data => context.output.data(&data),
        Shape::Name => context.output.names(rows.into_iter().map(|(address, _)| address)),
        Shape::Table => {
            let rows = rows.into_iter().map(|(address, labels)| vec![address, labels]);
            context.output.table(COLUMNS, rows)
        }
    }
}

fn labels(group: &Value) -> String {
    let labels = group.get("labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten().map(|(name, value)| format!("{name}={}", text(Some(value))));
    labels.collect::<Vec<_>>().join(" ")
}
