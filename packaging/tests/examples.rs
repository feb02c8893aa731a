//! The files that packages ship beside the programs: examples of every setting, and every page of the documentation.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use clap::CommandFactory as _;
use oblet::{agent, coordinator, tls};
use oblet_packaging::{AGENT_EXAMPLE, COORDINATOR_EXAMPLE, DOCUMENTS};
use std::{collections::BTreeSet, fs, path::Path};

/// The example with every setting in force.
fn uncommented(example: &str) -> String {
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|first: char| first.is_ascii_lowercase()) => setting,
        _ => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn names_in(example: &str) -> BTreeSet<String> {
    uncommented(example).parse::<toml::Table>().unwrap().keys().cloned().collect()
}

/// Flags that overrule a setting have its name.
fn names_of(command: &clap::Command) -> BTreeSet<String> {
    let flags = command.get_arguments().filter_map(clap::Arg::get_long);
    flags.filter(|flag| !["config", "check-config"].contains(flag)).map(|flag| flag.replace('-', "_")).collect()
}

#[test]
fn the_examples_show_every_setting() {
    assert_eq!(names_in(AGENT_EXAMPLE), names_of(&agent::config::Flags::command()));
    assert_eq!(names_in(COORDINATOR_EXAMPLE), names_of(&coordinator::config::Flags::command()));
}

/// Markdown files below a directory of the repository, by their path in it.
fn pages_below(directory: &Path, repository: &Path) -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages.extend(pages_below(&path, repository));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.insert(path.strip_prefix(repository).unwrap().to_str().unwrap().to_owned());
        }
    }
    pages
}

#[test]
fn every_page_of_the_documentation_is_shipped() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = pages_below(&repository.join("docs"), repository);
    pages.extend(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(str::to_owned));
    let shipped: BTreeSet<_> = DOCUMENTS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(shipped, pages, "packaging/src/documents.rs on the left, the source on the right");
}

#[test]
fn the_examples_set_nothing() {
    for example in [AGENT_EXAMPLE, COORDINATOR_EXAMPLE] {
        assert!(example.parse::<toml::Table>().unwrap().is_empty());
    }
}

#[test]
fn the_agent_takes_its_example_with_every_setting_in_force() {
    let place = tempfile::tempdir().unwrap();
    let authority = tls::CertificateAuthority::load_or_create(place.path()).unwrap();
    authority.issue(tls::Role::Agent, "agent", &[]).unwrap().write(place.path(), "agent").unwrap();
    let file = place.path().join("agent.toml");
    fs::write(&file, uncommented(AGENT_EXAMPLE)).unwrap();
    let flags = agent::config::Flags {
        config: Some(file),
        tls_ca: Some(place.path().join("ca.pem")),
        tls_certificate: Some(place.path().join("agent.pem")),
        tls_key: Some(place.path().join("agent.key")),
        ..Default::default()
    };
    agent::config::Config::load(&flags).map(drop).unwrap();
}

#[test]
fn the_coordinator_takes_its_example_with_every_setting_in_force() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("coordinator.toml");
    fs::write(&file, uncommented(COORDINATOR_EXAMPLE)).unwrap();
    let flags = coordinator::config::SettingFlags { config: Some(file), ..Default::default() };
    coordinator::config::Config::load(&flags).unwrap();
}
