//! The coordinator: parse, configure, start, wait, exit code.

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use oblet::{
    api::serve::{self, Coordinator, live},
    config::{EXIT_CONFIG, EXIT_USAGE},
    coordinator::{
        config::{Config, Flags, SettingFlags, Subcommand, UserCommand},
        offline,
    },
    descriptors,
    service_manager::ServiceManager,
    telemetry::{self, LogFilter},
    terminal,
    tls::{self, CertificateFacts},
};
use secrecy::SecretString;
use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    net::IpAddr,
    path::Path,
    pin::pin,
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

/// Of a password on standard input, in bytes.
const LONGEST_LINE: u64 = 1024;

fn main() -> ExitCode {
    let service = ServiceManager::take_from_environment();
    let flags = match Flags::try_parse().and_then(with_address) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let config = match Config::load(&flags.settings) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    if flags.check_config {
        return tell_checked(flags.settings.config.as_deref());
    }
    let filter = match telemetry::init("oblet-coordinator", &config.log_filter, config.log_format) {
        Ok(filter) => filter,
        Err(error) => return fail(&error, EXIT_CONFIG),
    };
    tls::install_crypto_provider();
    let result = match &flags.command {
        Some(Subcommand::Certificate { role, name, addresses, out }) => issue(&config, *role, name, addresses, out),
        Some(Subcommand::User { command: UserCommand::SetPassword { name } }) => set_password(&config, name),
        None => serve(config, &flags.settings, &filter, &service),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, 1),
    }
}

/// Coordinators connect to agents by their addresses, so they refuse a certificate that holds none. One for two hosts would
/// outlive the removal of either.
fn with_address(flags: Flags) -> Result<Flags, clap::Error> {
    match &flags.command {
        Some(Subcommand::Certificate { role: tls::Role::Agent, addresses, .. }) if addresses.is_empty() => {
            let text = "certificate --role agent needs the address of the agent's host: add --address IP";
            Err(Flags::command().error(ErrorKind::MissingRequiredArgument, text))
        }
        Some(Subcommand::Certificate { role: tls::Role::Agent, addresses, .. }) if addresses.len() > 1 => {
            let text = "certificate --role agent is for one host, and a host has one --address";
            Err(Flags::command().error(ErrorKind::TooManyValues, text))
        }
        _ => Ok(flags),
    }
}

fn tell_checked(file: Option<&Path>) -> ExitCode {
    let file = file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    // Nobody is left to be told if stdout is closed.
    let _ = writeln!(
        io::stdout(),
        "The configuration is valid. Checked: all settings, from {file}, the environment and the flags. Not checked: \
         whether the ports are free and the directories writable."
    );
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "oblet-coordinator: {}", telemetry::chain(error));
    code.into()
}

#[tokio::main(flavor = "current_thread")]
async fn issue(config: &Config, role: tls::Role, name: &str, addresses: &[IpAddr], out: &Path) -> anyhow::Result<()> {
    let authority = serve::authority(&config.state_dir)?;
    let stem = match role {
        tls::Role::Agent => "agent",
        tls::Role::Coordinator => "coordinator",
        tls::Role::Rest => "rest",
    };
    // Before the store has a record of what could not be written.
    fs::create_dir_all(out)?;
    let issued = authority.issue(role, name, addresses)?;
    if role == tls::Role::Agent {
        let facts = CertificateFacts::of_pem(issued.certificate_pem.as_bytes())?;
        if let [address] = addresses {
            offline::record_certificate(&config.state_dir, address.to_canonical(), &facts).await?;
        }
    }
    issued.write(out, stem)?;
    fs::write(out.join("ca.pem"), authority.certificate_pem())?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn set_password(config: &Config, name: &str) -> anyhow::Result<()> {
    let password = if io::stdin().is_terminal() {
        let typed = terminal::ask_hidden(&format!("New password of {name}: "))?;
        typed.ok_or_else(|| anyhow::anyhow!("interrupted; nothing was changed"))?
    } else {
        let mut line = Zeroizing::new(String::new());
        io::stdin().lock().take(LONGEST_LINE).read_line(&mut line)?;
        line
    };
    let password = SecretString::from(password.trim_end_matches(['\r', '\n']));
    offline::set_password(&config.state_dir, name, &password).await?;
    writeln!(io::stderr(), "the password of {name} is set")?;
    Ok(())
}

/// Threads for what would hold up the event loop: reading and writing files, and hashing. It is short, and each thread that
/// there ever was costs memory.
const BLOCKING_THREADS: usize = 16;

fn serve(config: Config, flags: &SettingFlags, filter: &LogFilter, service: &ServiceManager) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    runtime.block_on(run(config, flags, filter, service))
}

async fn run(config: Config, flags: &SettingFlags, filter: &LogFilter, service: &ServiceManager) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    descriptors::raise_limit();
    let mut coordinator = service.while_starting(serve::start(&config)).await?;
    tracing::info!(address = %coordinator.address, version = env!("CARGO_PKG_VERSION"), "serving");
    service.ready();
    let engine = coordinator.engine().clone();
    let mut attended =
        pin!(service.attend(coordinator.heartbeats(), move || format!("{} tasks are driven", engine.driven())));
    let fatal = coordinator.fatal.clone();
    let failure = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => {
                service.reloading();
                match reload(&mut coordinator, &config, flags, filter) {
                    Ok(needs_restart) => telemetry::reloaded(&needs_restart),
                    Err(error) => telemetry::not_reloaded(error.as_ref()),
                }
                service.ready();
            }
            () = &mut attended => break Some("the service manager's attendant ended".to_owned()),
            () = fatal.cancelled() => break Some("the store failed; a restart recovers".to_owned()),
            ended = coordinator.served() => break Some(ended),
        }
    };
    tracing::info!("stopping");
    service.stopping();
    coordinator.stop().await;
    match failure {
        Some(why) => Err(anyhow::anyhow!(why)),
        None => Ok(()),
    }
}

/// All or nothing; answers the names of settings that wait for a restart.
fn reload(
    coordinator: &mut Coordinator,
    started_with: &Config,
    flags: &SettingFlags,
    filter: &LogFilter,
) -> anyhow::Result<Vec<String>> {
    let config = Config::load(flags)?;
    coordinator.reload(&config)?;
    filter.replace(&config.log_filter)?;
    Ok(config.given.needs_restart(&started_with.given, &live::LIVE))
}
