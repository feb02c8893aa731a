//! Puts the coordinator together and serves it.

pub(super) mod guard;
pub mod live;
pub(super) mod own_certificates;

use super::{ApiSettings, ApiState, ScrapeToken, Silence, TaskEngine, clean_uploads, config_service_router, router};
use crate::{
    config::StateDirectory,
    coordinator::{
        agents::{AgentAddress, AgentPool, CallError},
        config::{Config, Retention},
        engine::{CommandError, Engine, EngineMetrics, EngineParts, SqlTaskStore, Wait},
        enrolment::Enrolment,
        host_watch,
        local::SqlLocalSteps,
        renewal::{CertificateMetrics, Renewal},
        secrets::{SecretError, Vault},
        store::{self, Store, StoreError, package, task::TaskId, user},
        trust::SqlGate,
    },
    files,
    graph::{Command, NodeIndex},
    rpc::v1,
    telemetry::stderr_is_journal,
    tls::{CertificateAuthority, Endpoint, TlsError},
};
use futures_util::future::BoxFuture;
use own_certificates::OwnCertificates;
use secrecy::SecretString;
use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{net::TcpSocket, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Name of the first user, as OCP's.
const FIRST_USER: &str = "admin";
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why the coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    StateDirectory(#[from] crate::config::LockError),
    #[error("{path} cannot be made")]
    File { path: PathBuf, source: io::Error },
    #[error("certificates cannot be prepared")]
    Tls(#[from] TlsError),
    #[error("the sealed secrets cannot be used")]
    Secret(#[from] SecretError),
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("{address} cannot be listened on")]
    Listen { address: SocketAddr, source: io::Error },
}

/// The authority of a coordinator, in its state directory.
pub fn authority(state_dir: &Path) -> Result<CertificateAuthority, StartError> {
    Ok(CertificateAuthority::load_or_create(&private_directory(state_dir, "tls")?)?)
}

fn private_directory(state_dir: &Path, name: &str) -> Result<PathBuf, StartError> {
    let path = state_dir.join(name);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
    // The authority is kept in one of them: no power cut may take its name.
    let made = made.and_then(|()| files::sync_directory_of(&path));
    made.map(|()| path.clone()).map_err(|source| StartError::File { path, source })
}

/// A coordinator that serves.
pub struct Coordinator {
    pub address: SocketAddr,
    /// Cancelled when the store failed for good: the process has to end and recover.
    pub fatal: CancellationToken,
    pub(super) own: Arc<OwnCertificates>,
    pub(super) retention: watch::Sender<Retention>,
    pub(super) grace: std::time::Duration,
    engine: Engine,
    store: Store,
    handle: axum_server::Handle<SocketAddr>,
    servers: JoinSet<(&'static str, io::Result<()>)>,
    shutdown: CancellationToken,
    _lock: StateDirectory,
}

/// Takes the state directory, recovers, and serves. Ready when this returns.
pub async fn start(config: &Config) -> Result<Coordinator, StartError> {
    let lock = StateDirectory::lock(&config.state_dir)?;
    let packages_dir = private_directory(&config.state_dir, "packages")?;
    let tls_dir = private_directory(&config.state_dir, "tls")?;
    let authority = Arc::new(authority(&config.state_dir)?);
    let own = Arc::new(OwnCertificates::issue(Arc::clone(&authority), &tls_dir, &config.advertise_addresses)?);
    let (store_file, key_file) = (config.state_dir.join(store::FILE_NAME), config.state_dir.join("secrets.key"));
    if !store_file.exists() {
        Vault::discard_unfinished(&key_file)?;
    }
    let vault = Arc::new(Vault::load_or_create(&key_file)?);
    let store = Store::open(&store_file).await?;
    create_first_user(&store, &vault, password_file(config).as_deref()).await?;
    let rows = package::all(&mut *store.readers().acquire().await.map_err(StoreError::from)?).await?;
    clean_uploads(&packages_dir, &rows).map_err(|source| StartError::File { path: packages_dir.clone(), source })?;

    let (shutdown, fatal) = (CancellationToken::new(), CancellationToken::new());
    let registry = prometheus::Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let gate = Arc::new(SqlGate { store: store.clone() });
    let agents = Arc::new(AgentPool::guarded(own.calls(), gate));
    let enrolment = Arc::new(Enrolment::new(store.clone(), authority, config.agent_certificate_life)?);
    let renewal = Renewal::new(Arc::clone(&enrolment), Arc::clone(&agents), CertificateMetrics::register(&registry)?);
    let (vault_of_tasks, dir) = (Arc::clone(&vault), packages_dir.clone());
    let (retention, retained) = watch::channel(config.retention);
    let engine = Engine::start(EngineParts {
        running_tasks: config.running_tasks,
        tasks: Arc::new(SqlTaskStore {
            store: store.clone(),
            vault: vault_of_tasks,
            packages_dir: dir.clone(),
            retention: retained,
        }),
        local: Arc::new(SqlLocalSteps { store: store.clone(), agents: Arc::clone(&agents), packages_dir: dir }),
        agents,
        metrics: EngineMetrics::register(&registry)?,
        shutdown: shutdown.clone(),
        fatal: fatal.clone(),
    })
    .await?;
    let token_file = config.state_dir.join("prometheus-token");
    let scrape_token =
        ScrapeToken::load_or_create(&token_file).map_err(|source| StartError::File { path: token_file, source })?;
    let rest_listener = listen(config.listen)?;
    let listen_error = |source| StartError::Listen { address: config.listen, source };
    let rest_address = rest_listener.local_addr().map_err(listen_error)?;
    let advertised = config.advertise_addresses.first().cloned().unwrap_or(Endpoint::Ip(rest_address.ip()));
    let state = ApiState::new(ApiSettings {
        store: store.clone(),
        vault,
        packages_dir,
        max_package_bytes: ApiSettings::DEFAULT_MAX_PACKAGE_BYTES,
        address: advertised.to_string(),
        config_service_reporters: config.config_service_reporters.clone(),
        config_url_base: config.config_url_base.clone(),
        rest_url: format!("https://{}", advertised.with_port(rest_address.port())),
        scrape_token,
        enrolment,
        engine: Arc::new(Ready { engine: engine.clone(), fatal: fatal.clone() }),
        registry,
        shutdown: shutdown.clone(),
    })?;
    let config_listener = listen(config.config_service_listen)?;
    let plain_listener = config.http_listen.map(listen).transpose()?;
    let handle = axum_server::Handle::new();
    let https = guard::https(rest_listener, own.rest(), guard::REST).map_err(listen_error)?.handle(handle.clone());
    let http = guard::http(config_listener, guard::CONFIG_SERVICE).map_err(listen_error)?.handle(handle.clone());
    let mut servers = JoinSet::new();
    let watch = host_watch::watch(store.clone(), Arc::clone(engine.agents()), shutdown.clone());
    servers.spawn(async move {
        watch.await;
        ("the watch of the hosts", Ok(()))
    });
    let rest_service = router(state.clone()).into_make_service_with_connect_info::<SocketAddr>();
    servers.spawn(async move { ("the HTTPS server", https.serve(rest_service).await) });
    if let Some(listener) = plain_listener {
        let address = listener.local_addr().map_err(listen_error)?;
        tracing::warn!(%address, "the API is served without TLS: passwords cross the network in clear text");
        let plain = guard::http(listener, guard::REST).map_err(listen_error)?.handle(handle.clone());
        let service = router(state.clone()).into_make_service_with_connect_info::<SocketAddr>();
        servers.spawn(async move { ("the HTTP server", plain.serve(service).await) });
    }
    let config_service = config_service_router(state).into_make_service_with_connect_info::<SocketAddr>();
    servers.spawn(async move { ("the config service", http.serve(config_service).await) });
    let own_renewal = shutdown.clone().run_until_cancelled_owned(Arc::clone(&own).keep());
    servers.spawn(async move { ("the renewal of certificates", own_renewal.await.map_or(Ok(()), Ok)) });
    let renewal = shutdown.clone().run_until_cancelled_owned(renewal.keep());
    servers.spawn(async move { ("the renewal of agents' certificates", renewal.await.map_or(Ok(()), Ok)) });
    Ok(Coordinator {
        address: rest_address,
        fatal,
        own,
        retention,
        grace: config.grace,
        engine,
        store,
        handle,
        servers,
        shutdown,
        _lock: lock,
    })
}

impl Coordinator {
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ends if a server does, which none ever should; says which.
    pub async fn served(&mut self) -> String {
        match self.servers.join_next().await {
            Some(Ok((name, Ok(())))) => format!("{name} ended"),
            Some(Ok((name, Err(error)))) => format!("{name} ended: {error}"),
            Some(Err(error)) => format!("a server was aborted: {error}"),
            None => "no server runs".into(),
        }
    }

    /// Stops accepting, lets requests and drivers end, at most the grace time. What was handed out goes on on the hosts.
    pub async fn stop(mut self) {
        self.handle.graceful_shutdown(Some(self.grace));
        self.shutdown.cancel();
        if tokio::time::timeout(self.grace, self.engine.stopped()).await.is_err() {
            tracing::warn!("drivers did not stop within the grace time");
        }
        let ended = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(self.grace, ended).await.is_err() {
            tracing::warn!("requests did not end within the grace time");
        }
        self.store.close().await;
    }
}

/// With a long enough queue: the default of 128 stalls when a fleet comes back at once.
fn listen(address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let bind = || -> io::Result<std::net::TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bind().map_err(|source| StartError::Listen { address, source })
}

/// Where the journal reads stderr, others may read the journal.
fn password_file(config: &Config) -> Option<PathBuf> {
    let beside_the_store = || stderr_is_journal().then(|| config.state_dir.join("initial-password"));
    config.initial_password_file.clone().or_else(beside_the_store)
}

/// The password is told once: in a file for its owner's eyes, or on stderr where there is none.
async fn create_first_user(store: &Store, vault: &Vault, file: Option<&Path>) -> Result<(), StartError> {
    let mut transaction = store.begin().await?;
    if user::count(&mut transaction).await? > 0 {
        return Ok(());
    }
    let password = vault.generate_password()?;
    match file {
        Some(path) => {
            write_password(path, &password).map_err(|source| StartError::File { path: path.into(), source })?;
            tracing::info!(path = %path.display(), "the password of the user {FIRST_USER} is in a file");
        }
        // Not through the log, which others may read.
        None => writeln!(io::stderr(), "the password of user {FIRST_USER} is {}", password.as_str())
            .map_err(|source| StartError::File { path: "stderr".into(), source })?,
    }
    user::create(&mut transaction, FIRST_USER, &SecretString::from(password.as_str())).await?;
    transaction.commit().await.map_err(StoreError::from)?;
    Ok(())
}

fn write_password(path: &Path, password: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    writeln!(file, "{password}")?;
    file.sync_all()
}

/// The engine as the API sees it.
struct Ready {
    engine: Engine,
    fatal: CancellationToken,
}

impl TaskEngine for Ready {
    fn epoch(&self) -> i64 {
        self.engine.epoch()
    }

    fn wake(&self, id: TaskId) {
        drop(self.engine.wake(id));
    }

    fn command<'a>(&'a self, id: TaskId, command: Command, by: &'a str) -> BoxFuture<'a, Result<(), CommandError>> {
        Box::pin(self.engine.command(id, command, by))
    }

    fn commits(&self) -> watch::Receiver<u64> {
        self.engine.commits()
    }

    fn waits(&self, id: TaskId) -> HashMap<NodeIndex, Wait> {
        self.engine.waits(id)
    }

    fn describe_host(
        &self,
        address: IpAddr,
        agent_port: u16,
    ) -> BoxFuture<'_, Result<v1::DescribeHostResponse, Silence>> {
        let agent = self.engine.agents().agent(AgentAddress::new(address, agent_port));
        Box::pin(async move {
            agent.describe_host().await.map_err(|error| Silence {
                problem: error.to_string(),
                is_stopped: matches!(error, CallError::Unknown { refused: true, .. }),
            })
        })
    }

    fn cut_off(&self, host: IpAddr) {
        self.engine.agents().cut(host);
    }

    fn is_ready(&self) -> bool {
        !self.fatal.is_cancelled()
    }
}
