//! Names under which passwords of a proxy come with a step.

/// The password of root@proxysys.
pub const OBPROXY_SYS_PASSWORD: &str = "obproxy_sys_password";
/// The password of proxyro@sys on the observers.
pub const OBSERVER_SYS_PASSWORD: &str = "observer_sys_password";
