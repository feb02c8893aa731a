//! An agent in memory, for tests of those who call agents: it describes its host, asks for certificates, and does no steps.

use super::{agents::AgentPool, channel::Wire};
use crate::{
    rpc::v1::{
        self,
        agent_service_server::{AgentService, AgentServiceServer},
    },
    tls::Requested,
};
use futures_util::{StreamExt as _, stream};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use tokio_stream::Empty;
use tonic::{Request, Response, Status, transport::Server};

#[derive(Default)]
pub(super) struct FakeAgent {
    /// Nobody answers.
    pub(super) is_away: AtomicBool,
    /// It takes the certificates that it asks for.
    pub(super) takes_certificates: AtomicBool,
    /// That were made to it.
    pub(super) connections: AtomicU32,
}

impl FakeAgent {
    /// A pool in which this agent answers under every address.
    pub(super) fn everywhere(self: &Arc<Self>) -> AgentPool {
        let agent = Arc::clone(self);
        AgentPool::dialing(move |_| {
            let agent = Arc::clone(&agent);
            Box::pin(async move {
                if agent.is_away.load(Ordering::SeqCst) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
                }
                agent.connections.fetch_add(1, Ordering::SeqCst);
                let (near, far) = tokio::io::duplex(64 << 10);
                let connections = stream::iter([Ok::<_, io::Error>(far)]).chain(stream::pending());
                let server = Server::builder().add_service(AgentServiceServer::from_arc(agent));
                tokio::spawn(server.serve_with_incoming(connections));
                Ok(Box::new(near) as Box<dyn Wire>)
            })
        })
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn not_asked_for<T>() -> Answer<T> {
    Err(Status::internal("no test asks a fake agent for this"))
}

#[tonic::async_trait]
impl AgentService for FakeAgent {
    type WatchStream = Empty<Result<v1::WatchResponse, Status>>;

    async fn describe_host(&self, _: Request<v1::DescribeHostRequest>) -> Answer<v1::DescribeHostResponse> {
        Ok(Response::new(v1::DescribeHostResponse { agent_version: "1.0.0".into(), ..Default::default() }))
    }

    async fn create_signing_request(
        &self,
        _: Request<v1::CreateSigningRequestRequest>,
    ) -> Answer<v1::CreateSigningRequestResponse> {
        let request_pem = Requested::generate().unwrap().request_pem;
        Ok(Response::new(v1::CreateSigningRequestResponse { request_pem }))
    }

    async fn install_certificate(
        &self,
        _: Request<v1::InstallCertificateRequest>,
    ) -> Answer<v1::InstallCertificateResponse> {
        match self.takes_certificates.load(Ordering::SeqCst) {
            true => Ok(Response::new(v1::InstallCertificateResponse {})),
            false => Err(Status::internal("the disk is read-only")),
        }
    }

    async fn submit(&self, _: Request<v1::SubmitRequest>) -> Answer<v1::SubmitResponse> {
        not_asked_for()
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Answer<v1::GetResponse> {
        not_asked_for()
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        not_asked_for()
    }

    async fn cancel(&self, _: Request<v1::CancelRequest>) -> Answer<v1::CancelResponse> {
        not_asked_for()
    }

    async fn acknowledge(&self, _: Request<v1::AcknowledgeRequest>) -> Answer<v1::AcknowledgeResponse> {
        not_asked_for()
    }

    async fn list_operations(&self, _: Request<v1::ListOperationsRequest>) -> Answer<v1::ListOperationsResponse> {
        not_asked_for()
    }

    async fn put_package(&self, _: Request<v1::PutPackageRequest>) -> Answer<v1::PutPackageResponse> {
        not_asked_for()
    }
}
