//! How hosts are enrolled, and how they are revoked.

use serde_json::{Value, json};
use std::net::IpAddr;

use super::args::{Invitation, RevokeArgs, Token};
use crate::cli::{
    console::{
        error::CliError,
        output::{Shape, entries},
        table::{Column, column, local_time, text},
    },
    frame::{
        args::dry_run_query,
        context::Context,
        kind::{HOST, Kind},
        resolve,
    },
    rest::settings::is_loopback,
};

const TOKENS: &str = "api/v2/compute/hosts/enrolmentTokens";
const TOKEN: Kind = Kind { what: "enrolment token", path: TOKENS, names: &[], list_command: "oblet host token list" };

const TOKEN_COLUMNS: &[Column] = &[
    column("ID", "/id"),
    column("HOST", "/innerIpAddress"),
    column("STATUS", "/status"),
    column("CREATOR", "/creator"),
    column("EXPIRES", "/expireTime"),
    column("USED FROM", "/usedFrom"),
    column("CERTIFICATE", "/certificateSerial"),
    column("CREATED", "/createTime").wide(),
    column("ANY SOURCE", "/anySource").wide(),
];

const CERTIFICATE_COLUMNS: &[Column] = &[
    column("SERIAL", "/serial"),
    column("HOST", "/innerIpAddress"),
    column("ID", "/hostId"),
    column("STATUS", "/status"),
    column("ISSUED", "/issueTime"),
    column("EXPIRES", "/expireTime"),
    column("FINGERPRINT", "/fingerprint").wide(),
];

/// Requests tokens and prints the command to run on each host.
pub(crate) async fn invite(
    context: &Context<'_>,
    addresses: &[IpAddr],
    invitation: &Invitation,
    dry_run: bool,
) -> Result<(), CliError> {
    let body = json!({
        "innerIpAddressList": addresses,
        "ttlSeconds": invitation.ttl.as_secs(),
        "anySource": invitation.any_source,
    });
    let doing = "create enrolment tokens";
    let mut data = context.client.post(doing, TOKENS, dry_run_query(dry_run), Some(&body)).await?;
    if let Some(url) = &invitation.coordinator {
        let made = data.get_mut("contents").and_then(Value::as_array_mut).into_iter().flatten();
        made.filter_map(Value::as_object_mut).for_each(|made| {
            made.insert("coordinatorUrl".into(), json!(url));
        });
    }
    let hosts = entries(&data);
    if dry_run {
        context.dry_run_note(doing);
    }
    match context.output.shape() {
        Shape::Data => context.output.data(&data),
        Shape::Name => context.output.names(hosts.iter().filter(|_| !dry_run).map(|made| text(made.get("id")))),
        Shape::Table if dry_run => Ok(()),
        Shape::Table => {
            let until = text(hosts.first().and_then(|made| made.get("expireTime")));
            let several = hosts.len() > 1;
            let what = if several { "each command on its host" } else { "this command on the host" };
            context.output.remark(&format!("Run {what}, as root. It works once, until {}.", local_time(&until)));
            let coordinator = text(hosts.first().and_then(|made| made.get("coordinatorUrl")));
            if invitation.coordinator.is_none()
                && coordinator.parse().is_ok_and(|url| is_loopback(&url))
                && !addresses.iter().all(IpAddr::is_loopback)
            {
                context.output.note(
                    "The coordinator advertises a loopback address, which other hosts cannot reach: give its URL with \
                     --coordinator, or set advertise_addresses in its configuration.",
                );
            }
            hosts.iter().try_for_each(|made| context.output.text(&command(made, several)))
        }
    }
}

/// The token goes through standard input: an argument would be seen by everyone on the host. With several hosts a
/// comment names the host.
fn command(made: &Value, several: bool) -> String {
    let member = |name: &str| text(made.get(name));
    let host = if several { format!(" # on {}", member("innerIpAddress")) } else { String::new() };
    format!(
        "oblet-agent enroll --coordinator {} --fingerprint {} --token-file - <<< '{}'{host}\n",
        member("coordinatorUrl"),
        member("fingerprint"),
        member("token"),
    )
}

/// An address needs no host that was added: it may belong to one that was only enrolled.
pub(crate) async fn revoke(context: &Context<'_>, args: &RevokeArgs) -> Result<(), CliError> {
    let host = &args.host;
    let doing = format!("revoke host {host}");
    let body = match host.parse::<IpAddr>() {
        Ok(address) => json!({"innerIpAddress": address}),
        Err(_) => json!({"hostId": resolve::id(context, &doing, &HOST, host).await?}),
    };
    context.confirm(args.consent, args.trial, host, &doing)?;
    let query = dry_run_query(args.trial.dry_run);
    let data = context.client.post(&doing, "api/v2/compute/hosts/revoke", query, Some(&body)).await?;
    let address = text(data.get("innerIpAddress"));
    if args.trial.dry_run {
        context.dry_run_note(&doing);
    } else {
        let way_back = format!("oblet host add --token {address}");
        context.output.note(&format!("Revoked host {address}. To enrol it again: {way_back}"));
    }
    context.output.changed(&data, address)
}

pub(crate) async fn token(context: &Context<'_>, command: &Token) -> Result<(), CliError> {
    match command {
        Token::List => {
            let data = context.client.list("list the enrolment tokens", TOKENS).await?;
            context.output.list(&data, TOKEN_COLUMNS, "/id")
        }
        Token::Revoke { id, consent, trial } => {
            let doing = format!("revoke enrolment token {id}");
            context.remove(&doing, &TOKEN, *id, &id.to_string(), *consent, *trial).await
        }
    }
}

pub(crate) async fn certificates(context: &Context<'_>) -> Result<(), CliError> {
    let data = context.client.list("list the certificates", "api/v2/compute/hosts/certificates").await?;
    context.output.list(&data, CERTIFICATE_COLUMNS, "/serial")
}
