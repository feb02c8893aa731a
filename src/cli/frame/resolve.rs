//! Turns what operators call things into the ids of the API. A number is always an id.

use serde_json::Value;
use std::net::IpAddr;

use super::{context::Context, kind::Kind};
use crate::cli::console::{error::CliError, output::entries};

/// The id of what is called `name`. `doing` completes "cannot ..." in the error.
pub(crate) async fn id(context: &Context<'_>, doing: &str, kind: &Kind, name: &str) -> Result<u64, CliError> {
    match name.parse() {
        Ok(id) => Ok(id),
        Err(_) => id_of(doing, kind, &list(context, doing, kind).await?, name),
    }
}

/// The same for several, which are asked for once.
pub(crate) async fn ids(
    context: &Context<'_>,
    doing: &str,
    kind: &Kind,
    names: &[String],
) -> Result<Vec<u64>, CliError> {
    let all_are_ids = names.iter().all(|name| name.parse::<u64>().is_ok());
    let list = if all_are_ids { Value::Null } else { list(context, doing, kind).await? };
    names.iter().map(|name| name.parse().or_else(|_| id_of(doing, kind, &list, name))).collect()
}

/// What is called `name`, whole, by its id as well.
pub(crate) async fn entry(context: &Context<'_>, doing: &str, kind: &Kind, name: &str) -> Result<Value, CliError> {
    let list = list(context, doing, kind).await?;
    let wanted = match name.parse() {
        Ok(id) => id,
        Err(_) => id_of(doing, kind, &list, name)?,
    };
    let found = entries(&list).iter().find(|entry| entry_id(entry) == Some(wanted));
    found.cloned().ok_or_else(|| absent(doing, kind, name))
}

async fn list(context: &Context<'_>, doing: &str, kind: &Kind) -> Result<Value, CliError> {
    context.client.list(doing, kind.path).await
}

fn id_of(doing: &str, kind: &Kind, list: &Value, name: &str) -> Result<u64, CliError> {
    let called = |entry: &&Value| kind.names.iter().any(|column| is_same(&column.text(entry), name));
    let found: Vec<(u64, &Value)> =
        entries(list).iter().filter(called).filter_map(|entry| Some((entry_id(entry)?, entry))).collect();
    match found.as_slice() {
        [] => Err(absent(doing, kind, name)),
        [(id, _)] => Ok(*id),
        several => {
            let first = kind.names.first();
            let candidates = several.iter().map(|(id, entry)| match first {
                Some(column) => format!("{id} ({})", column.text(entry)),
                None => id.to_string(),
            });
            Err(CliError::Usage {
                message: format!(
                    "cannot {doing}: more than one {} matches: {}",
                    kind.what,
                    candidates.collect::<Vec<_>>().join(", ")
                ),
                next: format!("use the id of the {}", kind.what),
            })
        }
    }
}

fn entry_id(entry: &Value) -> Option<u64> {
    entry.get("id")?.as_u64()
}

/// An address can be written in more than one way.
fn is_same(own: &str, name: &str) -> bool {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    own == name || address(own).is_some_and(|own| address(name) == Some(own))
}

fn absent(doing: &str, kind: &Kind, name: &str) -> CliError {
    let names: Vec<_> = kind.names.iter().map(|column| column.heading).collect();
    let names = match names.split_last() {
        Some((last, [])) => format!("id or {last}"),
        Some((last, others)) => format!("id, {} or {last}", others.join(", ")),
        None => "id".into(),
    };
    CliError::NotFound {
        doing: doing.into(),
        cause: format!("no {} has the {names} {name}", kind.what),
        next: format!("list them with: {}", kind.list_command),
    }
}
