use reqwest::{
    Body, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    multipart, redirect,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

use super::{
    event_stream::EventStream,
    settings::{Settings, is_loopback},
};
use crate::cli::console::error::{CliError, Refusal};

/// OCP's upper bound for the size of a page.
const PAGE_SIZE: usize = 2000;
const EVENT_STREAM: &str = "text/event-stream";
/// The slowest line over which an upload is still waited for.
const SLOWEST_UPLOAD_BYTES_PER_SECOND: u64 = 128 * 1024;

/// The coordinator's REST API. `doing` completes "cannot ..." in the error of a request that fails.
pub(crate) struct Client {
    http: reqwest::Client,
    url: reqwest::Url,
    user: String,
    password: SecretString,
    timeout: Duration,
}

/// What every answer is wrapped in.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    data: Value,
    successful: bool,
    error: Option<WireError>,
    trace_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireError {
    code: Option<i64>,
    message: String,
    target: Option<String>,
    next_move: Option<String>,
    #[serde(default)]
    sub_errors: Vec<SubError>,
}

#[derive(Deserialize)]
struct SubError {
    field: Option<String>,
    message: String,
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Result<Self, CliError> {
        crate::tls::install_crypto_provider();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("oblet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.timeout)
            // A redirect could carry the password elsewhere, and the API knows none.
            .redirect(redirect::Policy::none());
        if is_loopback(&settings.url) {
            // A proxy of the environment has no way back to this host.
            builder = builder.no_proxy();
        }
        if settings.url.scheme() == "http" {
            // Hosts without any certificate authority are fine where no TLS is spoken.
            builder = builder.tls_certs_only([]);
        } else if let Some(path) = &settings.ca {
            let pem = std::fs::read(path).map_err(|source| CliError::File { path: path.clone(), source })?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(CliError::Client)?;
            if certificates.is_empty() {
                return Err(CliError::Usage {
                    message: format!("{} contains no certificate", path.display()),
                    next: "name the certificate of the coordinator's authority (PEM) with --ca or OBLET_CA".into(),
                });
            }
            builder = builder.tls_certs_only(certificates);
        }
        let Settings { url, user, password, timeout, .. } = settings;
        Ok(Self { http: builder.build().map_err(CliError::Client)?, url, user, password, timeout })
    }

    pub(crate) async fn get(&self, doing: &str, path: &str) -> Result<Value, CliError> {
        self.send(doing, self.request(Method::GET, path), self.timeout).await
    }

    pub(crate) async fn post(
        &self,
        doing: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, CliError> {
        let request = self.request(Method::POST, path).query(query);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.send(doing, request, self.timeout).await
    }

    /// A request that is carried out once, however often it comes with the same key.
    pub(crate) async fn post_once(&self, doing: &str, path: &str, body: &Value, key: &str) -> Result<Value, CliError> {
        let request = self.request(Method::POST, path).header("Idempotency-Key", key).json(body);
        self.send(doing, request, self.timeout).await
    }

    /// The events behind the one with the id `seen`; None if there are none and will be none.
    pub(crate) async fn events(
        &self,
        doing: &str,
        path: &str,
        seen: Option<&str>,
    ) -> Result<Option<EventStream>, CliError> {
        let mut request = self.request(Method::GET, path).header(ACCEPT, EVENT_STREAM);
        if let Some(id) = seen {
            request = request.header("Last-Event-ID", id);
        }
        let answered = tokio::time::timeout(self.timeout, request.send()).await;
        let timed_out = || CliError::TimedOut { doing: doing.into(), seconds: self.timeout.as_secs() };
        let failed = |source| self.failed(doing, self.timeout, source);
        let response = answered.map_err(|_elapsed| timed_out())?.map_err(failed)?;
        let (status, wait) = (response.status(), retry_after(response.headers()));
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        if status.is_success() && kind.starts_with(EVENT_STREAM) {
            return Ok(Some(EventStream::new(response, self.url.to_string())));
        }
        let answered = tokio::time::timeout(self.timeout, text(response)).await;
        let body = answered.map_err(|_elapsed| timed_out())?.map_err(failed)?;
        read(doing, status, wait, &body)?;
        Err(CliError::unreadable(doing, "it is not an event stream"))
    }

    pub(crate) async fn patch(
        &self,
        doing: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Result<Value, CliError> {
        self.send(doing, self.request(Method::PATCH, path).query(query).json(body), self.timeout).await
    }

    pub(crate) async fn delete(&self, doing: &str, path: &str, query: &[(&str, &str)]) -> Result<Value, CliError> {
        self.send(doing, self.request(Method::DELETE, path).query(query), self.timeout).await
    }

    /// Whether the coordinator serves requests, having taken up its unfinished tasks.
    pub(crate) async fn is_ready(&self, doing: &str) -> Result<bool, CliError> {
        let failed = |source| self.failed(doing, self.timeout, source);
        let response = self.request(Method::GET, "-/ready").timeout(self.timeout).send().await.map_err(failed)?;
        Ok(response.status().is_success())
    }

    pub(crate) fn url(&self) -> &str {
        self.url.as_str()
    }

    /// One page of a list, `size` entries long.
    pub(crate) async fn page(
        &self,
        doing: &str,
        path: &str,
        filter: &[(&str, String)],
        number: usize,
        size: u64,
    ) -> Result<Value, CliError> {
        let request = self
            .request(Method::GET, path)
            .query(&[("page", number.to_string()), ("size", size.to_string())])
            .query(filter);
        self.send(doing, request, self.timeout).await
    }

    /// A list with all its pages; `page` is left out where there are several.
    pub(crate) async fn list(&self, doing: &str, path: &str) -> Result<Value, CliError> {
        self.narrowed(doing, path, &[]).await
    }

    /// The same of those entries that fit a filter.
    pub(crate) async fn narrowed(&self, doing: &str, path: &str, filter: &[(&str, String)]) -> Result<Value, CliError> {
        let mut list = self.page(doing, path, filter, 1, PAGE_SIZE as u64).await?;
        let pages = list.pointer("/page/totalPages").and_then(Value::as_u64).unwrap_or(1) as usize;
        for number in 2..=pages {
            let mut page = self.page(doing, path, filter, number, PAGE_SIZE as u64).await?;
            let more = page.get_mut("contents").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
            if let Some(contents) = list.get_mut("contents").and_then(Value::as_array_mut) {
                contents.extend(more);
            }
        }
        if let (2.., Some(list)) = (pages, list.as_object_mut()) {
            list.remove("page");
        }
        Ok(list)
    }

    /// Sends `size_bytes` of a file as the part called "file" of a form.
    pub(crate) async fn upload(
        &self,
        doing: &str,
        path: &str,
        query: &[(&str, &str)],
        file_name: String,
        (content, size_bytes): (Body, u64),
    ) -> Result<Value, CliError> {
        let part = multipart::Part::stream_with_length(content, size_bytes).file_name(file_name);
        let request =
            self.request(Method::POST, path).query(query).multipart(multipart::Form::new().part("file", part));
        let transfer = Duration::from_secs(size_bytes / SLOWEST_UPLOAD_BYTES_PER_SECOND);
        self.send(doing, request, self.timeout + transfer).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path()));
        self.http.request(method, url).basic_auth(&self.user, Some(self.password.expose_secret()))
    }

    async fn send(&self, doing: &str, request: RequestBuilder, timeout: Duration) -> Result<Value, CliError> {
        let failed = |source| self.failed(doing, timeout, source);
        let response = request.timeout(timeout).send().await.map_err(failed)?;
        let (status, wait) = (response.status(), retry_after(response.headers()));
        let body = text(response).await.map_err(failed)?;
        read(doing, status, wait, &body)
    }

    fn failed(&self, doing: &str, timeout: Duration, source: reqwest::Error) -> CliError {
        match source.is_timeout() {
            true => CliError::TimedOut { doing: doing.into(), seconds: timeout.as_secs() },
            false => {
                CliError::Unreachable { doing: doing.into(), url: self.url.to_string(), source: source.without_url() }
            }
        }
    }
}

async fn text(response: Response) -> reqwest::Result<String> {
    Ok(String::from_utf8_lossy(&response.bytes().await?).into_owned())
}

/// In seconds, as the coordinator gives it; a date is not understood.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// The data of an answer. Service discovery answers a bare array, everything else an [`Envelope`].
fn read(doing: &str, status: StatusCode, retry_after: Option<u64>, body: &str) -> Result<Value, CliError> {
    if status.is_success() && body.trim_start().starts_with('[') {
        return serde_json::from_str(body).map_err(|error| CliError::unreadable(doing, &error.to_string()));
    }
    match serde_json::from_str::<Envelope>(body) {
        Ok(envelope) if status.is_success() && envelope.successful => Ok(envelope.data),
        Ok(envelope) => {
            let refusal = Refusal { retry_after_seconds: retry_after, ..refusal(status, envelope) };
            Err(CliError::Refused { doing: doing.into(), refusal: Box::new(refusal) })
        }
        Err(error) if status.is_success() => Err(CliError::unreadable(doing, &error.to_string())),
        Err(_) => {
            let refusal = Refusal {
                status,
                code: None,
                message: format!("the answer is {status} and gives no reason"),
                details: Vec::new(),
                next_move: None,
                trace_id: None,
                retry_after_seconds: retry_after,
            };
            Err(CliError::Refused { doing: doing.into(), refusal: Box::new(refusal) })
        }
    }
}

fn refusal(status: StatusCode, envelope: Envelope) -> Refusal {
    let Some(error) = envelope.error else {
        let message = "the coordinator gave no reason".into();
        let trace_id = envelope.trace_id;
        let (details, next_move) = (Vec::new(), None);
        return Refusal { status, code: None, message, details, next_move, trace_id, retry_after_seconds: None };
    };
    let details = error.sub_errors.into_iter().map(|sub| match sub.field {
        Some(field) => format!("{field}: {}", sub.message),
        None => sub.message,
    });
    let message = match error.target {
        Some(target) if !error.message.contains(&target) => format!("{} ({target})", error.message),
        _ => error.message,
    };
    let (details, next_move) = (details.collect(), error.next_move);
    let trace_id = envelope.trace_id;
    Refusal { status, code: error.code, message, details, next_move, trace_id, retry_after_seconds: None }
}
