//! The contract's service over the runner: parse, ask, answer.

use super::{
    certificates::{Certificates, not_renewable},
    describe::HostView,
    operation::Record,
    packages::PackageStore,
    runner::{Runner, Submitted, refused},
    watch, wire,
};
use crate::{
    rpc::{Refused, v1},
    steps::Policy,
};
use std::{path::PathBuf, sync::Arc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

pub(super) struct AgentApi {
    pub(super) runner: Arc<Runner>,
    pub(super) packages: PackageStore,
    pub(super) view: Arc<dyn HostView>,
    pub(super) disks: Vec<PathBuf>,
    pub(super) metrics_port: u16,
    /// None if the agent's identity cannot be exchanged.
    pub(super) certificates: Option<Arc<Certificates>>,
}

const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

impl AgentApi {
    fn operation(&self, record: &Record) -> v1::Operation {
        wire::operation(record, self.runner.logs().len(&record.key.run_id()))
    }
}

#[tonic::async_trait]
impl v1::agent_service_server::AgentService for AgentApi {
    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let request = request.into_inner();
        let wait = wire::wait(&request)?;
        let order = wire::order(request)?;
        let is_check = order.step.info().policy == Policy::Pure;
        let Submitted { mut record, mut log } = self.runner.submit(order).await?;
        if !is_check && !wait.is_zero() {
            record = self.runner.over_within(record, wait).await?;
            if record.phase.is_over() {
                log = watch::log(&self.runner, &record.key, 0).await?;
            }
        }
        // A check brings its log along, and has none on disk.
        let log_bytes = if is_check { log.len() as u64 } else { self.runner.logs().len(&record.key.run_id()) };
        let operation = wire::operation(&record, log_bytes);
        Ok(Response::new(v1::SubmitResponse { operation: Some(operation), log }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let record = self.runner.get(wire::key(request.into_inner().key)?).await?;
        Ok(Response::new(v1::GetResponse { operation: Some(self.operation(&record)) }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let record = self.runner.get(wire::key(request.key)?).await?;
        let stream = watch::watch(Arc::clone(&self.runner), record, request.after_sequence, request.log_offset);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn cancel(&self, request: Request<v1::CancelRequest>) -> Result<Response<v1::CancelResponse>, Status> {
        let request = request.into_inner();
        let record = self.runner.cancel(wire::key(request.key)?, wire::epoch(request.epoch)?).await?;
        Ok(Response::new(v1::CancelResponse { operation: Some(self.operation(&record)) }))
    }

    async fn acknowledge(
        &self,
        request: Request<v1::AcknowledgeRequest>,
    ) -> Result<Response<v1::AcknowledgeResponse>, Status> {
        let request = request.into_inner();
        let epoch = wire::epoch(request.epoch)?;
        let keys = wire::acknowledged(request)?;
        self.runner.acknowledge_all(keys, epoch).await?;
        Ok(Response::new(v1::AcknowledgeResponse { more_read: true }))
    }

    async fn list_operations(
        &self,
        request: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        let after = match request.page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| wire::bad_request("page_token", "is not one of this agent's"))?,
        };
        let limit = match request.page_size {
            0 => DEFAULT_PAGE,
            size => size.min(LARGEST_PAGE),
        };
        let page = self.runner.journal().list(after, limit, request.unfinished_only).await.map_err(refused)?;
        Ok(Response::new(v1::ListOperationsResponse {
            operations: page.records.iter().map(|record| self.operation(record)).collect(),
            next_page_token: page.next.map(|position| position.to_string()).unwrap_or_default(),
        }))
    }

    async fn describe_host(
        &self,
        _request: Request<v1::DescribeHostRequest>,
    ) -> Result<Response<v1::DescribeHostResponse>, Status> {
        let (view, disks) = (Arc::clone(&self.view), self.disks.clone());
        let mut description = crate::blocking::run(move || super::describe::describe(&disks, view.as_ref()))
            .await
            .map_err(|error| Refused::Internal(error.to_string()))?;
        description.epoch = self.runner.journal().highest_epoch();
        description.metrics_port = self.metrics_port.into();
        Ok(Response::new(description))
    }

    async fn put_package(
        &self,
        request: Request<v1::PutPackageRequest>,
    ) -> Result<Response<v1::PutPackageResponse>, Status> {
        if self.runner.draining().is_cancelled() {
            return Err(Refused::Draining.into());
        }
        Ok(Response::new(self.packages.put(request.into_inner()).await?))
    }

    async fn create_signing_request(
        &self,
        _request: Request<v1::CreateSigningRequestRequest>,
    ) -> Result<Response<v1::CreateSigningRequestResponse>, Status> {
        let request_pem = self.certificates.as_ref().ok_or_else(not_renewable)?.request().await?;
        Ok(Response::new(v1::CreateSigningRequestResponse { request_pem }))
    }

    async fn install_certificate(
        &self,
        request: Request<v1::InstallCertificateRequest>,
    ) -> Result<Response<v1::InstallCertificateResponse>, Status> {
        let certificates = self.certificates.as_ref().ok_or_else(not_renewable)?;
        certificates.install(request.into_inner().certificate_pem).await?;
        Ok(Response::new(v1::InstallCertificateResponse {}))
    }
}
