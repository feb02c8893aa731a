//! The operator's commands, over the coordinator's REST API.
//!
//! Data goes to stdout, everything said about it to stderr. A command that starts a task follows it to its end;
//! interrupting it ends the following, never the task. The exit code tells the kind of failure: see `oblet --help`.

mod args;
mod client;
mod enrolment;
mod error;
mod event_stream;
mod follow;
mod host;
mod log_follow;
mod obproxy;
mod once;
mod output;
mod package;
mod progress;
mod settings;
mod sse;
mod subtask;
mod target;
mod task;
mod task_model;
mod task_tables;

use clap::{CommandFactory, Parser};
use std::{
    io::{self, BufRead, IsTerminal},
    process::ExitCode,
};

use args::{Cli, Command};
use client::Client;
use error::CliError;
use output::{Format, Output};
use settings::Settings;

/// What every command needs.
struct Context<'a> {
    client: Client,
    output: &'a Output,
}

/// The commands and options, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Carries out the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help into a closed pipe is no failure, and a usage error tells by its exit code.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = Output::new(&cli.global);
    let Err(error) = run(&cli, &output) else { return ExitCode::SUCCESS };
    match &error {
        CliError::OutputClosed => {}
        CliError::Tasks(tasks) => tasks.iter().for_each(|task| output.error(&task.failure_report())),
        error => output.error(&error.report()),
    }
    error.exit_code()
}

fn run(cli: &Cli, output: &Output) -> Result<(), CliError> {
    if let Command::Completion { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "oblet", &mut script);
        return output.text(&String::from_utf8_lossy(&script));
    }
    let client = Client::new(Settings::new(&cli.global)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(Context { client, output }.carry_out(&cli.command))
}

impl Context<'_> {
    async fn carry_out(&self, command: &Command) -> Result<(), CliError> {
        tokio::select! {
            // Following a task has its own answer to an interruption, and is asked first.
            biased;
            result = self.dispatch(command) => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(CliError::Interrupted {
                next: "what was sent may have been carried out, see: oblet task list".into(),
            }),
        }
    }

    async fn dispatch(&self, command: &Command) -> Result<(), CliError> {
        match command {
            Command::Host(command) => host::run(self, command).await,
            Command::Package(command) => package::run(self, command).await,
            Command::Obproxy(command) => obproxy::run(self, command).await,
            Command::Task(command) => task::run(self, command).await,
            Command::Subtask(command) => subtask::run(self, command).await,
            Command::Target(command) => target::run(self, command).await,
            Command::Completion { .. } => Ok(()),
        }
    }

    /// Has the operator repeat the id of what is about to be changed, unless `yes`. `doing` completes "cannot ...".
    fn confirm(&self, yes: bool, id: impl std::fmt::Display, doing: &str) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        let not_done = |why: &str| CliError::Usage {
            message: format!("cannot {doing}: {why}"),
            next: "repeat the command with --yes".into(),
        };
        if !io::stdin().is_terminal() {
            return Err(not_done("nobody is there to confirm it"));
        }
        self.output.note(&format!("Type {id} to {doing}:"));
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(CliError::Input)?;
        if answer.trim() == id.to_string() { Ok(()) } else { Err(not_done("it was not confirmed")) }
    }

    /// Removing has no data to print beyond the id.
    fn removed(&self, id: u64, what: &str) -> Result<(), CliError> {
        self.output.note(&format!("Removed {what}."));
        match self.output.format {
            Format::Table => Ok(()),
            Format::Json => self.output.json(&serde_json::json!({"id": id})),
            Format::Name => self.output.names([id.to_string()]),
        }
    }
}
