//! Connections to agents: opened on demand, shared, bounded, and an answer of "unknown" kept apart from "no".

pub use super::address::AgentAddress;

use super::{
    channel::{ANSWER_TIMEOUT, Channel, ChannelError, Dial, Dialed, Wire},
    connection::{Distrust, Gate, OpenGate, Scissors, dial},
};
#[cfg(test)]
use crate::simulation;
use crate::{
    blocking,
    rpc::{fault_reason, v1, v1::agent_service_client::AgentServiceClient, violates},
    tls::{CallerTls, Identity, TlsError},
};
use std::{
    collections::HashMap,
    error::Error,
    fs, io,
    net::IpAddr,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

/// Connections kept; a quarter of them, those that were unused longest, gives way. A connection costs about 40 KiB.
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
    #[error("agent {agent} follows a newer coordinator: {message}")]
    Fenced { agent: AgentAddress, message: String },
    /// The agent does not know what is asked for.
    #[error("agent {agent} does not know the operation: {message}")]
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
        // The reason of a lost connection is at the end of layers that only pass it on.
        let last_cause = || crate::telemetry::causes(status).pop();
        if let Some(error) = causes(status).find_map(|cause| cause.downcast_ref::<ChannelError>()) {
            return match error.distrust() {
                Some(source) => Self::Distrusted { agent, source: source.clone() },
                None => {
                    let message = last_cause().unwrap_or_else(|| error.to_string());
                    Self::Unknown { agent, message, refused: error.is_refused() }
                }
            };
        }
        let message = status.message().to_owned();
        let reason = fault_reason(status);
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self::Unknown { agent, message: last_cause().unwrap_or(message), refused: false }
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

struct Kept {
    channel: Channel,
    used: Instant,
}

/// The coordinator's connections to all agents.
pub struct AgentPool {
    dial: Arc<Dial>,
    channels: Mutex<HashMap<AgentAddress, Kept>>,
    scissors: Arc<Scissors>,
    transfers: Arc<Transfers>,
}

/// Chunks of packages that are on their way at a time, over all hosts. Each is in memory twice, once as it was read and
/// once as it is sent, so that a fleet that is upgraded at once costs 32 MiB and no more.
const QUICK_CHUNKS: usize = 12;
const SLOW_CHUNKS: usize = 4;
/// An agent that needs longer for a chunk goes on among the slow ones, where it holds up none of the others.
const QUICK: Duration = Duration::from_secs(5);

/// Places for chunks; none is ever closed. A place is held until the chunk is answered for, and gone from memory.
struct Transfers {
    quick: Semaphore,
    slow: Semaphore,
    patience: Duration,
}

impl Transfers {
    fn new(patience: Duration) -> Self {
        Self { quick: Semaphore::new(QUICK_CHUNKS), slow: Semaphore::new(SLOW_CHUNKS), patience }
    }
}

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
        let pool = Self::dialing({
            let scissors = Arc::clone(&scissors);
            move |address| {
                let dialed = dial(address, tls.clone(), Arc::clone(&gate), Arc::clone(&scissors));
                Box::pin(async { Ok(Box::new(dialed.await?) as Box<dyn Wire>) })
            }
        });
        Self { scissors, ..pool }
    }

    /// A pool whose connections are made by `dial`.
    pub(crate) fn dialing(dial: impl Fn(AgentAddress) -> Dialed + Send + Sync + 'static) -> Self {
        let transfers = Arc::new(Transfers::new(QUICK));
        Self { dial: Arc::new(dial), channels: Mutex::default(), scissors: Arc::default(), transfers }
    }

    /// A client for the agent. Connecting happens with the first call, and again after a loss.
    pub fn agent(&self, address: AgentAddress) -> Agent {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if !channels.contains_key(&address) && channels.len() >= MAX_CHANNELS {
            forget_oldest(&mut channels);
        }
        let new = || Kept { channel: self.channel(address), used: Instant::now() };
        let kept = channels.entry(address).or_insert_with(new);
        kept.used = Instant::now();
        self.client(address, kept.channel.clone())
    }

    fn channel(&self, address: AgentAddress) -> Channel {
        Channel::new(address, Arc::clone(&self.dial))
    }

    fn client(&self, address: AgentAddress, channel: Channel) -> Agent {
        Agent { address, channel, transfers: Arc::clone(&self.transfers) }
    }

    /// The same for a call in passing: a connection that is not there yet is closed with the client.
    pub fn passing(&self, address: AgentAddress) -> Agent {
        let kept = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get(&address).map(|kept| kept.channel.clone());
        self.client(address, kept.unwrap_or_else(|| self.channel(address)))
    }

    /// Ends every connection to the host, whoever holds it. The next call connects again, if it may.
    pub fn cut(&self, host: IpAddr) {
        self.scissors.cut(host);
    }
}

/// Whoever holds one of them keeps it.
fn forget_oldest(channels: &mut HashMap<AgentAddress, Kept>) {
    let mut times: Vec<Instant> = channels.values().map(|kept| kept.used).collect();
    let (_, limit, _) = times.select_nth_unstable(MAX_CHANNELS / 4);
    let limit = *limit;
    channels.retain(|_, kept| kept.used > limit);
}

/// One agent. Every call has a deadline.
#[derive(Clone)]
pub struct Agent {
    pub address: AgentAddress,
    channel: Channel,
    transfers: Arc<Transfers>,
}

impl Agent {
    fn client(&self) -> AgentServiceClient<Channel> {
        AgentServiceClient::new(self.channel.clone())
    }

    fn request<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(ANSWER_TIMEOUT);
        request
    }

    fn error(&self) -> impl Fn(Status) -> CallError + use<> {
        let address = self.address;
        move |status| CallError::of(address, &status)
    }

    pub async fn submit(&self, message: v1::SubmitRequest) -> Result<v1::SubmitResponse, CallError> {
        #[cfg(test)]
        let (asked, message) = simulation::submits(message).await.map_err(self.lost())?;
        let answer = whole(self.client().submit(Self::request(message))).await;
        #[cfg(test)]
        simulation::answered(simulation::Point::Submit, asked, &answer).await.map_err(self.lost())?;
        answer.map(Response::into_inner).map_err(self.error())
    }

    /// Opens a stream; the stream itself has no deadline, its heartbeats show that it lives.
    pub async fn watch(&self, message: v1::WatchRequest) -> Result<tonic::Streaming<v1::WatchResponse>, CallError> {
        self.client().watch(message).await.map(Response::into_inner).map_err(self.error())
    }

    fn silent(&self, message: &str) -> CallError {
        CallError::Unknown { agent: self.address, message: message.into(), refused: false }
    }

    /// Waits until the operation is over, so it has a longer deadline than the other calls.
    pub async fn cancel(&self, key: v1::OperationKey, epoch: u64) -> Result<v1::CancelResponse, CallError> {
        #[cfg(test)]
        let asked = simulation::asks(simulation::Point::Cancel).await.map_err(self.lost())?;
        let request = Self::request(v1::CancelRequest { key: Some(key), epoch });
        let answer = whole(self.client().cancel(request)).await;
        #[cfg(test)]
        simulation::answered(simulation::Point::Cancel, asked, &answer).await.map_err(self.lost())?;
        answer.map(Response::into_inner).map_err(self.error())
    }

    /// Tells the agent that these outcomes are safe, at most 256 at a time; an agent one version older hears of them one by
    /// one.
    pub async fn acknowledge(&self, keys: &[v1::OperationKey], epoch: u64) -> Result<(), CallError> {
        let Some((first, more)) = keys.split_first() else { return Ok(()) };
        if self.acknowledge_once(first, more, epoch).await? || more.is_empty() {
            return Ok(());
        }
        for key in more {
            match self.acknowledge_once(key, &[], epoch).await {
                Ok(_) | Err(CallError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Answers whether the agent has read `more`.
    async fn acknowledge_once(
        &self,
        key: &v1::OperationKey,
        more: &[v1::OperationKey],
        epoch: u64,
    ) -> Result<bool, CallError> {
        #[cfg(test)]
        std::iter::once(key).chain(more).for_each(simulation::acknowledges);
        #[cfg(test)]
        let asked = simulation::asks(simulation::Point::Acknowledge).await.map_err(self.lost())?;
        let request = Self::request(v1::AcknowledgeRequest { key: Some(key.clone()), epoch, more: more.to_vec() });
        let answer = whole(self.client().acknowledge(request)).await;
        #[cfg(test)]
        simulation::answered(simulation::Point::Acknowledge, asked, &answer).await.map_err(self.lost())?;
        answer.map(|answer| answer.into_inner().more_read).map_err(self.error())
    }

    #[cfg(test)]
    fn lost(&self) -> impl Fn(simulation::Lost) -> CallError + use<> {
        let agent = self.address;
        move |simulation::Lost| CallError::Unknown { agent, message: "the call got lost".into(), refused: false }
    }

    /// Asks for a signing request for a key that the agent has made for itself.
    pub async fn create_signing_request(&self) -> Result<String, CallError> {
        let request = Self::request(v1::CreateSigningRequestRequest {});
        let answer = whole(self.client().create_signing_request(request)).await;
        answer.map(|answer| answer.into_inner().request_pem).map_err(self.error())
    }

    /// Brings the agent the certificate for that key; it shows it from here on.
    pub async fn install_certificate(&self, certificate_pem: String) -> Result<(), CallError> {
        let request = Self::request(v1::InstallCertificateRequest { certificate_pem });
        whole(self.client().install_certificate(request)).await.map(|_| ()).map_err(self.error())
    }

    pub async fn describe_host(&self) -> Result<v1::DescribeHostResponse, CallError> {
        let answer = whole(self.client().describe_host(Self::request(v1::DescribeHostRequest {}))).await;
        answer.map(Response::into_inner).map_err(self.error())
    }

    /// Sends what the agent does not have yet of a package; `progress` is told how many bytes are there.
    pub async fn put_package(
        &self,
        path: &Path,
        file_name: &str,
        sha256: &str,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(), PutError> {
        let path: Arc<Path> = path.into();
        let size_bytes = blocking::run({
            let path = Arc::clone(&path);
            move || fs::metadata(path)
        });
        let size_bytes = size_bytes.await??.len();
        let put = async |offset, data| {
            let (file_name, sha256) = (file_name.into(), sha256.into());
            let chunk = v1::PutPackageRequest { file_name, sha256, size_bytes, offset, data };
            whole(self.client().put_package(Self::request(chunk))).await.map_err(self.error())
        };
        // Asks where to begin. An agent that does not answer holds up no transfer to another.
        let mut answer = put(0, Vec::new()).await?.into_inner();
        let mut is_quick = true;
        loop {
            progress(answer.next_offset, size_bytes);
            if answer.complete {
                return Ok(());
            }
            if answer.next_offset >= size_bytes {
                return Err(io::Error::other("the agent has every byte and still asks for more").into());
            }
            let places = if is_quick { &self.transfers.quick } else { &self.transfers.slow };
            let _place = places.acquire().await;
            let (path, offset) = (Arc::clone(&path), answer.next_offset);
            let data = blocking::run(move || chunk(&path, offset, size_bytes)).await??;
            // Given up it is gone from memory; the agent takes it again, or says that it has it.
            let patience = if is_quick { self.transfers.patience } else { ANSWER_TIMEOUT };
            match tokio::time::timeout(patience, put(offset, data)).await {
                Ok(answered) => answer = answered?.into_inner(),
                Err(_) if is_quick => is_quick = false,
                Err(_) => return Err(PutError::Call(self.silent("no answer to a chunk within 30 s"))),
            }
        }
    }
}

/// A call with its whole answer: one that only begins to answer has no longer than one that does not.
async fn whole<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<Response<T>, Status> {
    let silent = |_elapsed| Err(Status::deadline_exceeded(ChannelError::Silent.to_string()));
    tokio::time::timeout(ANSWER_TIMEOUT, call).await.unwrap_or_else(silent)
}

/// What is sent next.
fn chunk(path: &Path, offset: u64, size_bytes: u64) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let left = usize::try_from(size_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut data = vec![0; left.min(crate::rpc::MAX_CHUNK_BYTES)];
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
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
    use futures_util::{StreamExt as _, stream};
    use std::{
        convert::Infallible,
        net::{Ipv4Addr, SocketAddr},
        task::{Context, Poll},
    };
    use tonic::{
        body::Body,
        codegen::{BoxFuture, Service, http},
    };

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
        pub(in crate::coordinator) fn transfers(&self) -> &Semaphore {
            &self.transfers.quick
        }
    }

    fn plain_agent(address: SocketAddr, transfers: Arc<Transfers>) -> Agent {
        let pool = AgentPool::dialing(|address| {
            Box::pin(async move { Ok(Box::new(tokio::net::TcpStream::connect(address.0).await?) as Box<dyn Wire>) })
        });
        AgentPool { transfers, ..pool }.agent(AgentAddress(address))
    }

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_told_in_one_plain_sentence() {
        // Bound and not listened on: nobody else gets the port.
        let mute = tokio::net::TcpSocket::new_v4().unwrap();
        mute.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = mute.local_addr().unwrap();
        let agent = plain_agent(address, Arc::new(Transfers::new(QUICK)));
        let error = agent.describe_host().await.unwrap_err().to_string();
        assert_eq!(error, format!("agent {address} did not answer: Connection refused (os error 111)"));
    }

    /// An agent that begins every answer and ends none.
    #[derive(Clone)]
    struct Beginner;

    impl tonic::server::NamedService for Beginner {
        const NAME: &'static str = "oblet.agent.v1.AgentService";
    }

    impl Service<http::Request<Body>> for Beginner {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Self::Error>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: http::Request<Body>) -> Self::Future {
            let nothing = stream::pending::<Result<tonic::codegen::Bytes, Infallible>>();
            let nothing = axum::body::Body::from_stream(nothing);
            let answer = http::Response::builder().header("content-type", "application/grpc").body(Body::new(nothing));
            Box::pin(async { Ok(answer.unwrap()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_only_begins_its_answer_has_not_answered() {
        let pool = AgentPool::dialing(|_| {
            let (near, far) = tokio::io::duplex(64 << 10);
            let connections = stream::iter([Ok::<_, io::Error>(far)]).chain(stream::pending());
            tokio::spawn(tonic::transport::Server::builder().add_service(Beginner).serve_with_incoming(connections));
            Box::pin(async { Ok(Box::new(near) as Box<dyn Wire>) })
        });
        let agent = pool.agent(AgentAddress::new(Ipv4Addr::LOCALHOST.into(), 62898));
        let error = tokio::time::timeout(2 * ANSWER_TIMEOUT, agent.describe_host()).await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Unknown { .. }), "{error}");
        assert!(error.to_string().ends_with("no answer within 30 s"), "{error}");
    }

    /// An agent that takes packages, or says where one has to begin and then no more.
    #[derive(Clone)]
    struct Taker {
        hangs: bool,
    }

    impl tonic::server::NamedService for Taker {
        const NAME: &'static str = "oblet.agent.v1.AgentService";
    }

    impl tonic::server::UnaryService<v1::PutPackageRequest> for Taker {
        type Response = v1::PutPackageResponse;
        type Future = BoxFuture<Response<v1::PutPackageResponse>, Status>;

        fn call(&mut self, request: Request<v1::PutPackageRequest>) -> Self::Future {
            let (chunk, hangs) = (request.into_inner(), self.hangs);
            Box::pin(async move {
                if hangs && !chunk.data.is_empty() {
                    std::future::pending::<()>().await;
                }
                let next_offset = chunk.offset + chunk.data.len() as u64;
                Ok(Response::new(v1::PutPackageResponse { next_offset, complete: next_offset == chunk.size_bytes }))
            })
        }
    }

    impl Service<http::Request<Body>> for Taker {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Self::Error>;

        fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let taker = self.clone();
            let limit = 2 * crate::rpc::MAX_CHUNK_BYTES;
            Box::pin(async move {
                let codec = tonic_prost::ProstCodec::default();
                let mut grpc = tonic::server::Grpc::new(codec).apply_max_message_size_config(Some(limit), None);
                Ok(grpc.unary(taker, request).await)
            })
        }
    }

    async fn taker(hangs: bool, transfers: &Arc<Transfers>) -> Agent {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder().add_service(Taker { hangs });
        tokio::spawn(server.serve_with_incoming(incoming));
        plain_agent(address, Arc::clone(transfers))
    }

    #[tokio::test]
    async fn agents_that_hang_in_a_transfer_hold_up_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("package");
        fs::write(&path, vec![7; 3 << 20]).unwrap();
        let transfers = Arc::new(Transfers::new(Duration::from_millis(300)));
        let mut hanging = tokio::task::JoinSet::new();
        for _ in 0..QUICK_CHUNKS + SLOW_CHUNKS {
            let (agent, path) = (taker(true, &transfers).await, path.clone());
            hanging.spawn(async move { agent.put_package(&path, "package", "digest", |_, _| {}).await });
        }
        let limit = Instant::now() + Duration::from_secs(20);
        while transfers.quick.available_permits() > 0 {
            assert!(Instant::now() < limit, "the agents that hang have no places");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let agent = taker(false, &transfers).await;
        let put = agent.put_package(&path, "package", "digest", |_, _| {});
        tokio::time::timeout(Duration::from_secs(20), put).await.unwrap().unwrap();
        assert!(hanging.try_join_next().is_none(), "they still hang");
    }
}
