use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::{
    console::{
        error::CliError,
        output::entries,
        table::{Column, column},
    },
    frame::context::Context,
};

const EVENTS: &str = "api/v2/audit/events";
const DOING: &str = "list the audit events";
const PAGE_SIZE: u64 = 500;

const COLUMNS: &[Column] = &[
    column("TIME", "/createTime"),
    column("USER", "/user"),
    column("ACTION", "/action"),
    column("OBJECT", "/object"),
    column("TRACE", "/traceId").wide(),
    column("DETAIL", "/detail").free(),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List changes, newest first
    List {
        /// Only changes by this user
        #[arg(long = "by", value_name = "USER")]
        user: Option<String>,
        /// Only actions that begin with this, such as task or task.retry
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// Only changes to this object, such as "task 33001"
        #[arg(long, value_name = "OBJECT")]
        object: Option<String>,
        /// Maximum number of changes to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
        limit: u32,
    },
}

pub(crate) async fn run(context: &Context<'_>, command: &Audit) -> Result<(), CliError> {
    let Audit::List { user, action, object, limit } = command;
    let is = |event: &Value, name: &str, wanted: &Option<String>| {
        wanted.as_deref().is_none_or(|wanted| event.get(name).and_then(Value::as_str) == Some(wanted))
    };
    let wanted = |event: &&Value| {
        is(event, "user", user)
            && is(event, "object", object)
            && action.as_deref().is_none_or(|action| {
                let own = event.get("action").and_then(Value::as_str).unwrap_or_default();
                // "task" stands for "task.retry", and not for "taskforce.found".
                own.strip_prefix(action).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
    };
    let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
    // The coordinator does not filter, so pages are read until enough is found.
    let mut found: Vec<Value> = Vec::new();
    for number in 1.. {
        let page = context.client.page(DOING, EVENTS, &[], number, PAGE_SIZE).await?;
        found.extend(entries(&page).iter().filter(wanted).take(limit - found.len()).cloned());
        let pages = page.pointer("/page/totalPages").and_then(Value::as_u64).unwrap_or(1);
        if found.len() == limit || number as u64 >= pages {
            break;
        }
    }
    context.output.list(&json!({"contents": found}), COLUMNS, "/id")
}
