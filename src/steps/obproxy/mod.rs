//! Steps about an obproxy.

pub(super) mod check_instance;
pub(super) mod delete_info;
pub(super) mod expose_exporter;
pub(super) mod finish_offline;
pub(super) mod prepare_install;
pub(super) mod prepare_offline;
pub(super) mod retire_exporter;
pub(super) mod secrets;
pub(super) mod set_passwords;
pub(super) mod start;
pub(super) mod sync_parameters;
pub(super) mod uninstall;
pub(super) mod update_status;
pub(super) mod version;

use super::values::Port;

/// One operation at a time touches the proxy on a port.
fn lock(sql_port: Port) -> String {
    format!("instance/obproxy/{sql_port}")
}
