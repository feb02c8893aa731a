//! The coordinator: parse, configure, start, wait, exit code.

use clap::Parser as _;
use oblet::{
    api::serve::{self, StartError},
    config::{EXIT_CONFIG, EXIT_USAGE},
    coordinator::config::{Config, Flags, Subcommand},
    telemetry, tls,
};
use std::{fs, io::Write as _, net::IpAddr, path::Path, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
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
        return ExitCode::SUCCESS;
    }
    if let Err(error) = telemetry::init(&config.log_filter, config.log_format) {
        return fail(&*error, EXIT_CONFIG);
    }
    tls::install_crypto_provider();
    let result = match &flags.command {
        Some(Subcommand::Certificate { role, name, addresses, out }) => issue(&config, *role, name, addresses, out),
        None => run(&config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, 1),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "oblet-coordinator: {}", telemetry::chain(error));
    code.into()
}

fn issue(config: &Config, role: tls::Role, name: &str, addresses: &[IpAddr], out: &Path) -> anyhow::Result<()> {
    let authority = serve::authority(&config.state_dir)?;
    let stem = match role {
        tls::Role::Agent => "agent",
        tls::Role::Coordinator => "coordinator",
        tls::Role::Rest => "rest",
    };
    fs::create_dir_all(out)?;
    authority.issue(role, name, addresses)?.write(out, stem)?;
    fs::write(out.join("ca.pem"), authority.certificate_pem())?;
    Ok(())
}

#[tokio::main]
async fn run(config: &Config) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut coordinator = serve::start(config).await.map_err(|error: StartError| error)?;
    tracing::info!(address = %coordinator.address, version = env!("CARGO_PKG_VERSION"), "serving");
    let fatal = coordinator.fatal.clone();
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        () = fatal.cancelled() => Some("the store failed; a restart recovers".to_owned()),
        ended = coordinator.served() => Some(ended),
    };
    tracing::info!("stopping");
    coordinator.stop().await;
    match failure {
        Some(why) => Err(anyhow::anyhow!(why)),
        None => Ok(()),
    }
}
