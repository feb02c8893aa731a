//! Metrics of requests.

use axum::http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// Requests by route, never by path, so that the number of series is bounded.
#[derive(Clone)]
pub(in crate::api) struct RequestMetrics {
    total: IntCounterVec,
    seconds: HistogramVec,
}

impl RequestMetrics {
    pub(in crate::api) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = ["method", "route", "status"];
        let total = IntCounterVec::new(Opts::new("oblet_api_requests_total", "Requests that were answered."), &labels)?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("oblet_api_request_duration_seconds", "Time from a request to its answer."),
            &labels,
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { total, seconds })
    }

    pub(super) fn observe(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let method = match *method {
            Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::HEAD => method.as_str(),
            _ => "other",
        };
        let labels = [method, route, status.as_str()];
        self.total.with_label_values(&labels).inc();
        self.seconds.with_label_values(&labels).observe(elapsed.as_secs_f64());
    }
}
