//! Simulated hosts: agents of the real contract over real gRPC with mutual TLS, whose steps succeed at once.

use oblet::{
    rpc::v1::{self, agent_service_server},
    tls::{CertificateAuthority, Role},
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio_stream::Iter;
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Server, ServerTlsConfig, server::TcpIncoming},
};

pub(crate) const AGENT_PORT: u16 = 62898;

type Items = Iter<std::vec::IntoIter<Result<v1::WatchResponse, Status>>>;

/// An agent without a host.
struct Host;

fn operation(key: Option<v1::OperationKey>) -> v1::Operation {
    v1::Operation { key, phase: v1::Phase::Finished.into(), outcome: Some(succeeded()), ..Default::default() }
}

fn succeeded() -> v1::Outcome {
    v1::Outcome { result: v1::Result::Succeeded.into(), effect: v1::Effect::Done.into(), ..Default::default() }
}

#[tonic::async_trait]
impl agent_service_server::AgentService for Host {
    type WatchStream = Items;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let operation = operation(request.into_inner().key);
        Ok(Response::new(v1::SubmitResponse { operation: Some(operation), log: b"done\n".to_vec() }))
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
        Ok(Response::new(v1::AcknowledgeResponse {}))
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
        let next_offset = request.into_inner().size_bytes;
        Ok(Response::new(v1::PutPackageResponse { next_offset, complete: true }))
    }
}

/// Address of a host; all of 127.0.0.0/8 is this machine.
pub(crate) fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

/// Serves `count` hosts on the runtime that calls this.
pub(crate) async fn serve(authority: &CertificateAuthority, count: u16) {
    for number in 1..=count {
        let address = address(number);
        let issued = authority.issue(Role::Agent, "simulated", &[IpAddr::V4(address)]).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(tonic::transport::Identity::from_pem(&issued.certificate_pem, issued.key_pem.as_bytes()))
            .client_ca_root(Certificate::from_pem(authority.certificate_pem()));
        let listener = tokio::net::TcpListener::bind(SocketAddr::from((address, AGENT_PORT))).await.unwrap();
        let service = agent_service_server::AgentServiceServer::new(Host);
        let server = Server::builder().tls_config(tls).unwrap().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
    }
}
