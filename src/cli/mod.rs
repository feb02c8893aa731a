//! The operator's commands, over the coordinator's REST API. One room per subject.
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
use std::process::ExitCode;

use args::{Cli, Command};
use console::{
    error::CliError,
    output::{Output, usage_error},
};
use frame::context::Context;
use host::places;
use rest::{client::Client, settings::Settings};
use system::{audit, status, support, target, version};
use task::subtask;

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
        (Ok((client, settings)), command) => {
            runtime.block_on(carry_out(&Context { client, output }, command, &settings))
        }
        (Err(error), Command::Version) => runtime.block_on(version::run(output, Err(error))),
        (Err(error), _) => Err(error),
    }
}

async fn carry_out(context: &Context<'_>, command: &Command, settings: &Settings) -> Result<(), CliError> {
    tokio::select! {
        // Following a task has its own answer to an interruption, and is asked first.
        biased;
        result = dispatch(context, command, settings) => result,
        Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted {
            next: "the coordinator may have carried out the request, see: oblet task list".into(),
        }),
    }
}

async fn dispatch(context: &Context<'_>, command: &Command, settings: &Settings) -> Result<(), CliError> {
    match command {
        Command::Status => status::run(context).await,
        Command::Host(command) => host::run(context, command).await,
        Command::Package(command) => package::run(context, command).await,
        Command::Obproxy(command) => obproxy::run(context, command).await,
        Command::Task(command) => task::run(context, command).await,
        Command::Subtask(command) => subtask::run(context, command).await,
        Command::Region(command) => places::run(context, &places::REGION, command).await,
        Command::Idc(command) => places::run_idc(context, command).await,
        Command::HostType(command) => places::run(context, &places::HOST_TYPE, command).await,
        Command::Target(command) => target::run(context, command).await,
        Command::Audit(command) => audit::run(context, command).await,
        Command::User(command) => user::user(context, settings, command).await,
        Command::Version => version::run(context.output, Ok(context)).await,
        Command::Support { file } => support::run(context, file).await,
        // These ask no coordinator, or ask it before there is a context.
        Command::Login { .. } | Command::Logout | Command::Context(_) | Command::Completion { .. } => Ok(()),
    }
}
