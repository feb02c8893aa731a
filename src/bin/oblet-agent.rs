//! The daemon of a database host.

use anyhow::Context as _;
use clap::Parser as _;
use oblet::{
    agent::{
        self,
        config::{Config, Flags},
        host::{Host, metrics},
    },
    config::{EXIT_CONFIG, EXIT_USAGE, StateDirectory},
    telemetry,
};
use std::{io::Write as _, process::ExitCode, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == "shim") {
        return agent::host::shim::main();
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
        return ExitCode::SUCCESS;
    }
    if let Err(error) = telemetry::init(&config.log_filter, config.log_format) {
        return complain(error.as_ref(), EXIT_CONFIG);
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the agent stops: {}", telemetry::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn complain(problem: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "oblet-agent: {}", telemetry::chain(problem));
    code.into()
}

fn run(config: Config) -> anyhow::Result<()> {
    let _state = StateDirectory::lock(&config.service.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let ended = runtime.block_on(serve(config));
    // Operations under way are left to recovery; a blocked thread must not hold up the exit.
    runtime.shutdown_background();
    ended
}

async fn serve(mut config: Config) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    tokio::spawn(stop_on_signal(shutdown.clone())?);
    let metrics = config.metrics_listen.map(agent::listen).transpose()?;
    if let Some(listener) = &metrics {
        config.service.metrics_port = listener.local_addr()?.port();
    }
    let supervisor = config.supervisor.open(&config.host.root_dir).context("no supervisor")?;
    let host = Arc::new(Host::open(config.host, supervisor)?);
    let agent = agent::start(config.service, host.clone(), host.clone(), shutdown.clone()).await?;
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
    }
}

/// SIGTERM and SIGINT stop the agent; a SIGHUP is answered in the log, because settings are read at the start only.
fn stop_on_signal(shutdown: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => tracing::info!("SIGHUP changes nothing: restart the agent to read its settings"),
            }
        }
        shutdown.cancel();
    })
}
