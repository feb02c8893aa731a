//! Packages: where the coordinator keeps them, what agents got of them, and what a crash makes of that.

use super::{hosts::SimulatedHost, perils::Defect, world::World};
use crate::{
    graph::Direction,
    operations::TaskPlan,
    rpc::MAX_CHUNK_BYTES,
    steps::{AgentStep, Step, values::Sha256},
};
use sha2::Digest as _;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The package of a proxy; every other takes more than one call to send.
fn content(number: u16) -> Vec<u8> {
    let length = if number.is_multiple_of(2) { MAX_CHUNK_BYTES + 1000 } else { 1000 };
    vec![u8::try_from(number).unwrap(); length]
}

fn digest(content: &[u8]) -> Sha256 {
    let digest = sha2::Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().parse().unwrap()
}

pub(super) fn digest_of(number: u16) -> Sha256 {
    digest(&content(number))
}

/// Puts what a plan needs where the coordinator looks for it.
pub(super) fn upload(directory: &Path, number: u16, plan: &TaskPlan) {
    fs::create_dir_all(directory).unwrap();
    for node in &plan.nodes {
        if let Step::Agent(step) = &node.step {
            let packages = [Direction::Execute, Direction::Undo].map(|direction| step.packages(direction));
            for (package, _digest) in packages.concat() {
                fs::write(directory.join(package.file_name()), content(number)).unwrap();
            }
        }
    }
}

fn files(state_dir: &Path) -> Vec<PathBuf> {
    let list = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    list(&state_dir.join("packages")).iter().flat_map(|directory| list(directory)).collect()
}

/// After a crash, what was received of a package and not checked yet may be anything.
pub(super) fn damage(world: &World, state_dir: &Path) {
    for path in files(state_dir) {
        let is_part = path.extension().is_some_and(|extension| extension == "part");
        if world.has(Defect::WholeIsDamaged) || (is_part && world.happens(|odds| odds.damages)) {
            let mut content = fs::read(&path).unwrap();
            content.reverse();
            if let Some(first) = content.first_mut() {
                *first ^= 1;
            }
            fs::write(&path, content).unwrap();
            world.note("disk", "a package is damaged");
        }
    }
}

impl SimulatedHost {
    /// A step begins only after the agent has its packages, each as it was uploaded.
    pub(super) async fn use_packages(&self, step: &AgentStep, direction: Direction) {
        if self.world.packages().is_none() {
            return;
        }
        for (package, sha256) in step.packages(direction) {
            self.world.may_crash(&self.name, |odds| odds.package_crashes).await;
            let path = self.state_dir.join("packages").join(sha256.as_str()).join(package.file_name());
            if !fs::read(path).is_ok_and(|content| digest(&content) == *sha256) {
                self.world.violation(format!("{} on {} begins without its package", step.kind(), self.name));
            }
        }
    }
}
