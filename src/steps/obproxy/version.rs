//! What depends on the version of an obproxy, in one table. `docs/facts/obproxy.md` has the sources.

use crate::steps::values::PackageRef;

/// How versions of obproxy differ, as far as it matters to whoever manages them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObproxyVersion {
    /// The program has a third listener, for RPC.
    pub rpc_port: bool,
    /// Levels of the lines in `log/obproxy.log` that tell of failures: the grave one first.
    pub failure_levels: [&'static str; 2],
}

/// Port for RPC where a request names none: the program's own default.
pub const DEFAULT_RPC_PORT: u16 = 2885;

/// The first version of each kind, newest first.
const TABLE: [([u32; 2], ObproxyVersion); 3] = [
    ([4, 3], ObproxyVersion { rpc_port: true, failure_levels: ["EDIAG", "WDIAG"] }),
    ([4, 0], ObproxyVersion { rpc_port: false, failure_levels: ["EDIAG", "WDIAG"] }),
    ([0, 0], ObproxyVersion { rpc_port: false, failure_levels: ["ERROR", "WARN"] }),
];

impl ObproxyVersion {
    /// By the version of the package that holds the program.
    pub fn of(package: &PackageRef) -> Self {
        let mut numbers = package.version().split('.').map(|part| part.parse().unwrap_or(0));
        let version = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
        let [.., (_, oldest)] = TABLE;
        TABLE.iter().find(|(first, _)| version >= *first).map_or(oldest, |(_, row)| *row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_traits_of_the_newest_kind_that_is_not_newer() {
        let of = |version: &str| ObproxyVersion::of(&format!("obproxy-{version}-1.el7.x86_64").parse().unwrap());
        for version in ["4.3.1.0", "4.3", "4.10.0", "5.0.0"] {
            assert!(of(version).rpc_port, "{version}");
        }
        for version in ["4.2.9", "4.0.0", "3.2.0", "1.9.1.1", "strange"] {
            assert!(!of(version).rpc_port, "{version}");
        }
        assert_eq!(of("3.2.0").failure_levels, ["ERROR", "WARN"]);
        assert_eq!(of("4.0.0").failure_levels, ["EDIAG", "WDIAG"]);
    }
}
