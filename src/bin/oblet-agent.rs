//! The daemon of a database host.

use anyhow::Context as _;
use clap::Parser as _;
use oblet::{
    agent::{
        self, Reload,
        config::{Config, Flags},
        host::{Host, metrics},
    },
    config::{EXIT_CONFIG, EXIT_USAGE, StateDirectory},
    descriptors,
    service_manager::ServiceManager,
    telemetry::{self, LogFilter},
};
use std::{io::Write as _, path::Path, process::ExitCode, sync::Arc};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    // Before anything is started. The shim comes this way too.
    if let Err(error) = descriptors::keep_from_children().context("descriptors cannot be kept from children") {
        return complain(error.as_ref(), 1);
    }
    let service = ServiceManager::take_from_environment();
    match std::env::args_os().nth(1) {
        Some(first) if first == "shim" => return agent::host::shim::main(),
        Some(first) if first == "unit" => return agent::host::unit_helper::main(),
        Some(first) if first == "replace-self" => return agent::host::replace_self::main(),
        Some(first) if first == "enroll" => return agent::enroll::main(),
        Some(_) | None => {}
    }
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(told) => {
            // Nobody is left to hear of a terminal that cannot be written to.
            let _ = told.print();
            return if told.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let config = match Config::load(&flags) {
        Ok(config) => config,
        Err(mistakes) => return complain(&mistakes, EXIT_CONFIG),
    };
    if flags.check_config {
        return tell_checked(flags.config.as_deref());
    }
    let filter = match telemetry::init("oblet-agent", &config.log_filter, config.log_format) {
        Ok(filter) => filter,
        Err(error) => return complain(&error, EXIT_CONFIG),
    };
    match run(config, flags, filter, &service) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the agent stops: {}", telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn tell_checked(file: Option<&Path>) -> ExitCode {
    let file = file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    // Nobody is left to be told if stdout is closed.
    let _ = writeln!(
        std::io::stdout(),
        "The configuration is valid. Checked: all settings, from {file}, the environment and the flags, and that the \
         certificates and the key can be read. Not checked: whether the ports are free and the directories writable."
    );
    ExitCode::SUCCESS
}

fn complain(problem: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "oblet-agent: {}", telemetry::chain(problem));
    code.into()
}

fn run(config: Config, flags: Flags, filter: LogFilter, service: &ServiceManager) -> anyhow::Result<()> {
    descriptors::raise_limit();
    let _state = StateDirectory::lock(&config.service.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let ended = runtime.block_on(serve(config, flags, filter, service));
    // Operations under way are left to recovery; a blocked thread must not hold up the exit.
    runtime.shutdown_background();
    ended
}

async fn serve(mut config: Config, flags: Flags, filter: LogFilter, service: &ServiceManager) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone(), service.clone())?);
    let hangup = signal(SignalKind::hangup())?;
    let metrics = config.metrics_listen.map(agent::listen).transpose()?;
    if let Some(listener) = &metrics {
        config.service.metrics_port = listener.local_addr()?.port();
    }
    let supervisor = config.supervisor.open(&config.host.root_dir).context("no supervisor")?;
    let host = Arc::new(Host::open(config.host, supervisor)?);
    let start = agent::start(config.service, host.clone(), host.clone(), shutdown.clone());
    let agent = service.while_starting(start).await?;
    service.ready();
    let reload = reload_on(hangup, Reload::new(&agent, flags, config.given, filter), service);
    let running = agent.running();
    let managed = Arc::clone(&host);
    let redaction = host.redact_logs();
    let attended = service.attend(agent.heartbeats(), move || {
        format!("{} operations running, {} instances", running(), managed.instance_count())
    });
    let exporter = async {
        if let Some(listener) = metrics {
            agent::serve_metrics(listener, metrics::router(host), shutdown).await.context("the exporter failed")?;
        }
        // Without an exporter, and after its shutdown, the end of the agent decides.
        std::future::pending().await
    };
    tokio::select! {
        ended = agent.wait() => ended.map_err(Into::into),
        failed = exporter => failed,
        () = reload => unreachable_end("the answer to SIGHUP"),
        () = redaction => unreachable_end("the look at the logs of proxies"),
        () = attended => unreachable_end("the service manager's attendant"),
    }
}

/// Neither ends before the agent does.
fn unreachable_end(what: &str) -> anyhow::Result<()> {
    anyhow::bail!("{what} ended unexpectedly")
}

/// SIGTERM and SIGINT stop the agent.
fn stop_on_signal(
    shutdown: CancellationToken,
    service: ServiceManager,
) -> std::io::Result<impl Future<Output = ()> + use<>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        service.stopping();
        shutdown.cancel();
    })
}

async fn reload_on(mut hangup: Signal, reload: Reload, service: &ServiceManager) {
    while hangup.recv().await.is_some() {
        service.reloading();
        match reload.reload() {
            Ok(needs_restart) => telemetry::reloaded(&needs_restart),
            Err(error) => telemetry::not_reloaded(&error),
        }
        service.ready();
    }
}
