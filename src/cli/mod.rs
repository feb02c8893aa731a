//! The operator's commands, over the coordinator's REST API.
//!
//! Data goes to stdout, everything said about it to stderr. A command that starts a task follows it to its end;
//! interrupting it ends the following, never the task. The exit code tells the kind of failure: see `oblet --help`.

mod agent;
mod args;
mod console;
mod frame;
mod host;
mod obproxy;
mod package;
mod rest;
mod system;
mod task;
mod user;

use clap::{CommandFactory, FromArgMatches as _};
use serde_json::json;
use std::{fmt::Display, process::ExitCode};

use args::{Cli, Command};
use console::{
    error::CliError,
    output::{Output, usage_error},
    prompt,
};
use frame::{
    args::{Consent, Trial, dry_run_query},
    resolve::Kind,
};
use host::places;
use rest::{client::Client, settings::Settings};
use system::{audit, status, support, target, version};
use task::subtask;

/// What every command that asks the coordinator needs.
struct Context<'a> {
    client: Client,
    output: &'a Output,
}

/// The commands and options, for manual pages and completions.
pub fn command() -> clap::Command {
    let codes: Vec<_> = args::EXIT_CODES.iter().map(|(code, meaning)| format!("  {code:<5}{meaning}")).collect();
    let mut command = Cli::command().after_help(format!("Exit codes:\n{}", codes.join("\n")));
    command.build();
    with_plain_usage(command)
}

/// What the exit codes mean, for the manual page.
pub fn exit_codes() -> &'static [(u8, &'static str)] {
    args::EXIT_CODES
}

/// The variables that are read from the environment, for the manual page.
pub fn environment() -> &'static [(&'static str, &'static str)] {
    args::ENVIRONMENT
}

/// A usage error would otherwise show each option that was given as one that is required.
fn with_plain_usage(mut command: clap::Command) -> clap::Command {
    let usage = command.render_usage().to_string();
    let names: Vec<_> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_plain_usage));
    command.override_usage(usage.trim_start_matches("Usage:").trim().to_owned())
}

/// Carries out the command line of this process.
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let args: Vec<_> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
            usage_error(&error, &args);
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = Output::new(&cli.output);
    let Err(error) = run(&cli, &output) else { return ExitCode::SUCCESS };
    output.error(&error);
    error.exit_code()
}

fn run(cli: &Cli, output: &Output) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    match &cli.command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command(), "oblet", &mut script);
            return output.text(&String::from_utf8_lossy(&script));
        }
        Command::Login { coordinator, name } => {
            return runtime.block_on(user::login(&cli.access, output, coordinator, name.as_deref()));
        }
        Command::Logout => return user::logout(&cli.access, output),
        Command::Context(command) => return user::contexts(output, command),
        _ => {}
    }
    let prepared = Settings::new(&cli.access).and_then(|settings| Ok((Client::new(settings.clone())?, settings)));
    match (prepared, &cli.command) {
        (Ok((client, settings)), command) => runtime.block_on(Context { client, output }.carry_out(command, &settings)),
        (Err(error), Command::Version) => runtime.block_on(version::run(output, Err(error))),
        (Err(error), _) => Err(error),
    }
}

impl Context<'_> {
    async fn carry_out(&self, command: &Command, settings: &Settings) -> Result<(), CliError> {
        tokio::select! {
            // Following a task has its own answer to an interruption, and is asked first.
            biased;
            result = self.dispatch(command, settings) => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted {
                next: "the coordinator may have carried out the request, see: oblet task list".into(),
            }),
        }
    }

    async fn dispatch(&self, command: &Command, settings: &Settings) -> Result<(), CliError> {
        match command {
            Command::Status => status::run(self).await,
            Command::Host(command) => host::run(self, command).await,
            Command::Package(command) => package::run(self, command).await,
            Command::Obproxy(command) => obproxy::run(self, command).await,
            Command::Task(command) => task::run(self, command).await,
            Command::Subtask(command) => subtask::run(self, command).await,
            Command::Region(command) => places::run(self, &places::REGION, command).await,
            Command::Idc(command) => places::run_idc(self, command).await,
            Command::HostType(command) => places::run(self, &places::HOST_TYPE, command).await,
            Command::Target(command) => target::run(self, command).await,
            Command::Audit(command) => audit::run(self, command).await,
            Command::User(command) => user::user(self, settings, command).await,
            Command::Version => version::run(self.output, Ok(self)).await,
            Command::Support { file } => support::run(self, file).await,
            // These ask no coordinator, or ask it before there is a context.
            Command::Login { .. } | Command::Logout | Command::Context(_) | Command::Completion { .. } => Ok(()),
        }
    }

    /// Has the operator repeat the name of what is about to be changed. Nothing has to be confirmed where nothing is
    /// changed. `doing` completes "cannot ...".
    fn confirm(&self, consent: Consent, trial: Trial, name: impl Display, doing: &str) -> Result<(), CliError> {
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
    fn confirm_many(&self, consent: Consent, dry_run: bool, names: &[String], doing: &str) -> Result<(), CliError> {
        let trial = Trial { dry_run };
        match names {
            [name] => self.confirm(consent, trial, name, doing),
            names => self.confirm(consent, trial, names.len(), &format!("{doing} ({} hosts)", names.len())),
        }
    }

    fn dry_run_note(&self, doing: &str) {
        self.output.note(&format!("Nothing was changed; without --dry-run, this command would {doing}."));
    }

    /// Removes what has an id, once that is confirmed. `name` is what the operator calls it.
    async fn remove(
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
