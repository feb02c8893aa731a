use serde_json::json;
use std::fmt::Display;

use super::{
    args::{Consent, Trial, dry_run_query},
    kind::Kind,
};
use crate::cli::{
    console::{error::CliError, output::Output, prompt},
    rest::client::Client,
};

/// What every command that asks the coordinator needs.
pub(crate) struct Context<'a> {
    pub(crate) client: Client,
    pub(crate) output: &'a Output,
}

impl Context<'_> {
    /// Has the operator repeat the name of what is about to be changed. Nothing has to be confirmed where nothing is
    /// changed. `doing` completes "cannot ...".
    pub(crate) fn confirm(
        &self,
        consent: Consent,
        trial: Trial,
        name: impl Display,
        doing: &str,
    ) -> Result<(), CliError> {
        if consent.yes || trial.dry_run {
            return Ok(());
        }
        let not_done = |hint: String| Err(CliError::Unconfirmed { doing: doing.into(), hint });
        if !prompt::is_possible() {
            return not_done("no terminal to confirm on (use --yes)".into());
        }
        let name = name.to_string();
        let answer = prompt::line(&format!("Type {name} to {doing}: "))?;
        if answer == name { Ok(()) } else { not_done(format!("not confirmed (type {name}, or use --yes)")) }
    }

    /// The same for several, of which the operator repeats the number.
    pub(crate) fn confirm_many(
        &self,
        consent: Consent,
        dry_run: bool,
        names: &[String],
        doing: &str,
    ) -> Result<(), CliError> {
        let trial = Trial { dry_run };
        match names {
            [name] => self.confirm(consent, trial, name, doing),
            names => self.confirm(consent, trial, names.len(), &format!("{doing} ({} hosts)", names.len())),
        }
    }

    pub(crate) fn dry_run_note(&self, doing: &str) {
        self.output.note(&format!("Nothing was changed; without --dry-run, this command would {doing}."));
    }

    /// Removes what has an id, once that is confirmed. `name` is what the operator calls it.
    pub(crate) async fn remove(
        &self,
        doing: &str,
        kind: &Kind,
        id: u64,
        name: &str,
        consent: Consent,
        trial: Trial,
    ) -> Result<(), CliError> {
        self.confirm(consent, trial, name, doing)?;
        self.client.delete(doing, &format!("{}/{id}", kind.path), dry_run_query(trial.dry_run)).await?;
        match (trial.dry_run, doing.split_once(' ')) {
            (true, _) => self.dry_run_note(doing),
            (false, Some(("revoke", what))) => self.output.note(&format!("Revoked {what}.")),
            (false, what) => self.output.note(&format!("Removed {}.", what.map_or(doing, |(_, what)| what))),
        }
        self.output.changed(&json!({"id": id}), id)
    }
}
