//! Who the operator is at which coordinator: login, contexts, the password.

use clap::Subcommand;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

use super::{
    console::{
        error::CliError,
        output::{Output, Shape},
        prompt,
        table::{Column, column},
    },
    frame::{
        args::{Trial, dry_run_query},
        context::Context,
    },
    rest::{
        args::AccessArgs,
        client::Client,
        contexts::{Contexts, Profile, check_name},
        settings::{Settings, chosen, password_file, read_secret},
    },
    system::version::INFO,
};

const COLUMNS: &[Column] = &[
    column("CURRENT", "/current"),
    column("NAME", "/name"),
    column("URL", "/url"),
    column("USER", "/user"),
    column("CA", "/ca").wide(),
    column("PASSWORD FILE", "/passwordFile").wide(),
];

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Change your password
    ///
    /// Asks for the current password, and twice for the new one. If the context of oblet login holds the password, it
    /// holds the new one afterwards.
    Passwd {
        /// File with the new password, "-" for standard input; required without a terminal
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
        #[command(flatten)]
        trial: Trial,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the contexts; the current one has a star
    List,
    /// Make a context the current one
    Use {
        /// Name of the context
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
}

/// Checks user and password before anything is saved.
pub(crate) async fn login(access: &AccessArgs, output: &Output, url: &str, name: Option<&str>) -> Result<(), CliError> {
    let mut contexts = open()?;
    let settings = Settings::of_login(access, url)?;
    let name = name.map_or_else(|| name_of(&settings.url), ToOwned::to_owned);
    check_name(&name)?;
    let doing = format!("log in to {}", settings.url);
    let info = Client::new(settings.clone())?.get(&doing, INFO).await?;
    let file = password_file(access).filter(|path| path != Path::new("-"));
    let profile = Profile {
        url: settings.url.to_string(),
        user: settings.user.clone(),
        ca: settings.ca.as_deref().map(absolute).transpose()?,
        password_file: file.as_deref().map(absolute).transpose()?,
    };
    contexts.log_in(&name, profile, &settings.password)?;
    output.note(&format!("Logged in to {} as {}; {name} is the current context.", settings.url, settings.user));
    output.changed(&json!({"name": name, "url": settings.url.as_str(), "user": settings.user, "info": info}), &name)
}

pub(crate) fn logout(access: &AccessArgs, output: &Output) -> Result<(), CliError> {
    let mut contexts = open()?;
    let Some(name) = chosen(access, Some(&contexts))?.map(|(name, _)| name.to_owned()) else {
        return Err(CliError::Usage {
            message: "there is no current context to log out of".into(),
            next: "name one with --context; see the contexts with: oblet context list".into(),
        });
    };
    contexts.log_out(&name)?;
    output.note(&format!("Removed context {name}."));
    output.changed(&json!({"name": name}), &name)
}

pub(crate) fn contexts(output: &Output, command: &ContextCommand) -> Result<(), CliError> {
    let mut contexts = open()?;
    match command {
        ContextCommand::List => {
            let entry = |(name, profile): (&String, &Profile)| {
                json!({
                    "current": (contexts.current() == Some(name)).then_some("*"),
                    "name": name,
                    "url": profile.url,
                    "user": profile.user,
                    "ca": profile.ca,
                    "passwordFile": profile.password_file,
                })
            };
            let data: Vec<Value> = contexts.all().iter().map(entry).collect();
            output.list(&json!({"contents": data}), COLUMNS, "/name")
        }
        ContextCommand::Use { name } => {
            contexts.set_current(name)?;
            output.note(&format!("{name} is the current context."));
            output.changed(&json!({"name": name}), name)
        }
    }
}

pub(crate) async fn user(context: &Context<'_>, settings: &Settings, command: &User) -> Result<(), CliError> {
    let User::Passwd { new_password_file, trial } = command;
    let (current, new) = match new_password_file {
        Some(file) => (settings.password.clone(), read_secret(file)?),
        None if prompt::is_possible() => ask_passwords(settings)?,
        None => {
            return Err(CliError::Usage {
                message: "no terminal to ask for the new password".into(),
                next: "give a file that contains it: --new-password-file FILE (\"-\" is standard input)".into(),
            });
        }
    };
    let body = json!({"currentPassword": current.expose_secret(), "newPassword": new.expose_secret()});
    let doing = format!("change the password of {}", settings.user);
    let query = dry_run_query(trial.dry_run);
    context.client.post(&doing, "api/v2/profiles/me/changePassword", query, Some(&body)).await?;
    if trial.dry_run {
        context.dry_run_note(&doing);
        return Ok(());
    }
    context.output.note(&format!("Changed the password of {}.", settings.user));
    match (&settings.context, Contexts::load()?) {
        (Some(name), Some(contexts)) if contexts.change_password(name, &new)? => {
            context.output.note(&format!("Context {name} has the new password."));
        }
        _ => context.output.note("Write the new password to the files and variables that held the old one."),
    }
    match context.output.shape() {
        Shape::Table | Shape::Name => Ok(()),
        Shape::Data => context.output.data(&json!({"user": settings.user})),
    }
}

fn ask_passwords(settings: &Settings) -> Result<(SecretString, SecretString), CliError> {
    let current = match settings.is_typed {
        true => settings.password.clone(),
        false => prompt::password(&format!("Current password of {}: ", settings.user))?,
    };
    let new = prompt::password("New password: ")?;
    let again = prompt::password("New password again: ")?;
    if new.expose_secret() != again.expose_secret() {
        return Err(CliError::Usage {
            message: "the two new passwords differ; nothing was changed".into(),
            next: "run the command again".into(),
        });
    }
    Ok((current, new))
}

fn open() -> Result<Contexts, CliError> {
    Contexts::load()?.ok_or_else(|| CliError::Usage {
        message: "no directory for the contexts: neither XDG_CONFIG_HOME nor HOME is set".into(),
        next: "set HOME or XDG_CONFIG_HOME".into(),
    })
}

/// The host in a URL, as the name of a context.
fn name_of(url: &reqwest::Url) -> String {
    url.host_str().unwrap_or_default().trim_matches(['[', ']']).replace(':', "-")
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::File { path: path.into(), source })
}
