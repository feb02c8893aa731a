//! The pages of the documentation, which every package ships as they are in the source, so that links between them work.

/// The files that a page can link to: path in the source, text.
macro_rules! documents {
    ($($path:literal),+ $(,)?) => { &[$(($path, include_str!(concat!("../../", $path)))),+] };
}

/// A test compares this list with the source.
pub const DOCUMENTS: &[(&str, &str)] = documents![
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "docs/adding-a-step.md",
    "docs/api.md",
    "docs/architecture.md",
    "docs/backup.md",
    "docs/config-service.md",
    "docs/decisions/0001-one-package.md",
    "docs/decisions/0002-ring-only.md",
    "docs/decisions/0003-rpm-runs-rpm.md",
    "docs/decisions/0004-direct-supervisor-first.md",
    "docs/decisions/0005-stand-ins.md",
    "docs/decisions/0006-price-of-durability.md",
    "docs/decisions/0007-reservations.md",
    "docs/decisions/0008-acknowledged-tasks.md",
    "docs/decisions/0009-a-thousand-hosts.md",
    "docs/decisions/0010-units.md",
    "docs/decisions/0011-packages.md",
    "docs/decisions/0012-self-upgrade.md",
    "docs/decisions/0013-units-that-hand-over.md",
    "docs/decisions/0014-first-start.md",
    "docs/decisions/0015-power-cuts.md",
    "docs/decisions/README.md",
    "docs/durability.md",
    "docs/enrolment.md",
    "docs/facts/obproxy.md",
    "docs/facts/observer.md",
    "docs/installing.md",
    "docs/monitoring.md",
    "docs/operations.md",
    "docs/runbooks.md",
    "docs/security.md",
    "docs/simulation.md",
    "docs/sizing.md",
    "docs/supervisors.md",
];
