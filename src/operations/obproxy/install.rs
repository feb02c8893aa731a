//! "Install obproxy": creating a proxy cluster and adding proxies to one.
//!
//! Names, classes, timeouts and series ids are those of OCP's documented samples of
//! `POST /api/v2/obproxy/clusters` and `POST /api/v2/obproxy/clusters/{id}/obproxies/batchAdd`.

use crate::{
    operations::{Builder, Context, NOWHERE, ObjectKind, ObjectLock, Place, TaskPlan, obproxy::instance},
    steps::{
        CheckCommands, CheckInstance, CheckProcesses, ExposeExporter, Finish, InstallPackage, ObproxyRef,
        PrepareObproxyInstall, RefreshConfig, SetObproxyPasswords, StartObproxy, Step, SyncObproxyParameters,
        UpdateObproxyStatus,
        values::{CommandName, InvalidValue, Keyword, Parameter, Sha256},
    },
};

const TASK_NAME: &str = "Install obproxy";
/// What obproxyd.sh needs for its probe (`echo hi | nc`), as the samples have it.
const COMMANDS_TO_CHECK: [&str; 1] = ["nc"];
const PROCESS_KEYWORDS: [&str; 2] = ["obproxy", "obproxyd.sh"];

/// Series ids of the batchAdd sample.
mod series {
    pub(super) const PREPARE_CREATE: u32 = 0;
    pub(super) const START: u32 = 1;
    pub(super) const FINISH: u32 = 2;
    pub(super) const SYNC_PARAMETERS: u32 = 3;
    pub(super) const PREPARE_INSTALL: u32 = 4;
    pub(super) const INSTALL_RPM: u32 = 5;
    pub(super) const CHECK_COMMANDS: u32 = 6;
    pub(super) const REGISTER_EXPORTER: u32 = 7;
    pub(super) const CHECK_PROCESSES: u32 = 8;
    pub(super) const REFRESH_CONFIG: u32 = 9;
    pub(super) const SET_PASSWORDS: u32 = 10;
    pub(super) const UPDATE_STATUS: u32 = 11;
}

/// What all proxies of one request share.
#[derive(Debug, Clone)]
pub struct ObproxyInstall {
    pub cluster_id: i64,
    pub parameter_version: i64,
    pub start: StartObproxy,
    pub parameters: Vec<Parameter>,
    pub sha256: Sha256,
    /// Installed size.
    pub disk_bytes: u64,
}

/// A proxy that is to be: its host, and the id under which it is known already.
#[derive(Debug, Clone, Copy)]
pub struct NewProxy {
    pub host_id: i64,
    pub server_id: i64,
}

/// batchAdd: one task per host, a chain of twelve.
pub fn install_obproxy(install: &ObproxyInstall, proxy: NewProxy) -> Result<TaskPlan, InvalidValue> {
    let place = Place { host_id: Some(proxy.host_id), parallel_index: -1 };
    let mut builder = Builder::default();
    let prepare = prepare_install(install.cluster_id, Some((install, proxy)));
    let first = builder.add(series::PREPARE_INSTALL, NOWHERE, prepare, &[]);
    let last = add_proxy(&mut builder, install, proxy, place, first)?;
    builder.add(series::FINISH, NOWHERE, Finish {}.into(), &[last]);

    let mut context = install_context(install);
    context.string_map.insert("obproxy_server_id".into(), proxy.server_id.to_string());
    context.string_map.insert("host_id".into(), proxy.host_id.to_string());
    Ok(TaskPlan {
        name: TASK_NAME.into(),
        context,
        host_id: Some(proxy.host_id),
        obproxy_cluster_id: Some(install.cluster_id),
        locks: vec![
            ObjectLock::shared(ObjectKind::ObproxyCluster, install.cluster_id),
            ObjectLock::exclusive(ObjectKind::Host, proxy.host_id),
            ObjectLock::exclusive(ObjectKind::Obproxy, proxy.server_id),
        ],
        nodes: builder.nodes,
    })
}

/// Creation of a cluster: two nodes without proxies, as the sample; with proxies a parallel branch for each of them.
pub fn create_cluster(
    cluster_id: i64,
    proxies: Option<(&ObproxyInstall, &[NewProxy])>,
) -> Result<TaskPlan, InvalidValue> {
    let mut builder = Builder::default();
    let mut context = Context::default();
    let mut locks = vec![ObjectLock::exclusive(ObjectKind::ObproxyCluster, cluster_id)];
    match proxies {
        None => {
            // The sample of this request numbers its two template nodes by themselves.
            let first = builder.add(0, NOWHERE, prepare_install(cluster_id, None), &[]);
            builder.add(1, NOWHERE, Finish {}.into(), &[first]);
        }
        Some((install, proxies)) => {
            let first = builder.add(series::PREPARE_INSTALL, NOWHERE, prepare_install(cluster_id, None), &[]);
            let mut last = Vec::new();
            for (parallel_index, proxy) in (0..).zip(proxies) {
                let place = Place { host_id: Some(proxy.host_id), parallel_index };
                last.push(add_proxy(&mut builder, install, *proxy, place, first)?);
                locks.push(ObjectLock::exclusive(ObjectKind::Host, proxy.host_id));
                locks.push(ObjectLock::exclusive(ObjectKind::Obproxy, proxy.server_id));
            }
            builder.add(series::FINISH, NOWHERE, Finish {}.into(), &last);
            context = install_context(install);
            let ids = |id: fn(&NewProxy) -> i64| proxies.iter().map(|proxy| id(proxy).to_string()).collect();
            context.list_map.insert("host_ids".into(), ids(|proxy| proxy.host_id));
            context.list_map.insert("obproxy_server_ids".into(), ids(|proxy| proxy.server_id));
        }
    }
    context.string_map.insert("prohibit_rollback".into(), "false".into());
    Ok(TaskPlan {
        name: TASK_NAME.into(),
        context,
        host_id: None,
        obproxy_cluster_id: Some(cluster_id),
        locks,
        nodes: builder.nodes,
    })
}

fn prepare_install(cluster_id: i64, proxy: Option<(&ObproxyInstall, NewProxy)>) -> Step {
    Step::from(PrepareObproxyInstall {
        cluster_id,
        proxy: proxy.map(|(_, proxy)| ObproxyRef { cluster_id, server_id: proxy.server_id }),
        package: proxy.map(|(install, _)| install.start.package.clone()),
    })
}

/// The ten nodes between "Prepare obproxy install" and "Finish node"; answers the last.
fn add_proxy(
    builder: &mut Builder,
    install: &ObproxyInstall,
    proxy: NewProxy,
    place: Place,
    first: crate::graph::NodeIndex,
) -> Result<crate::graph::NodeIndex, InvalidValue> {
    let start = &install.start;
    let instance = instance(start, install.cluster_id, proxy.server_id);
    let steps = [
        (
            series::PREPARE_CREATE,
            Step::from(CheckInstance {
                ports: [start.sql_port, start.exporter_port].into_iter().chain(start.rpc_port).collect(),
                architecture: start.package.architecture().into(),
                disk_bytes: install.disk_bytes,
            }),
        ),
        (series::CHECK_PROCESSES, Step::from(CheckProcesses { keywords: parse_all::<Keyword>(&PROCESS_KEYWORDS)? })),
        (series::CHECK_COMMANDS, Step::from(CheckCommands { commands: parse_all::<CommandName>(&COMMANDS_TO_CHECK)? })),
        (
            series::INSTALL_RPM,
            Step::from(InstallPackage { package: start.package.clone(), sha256: install.sha256.clone() }),
        ),
        (series::START, Step::from(start.clone())),
        (
            series::SYNC_PARAMETERS,
            Step::from(SyncObproxyParameters { sql_port: start.sql_port, parameters: install.parameters.clone() }),
        ),
        (series::SET_PASSWORDS, Step::from(SetObproxyPasswords { sql_port: start.sql_port })),
        (series::REFRESH_CONFIG, Step::from(RefreshConfig { instance: instance.clone() })),
        (series::REGISTER_EXPORTER, Step::from(ExposeExporter { instance })),
    ];
    let mut last = first;
    for (series_id, step) in steps {
        last = builder.add(series_id, place, step, &[last]);
    }
    let status = UpdateObproxyStatus { cluster_id: install.cluster_id, server_id: proxy.server_id };
    Ok(builder.add(series::UPDATE_STATUS, place, status.into(), &[last]))
}

fn parse_all<T: std::str::FromStr<Err = InvalidValue>>(texts: &[&str]) -> Result<Vec<T>, InvalidValue> {
    texts.iter().map(|text| text.parse()).collect()
}

fn install_context(install: &ObproxyInstall) -> Context {
    let list = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let strings = [
        ("obproxy_need_delete_cluster", "false".to_owned()),
        ("package_version", install.start.package.version_build()),
        ("prohibit_rollback", "false".to_owned()),
        ("service_name", install.start.app_name.to_string()),
        ("package_name", install.start.package.name().to_owned()),
        ("obproxy_parameter_version", install.parameter_version.to_string()),
        ("obproxy_cluster_name", install.start.app_name.to_string()),
        ("obproxy_cluster_id", install.cluster_id.to_string()),
    ];
    Context {
        list_map: [("commands_to_check", list(&COMMANDS_TO_CHECK)), ("process_keywords", list(&PROCESS_KEYWORDS))]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        string_map: strings.map(|(key, value)| (key.to_owned(), value)).into(),
    }
}
