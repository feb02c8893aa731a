//! What the machine gives without the coordinator.

use crate::hosts::{self, Hosts};
use oblet::{
    coordinator::agents::{Agent, AgentAddress, AgentPool},
    graph::Direction,
    rpc::v1,
    steps::{AgentStep, CheckCommands, InstallPackage, fingerprint},
    tls::{CertificateAuthority, Identity, Role},
};
use sqlx::{ConnectOptions as _, Executor as _, sqlite::SqliteConnectOptions};
use std::{
    fs,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use uuid::Uuid;

const TIME: Duration = Duration::from_secs(2);
/// Hosts that are called, or copied to, at a time.
const AT_A_TIME: usize = 64;
const COPIES_AT_A_TIME: usize = 16;

/// Transactions of one row per second, each synced, with the settings of the coordinator's store.
pub(crate) async fn synced_commits(directory: &Path) -> f64 {
    let options = SqliteConnectOptions::new().filename(directory.join("floor.db")).create_if_missing(true);
    let mut connection = options
        .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal)
        .synchronous(sqlx::sqlite::SqliteSynchronous::Full)
        .connect()
        .await
        .unwrap();
    connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)").await.unwrap();
    let (begin, mut count) = (Instant::now(), 0_u32);
    while begin.elapsed() < TIME {
        connection
            .execute("INSERT INTO events (payload) VALUES ('{\"kind\":\"dispatched\",\"node\":1}')")
            .await
            .unwrap();
        count += 1;
    }
    f64::from(count) / begin.elapsed().as_secs_f64()
}

fn on_a_thread<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    })
}

/// Does for `count` hosts the calls of an added proxy and nothing else: one question, three checks, six steps, one
/// acknowledgement. Answers the seconds. The connections are open, as those of the coordinator are.
pub(crate) async fn calls(authority: &CertificateAuthority, directory: &Path, count: u16) -> f64 {
    let pool = AgentPool::new(&identity(authority, directory)).unwrap();
    let client = on_a_thread(async move {
        let agents = (1..=count)
            .map(|number| pool.agent(AgentAddress::new(IpAddr::V4(hosts::address(number)), hosts::AGENT_PORT)));
        let agents: Vec<Agent> = agents.collect();
        for_each(&agents, |agent| async move { drop(agent.describe_host().await.unwrap()) }).await;
        let begin = Instant::now();
        for_each(&agents, add_a_proxy).await;
        begin.elapsed().as_secs_f64()
    });
    tokio::task::spawn_blocking(|| client.join().unwrap()).await.unwrap()
}

async fn for_each<F: Future<Output = ()> + Send + 'static>(agents: &[Agent], call: impl Fn(Agent) -> F) {
    let mut calls = JoinSet::new();
    for agent in agents {
        if calls.len() == AT_A_TIME {
            calls.join_next().await.unwrap().unwrap();
        }
        calls.spawn(call(agent.clone()));
    }
    while let Some(called) = calls.join_next().await {
        called.unwrap();
    }
}

async fn add_a_proxy(agent: Agent) {
    let check = AgentStep::CheckCommands(CheckCommands { commands: vec!["nc".parse().unwrap()] });
    let install = AgentStep::InstallPackage(InstallPackage {
        package: "obproxy-1.9.1.1-1919579.el7.x86_64.rpm".parse().unwrap(),
        sha256: "a".repeat(64).parse().unwrap(),
    });
    agent.describe_host().await.unwrap();
    let mut keys = Vec::new();
    for (step, times) in [(check, 3), (install, 6)] {
        for _ in 0..times {
            let key = v1::OperationKey { operation_id: Uuid::now_v7().to_string(), attempt: 1 };
            let request = v1::SubmitRequest {
                key: Some(key.clone()),
                epoch: 1,
                fingerprint: fingerprint(&step, Direction::Execute),
                direction: v1::Direction::Execute.into(),
                step: Some((&step).into()),
                ..Default::default()
            };
            agent.submit(request).await.unwrap();
            keys.push(key);
        }
    }
    agent.acknowledge(&keys, 1).await.unwrap();
}

fn identity(authority: &CertificateAuthority, directory: &Path) -> Identity {
    let issued = authority.issue(Role::Coordinator, "bench", &[]).unwrap();
    let ca = directory.join("floor-ca.pem");
    fs::write(&ca, authority.certificate_pem()).unwrap();
    let (certificate, key) = issued.write(directory, "floor").unwrap();
    Identity::read(&ca, &certificate, &key).unwrap()
}

/// Copies a file to `count` receivers, each over a connection of its own with the TLS of agents; answers the seconds.
pub(crate) async fn copies(authority: &CertificateAuthority, directory: &Path, file: &Path, count: u16) -> f64 {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let server = authority.issue(Role::Agent, "sink", &[address]).unwrap().identity(authority);
    let acceptor = TlsAcceptor::from(Arc::new(server.server().unwrap()));
    let connector = TlsConnector::from(Arc::new(identity(authority, directory).client().unwrap()));
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let target: SocketAddr = listener.local_addr().unwrap();
    let file = file.to_owned();
    let begin = Instant::now();
    let sender = on_a_thread(async move {
        let mut copies = JoinSet::new();
        for _ in 0..count {
            if copies.len() == COPIES_AT_A_TIME {
                copies.join_next().await.unwrap().unwrap();
            }
            let (connector, file) = (connector.clone(), file.clone());
            copies.spawn(async move {
                let stream = TcpStream::connect(target).await.unwrap();
                let mut stream = connector.connect(address.into(), stream).await.unwrap();
                let mut file = fs::File::open(&file).unwrap();
                let mut buffer = vec![0; 1 << 20];
                loop {
                    let read = file.read(&mut buffer).unwrap();
                    if read == 0 {
                        break;
                    }
                    stream.write_all(&buffer[..read]).await.unwrap();
                }
                // The other end goes as soon as it has read all.
                let _ = stream.shutdown().await;
            });
        }
        while let Some(copied) = copies.join_next().await {
            copied.unwrap();
        }
    });
    let mut sinks = JoinSet::new();
    for _ in 0..count {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        sinks.spawn(async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut buffer = vec![0; 1 << 20];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
    }
    while let Some(sunk) = sinks.join_next().await {
        sunk.unwrap();
    }
    tokio::task::spawn_blocking(|| sender.join().unwrap()).await.unwrap();
    begin.elapsed().as_secs_f64()
}

/// Whether the hosts have all the bytes of a file each.
pub(crate) fn took_all(hosts: &Hosts, before: u64, file: &Path, count: u16) -> bool {
    hosts.received() - before == u64::from(count) * fs::metadata(file).unwrap().len()
}
