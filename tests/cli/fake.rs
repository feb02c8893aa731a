//! A coordinator with prepared answers, and the CLI run against it.

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    fmt::Write,
    io,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, process::Command};

pub(crate) const PASSWORD: &str = "s3cret";
/// `admin` and the password above, as HTTP Basic wants them.
const AUTHORIZATION: &str = "Basic YWRtaW46czNjcmV0";

#[derive(Default)]
struct Script {
    /// By method and path; the last answer stays.
    answers: Mutex<HashMap<String, VecDeque<Answer>>>,
    requests: Mutex<Vec<String>>,
    headers: Mutex<Vec<HeaderMap>>,
    /// Goes with every answer.
    extra: Mutex<HeaderMap>,
}

#[derive(Clone)]
enum Answer {
    Whole(u16, String),
    /// Server-sent events.
    Events(String, End),
}

/// What comes after the events of a stream.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    Closed,
    Broken,
    /// Nothing, for as long as the client stays.
    Open,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    script: Arc<Script>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let script = Arc::new(Script::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, script }
    }

    /// Prepares the next answer to a request such as "GET /api/v2/compute/hosts".
    pub(crate) fn answers(self, request: &str, data: Value) -> Self {
        self.raw(request, 200, envelope(200, json!({"data": data})).to_string())
    }

    pub(crate) fn refuses(self, request: &str, status: u16, error: Value) -> Self {
        self.raw(request, status, envelope(status, json!({"error": error})).to_string())
    }

    pub(crate) fn raw(self, request: &str, status: u16, body: String) -> Self {
        self.prepare(request, Answer::Whole(status, body))
    }

    pub(crate) fn with_header(self, name: &'static str, value: &'static str) -> Self {
        self.script.extra.lock().unwrap().insert(name, HeaderValue::from_static(value));
        self
    }

    /// Prepares a stream of events.
    pub(crate) fn streams(self, request: &str, events: &str, end: End) -> Self {
        self.prepare(request, Answer::Events(events.into(), end))
    }

    fn prepare(self, request: &str, answer: Answer) -> Self {
        self.script.answers.lock().unwrap().entry(request.into()).or_default().push_back(answer);
        self
    }

    /// What was asked, a line for each request.
    pub(crate) fn requests(&self) -> String {
        self.script.requests.lock().unwrap().join("\n")
    }

    /// A header of each request in turn.
    pub(crate) fn header(&self, name: &str) -> Vec<Option<String>> {
        let text = |headers: &HeaderMap| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        self.script.headers.lock().unwrap().iter().map(text).collect()
    }

    /// Waits until a request has come in `count` times.
    pub(crate) async fn wait_for(&self, request: &str, count: usize) {
        let seen = || self.script.requests.lock().unwrap().iter().filter(|seen| seen.starts_with(request)).count();
        let wait = async {
            while seen() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.unwrap();
    }

    /// Runs the CLI and tells all that it did.
    pub(crate) async fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().await.unwrap();
        self.tell(args, &output)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = oblet(args);
        command.env("OBLET_URL", &self.url).env("OBLET_PASSWORD", PASSWORD);
        command
    }

    pub(crate) fn tell(&self, args: &[&str], output: &Output) -> String {
        tell(args, output).replace(&self.url, "http://COORDINATOR")
    }
}

/// The CLI with an environment that knows no coordinator.
pub(crate) fn oblet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oblet"));
    // A zone without a database of zones: half past five hours east.
    command
        .args(args)
        .env_clear()
        .env("TZ", "IST-5:30")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

pub(crate) fn tell(args: &[&str], output: &Output) -> String {
    let mut text = format!("$ oblet {}\n", args.join(" "));
    for (name, content) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        if !content.is_empty() {
            write!(text, "--- {name}\n{}", String::from_utf8_lossy(content)).unwrap();
        }
    }
    write!(text, "--- exit {}", output.status.code().unwrap()).unwrap();
    text
}

pub(crate) fn page(contents: Value) -> Value {
    let count = contents.as_array().unwrap().len();
    let page = json!({"number": 1, "size": 2000, "totalElements": count, "totalPages": 1});
    json!({"contents": contents, "page": page})
}

fn envelope(status: u16, content: Value) -> Value {
    let mut envelope = json!({
        "duration": 17,
        "server": "a83ad33525",
        "status": status,
        "successful": status == 200,
        "timestamp": "2021-09-03T16:25:08.004+08:00",
        "traceId": "0fda4c74b7a84932",
    });
    envelope.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
    envelope
}

async fn answer(State(script): State<Arc<Script>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let line = format!("{} {} {}", head.method, head.uri, String::from_utf8_lossy(&body));
    script.requests.lock().unwrap().push(line.trim_end().into());
    script.headers.lock().unwrap().push(head.headers.clone());
    if head.headers.get(header::AUTHORIZATION).is_none_or(|value| value != AUTHORIZATION) {
        let error = json!({"error": {"code": 10004, "message": "Incorrect username or password"}});
        return (StatusCode::UNAUTHORIZED, envelope(401, error).to_string()).into_response();
    }
    let prepared = {
        let mut answers = script.answers.lock().unwrap();
        let queue = answers.entry(format!("{} {}", head.method, head.uri.path())).or_default();
        if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() }
    };
    match prepared {
        Some(Answer::Whole(status, body)) => {
            let extra = script.extra.lock().unwrap().clone();
            (StatusCode::from_u16(status).unwrap(), extra, Body::from(body)).into_response()
        }
        Some(Answer::Events(events, end)) => {
            ([(header::CONTENT_TYPE, "text/event-stream")], stream(events, end)).into_response()
        }
        None => {
            let error = json!({"error": {"code": 404, "message": "The object does not exist"}});
            (StatusCode::NOT_FOUND, envelope(404, error).to_string()).into_response()
        }
    }
}

fn stream(events: String, end: End) -> Body {
    let ending = stream::once(async move {
        match end {
            End::Closed => Ok(String::new()),
            End::Broken => {
                // What was written before is sent while this waits.
                tokio::task::yield_now().await;
                Err(io::Error::other("the connection breaks"))
            }
            End::Open => std::future::pending().await,
        }
    });
    Body::from_stream(stream::once(async { Ok(events) }).chain(ending))
}
