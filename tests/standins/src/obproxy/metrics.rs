//! The exporter: `GET /metrics` with the families that obproxy has (its `prometheus/` sources).

use super::Proxy;
use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::Ordering,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_REQUEST_BYTES: u64 = 16 * 1024;

/// Answers one request after the other; a scraper is alone here.
pub(super) fn serve(listener: &TcpListener, proxy: &Proxy, broken: bool) {
    for stream in listener.incoming().flatten() {
        if let Err(error) = answer(stream, proxy, broken) {
            proxy.log(&format!("scrape failed: {error}"));
        }
    }
}

fn answer(mut stream: TcpStream, proxy: &Proxy, broken: bool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new((&stream).take(LONGEST_REQUEST_BYTES)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, body) = match request.split(' ').nth(1).map(|target| target.split('?').next().unwrap_or_default()) {
        Some("/metrics") if broken => ("200 OK", "odp_current_session{ 1 2 3\n<html>\n".to_owned()),
        Some("/metrics") => ("200 OK", render(proxy)),
        _ => ("404 Not Found", String::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn render(proxy: &Proxy) -> String {
    let cluster = proxy.with_config(|config| config.get("rootservice_cluster_name").to_owned());
    let labels = format!(
        "logicTenant=\"\",logicSchema=\"\",cluster=\"{}\",tenant=\"sys\"",
        cluster.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
    );
    let requests = proxy.requests.load(Ordering::Relaxed);
    let connections = proxy.connections.load(Ordering::Relaxed);
    let sessions = proxy.sessions.load(Ordering::Relaxed);
    let sql = format!("{labels},sqlType=\"SELECT\",sqlResult=\"success\"");
    let families = [
        ("odp_transaction_total", "counter", format!("{labels},transType=\"auto\""), 0),
        ("odp_sql_request_total", "counter", sql.clone(), requests),
        ("odp_sql_cost_total", "gauge", format!("{sql},timeType=\"total\""), requests * 100),
        ("odp_current_session", "gauge", format!("{labels},sessionType=\"client\",vip=\"\""), sessions),
        ("odp_new_client_connections", "counter", format!("{labels},connectionResult=\"success\""), connections),
        ("odp_request_byte", "counter", labels.clone(), 0),
        ("odp_entry_total", "counter", format!("{labels},entryType=\"table\",routeResult=\"success\""), 0),
    ];
    let mut text = String::new();
    for (name, kind, labels, value) in families {
        let help = name.trim_start_matches("odp_").replace('_', " ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value}");
    }
    text
}
