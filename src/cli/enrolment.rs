//! How hosts get in, and how they lose their trust.

use serde_json::{Value, json};
use std::{fmt, net::IpAddr, str::FromStr, time::Duration};

use super::{
    Context,
    args::{HostAdd, HostRevoke, Token},
    error::CliError,
    output::{Column, Format, entries, text},
    settings::is_loopback,
};

const TOKENS: &str = "api/v2/compute/hosts/enrolmentTokens";

const TOKEN_COLUMNS: &[Column] = &[
    ("ID", "/id"),
    ("HOST", "/innerIpAddress"),
    ("STATUS", "/status"),
    ("CREATOR", "/creator"),
    ("EXPIRES", "/expireTime"),
    ("USED FROM", "/usedFrom"),
    ("CERTIFICATE", "/certificateSerial"),
];

const CERTIFICATE_COLUMNS: &[Column] = &[
    ("SERIAL", "/serial"),
    ("HOST", "/innerIpAddress"),
    ("ID", "/hostId"),
    ("STATUS", "/status"),
    ("ISSUED", "/issueTime"),
    ("EXPIRES", "/expireTime"),
];

/// A host as an operator names it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum HostName {
    Id(u64),
    Address(IpAddr),
}

impl FromStr for HostName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = || text.parse().map(Self::Address);
        text.parse().map(Self::Id).or_else(|_| address()).map_err(|_| "is neither the id nor the address of a host")
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Such as "1h" or "90m".
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    let span = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(span).map_err(|_negative| "has to lie in the future".to_owned())
}

/// Asks for tokens and prints the line to run on each host.
pub(crate) async fn invite(context: &Context<'_>, args: &HostAdd) -> Result<(), CliError> {
    let body = json!({
        "innerIpAddressList": args.addresses,
        "ttlSeconds": args.ttl.as_secs(),
        "anySource": args.any_source,
    });
    let data = context.client.post("make enrolment tokens", TOKENS, &[], Some(&body)).await?;
    match context.output.format {
        Format::Json => context.output.json(&data),
        Format::Name => context.output.names(entries(&data).iter().map(|made| text(made.get("id")))),
        Format::Table => {
            let hosts = entries(&data);
            let until = text(hosts.first().and_then(|made| made.get("expireTime")));
            let named = hosts.len() > 1;
            let what = if named { "each line on its host" } else { "this on the host" };
            context.output.remark(&format!("Run {what}, as root. It works once, until {until}."));
            let coordinator = text(hosts.first().and_then(|made| made.get("coordinatorUrl")));
            if args.coordinator.is_none()
                && coordinator.parse().is_ok_and(|url| is_loopback(&url))
                && !args.addresses.iter().all(IpAddr::is_loopback)
            {
                context.output.note(
                    "The coordinator advertises an address that no other host reaches: name one with --coordinator, \
                     or set its advertise_addresses.",
                );
            }
            hosts.iter().try_for_each(|made| context.output.text(&line(made, args.coordinator.as_deref(), named)))
        }
    }
}

/// The token goes through standard input: an argument would be seen by everyone on the host. With several hosts the
/// line names its own in a comment.
fn line(made: &Value, coordinator: Option<&str>, named: bool) -> String {
    let member = |name: &str| text(made.get(name));
    let coordinator = coordinator.map_or_else(|| member("coordinatorUrl"), ToOwned::to_owned);
    let host = if named { format!(" # on {}", member("innerIpAddress")) } else { String::new() };
    format!(
        "oblet-agent enroll --coordinator {coordinator} --fingerprint {} --token-file - <<< '{}'{host}\n",
        member("fingerprint"),
        member("token"),
    )
}

pub(crate) async fn revoke(context: &Context<'_>, args: &HostRevoke) -> Result<(), CliError> {
    let doing = format!("revoke host {}", args.host);
    if !args.dry_run {
        context.confirm(args.yes, args.host, &doing)?;
    }
    let body = match args.host {
        HostName::Id(id) => json!({"hostId": id}),
        HostName::Address(address) => json!({"innerIpAddress": address}),
    };
    let query: &[_] = if args.dry_run { &[("dryRun", "true")] } else { &[] };
    let data = context.client.post(&doing, "api/v2/compute/hosts/revoke", query, Some(&body)).await?;
    let address = text(data.get("innerIpAddress"));
    context.output.note(&match args.dry_run {
        true => format!("Host {address} would be revoked."),
        false => format!("Host {address} is revoked. To trust it again: oblet host add --token {address}"),
    });
    match context.output.format {
        Format::Table => Ok(()),
        Format::Json => context.output.json(&data),
        Format::Name => context.output.names([address]),
    }
}

pub(crate) async fn token(context: &Context<'_>, command: &Token) -> Result<(), CliError> {
    match command {
        Token::List => {
            let data = context.client.list("list the enrolment tokens", TOKENS).await?;
            context.output.list(&data, TOKEN_COLUMNS, "/id")
        }
        Token::Revoke { id } => {
            let doing = format!("revoke enrolment token {id}");
            context.client.delete(&doing, &format!("{TOKENS}/{id}")).await?;
            context.removed(*id, &format!("enrolment token {id}"))
        }
    }
}

pub(crate) async fn certificates(context: &Context<'_>) -> Result<(), CliError> {
    let data = context.client.list("list the certificates", "api/v2/compute/hosts/certificates").await?;
    context.output.list(&data, CERTIFICATE_COLUMNS, "/serial")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_written_as_people_say_it() {
        assert_eq!(ttl("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(ttl("1h30m"), Ok(Duration::from_secs(5400)));
        assert!(ttl("-1h").is_err() && ttl("soon").is_err());
    }

    #[test]
    fn a_host_is_named_by_id_or_address() {
        assert!(matches!("7".parse(), Ok(HostName::Id(7))));
        assert!(matches!("10.0.0.7".parse(), Ok(HostName::Address(_))));
        assert!("db7".parse::<HostName>().is_err());
    }
}
