//! The metrics port.

use super::Proxy;
use std::{
    fmt::Write as _,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_REQUEST_BYTES: u64 = 16 * 1024;
/// M7
const REMEMBERED: Duration = Duration::from_secs(60);

/// Answers one request after the other; a scraper is alone here.
pub(super) fn serve(listener: &TcpListener, proxy: &Proxy) {
    for stream in listener.incoming().flatten() {
        if let Err(error) = answer(stream, proxy) {
            proxy.log.info(&format!("scrape failed: {error}"));
        }
    }
}

fn answer(mut stream: TcpStream, proxy: &Proxy) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new((&stream).take(LONGEST_REQUEST_BYTES)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    // M1
    let scrape = method == "GET" && target.split('?').next() == Some("/metrics");
    let (status, body) = match scrape {
        true if proxy.faults.bad_metrics => ("200 OK", "odp_current_session{ 1 2 3\n<html>\n".to_owned()),
        true => ("200 OK", render(proxy)),
        false => ("404 Not Found", String::new()),
    };
    if scrape {
        *proxy.last_scrape.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Instant::now());
        proxy.scrapes.fetch_add(1, Ordering::Relaxed);
        proxy.scraped_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    }
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn render(proxy: &Proxy) -> String {
    // A scraper that panicked has written it whole.
    let last_scrape = *proxy.last_scrape.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let recently = last_scrape.is_some_and(|last| last.elapsed() < REMEMBERED);
    let (scrapes, bytes) = (proxy.scrapes.load(Ordering::Relaxed), proxy.scraped_bytes.load(Ordering::Relaxed));
    let mut text = exposer(scrapes, bytes, recently);
    // M2, M4
    if proxy.faults.tenant_traffic {
        text.push_str(&families(proxy));
    }
    text
}

/// M2, M3: what the metrics library says of itself. M7: `recently` says whether it remembers a scrape.
fn exposer(scrapes: u64, bytes: u64, recently: bool) -> String {
    let mut text = format!(
        "# HELP exposer_transferred_bytes_total Transferred bytes to metrics services\n\
         # TYPE exposer_transferred_bytes_total counter\n\
         exposer_transferred_bytes_total {bytes}\n\
         # HELP exposer_scrapes_total Number of times metrics were scraped\n\
         # TYPE exposer_scrapes_total counter\n\
         exposer_scrapes_total {scrapes}\n\
         # HELP exposer_request_latencies Latencies of serving scrape requests, in microseconds\n\
         # TYPE exposer_request_latencies summary\n\
         exposer_request_latencies_count {scrapes}\n\
         exposer_request_latencies_sum {}\n",
        scrapes * 100
    );
    for quantile in ["0.5", "0.9", "0.99"] {
        let value = if recently { "100" } else { "Nan" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "exposer_request_latencies{{quantile=\"{quantile}\"}} {value}");
    }
    text
}

/// M5
fn families(proxy: &Proxy) -> String {
    let labels = format!(
        "ip=\"127.0.0.1\",namespace=\"ODP\",odpVersion=\"{}\",logicTenant=\"\",logicSchema=\"\",cluster=\"{}\",\
         tenant=\"sys\"",
        proxy.version.number(),
        proxy.cluster.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
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
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_scrape_is_as_long_as_the_real_one() {
        let text = exposer(0, 0, false);
        assert_eq!((text.lines().count(), text.len()), (13, 618));
    }

    #[test]
    fn quantiles_are_forgotten_when_nobody_scrapes() {
        assert!(!exposer(1, 618, true).contains("Nan"));
        assert_eq!(exposer(1, 618, false).matches(" Nan\n").count(), 3);
    }
}
