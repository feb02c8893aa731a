//! Kills real programs at random moments of real tasks. `make chaos ROUNDS=n SEED=s` runs many rounds; without a
//! number of rounds a few are run, always the same.
//!
//! What must be true after each round:
//!
//!  1. Every task exists and comes to rest by itself; no step fails but those whose cause the round made.
//!  2. A retry of what was mended, and a rollback, end SUCCESSFUL.
//!  3. The package's scriptlet ran exactly once per installation, its counterpart once per erasure.
//!  4. After a success each host has the package and one proxy, started once; after a rollback neither, no directory,
//!     and everything that was not the task's own.
//!  5. No shim, no rpm and no temporary file is left over, and not more directories of runs than there were runs.
//!  6. No program ended but those that were killed, and the same request can be made again after a rollback.
//!  7. Each errand keeps the promises at the head of its file.
//!  8. All tasks are SUCCESSFUL in the end and reserve nothing, and a request that is sent again makes none.
//!
//! Of all blows of a run most must hit something: `plan` says how many may not.

mod blow;
pub(crate) mod check;
mod dice;
mod errands;
pub(crate) mod operator;
mod plan;
mod report;
mod round;
mod site;
mod strike;

use crate::lab::possible;
use plan::{Round, Work};
use std::{
    collections::BTreeSet,
    env,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

const FEW_ROUNDS: u64 = 6;
const KNOWN_SEED: u64 = 2;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn random_seed() -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    u64::from(nanos) % 1_000_000
}

/// A package that counts its installations and erasures in a file beside the agent's state, and takes its time.
pub(crate) fn build_package(directory: &Path) -> PathBuf {
    let mut options = oblet_standins::package::Options::new(oblet_standins::program("obproxy").unwrap(), directory);
    // rpm runs with the agent's state directory as HOME.
    options.before_install = Some("test ! -e \"$HOME/../refuse\"".into());
    options.scriptlet = Some("echo post >> \"$HOME/../scriptlets\"; sleep 0.2".into());
    options.after_erase = Some("echo postun >> \"$HOME/../scriptlets\"; sleep 0.1".into());
    oblet_standins::package::build(&options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_killed_at_random_moments_lose_and_repeat_nothing() {
    if !possible() {
        return;
    }
    let rounds = number("OBLET_CHAOS_ROUNDS");
    let seed = number("OBLET_CHAOS_SEED").unwrap_or_else(|| rounds.map_or(KNOWN_SEED, |_| random_seed()));
    let first = number("OBLET_CHAOS_FIRST").unwrap_or(0);
    println!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let package = build_package(directory.path());
    let mut table = report::Table::default();
    let mut bad = Vec::new();
    for number in first..first + rounds.unwrap_or(FEW_ROUNDS) {
        let round = Round::draw(seed, number);
        let report = round::play(&round, &package).await;
        println!("{}", report::line(&round, &report));
        for violation in &report.violations {
            println!("  VIOLATION: {violation}");
        }
        if let Some(kept) = &report.kept {
            println!("  logs and stores: {}", kept.display());
            println!("  {round:?}");
            println!("  once more: make chaos ROUNDS=1 SEED={seed} FIRST={number}");
            bad.push(number);
        }
        table.add(&round, &report);
    }
    println!("\n{}", table.text());
    assert!(bad.is_empty(), "violations in rounds {bad:?} of seed {seed}");
    let idle = table.idle_blows();
    assert!(idle.is_empty(), "{}", idle.join("; "));
}

#[test]
fn the_few_rounds_have_every_errand_and_are_the_same_each_time() {
    let draw = || (0..FEW_ROUNDS).map(|number| Round::draw(KNOWN_SEED, number)).collect::<Vec<_>>();
    assert_eq!(format!("{:?}", draw()), format!("{:?}", draw()));
    let works: BTreeSet<Work> =
        draw().iter().flat_map(|round| &round.errands).map(|drawn| drawn.errand.work()).collect();
    assert_eq!(works.into_iter().collect::<Vec<_>>(), plan::errands_there_are().collect::<Vec<_>>());
}
