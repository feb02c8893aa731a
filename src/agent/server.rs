//! The agent from its socket to its end.

use super::{
    certificates::Certificates,
    describe::HostView,
    handshake,
    journal::{Journal, JournalError, JournalFailure, OpenError, private_directory},
    logs::LogStore,
    packages::PackageStore,
    runner::Runner,
    service::AgentApi,
    step::Carrier,
};
use crate::{
    rpc::{self, v1::agent_service_server::AgentServiceServer},
    service_manager::Heartbeats,
    telemetry::chain,
    tls,
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Server,
    server::{Connected, TcpIncoming},
};

/// What the agent needs to know to serve.
#[derive(Clone)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Told to the coordinator; 0 when the exporter is off.
    pub metrics_port: u16,
    pub state_dir: PathBuf,
    /// Of the host that is managed; its room on disk is told with that of the state directory.
    pub root_dir: PathBuf,
    pub identity: tls::Identity,
    /// Where the identity is on disk; without them it cannot be renewed.
    pub identity_paths: Option<tls::IdentityPaths>,
    pub reflection: bool,
    /// How long acknowledged operations are kept.
    pub retention: Duration,
    /// How large all logs of operations together may grow before acknowledged ones are removed.
    pub log_limit_bytes: u64,
    /// How long calls may take to end when the agent stops.
    pub grace: Duration,
}

/// The part of the settings that changes while the agent runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub retention: Duration,
    pub log_limit_bytes: u64,
    pub grace: Duration,
}

impl Settings {
    pub fn limits(&self) -> Limits {
        Limits { retention: self.retention, log_limit_bytes: self.log_limit_bytes, grace: self.grace }
    }
}

/// Why the agent cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the journal cannot be opened")]
    Open(#[from] OpenError),
    #[error("running operations cannot be resumed")]
    Recover(#[from] JournalError),
    #[error("the journal has failed; the agent must restart to recover from the disk")]
    Journal(#[from] JournalFailure),
    #[error("{address} cannot be listened on")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("TLS cannot be offered")]
    Tls(#[from] tls::TlsError),
    #[error("gRPC cannot be served")]
    Serve(#[from] tonic::transport::Error),
    #[error("gRPC reflection cannot be offered")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// An agent that runs.
#[derive(Debug)]
pub struct Agent {
    address: SocketAddr,
    tls: tls::AgentTls,
    beats: mpsc::Sender<oneshot::Sender<()>>,
    started: Started,
}

/// The agent behind its listener.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) serving: JoinHandle<Result<(), AgentError>>,
    limits: watch::Sender<Limits>,
    /// Whoever keeps a runner keeps the journal open.
    runner: Weak<Runner>,
}

impl Agent {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it shows to callers, to be replaced when it was renewed.
    pub fn tls(&self) -> &tls::AgentTls {
        &self.tls
    }

    /// What to keep for how long, and how to stop, to be replaced while it runs.
    pub fn limits(&self) -> &watch::Sender<Limits> {
        &self.started.limits
    }

    /// How many operations run or wait for their turn, as a function that outlives the agent.
    pub fn running(&self) -> impl Fn() -> usize + Send + use<> {
        let runner = Weak::clone(&self.started.runner);
        move || runner.upgrade().map_or(0, |runner| runner.running())
    }

    /// The parts that have to go on for ever.
    pub fn heartbeats(&self) -> Heartbeats {
        let mut heartbeats = Heartbeats::default();
        let beats = self.beats.clone();
        heartbeats.add("the listener", move || {
            let beats = beats.clone();
            async move {
                let (beat, heard) = oneshot::channel();
                // A listener that is gone is no longer asked: the agent stops.
                if beats.send(beat).await.is_ok() {
                    let _ = heard.await;
                }
            }
        });
        let runner = Weak::clone(&self.started.runner);
        heartbeats.add("the runner and its journal", move || {
            let runner = runner.upgrade();
            async move {
                if let Some(runner) = runner {
                    runner.beat().await;
                }
            }
        });
        heartbeats
    }

    /// Ends after the shutdown, or with what made the agent stop.
    pub async fn wait(self) -> Result<(), AgentError> {
        self.started.serving.await.unwrap_or(Err(AgentError::Ended("the server task")))
    }
}

/// tonic's own listener stops at 128, and reconnecting coordinators then wait for seconds.
const BACKLOG: u32 = 1024;
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CALLS_PER_CONNECTION: usize = 256;
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// How long the journal may take to close.
const CLOSE: Duration = Duration::from_secs(5);
const COLLECT_EVERY: Duration = Duration::from_secs(3600);

/// Opens the journal, takes up what was under way, and serves until `shutdown`.
///
/// The caller holds [`crate::config::StateDirectory`].
pub async fn start(
    settings: Settings,
    carrier: Arc<dyn Carrier>,
    view: Arc<dyn HostView>,
    shutdown: CancellationToken,
) -> Result<Agent, AgentError> {
    tls::install_crypto_provider();
    let listener = listen(settings.listen)?;
    let address = listener.local_addr().map_err(|source| AgentError::Listen { address: settings.listen, source })?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(KEEPALIVE));
    let tls = tls::AgentTls::new(&settings.identity)?;
    let (beats, asked) = mpsc::channel(1);
    let incoming = handshake::over_tls(incoming, tls.clone(), asked);
    let started = start_on(settings, Some(tls.clone()), incoming, carrier, view, shutdown).await?;
    tracing::info!(%address, "the agent is ready");
    Ok(Agent { address, tls, beats, started })
}

/// Starts the agent on connections of any kind; `tls` is what they are made with, if it can be exchanged.
pub(crate) async fn start_on<I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static>(
    settings: Settings,
    tls: Option<tls::AgentTls>,
    incoming: impl Stream<Item = io::Result<I>> + Send + 'static,
    carrier: Arc<dyn Carrier>,
    view: Arc<dyn HostView>,
    shutdown: CancellationToken,
) -> Result<Started, AgentError> {
    for name in ["logs", "packages"] {
        private_directory(&settings.state_dir.join(name))?;
    }
    let (journal, writer) = Journal::open(&settings.state_dir).await?;
    let runner = Runner::new(journal, LogStore::new(settings.state_dir.join("logs")), carrier);
    let recovered = runner.recover().await?;
    tracing::info!(recovered, "running operations are resumed");
    let api = AgentApi {
        runner: Arc::clone(&runner),
        packages: PackageStore::new(settings.state_dir.join("packages")),
        view,
        disks: disks(&settings.root_dir, &settings.state_dir),
        metrics_port: settings.metrics_port,
        certificates: settings.identity_paths.clone().zip(tls).map(|(paths, tls)| Certificates::new(paths, tls)),
    };
    let (limits, limited) = watch::channel(settings.limits());
    let weak = Arc::downgrade(&runner);
    drop(runner);
    let serving = tokio::spawn(serve(settings.reflection, limited, incoming, api, writer, shutdown));
    Ok(Started { serving, limits, runner: weak })
}

fn disks(root_dir: &Path, state_dir: &Path) -> Vec<PathBuf> {
    vec![root_dir.to_owned(), state_dir.to_owned()]
}

/// Binds a socket with room for a storm of reconnecting clients.
pub fn listen(address: SocketAddr) -> Result<TcpListener, AgentError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| AgentError::Listen { address, source })
}

/// Serves until the shutdown or until the journal fails, whichever comes first.
async fn serve<I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static>(
    reflection: bool,
    limits: watch::Receiver<Limits>,
    incoming: impl Stream<Item = io::Result<I>>,
    api: AgentApi,
    mut writer: JoinHandle<Result<(), JournalFailure>>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let runner = Arc::clone(&api.runner);
    let packages = api.packages.clone();
    let service = AgentServiceServer::new(api)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AgentServiceServer<AgentApi>>().await;
    let builder =
        || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(rpc::DESCRIPTOR);
    let reflect = reflection.then(|| builder().build_v1()).transpose()?;
    // What clients knew before v1, such as those of Python.
    let reflect_alpha = reflection.then(|| builder().build_v1alpha()).transpose()?;
    let stopping = CancellationToken::new();
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .add_service(health_service)
        .add_optional_service(reflect)
        .add_optional_service(reflect_alpha)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
    let mut server = Box::pin(server);
    let mut collector = Box::pin(collect(&runner, &packages, limits.clone()));
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        ended = &mut server => ended.map_err(AgentError::from).and(Err(AgentError::Ended("the gRPC server"))),
        ended = &mut writer => {
            runner.abandon();
            return Err(journal_ended(ended));
        }
        () = &mut collector => Err(AgentError::Ended("the collector")),
    };
    let grace = limits.borrow().grace;
    tracing::info!(grace_seconds = grace.as_secs(), "the agent stops");
    health.set_not_serving::<AgentServiceServer<AgentApi>>().await;
    runner.draining().cancel();
    stopping.cancel();
    if ended.is_ok() && tokio::time::timeout(grace, &mut server).await.is_err() {
        tracing::warn!("calls were aborted: they did not finish within the grace time");
    }
    runner.abandon();
    // The writer ends with the last handle, so that the next agent finds a journal that was closed.
    drop((server, collector));
    drop(runner);
    if tokio::time::timeout(CLOSE, writer).await.is_err() {
        tracing::warn!("the journal was not closed; the next start recovers it");
    }
    ended
}

fn journal_ended(ended: Result<Result<(), JournalFailure>, tokio::task::JoinError>) -> AgentError {
    match ended {
        Ok(Err(failure)) => failure.into(),
        Ok(Ok(())) | Err(_) => AgentError::Ended("the journal's writer"),
    }
}

async fn collect(runner: &Runner, packages: &PackageStore, mut limits: watch::Receiver<Limits>) {
    let mut hours = tokio::time::interval(COLLECT_EVERY);
    loop {
        tokio::select! {
            _ = hours.tick() => {}
            // Whoever lowers a limit may be short of room.
            Ok(()) = limits.changed() => {}
        }
        let Limits { retention, log_limit_bytes, .. } = *limits.borrow_and_update();
        match runner.collect(retention, log_limit_bytes).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "acknowledged operations were forgotten"),
            Err(error) => tracing::warn!(error = chain(&error), "acknowledged operations stay for another hour"),
        }
        let collected = match runner.needed_packages().await {
            Ok(needed) => packages.collect(retention, needed).await,
            Err(error) => Err(error.into()),
        };
        match collected {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "packages that were not used were removed"),
            Err(error) => tracing::warn!(error = chain(&error), "old packages stay for another hour"),
        }
    }
}
