//! Connections to agents: opened on demand, shared, bounded, and an answer of "unknown" kept apart from "no".

pub use super::address::AgentAddress;

use super::connection::{DialError, Distrust, Gate, OpenGate, Scissors, dial};
#[cfg(test)]
use crate::simulation;
use crate::{
    rpc::{fault_reason, v1, v1::agent_service_client::AgentServiceClient, violates},
    tls::{CallerTls, Identity, TlsError},
};
use hyper_util::rt::TokioIo;
use std::{
    collections::HashMap,
    error::Error,
    io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::Semaphore,
};
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint, Uri},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A unary call that takes longer has lost its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections kept; the one that was unused longest gives way. A connection costs about 40 KiB.
const MAX_CHANNELS: usize = 4096;

/// Why a call brought no result. The difference between `Unknown` and the others decides whether it is made again.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The agent may or may not have got the call.
    #[error("agent {agent} did not answer: {message}")]
    Unknown {
        agent: AgentAddress,
        message: String,
        /// The host answers that nothing listens on the port.
        refused: bool,
    },
    /// Another operation holds what this one needs.
    #[error("agent {agent} is busy: {message}")]
    Busy { agent: AgentAddress, message: String },
    /// A newer coordinator has spoken to the agent.
    #[error("agent {agent} obeys a newer coordinator: {message}")]
    Fenced { agent: AgentAddress, message: String },
    /// The agent does not know what is asked for.
    #[error("agent {agent} does not know it: {message}")]
    NotFound { agent: AgentAddress, message: String },
    /// The agent is not spoken to, and will not be until its host is enrolled again.
    #[error("agent {agent} is not trusted: {source}")]
    Distrusted { agent: AgentAddress, source: Distrust },
    #[error("agent {agent} is too old to know this step")]
    UnknownStep { agent: AgentAddress },
    #[error("agent {agent} refused ({reason}): {message}")]
    Refused { agent: AgentAddress, reason: String, message: String },
}

impl CallError {
    fn of(agent: AgentAddress, status: &Status) -> Self {
        if let Some(source) = distrust(status) {
            return Self::Distrusted { agent, source };
        }
        let message = match status.code() {
            // tonic hides the reason of a failed connection at the end of layers that only pass it on.
            Code::Unavailable | Code::Unknown | Code::Cancelled => crate::telemetry::causes(status).pop(),
            _ => None,
        };
        let message = message.unwrap_or_else(|| status.message().to_owned());
        let reason = fault_reason(status);
        match status.code() {
            // A client's own deadline comes back as CANCELLED in tonic.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                let refused = causes(status).any(|cause| {
                    cause
                        .downcast_ref()
                        .is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused)
                });
                Self::Unknown { agent, message, refused }
            }
            Code::Aborted => Self::Busy { agent, message },
            // The step as a whole: its kind is none that the agent knows.
            Code::InvalidArgument if violates(status, "step") => Self::UnknownStep { agent },
            Code::NotFound => Self::NotFound { agent, message },
            Code::FailedPrecondition if reason.as_deref() == Some("STALE_EPOCH") => Self::Fenced { agent, message },
            code => {
                let reason = reason.unwrap_or_else(|| format!("{code:?}").to_uppercase());
                Self::Refused { agent, reason, message }
            }
        }
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |cause| (*cause).source())
}

fn distrust(status: &Status) -> Option<Distrust> {
    causes(status).filter_map(|cause| cause.downcast_ref::<DialError>()).find_map(|error| match error {
        DialError::Distrust(distrust) => Some(distrust.clone()),
        DialError::Io(_) | DialError::Certificate(_) | DialError::Undecided(_) => None,
    })
}

struct Kept {
    channel: Channel,
    used: Instant,
}

type Connect = dyn Fn(AgentAddress) -> Result<Channel, CallError> + Send + Sync;

/// The coordinator's connections to all agents.
pub struct AgentPool {
    connect: Box<Connect>,
    channels: Mutex<HashMap<AgentAddress, Kept>>,
    scissors: Arc<Scissors>,
    transfers: Arc<Semaphore>,
}

/// Chunks of packages that are on their way at a time, over all hosts. Each is in memory twice, once as it was read and
/// once as it is sent, so that a fleet that is upgraded at once costs 32 MiB and no more.
const MAX_CHUNKS: usize = 16;

impl AgentPool {
    /// A pool that shows one identity for good.
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        CallerTls::new(identity).map(Self::over)
    }

    /// A pool that speaks to whoever the authority has signed.
    pub fn over(tls: CallerTls) -> Self {
        Self::guarded(tls, Arc::new(OpenGate))
    }

    /// One TLS configuration serves all connections that are made while it is current: what rustls keeps for each
    /// would cost more than the connection.
    pub fn guarded(tls: CallerTls, gate: Arc<dyn Gate>) -> Self {
        let scissors = Arc::<Scissors>::default();
        let pool = Self::connecting({
            let scissors = Arc::clone(&scissors);
            move |address| {
                let (tls, gate, scissors) = (tls.clone(), Arc::clone(&gate), Arc::clone(&scissors));
                let connect = move |_: Uri| {
                    let dialed = dial(address, tls.clone(), Arc::clone(&gate), Arc::clone(&scissors));
                    async move { dialed.await.map(TokioIo::new) }
                };
                // The connection is encrypted below; to tonic it is plain.
                Ok(patient(endpoint(address)?).connect_with_connector_lazy(tower::service_fn(connect)))
            }
        });
        Self { scissors, ..pool }
    }

    /// A pool whose channels are made by `connect`.
    pub(crate) fn connecting(
        connect: impl Fn(AgentAddress) -> Result<Channel, CallError> + Send + Sync + 'static,
    ) -> Self {
        let transfers = Arc::new(Semaphore::new(MAX_CHUNKS));
        Self { connect: Box::new(connect), channels: Mutex::default(), scissors: Arc::default(), transfers }
    }

    /// A client for the agent. Connecting happens with the first call, and again after a loss.
    pub fn agent(&self, address: AgentAddress) -> Result<Agent, CallError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = channels.get_mut(&address) {
            kept.used = Instant::now();
            return Ok(self.client(address, kept.channel.clone()));
        }
        let channel = (self.connect)(address)?;
        if channels.len() >= MAX_CHANNELS
            && let Some(oldest) = channels.iter().min_by_key(|(_, kept)| kept.used).map(|(address, _)| *address)
        {
            channels.remove(&oldest);
        }
        channels.insert(address, Kept { channel: channel.clone(), used: Instant::now() });
        Ok(self.client(address, channel))
    }

    fn client(&self, address: AgentAddress, channel: Channel) -> Agent {
        Agent { address, channel, transfers: Arc::clone(&self.transfers) }
    }

    /// The same for a call in passing: a connection that is not there yet is closed with the client.
    pub fn passing(&self, address: AgentAddress) -> Result<Agent, CallError> {
        let kept = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get(&address).map(|kept| kept.channel.clone());
        let channel = kept.map_or_else(|| (self.connect)(address), Ok)?;
        Ok(self.client(address, channel))
    }

    /// Ends every connection to the host, whoever holds it. The next call connects again, if it may.
    pub fn cut(&self, host: IpAddr) {
        self.scissors.cut(host);
    }
}

fn endpoint(address: AgentAddress) -> Result<Endpoint, CallError> {
    Endpoint::from_shared(format!("http://{address}")).map_err(|error| CallError::Refused {
        agent: address,
        reason: "BAD_ADDRESS".into(),
        message: crate::telemetry::chain(&error),
    })
}

/// What holds for every connection: it is given up when nobody answers, also when nothing is asked.
pub(crate) fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// One agent. Every call has a deadline.
#[derive(Clone)]
pub struct Agent {
    pub address: AgentAddress,
    channel: Channel,
    transfers: Arc<Semaphore>,
}

impl Agent {
    fn client(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel.clone())
    }

    fn request<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(CALL_TIMEOUT);
        request
    }

    fn error(&self) -> impl Fn(Status) -> CallError + use<> {
        let address = self.address;
        move |status| CallError::of(address, &status)
    }

    pub async fn submit(&self, message: v1::SubmitRequest) -> Result<v1::SubmitResponse, CallError> {
        #[cfg(test)]
        let asked = simulation::asks(simulation::Point::Submit).await.map_err(self.lost())?;
        let answer = self.client().submit(Self::request(message)).await;
        #[cfg(test)]
        simulation::answered(simulation::Point::Submit, asked, &answer).await.map_err(self.lost())?;
        answer.map(tonic::Response::into_inner).map_err(self.error())
    }

    /// Opens a stream; the stream itself has no deadline, its heartbeats show that it lives.
    pub async fn watch(&self, message: v1::WatchRequest) -> Result<tonic::Streaming<v1::WatchResponse>, CallError> {
        let answer = tokio::time::timeout(CALL_TIMEOUT, async { self.client().watch(message).await }).await;
        match answer {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(self.error()),
            Err(_) => {
                Err(CallError::Unknown { agent: self.address, message: "no stream within 30 s".into(), refused: false })
            }
        }
    }

    /// Waits until the operation is over, so it has a longer deadline than the other calls.
    pub async fn cancel(&self, key: v1::OperationKey, epoch: u64) -> Result<v1::CancelResponse, CallError> {
        #[cfg(test)]
        let asked = simulation::asks(simulation::Point::Cancel).await.map_err(self.lost())?;
        let request = Self::request(v1::CancelRequest { key: Some(key), epoch });
        let answer = self.client().cancel(request).await;
        #[cfg(test)]
        simulation::answered(simulation::Point::Cancel, asked, &answer).await.map_err(self.lost())?;
        answer.map(tonic::Response::into_inner).map_err(self.error())
    }

    pub async fn acknowledge(&self, key: v1::OperationKey, epoch: u64) -> Result<(), CallError> {
        #[cfg(test)]
        simulation::acknowledges(&key);
        #[cfg(test)]
        let asked = simulation::asks(simulation::Point::Acknowledge).await.map_err(self.lost())?;
        let request = Self::request(v1::AcknowledgeRequest { key: Some(key), epoch });
        let answer = self.client().acknowledge(request).await;
        #[cfg(test)]
        simulation::answered(simulation::Point::Acknowledge, asked, &answer).await.map_err(self.lost())?;
        answer.map(|_| ()).map_err(self.error())
    }

    #[cfg(test)]
    fn lost(&self) -> impl Fn(simulation::Lost) -> CallError + use<> {
        let agent = self.address;
        move |simulation::Lost| CallError::Unknown { agent, message: "the call got lost".into(), refused: false }
    }

    /// Asks for a signing request for a key that the agent has made for itself.
    pub async fn create_signing_request(&self) -> Result<String, CallError> {
        let request = Self::request(v1::CreateSigningRequestRequest {});
        let answer = self.client().create_signing_request(request).await;
        answer.map(|answer| answer.into_inner().request_pem).map_err(self.error())
    }

    /// Brings the agent the certificate for that key; it shows it from here on.
    pub async fn install_certificate(&self, certificate_pem: String) -> Result<(), CallError> {
        let request = Self::request(v1::InstallCertificateRequest { certificate_pem });
        self.client().install_certificate(request).await.map(|_| ()).map_err(self.error())
    }

    pub async fn describe_host(&self) -> Result<v1::DescribeHostResponse, CallError> {
        let answer = self.client().describe_host(Self::request(v1::DescribeHostRequest {})).await;
        answer.map(tonic::Response::into_inner).map_err(self.error())
    }

    /// Sends what the agent does not have yet of a package; `progress` is told how many bytes are there.
    pub async fn put_package(
        &self,
        path: &Path,
        file_name: &str,
        sha256: &str,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), PutError> {
        let mut file = tokio::fs::File::open(path).await?;
        let size_bytes = file.metadata().await?.len();
        let put = async |offset, data| {
            let (file_name, sha256) = (file_name.into(), sha256.into());
            let chunk = v1::PutPackageRequest { file_name, sha256, size_bytes, offset, data };
            self.client().put_package(Self::request(chunk)).await.map_err(self.error())
        };
        // Asks where to begin. An agent that does not answer holds up no transfer to another.
        let mut answer = put(0, Vec::new()).await?.into_inner();
        loop {
            progress(answer.next_offset, size_bytes);
            if answer.complete {
                return Ok(());
            }
            if answer.next_offset >= size_bytes {
                return Err(io::Error::other("the agent has every byte and still asks for more").into());
            }
            // Never closed. It is held until the chunk is answered for, and gone from memory.
            let _place = self.transfers.acquire().await;
            file.seek(io::SeekFrom::Start(answer.next_offset)).await?;
            let limit = crate::rpc::MAX_CHUNK_BYTES as u64;
            let mut data = Vec::with_capacity(crate::rpc::MAX_CHUNK_BYTES);
            (&mut file).take(limit).read_to_end(&mut data).await?;
            answer = put(answer.next_offset, data).await?.into_inner();
        }
    }
}

/// Why a package did not reach an agent.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the coordinator's copy of the package cannot be read")]
    File(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rpc::Refused, steps::FieldViolation};
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn an_agent_that_does_not_know_a_step_is_too_old() {
        let agent = AgentAddress::new(Ipv4Addr::LOCALHOST.into(), 62898);
        let refused = |field: &str| {
            let violation = FieldViolation { field: field.into(), problem: "is none that is known".into() };
            CallError::of(agent, &Refused::BadRequest(vec![violation]).into())
        };
        assert!(matches!(refused("step"), CallError::UnknownStep { .. }));
        assert!(matches!(refused("step.check_host.agent_ports"), CallError::Refused { .. }));
    }

    /// Which chunks are on their way at a time, to however many hosts.
    impl AgentPool {
        pub(in crate::coordinator) fn transfers(&self) -> &Arc<Semaphore> {
            &self.transfers
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_told_in_one_plain_sentence() {
        // The port is free again once the listener is gone.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let agent = Agent { address: AgentAddress(address), channel, transfers: Arc::new(Semaphore::new(1)) };
        let error = agent.describe_host().await.unwrap_err().to_string();
        assert_eq!(error, format!("agent {address} did not answer: Connection refused (os error 111)"));
    }
}
