//! Who may report where a cluster is.
//!
//! Whoever can, leads the users of every proxy to servers of his own, who then send them their proofs of passwords. So:
//!
//!  1. The report comes from a host of the coordinator that is not revoked, or from an address that the operator has
//!     named. The address is that of the connection: nothing in a request is believed about it.
//!  2. A proxy cluster links to the cluster, or the cluster has reported before.
//!  3. Every server of the list is one that could report itself. Each of them leads the RootService at times (R5), so this
//!     refuses no list of a cluster whose observers may report; and a user without rights on a host, who has its
//!     address, leads nobody away from the hosts.

use super::Refusal;
use crate::coordinator::{
    network::Network,
    store::{StoreError, agent::certificates, host, root_servers::RootServers},
};
use axum::http::StatusCode;
use sqlx::AnyConnection;
use std::{collections::HashSet, net::IpAddr};

pub(super) async fn admit_peer(
    connection: &mut AnyConnection,
    networks: &[Network],
    peer: IpAddr,
) -> Result<(), Refusal> {
    match strangers(connection, networks, &[peer]).await?.first() {
        None => Ok(()),
        Some(Stranger { is_revoked: true, .. }) => {
            let text = format!(
                "{peer} was revoked, so its reports are not accepted; enrol the host again, or add its address to the \
                 coordinator's setting config_service_reporters"
            );
            Err(Refusal::new(StatusCode::FORBIDDEN, text))
        }
        Some(_) => {
            let text = format!(
                "{peer} may not report: add it as a host (oblet host add), or add its address or network to the \
                 coordinator's setting config_service_reporters"
            );
            Err(Refusal::new(StatusCode::FORBIDDEN, text))
        }
    }
}

pub(super) async fn admit_servers(
    connection: &mut AnyConnection,
    networks: &[Network],
    report: &RootServers,
) -> Result<(), Refusal> {
    let addresses: Vec<IpAddr> = report.all_servers().map(|server| server.address.ip()).collect();
    let Some(Stranger { address, .. }) = strangers(connection, networks, &addresses).await?.into_iter().next() else {
        return Ok(());
    };
    let text = format!(
        "the report names {address}, which may not report itself: add it as a host (oblet host add), or add its address \
         or network to the coordinator's setting config_service_reporters"
    );
    Err(Refusal::new(StatusCode::FORBIDDEN, text))
}

struct Stranger {
    address: IpAddr,
    is_revoked: bool,
}

/// Those of the addresses that may not report.
async fn strangers(
    connection: &mut AnyConnection,
    networks: &[Network],
    addresses: &[IpAddr],
) -> Result<Vec<Stranger>, StoreError> {
    let named = |address: &IpAddr| networks.iter().any(|network| network.contains(*address));
    let others: Vec<IpAddr> = addresses.iter().filter(|address| !named(address)).copied().collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let hosts: HashSet<IpAddr> = host::known(connection, &others).await?;
    let trust = certificates::trust(connection, &others).await?;
    let stranger = |address: IpAddr| {
        let is_revoked = trust.get(&address).is_some_and(|trust| trust.revocation.is_some());
        (is_revoked || !hosts.contains(&address)).then_some(Stranger { address, is_revoked })
    };
    Ok(others.into_iter().filter_map(stranger).collect())
}
