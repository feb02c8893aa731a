//! The agent's own exporter: itself, its host under node_exporter's names, and each managed instance.

pub mod exposition;
mod registration;
pub(super) mod scrape;

use super::{super::HostView as _, Host, managed::List};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use procfs::{Current as _, CurrentSI as _, WithCurrentSystemInfo as _, process::Process};
use prometheus::{
    CounterVec, Encoder as _, GaugeVec, Opts, Registry, TextEncoder, process_collector::ProcessCollector,
};
use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

const PROBE_DEADLINE: Duration = Duration::from_secs(1);
const PAGE: &str = "<!doctype html><html lang=\"en\"><title>oblet-agent</title><h1>oblet-agent</h1>\
    <p><a href=\"/metrics\">Metrics</a> <a href=\"/-/healthy\">Health</a></p></html>";

/// Serves `/metrics`, `/-/healthy` and a landing page.
pub fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/-/healthy", get(async || "healthy\n"))
        .route("/metrics", get(serve))
        .with_state(host)
}

async fn serve(State(host): State<Arc<Host>>) -> Response {
    let answers = probe_ports(&host).await;
    let rendered = tokio::task::spawn_blocking(move || render(&host, &answers)).await;
    match rendered {
        Ok(Ok(text)) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "the metrics could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the rendering of the metrics ended unexpectedly");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Ports of the managed instances and exporters that accept a connection.
async fn probe_ports(host: &Host) -> HashSet<u16> {
    let address = host.settings.reach();
    let instances = host.managed.all(List::Instances);
    let exporters = host.managed.all(List::Exporters);
    let ports: HashSet<u16> = instances
        .iter()
        .flat_map(|instance| [instance.sql_port.get(), instance.exporter_port.get()])
        .chain(exporters.iter().map(|exporter| exporter.exporter_port.get()))
        .collect();
    let probe = |port: u16| async move {
        let connect = tokio::net::TcpStream::connect(SocketAddr::new(address, port));
        matches!(tokio::time::timeout(PROBE_DEADLINE, connect).await, Ok(Ok(_))).then_some(port)
    };
    futures_util::future::join_all(ports.into_iter().map(probe)).await.into_iter().flatten().collect()
}

/// Families of one scrape; nothing is kept between scrapes, so what is gone is gone from the text.
struct Page(Registry);

impl Page {
    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<CounterVec> {
        let family = CounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn plain(&self, name: &str, help: &str, value: f64) -> prometheus::Result<()> {
        self.gauge(name, help, &[])?.with_label_values::<&str>(&[]).set(value);
        Ok(())
    }
}

fn render(host: &Host, answers: &HashSet<u16>) -> prometheus::Result<String> {
    let page = Page(Registry::new());
    page.0.register(Box::new(ProcessCollector::for_self()))?;
    let build = page.gauge("oblet_build_info", "Version of the agent; the value is always 1.", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    page.plain(
        "oblet_agent_config_generation",
        "Generation of the list of managed instances.",
        host.config_generation() as f64,
    )?;
    instances(&page, host, answers)?;
    node(&page, host)?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&page.0.gather(), &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

fn instances(page: &Page, host: &Host, answers: &HashSet<u16>) -> prometheus::Result<()> {
    let labels = ["kind", "ob_cluster_name", "port"];
    let up = page.gauge("oblet_instance_up", "1 if the process of the instance is running.", &labels)?;
    let memory = page.gauge("oblet_instance_resident_memory_bytes", "Resident memory of the instance.", &labels)?;
    let cpu = page.counter("oblet_instance_cpu_seconds_total", "Processor time the instance has used.", &labels)?;
    let files = page.gauge("oblet_instance_open_fds", "Open file descriptors of the instance.", &labels)?;
    let threads = page.gauge("oblet_instance_threads", "Threads of the instance.", &labels)?;
    let answered = page.gauge(
        "oblet_instance_port_answers",
        "1 if the port of the instance accepts a connection.",
        &["kind", "ob_cluster_name", "instance_port", "port"],
    )?;
    for instance in host.managed.all(List::Instances) {
        let (kind, cluster, port) =
            (instance.kind.as_str(), instance.cluster_name.as_str(), instance.sql_port.to_string());
        let values = [kind, cluster, &port];
        for checked in [instance.sql_port, instance.exporter_port] {
            let value = f64::from(u8::from(answers.contains(&checked.get())));
            answered.with_label_values(&[kind, cluster, &port, &checked.to_string()]).set(value);
        }
        let process = host.instance_pid(&instance).and_then(|pid| Process::new(pid).ok());
        let alive = up.with_label_values(&values);
        alive.set(0.0);
        let Some((process, stat)) = process.and_then(|process| process.stat().ok().map(|stat| (process, stat))) else {
            continue;
        };
        alive.set(1.0);
        memory.with_label_values(&values).set(stat.rss_bytes().get() as f64);
        cpu.with_label_values(&values).inc_by((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64);
        threads.with_label_values(&values).set(stat.num_threads as f64);
        if let Ok(count) = process.fd_count() {
            files.with_label_values(&values).set(count as f64);
        }
    }
    let registered =
        page.gauge("oblet_exporter_up", "1 if the registered exporter port accepts a connection.", &labels)?;
    for exporter in host.managed.all(List::Exporters) {
        let listens = answers.contains(&exporter.exporter_port.get());
        let port = exporter.exporter_port.to_string();
        let values = [exporter.kind.as_str(), exporter.cluster_name.as_str(), &port];
        registered.with_label_values(&values).set(f64::from(u8::from(listens)));
    }
    Ok(())
}

fn node(page: &Page, host: &Host) -> prometheus::Result<()> {
    if let Ok(load) = procfs::LoadAverage::current() {
        page.plain("node_load1", "1m load average.", load.one.into())?;
        page.plain("node_load5", "5m load average.", load.five.into())?;
        page.plain("node_load15", "15m load average.", load.fifteen.into())?;
    }
    if let Ok(memory) = procfs::Meminfo::current() {
        page.plain("node_memory_MemTotal_bytes", "Memory information field MemTotal_bytes.", memory.mem_total as f64)?;
        if let Some(available) = memory.mem_available {
            let help = "Memory information field MemAvailable_bytes.";
            page.plain("node_memory_MemAvailable_bytes", help, available as f64)?;
        }
    }
    if let Ok(kernel) = procfs::KernelStats::current() {
        page.plain("node_boot_time_seconds", "Node boot time, in unixtime.", kernel.btime as f64)?;
        let help = "Seconds the CPUs spent in each mode.";
        let seconds = page.counter("node_cpu_seconds_total", help, &["cpu", "mode"])?;
        for (number, time) in kernel.cpu_time.iter().enumerate() {
            let modes = [
                ("user", Some(time.user_ms())),
                ("nice", Some(time.nice_ms())),
                ("system", Some(time.system_ms())),
                ("idle", Some(time.idle_ms())),
                ("iowait", time.iowait_ms()),
                ("irq", time.irq_ms()),
                ("softirq", time.softirq_ms()),
                ("steal", time.steal_ms()),
            ];
            for (mode, milliseconds) in modes {
                if let Some(milliseconds) = milliseconds {
                    let cpu = number.to_string();
                    seconds.with_label_values(&[cpu.as_str(), mode]).inc_by(milliseconds as f64 / 1000.0);
                }
            }
        }
    }
    if let Ok(space) = nix::sys::statvfs::statvfs(&host.settings.root_dir) {
        let mount = host.settings.root_dir.to_string_lossy().into_owned();
        let unit = space.fragment_size() as f64;
        let size = page.gauge("node_filesystem_size_bytes", "Filesystem size in bytes.", &["mountpoint"])?;
        size.with_label_values(&[&mount]).set(space.blocks() as f64 * unit);
        let help = "Filesystem space available to non-root users in bytes.";
        let available = page.gauge("node_filesystem_avail_bytes", help, &["mountpoint"])?;
        available.with_label_values(&[&mount]).set(space.blocks_available() as f64 * unit);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::settings, exposition, *};
    use crate::steps::{Instance, InstanceKind};

    #[tokio::test]
    async fn the_page_is_valid_and_names_the_instances() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::open(settings(root.path()), Box::new(super::super::DirectSupervisor::new())).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = i64::from(listener.local_addr().unwrap().port()).try_into().unwrap();
        let instance = Instance {
            kind: InstanceKind::Obproxy,
            sql_port: port,
            exporter_port: port,
            cluster_name: "odp".parse().unwrap(),
            cluster_id: 1,
            server_id: 1,
        };
        host.managed.set(List::Instances, instance.kind, port, Some(&instance)).unwrap();
        let answers = probe_ports(&host).await;
        let text = render(&host, &answers).unwrap();
        exposition::check(&text).unwrap();
        assert!(
            text.contains(&format!("oblet_instance_up{{kind=\"obproxy\",ob_cluster_name=\"odp\",port=\"{port}\"}} 1"))
        );
        for name in ["node_load1", "node_cpu_seconds_total", "oblet_instance_port_answers", "process_open_fds"] {
            assert!(text.contains(name), "{name}");
        }
        for help in text.lines().filter(|line| line.starts_with("# HELP")) {
            assert!(help.ends_with('.'), "{help}");
        }
        assert_eq!(host.instances()[0].pid, std::process::id() as i32);
        assert_eq!(host.config_generation(), 1);
    }
}
