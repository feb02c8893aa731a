//! Simulated hosts: agents of the real contract over real gRPC with mutual TLS, whose steps succeed at once. They share one
//! listener, but each has a connection and a certificate of its own, and takes packages byte by byte.

use oblet::{
    rpc::v1::{self, agent_service_server},
    tls::{CertificateAuthority, Role},
};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{net::TcpSocket, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Iter, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, transport::Server};

/// Not that of real agents, some of which may run beside this.
pub(crate) const AGENT_PORT: u16 = 52898;

type Items = Iter<std::vec::IntoIter<Result<v1::WatchResponse, Status>>>;

/// Agents without a host.
#[derive(Clone, Default)]
pub(crate) struct Hosts {
    /// Bytes that each has of the package that it was sent last.
    packages: Arc<Mutex<HashMap<IpAddr, (String, u64)>>>,
    /// Bytes of packages that all of them have got.
    received: Arc<AtomicU64>,
}

const LOG: &[u8] = b"done\n";

fn operation(key: Option<v1::OperationKey>) -> v1::Operation {
    v1::Operation {
        key,
        phase: v1::Phase::Finished.into(),
        outcome: Some(succeeded()),
        log_bytes: LOG.len() as u64,
        ..Default::default()
    }
}

fn succeeded() -> v1::Outcome {
    v1::Outcome { result: v1::Result::Succeeded.into(), effect: v1::Effect::Done.into(), ..Default::default() }
}

#[tonic::async_trait]
impl agent_service_server::AgentService for Hosts {
    type WatchStream = Items;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let operation = operation(request.into_inner().key);
        Ok(Response::new(v1::SubmitResponse { operation: Some(operation), log: LOG.to_vec() }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        Ok(Response::new(v1::GetResponse { operation: Some(operation(request.into_inner().key)) }))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Items>, Status> {
        let event = v1::Event {
            sequence: 2,
            phase: v1::Phase::Finished.into(),
            outcome: Some(succeeded()),
            ..Default::default()
        };
        let item = v1::WatchResponse { item: Some(v1::watch_response::Item::Event(event)) };
        Ok(Response::new(tokio_stream::iter(vec![Ok(item)])))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::CancelResponse>, Status> {
        Ok(Response::new(v1::CancelResponse { operation: Some(operation(request.into_inner().key)) }))
    }

    async fn acknowledge(
        &self,
        _: Request<v1::AcknowledgeRequest>,
    ) -> Result<Response<v1::AcknowledgeResponse>, Status> {
        Ok(Response::new(v1::AcknowledgeResponse { more_read: true }))
    }

    async fn list_operations(
        &self,
        _: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        Ok(Response::new(v1::ListOperationsResponse::default()))
    }

    async fn describe_host(
        &self,
        _: Request<v1::DescribeHostRequest>,
    ) -> Result<Response<v1::DescribeHostResponse>, Status> {
        Ok(Response::new(v1::DescribeHostResponse {
            architecture: std::env::consts::ARCH.into(),
            hostname: "simulated".into(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            metrics_port: 62899,
            time: Some(std::time::SystemTime::now().into()),
            ..Default::default()
        }))
    }

    async fn put_package(
        &self,
        request: Request<v1::PutPackageRequest>,
    ) -> Result<Response<v1::PutPackageResponse>, Status> {
        let host = request.local_addr().unwrap().ip();
        let chunk = request.into_inner();
        let mut packages = self.packages.lock().unwrap();
        let (digest, there) = packages.entry(host).or_default();
        if *digest != chunk.sha256 {
            (*digest, *there) = (chunk.sha256, 0);
        }
        assert!(chunk.offset <= *there, "a hole in a package");
        *there = chunk.offset.max(*there) + chunk.data.len() as u64;
        self.received.fetch_add(chunk.data.len() as u64, Ordering::Relaxed);
        Ok(Response::new(v1::PutPackageResponse { next_offset: *there, complete: *there == chunk.size_bytes }))
    }

    async fn create_signing_request(
        &self,
        _request: Request<v1::CreateSigningRequestRequest>,
    ) -> Result<Response<v1::CreateSigningRequestResponse>, Status> {
        Err(Status::unimplemented("these hosts live for minutes"))
    }

    async fn install_certificate(
        &self,
        _request: Request<v1::InstallCertificateRequest>,
    ) -> Result<Response<v1::InstallCertificateResponse>, Status> {
        Err(Status::unimplemented("these hosts live for minutes"))
    }
}

/// Address of a host; all of 127.0.0.0/8 is this machine.
pub(crate) fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

/// Serves `count` hosts on the runtime that calls this; a stranger's certificate is nobody's, so all come from `authority`.
pub(crate) async fn serve(authority: &CertificateAuthority, count: u16) -> Hosts {
    let mut configs = HashMap::new();
    for number in 1..=count {
        let address = IpAddr::V4(address(number));
        let identity = authority.issue(Role::Agent, "simulated", &[address]).unwrap().identity(authority);
        configs.insert(address, Arc::new(identity.server().unwrap()));
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, AGENT_PORT))).unwrap();
    let listener = socket.listen(4096).unwrap();
    let (connections, incoming) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Some(config) = stream.local_addr().ok().and_then(|address| configs.get(&address.ip())) else {
                continue;
            };
            stream.set_nodelay(true).unwrap();
            let (acceptor, connections) = (TlsAcceptor::from(Arc::clone(config)), connections.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = connections.send(Ok::<_, io::Error>(stream)).await;
                }
            });
        }
    });
    let hosts = Hosts::default();
    let service = agent_service_server::AgentServiceServer::new(hosts.clone());
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(incoming)));
    hosts
}

impl Hosts {
    /// Bytes of packages that all hosts have got.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
