//! What has names, and where the API lists it: the kinds that more than one room asks for.

use crate::cli::console::table::{Column, column};

pub(crate) const HOSTS: &str = "api/v2/compute/hosts";
pub(crate) const CLUSTERS: &str = "api/v2/obproxy/clusters";
pub(crate) const PACKAGES: &str = "api/v2/software-packages";

/// Something that has names.
pub(crate) struct Kind {
    /// Such as "host".
    pub(crate) what: &'static str,
    pub(crate) path: &'static str,
    /// By which an entry is found; the first tells candidates apart.
    pub(crate) names: &'static [Column],
    pub(crate) list_command: &'static str,
}

pub(crate) const HOST: Kind = Kind {
    what: "host",
    path: HOSTS,
    names: &[column("address", "/innerIpAddress"), column("alias", "/alias"), column("name", "/name")],
    list_command: "oblet host list",
};

pub(crate) const CLUSTER: Kind = Kind {
    what: "OBProxy cluster",
    path: CLUSTERS,
    names: &[column("name", "/name")],
    list_command: "oblet obproxy list",
};

pub(crate) const PACKAGE: Kind = Kind {
    what: "package",
    path: PACKAGES,
    names: &[column("file name", "/fileName")],
    list_command: "oblet package list",
};
