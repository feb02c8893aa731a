//! How a host uses its token, and what its agent shows afterwards.

use crate::lab::{AGENT_PORT, Lab, Place};
use oblet::{
    agent::enroll::{EnrollError, Enrolled, Enrollment, enroll},
    tls::{CertificateFacts, Identity, IdentityPaths},
};
use serde_json::Value;
use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The line that is printed with a token, for this host.
pub(crate) fn enroll_command(place: &Place, made: &Value, token_file: &str) -> Vec<String> {
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let config = place.directory.join("agent.toml").display().to_string();
    let program = env!("CARGO_BIN_EXE_oblet-agent");
    let words = [program, "enroll", "--coordinator", &text("coordinatorUrl"), "--fingerprint", &text("fingerprint")];
    let more = ["--token-file", token_file, "--config", &config];
    words.into_iter().chain(more).map(ToOwned::to_owned).collect()
}

/// Asks for a certificate as a host at this address would whose clock is wrong by some hours.
pub(crate) async fn ask_for(
    made: &Value,
    source: IpAddr,
    directory: &Path,
    hours: i64,
) -> Result<Enrolled, EnrollError> {
    let text = |name: &str| made[name].as_str().unwrap();
    let enrollment = Enrollment {
        coordinator: text("coordinatorUrl").parse().unwrap(),
        fingerprint: text("fingerprint").parse().unwrap(),
        token: text("token").into(),
        source: Some(source),
        paths: IdentityPaths {
            ca: directory.join("ca.pem"),
            certificate: directory.join("agent.pem"),
            key: directory.join("agent.key"),
        },
        force: false,
        now: jiff::Timestamp::now().as_microsecond() + hours * 3_600_000_000,
    };
    enroll(&enrollment).await
}

/// As the coordinator does when it calls an agent.
pub(crate) fn caller(lab: &Lab) -> TlsConnector {
    let tls = lab.directory.path().join("coordinator/state/tls");
    let [ca, certificate, key] = ["ca.pem", "coordinator.pem", "coordinator.key"].map(|name| tls.join(name));
    let identity = Identity::read(&ca, &certificate, &key).unwrap();
    TlsConnector::from(Arc::new(identity.client().unwrap()))
}

/// A connection to the agent, as the coordinator makes it.
pub(crate) async fn connect(lab: &Lab, address: Ipv4Addr) -> TlsStream<TcpStream> {
    call(&caller(lab), address).await.unwrap()
}

pub(crate) async fn call(caller: &TlsConnector, address: Ipv4Addr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect((address, AGENT_PORT)).await?;
    caller.connect(IpAddr::from(address).into(), stream).await
}

/// The serial number of the certificate that the agent showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> String {
    CertificateFacts::of_der(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap().serial
}
