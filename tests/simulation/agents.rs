//! Real agents as hosts of a simulation.

use super::{hosts::SimulatedHost, journals, network, perils::Defect, tasks::host_name, world::World};
use crate::{
    agent::{Settings, start_on},
    coordinator::agents::AgentAddress,
    tls::Identity,
};
use std::{net::Ipv4Addr, path::Path, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// State directories in memory, where the machine has such a place: a sync costs nothing there.
pub(super) fn state_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Adds hosts whose agents start with the simulation and after every crash.
pub(super) fn add(sim: &mut turmoil::Sim<'_>, world: &Arc<World>, hosts: i64, directory: &Path) {
    for host_id in 1..=hosts {
        let name = host_name(host_id);
        let state_dir = directory.join(&name);
        let carrier = SimulatedHost { world: Arc::clone(world), name: name.clone(), state_dir };
        sim.host(name.clone(), move || live(carrier.clone()));
        world.tables().add_agent(host_id, AgentAddress::new(sim.lookup(name), network::AGENT_PORT));
    }
}

async fn live(carrier: SimulatedHost) -> turmoil::Result {
    let (world, name) = (Arc::clone(&carrier.world), carrier.name.clone());
    world.runs_on(&name);
    if let Err(error) = run(carrier).await {
        world.note(&name, format!("the agent stops: {error}"));
    }
    world.crash_here(&name).await
}

async fn run(carrier: SimulatedHost) -> anyhow::Result<()> {
    let state_dir = carrier.state_dir.clone();
    journals::find(&carrier.world, &carrier.name, &state_dir);
    if carrier.world.has(Defect::AgentForgets) && state_dir.exists() {
        std::fs::remove_dir_all(&state_dir)?;
    }
    let settings = Settings {
        listen: (Ipv4Addr::UNSPECIFIED, network::AGENT_PORT).into(),
        metrics_port: 0,
        root_dir: state_dir.clone(),
        state_dir,
        // The simulated network is plain.
        identity: Identity { ca_pem: Vec::new(), certificate_pem: Vec::new(), key_pem: Vec::new().into() },
        identity_paths: None,
        reflection: false,
        retention: Duration::from_secs(86_400),
        log_limit_bytes: u64::MAX,
        grace: Duration::from_secs(5),
    };
    let incoming = network::listen().await?;
    let carrier = Arc::new(carrier);
    let started = start_on(settings, None, incoming, carrier.clone(), carrier, CancellationToken::new()).await?;
    Ok(started.serving.await??)
}
