//! The configuration items: a third of those that obproxy has, and the faults that a test can ask for.
//!
//! Defaults are S3 and S25 of the facts. Where the facts name no range, a narrow one is taken: a value that passes here
//! has a good chance with the real program.

use super::{kind::Kind, version::SYS_PASSWORD};

#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) kind: Kind,
    pub(super) need_reboot: bool,
    pub(super) visible_level: &'static str,
}

impl Item {
    /// S2. Silent on whether it is stored: a stored X5 would end every later start too.
    pub(super) fn in_memory(&self) -> bool {
        self.visible_level == "MEMORY"
    }

    pub(super) fn info(&self) -> String {
        match self.name {
            // S3
            "proxy_local_cmd" => {
                "proxy local cmd type: 0->none(default), 1->exit, 2->restart, 3->offline, 4->online".into()
            }
            "listen_port" => "obproxy listen port".into(),
            name => name.replace('_', " "),
        }
    }
}

const fn user(name: &'static str, default: &'static str, kind: Kind) -> Item {
    Item { name, default, kind, need_reboot: false, visible_level: "USER" }
}

const fn sys(name: &'static str, default: &'static str, kind: Kind) -> Item {
    Item { name, default, kind, need_reboot: false, visible_level: "SYS" }
}

const fn reboot(name: &'static str, default: &'static str, kind: Kind) -> Item {
    Item { name, default, kind, need_reboot: true, visible_level: "SYS" }
}

const PORT: Kind = Kind::Int("(1024,65536)");
const COUNT: Kind = Kind::Int("[0,65535]");
const SWITCH: Kind = Kind::Int("[0,1]");
const INTERVAL: Kind = Kind::Time("[1s,1d]");
const MILLISECONDS: Kind = Kind::Int("[0,3600000]");
/// A15: of a text that is unknown too.
const INSPECTOR_PASSWORD: &str = "ffffffffffffffffffffffffffffffffffffffff";

pub(super) static ITEMS: &[Item] = &[
    reboot("app_name", "undefined", Kind::Text), // C18
    reboot("automatic_match_work_thread", "True", Kind::Bool),
    user("client_max_connections", "8192", Kind::Int("[0,65535]")), // S17
    user("cluster_expire_time", "1d", Kind::Time("[0s,]")),
    user("congestion_fail_window", "120s", Kind::Time("[1s,1h]")),
    user("congestion_failure_threshold", "5", Kind::Int("[-1,1000]")),
    user("congestion_retry_interval", "20s", Kind::Time("[1s,1h]")),
    user("connect_observer_max_retries", "3", Kind::Int("[0,10]")),
    user("default_inactivity_timeout", "180000s", Kind::Time("[1s,30d]")),
    user("delay_exit_time", "100ms", Kind::Time("[100ms,500ms]")), // X1
    reboot("enable_async_pull_location_cache", "True", Kind::Bool),
    user("enable_bad_route_reject", "False", Kind::Bool),
    user("enable_cached_server", "True", Kind::Bool),
    user("enable_client_connection_lru_disconnect", "False", Kind::Bool),
    user("enable_cluster_checkout", "True", Kind::Bool),
    user("enable_compression_protocol", "True", Kind::Bool),
    user("enable_congestion", "True", Kind::Bool),
    user("enable_extra_prometheus_metric", "False", Kind::Bool),
    user("enable_full_link_trace", "True", Kind::Bool),
    user("enable_get_rslist_remote", "False", Kind::Bool),
    user("enable_index_route", "False", Kind::Bool),
    reboot("enable_metadb_used", "True", Kind::Bool),
    user("enable_monitor_stat", "True", Kind::Bool),
    reboot("enable_obproxy_rpc_service", "True", Kind::Bool), // L2
    user("enable_ob_protocol_v2", "True", Kind::Bool),
    user("enable_partition_table_route", "True", Kind::Bool),
    user("enable_primary_zone", "True", Kind::Bool),
    user("enable_prometheus", "True", Kind::Bool),
    user("enable_proxy_scramble", "False", Kind::Bool),
    user("enable_qos", "False", Kind::Bool),
    user("enable_read_only_zone", "False", Kind::Bool),
    user("enable_reroute", "False", Kind::Bool),
    user("enable_strict_kernel_release", "True", Kind::Bool),
    user("enable_transaction_internal_routing", "True", Kind::Bool),
    user("enable_weak_reroute", "True", Kind::Bool),
    user("enable_xa_route", "True", Kind::Bool),
    user("hot_upgrade_exit_timeout", "30s", Kind::Time("[-1,1d]")), // H6
    user("hot_upgrade_failure_retries", "5", Kind::Int("[1,100]")),
    user("hot_upgrade_rollback_timeout", "24h", Kind::Time("[1s,30d]")),
    user("idc_name", "", Kind::Text),
    sys("inspector_password", INSPECTOR_PASSWORD, Kind::Password), // A15
    reboot("listen_port", "6688", PORT),                           // C5, S3, L8
    reboot("local_bound_ip", "0.0.0.0", Kind::Text),               // L8
    user("location_expire_period", "0d", Kind::Time("[0s,30d]")),
    user("log_cleanup_interval", "1m", Kind::Time("[5s,30d]")),
    user("log_dir_size_threshold", "64GB", Kind::Capacity("[256M,1T]")),
    user("log_file_percentage", "80", Kind::Int("[0,100]")),
    user("long_async_task_timeout", "60s", Kind::Time("[1s,1h]")),
    user("max_connections", "60000", Kind::Int("[0,65535]")),
    user("max_log_file_size", "256MB", Kind::Capacity("[1MB,1G]")),
    user("monitor_cost_ms_unit", "False", Kind::Bool),
    user("monitor_item_limit", "3000", COUNT),
    user("monitor_log_level", "INFO", Kind::Level),
    user("monitor_stat_dump_interval", "1s", INTERVAL),
    user("net_accept_threads", "2", Kind::Int("[0,8]")),
    reboot("obproxy_config_server_url", "", Kind::Text),
    sys("obproxy_sys_password", SYS_PASSWORD, Kind::Password), // A3
    user("observer_query_timeout_delta", "20s", Kind::Time("[1s,30s]")),
    sys("observer_sys_password", "", Kind::Password),
    sys("observer_sys_password1", "", Kind::Password),
    user("prometheus_cost_ms_unit", "False", Kind::Bool),
    reboot("prometheus_listen_port", "2884", PORT), // L8
    user("prometheus_sync_interval", "1m", INTERVAL),
    user("proxy_hot_upgrade_check_interval", "5s", Kind::Time("[5s,1h]")), // S23
    reboot("proxy_id", "0", Kind::Int("[0,8191]")),
    Item {
        name: "proxy_local_cmd",
        default: "0",
        kind: Kind::Int("[0,4]"),
        need_reboot: false,
        visible_level: "MEMORY",
    }, // S3
    user("proxy_mem_limited", "2G", Kind::Capacity("[100MB,100G]")), // S3
    reboot("proxy_service_mode", "server", Kind::Text),
    user("query_digest_time_threshold", "100ms", Kind::Time("[0s,30d]")),
    reboot("rootservice_cluster_name", "undefined", Kind::Text),
    reboot("rootservice_list", "", Kind::Text), // S3, S20
    reboot("rpc_listen_port", "2885", PORT),    // L1
    user("server_detect_mode", "1", Kind::Int("[0,2]")),
    user("short_async_task_timeout", "5s", Kind::Time("[1s,1h]")),
    user("skip_proxy_sys_private_check", "False", Kind::Bool), // A13
    user("skip_proxyro_check", "False", Kind::Bool),
    user("slow_query_time_threshold", "500ms", Kind::Time("[0s,30d]")),
    user("slow_transaction_time_threshold", "1s", Kind::Time("[0s,30d]")),
    user("stat_dump_interval", "6000s", Kind::Time("[0s,1d]")),
    user("stat_sync_interval", "60s", Kind::Time("[0s,1d]")),
    user("syslog_io_bandwidth_limit", "10MB", Kind::Capacity("[0,]")),
    user("syslog_level", "WDIAG", Kind::Level), // S6, S18
    reboot("work_thread_num", "128", Kind::Int("[1,128]")),
    user("xflush_log_level", "INFO", Kind::Level),
    // Faults; in force from the start after the one that set them.
    reboot("standin_bad_metrics", "0", SWITCH),
    reboot("standin_die_after_ms", "0", MILLISECONDS),
    reboot("standin_complaint_of_metrics", "0", SWITCH),
    reboot("standin_exit_code", "0", Kind::Int("[0,255]")),
    reboot("standin_no_backslash_escapes", "0", SWITCH),
    reboot("standin_no_metrics", "0", SWITCH),
    reboot("standin_refuse_logins", "0", SWITCH),
    reboot("standin_refuse_sys_password", "0", SWITCH),
    reboot("standin_slow_start_ms", "0", MILLISECONDS),
    reboot("standin_tenant_traffic", "0", SWITCH),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_item() {
        for item in ITEMS {
            let kept = item.kind.accept(item.default, &["INFO", "WDIAG"]);
            assert_eq!(kept.as_deref(), Some(item.default), "{}", item.name);
        }
    }
}
