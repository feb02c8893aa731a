//! What is asked of an obproxy over its SQL port. No statement and no password of it ever stands in an error.

use super::{
    super::sockets,
    mysql::{Connection, ProtocolError, Row},
};
use crate::blocking;
use sha1::{Digest as _, Sha1};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use zeroize::Zeroizing;

const DEADLINE: Duration = Duration::from_secs(5);
pub(super) const USER: &str = "root@proxysys";

/// What the agent itself decides: the proxy would be lost to it with another port or password, or end at once.
const OF_THE_AGENT: [&str; 6] = [
    "listen_port",
    "prometheus_listen_port",
    "rpc_listen_port",
    "obproxy_sys_password",
    "observer_sys_password",
    "proxy_local_cmd",
];

/// Without it nobody listens on the port of the metrics.
const METRICS: &str = "enable_prometheus";

/// Error numbers of obproxy: docs/facts/obproxy.md, A and S.
mod code {
    pub(super) const ACCESS_DENIED: u16 = 1045;
    pub(super) const NOT_SUPPORTED: u16 = 1235;
    /// The value cannot be saved.
    pub(super) const INTERNAL: u16 = 4016;
    pub(super) const INVALID_CONFIG: u16 = 4147;
    pub(super) const INVALID_LEVEL: u16 = 4170;
    pub(super) const NOT_UNDERSTOOD: u16 = 5010;
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error("the SQL port did not answer within {} seconds", DEADLINE.as_secs())]
    Late,
    #[error("the SQL port refused the login of {USER}")]
    Refused,
    #[error("the SQL port is answered by {0}, not by the proxy that this agent started")]
    Stranger(String),
    #[error("the SQL port could not be used")]
    Broken(#[source] ProtocolError),
    #[error("the proxy refused the statement with error {0}")]
    Statement(u16),
}

impl From<ProtocolError> for SqlError {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Refused(code::ACCESS_DENIED) => Self::Refused,
            ProtocolError::Refused(code) => Self::Statement(code),
            ProtocolError::Io(_) | ProtocolError::OtherAuthentication | ProtocolError::Malformed => Self::Broken(error),
        }
    }
}

impl From<io::Error> for SqlError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.into())
    }
}

/// Why an item does not have the value that it was to have.
#[derive(Debug, thiserror::Error)]
pub(super) enum ItemError {
    #[error("this obproxy has no parameter {0}")]
    Unknown(String),
    #[error("obproxy refuses the value of {0} (error {1})")]
    Invalid(String, u16),
    #[error("{0} cannot be set as a parameter")]
    Fixed(String),
    #[error("{0} = false turns the metrics off")]
    NoMetrics(String),
    #[error("{0} reads differently after it was set")]
    Differs(String),
    #[error("obproxy does not allow {0} to be set (error {1})")]
    Refused(String, u16),
    #[error(transparent)]
    Sql(#[from] SqlError),
}

/// Both kinds of streams are one to the protocol.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A session of root@proxysys.
pub(super) struct ProxySql(Connection<Box<dyn Stream>>);

/// Every item of a proxy by name, as the proxy prints it.
#[derive(Debug, Default)]
pub(super) struct Configuration(BTreeMap<String, String>);

impl Configuration {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

async fn bounded<T, E: Into<SqlError>>(work: impl Future<Output = Result<T, E>>) -> Result<T, SqlError> {
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| SqlError::Late)?.map_err(Into::into)
}

impl ProxySql {
    /// Through a port that everybody on the host may listen on. Nothing is sent to anyone but one of these processes.
    pub(super) async fn login(
        address: SocketAddr,
        owners: impl FnOnce() -> io::Result<Vec<i32>> + Send + 'static,
        password: &str,
    ) -> Result<Self, SqlError> {
        bounded(async {
            let stream = TcpStream::connect(address).await?;
            let (here, there) = (stream.local_addr()?, stream.peer_addr()?);
            let (mut connection, greeting) = Connection::open(Box::new(stream) as Box<dyn Stream>).await?;
            // Whoever has said the greeting holds the other end by now.
            let stranger = blocking::run(move || sockets::stranger_at(there, here, &owners()?)).await??;
            if let Some(stranger) = stranger {
                return Err(SqlError::Stranger(stranger));
            }
            connection.login(&greeting, USER, password).await?;
            Ok(Self(connection))
        })
        .await
    }

    /// Through a socket that only this agent can reach.
    pub(super) async fn login_secluded(socket: &Path, password: &str) -> Result<Self, SqlError> {
        bounded(async {
            let stream = UnixStream::connect(socket).await?;
            let (mut connection, greeting) = Connection::open(Box::new(stream) as Box<dyn Stream>).await?;
            connection.login(&greeting, USER, password).await?;
            Ok::<_, SqlError>(Self(connection))
        })
        .await
    }

    async fn query(&mut self, statement: &str) -> Result<Vec<Row>, SqlError> {
        bounded(self.0.query(statement)).await
    }

    /// Asked for as a whole: `LIKE` answers something else for some names (S6).
    pub(super) async fn configuration(&mut self) -> Result<Configuration, SqlError> {
        let rows = self.query("SHOW PROXYCONFIG").await?;
        let item = |row: Row| {
            let mut cells = row.into_iter();
            Some((cells.next()??, cells.next()?.unwrap_or_default()))
        };
        Ok(Configuration(rows.into_iter().filter_map(item).collect()))
    }

    /// Sets an item and makes sure that the proxy has understood the value.
    pub(super) async fn set_item(&mut self, name: &str, value: &str) -> Result<(), ItemError> {
        if OF_THE_AGENT.contains(&name) {
            return Err(ItemError::Fixed(name.into()));
        }
        if name == METRICS && same_value(value, "false") {
            return Err(ItemError::NoMetrics(name.into()));
        }
        self.set_read_back(name, value, same_value).await
    }

    /// Sets a password, which comes in clear and is shown as its hash.
    pub(super) async fn set_password(&mut self, name: &str, password: &str) -> Result<(), ItemError> {
        self.set_read_back(name, password, |shown, meant| shown == proxy_hash(meant)).await
    }

    /// No facts say how obproxy reads quotes and backslashes, so the forms are tried until the proxy shows what was meant.
    /// `is_shown` compares what it shows with a text.
    async fn set_read_back(
        &mut self,
        name: &str,
        value: &str,
        is_shown: impl Fn(&str, &str) -> bool,
    ) -> Result<(), ItemError> {
        let doubled = Zeroizing::new(value.replace('\\', "\\\\"));
        let mut refused = None;
        let mut backslash_stands = false;
        let mut forms = VecDeque::from(literals(value));
        while let Some(literal) = forms.pop_front() {
            let statement = Zeroizing::new(format!("ALTER PROXYCONFIG SET {name} = {}", literal.as_str()));
            match self.query(&statement).await {
                Ok(_) => {
                    refused = None;
                    match self.configuration().await?.get(name) {
                        None => return Err(ItemError::Unknown(name.into())),
                        Some(shown) if is_shown(shown, value) => return Ok(()),
                        // A backslash means nothing to this proxy. Before that is known it must stand twice: before a
                        // quote, a single one could let the text out of its literal.
                        Some(shown) if !backslash_stands && value.contains('\\') && is_shown(shown, &doubled) => {
                            backslash_stands = true;
                            forms = VecDeque::from([standing(value)]);
                        }
                        Some(_) => {}
                    }
                }
                // What it says of a form that it understands tells more.
                Err(SqlError::Statement(code)) if code == code::NOT_UNDERSTOOD => {
                    refused.get_or_insert(code);
                }
                Err(SqlError::Statement(code)) => refused = Some(code),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(refusal) = refused else { return Err(ItemError::Differs(name.into())) };
        if self.configuration().await?.get(name).is_none() {
            return Err(ItemError::Unknown(name.into()));
        }
        Err(match refusal {
            code::INVALID_CONFIG | code::INVALID_LEVEL | code::INTERNAL => ItemError::Invalid(name.into(), refusal),
            code::NOT_SUPPORTED => ItemError::Fixed(name.into()),
            other => ItemError::Refused(name.into(), other),
        })
    }

    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.0.close()).await;
    }
}

/// obproxy keeps a password as SHA-1 in hexadecimal (A18).
pub(super) fn proxy_hash(password: &str) -> String {
    crate::agent::host::package::content::hex(&Sha1::digest(password.as_bytes()))
}

/// The literal of a text for a proxy to which a backslash is a sign like any other.
fn standing(text: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("'{}'", text.replace('\'', "''")))
}

/// The forms in which a text can stand in a statement; the usual one first, and only one if there is no quote in it.
fn literals(text: &str) -> Vec<Zeroizing<String>> {
    let escaped = text.replace('\\', "\\\\");
    let mut forms = vec![format!("'{}'", escaped.replace('\'', "''"))];
    if text.contains('\'') {
        forms.push(format!("\"{}\"", escaped.replace('"', "\"\"")));
        forms.push(format!("'{}'", escaped.replace('\'', "\\'")));
    }
    forms.into_iter().map(Zeroizing::new).collect()
}

/// obproxy prints `True` for `true` or `1`, and keeps sizes and times as they were written: `2G`, `2GB` and `2048M` are one.
pub(super) fn same_value(left: &str, right: &str) -> bool {
    let (left, right) = (left.trim(), right.trim());
    let same = |reading: fn(&str) -> Option<u128>| reading(left).is_some_and(|left| Some(left) == reading(right));
    left == right || same(switch) || same(bytes) || same(microseconds) || left.eq_ignore_ascii_case(right)
}

fn switch(text: &str) -> Option<u128> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(1),
        "false" | "0" => Some(0),
        _ => None,
    }
}

fn scaled(text: &str, units: &[(&str, u128)]) -> Option<u128> {
    let text = text.to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u128>().ok()?.checked_mul(*factor)
}

fn bytes(text: &str) -> Option<u128> {
    let units = [("b", 1), ("k", 1 << 10), ("kb", 1 << 10), ("m", 1 << 20), ("mb", 1 << 20), ("g", 1 << 30)];
    scaled(text, &[&units[..], &[("gb", 1 << 30), ("t", 1 << 40), ("tb", 1 << 40)]].concat())
}

fn microseconds(text: &str) -> Option<u128> {
    let second = 1_000_000;
    let units =
        [("us", 1), ("ms", 1000), ("s", second), ("m", 60 * second), ("h", 3600 * second), ("d", 86_400 * second)];
    scaled(text, &units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(text: &str) -> Vec<String> {
        literals(text).iter().map(|form| form.to_string()).collect()
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        assert_eq!(forms("plain %_ \u{fc}"), ["'plain %_ \u{fc}'"]);
        assert_eq!(forms(r"a'b\"), [r"'a''b\\'", r#""a'b\\""#, r"'a\'b\\'"]);
        assert_eq!(forms(r"a\b"), [r"'a\\b'"]);
        assert_eq!(forms(r"a\"), [r"'a\\'"]);
        assert_eq!(forms(r#"a"b"#), [r#"'a"b'"#]);
        assert_eq!(standing(r"a'b\").as_str(), r"'a''b\'");
    }

    #[test]
    fn values_are_compared_as_the_proxy_prints_them() {
        for (left, right) in [
            ("True", "true"),
            ("1", "True"),
            ("2GB", "2g"),
            ("2048M", "2G"),
            ("64", " 64"),
            ("60s", "1m"),
            ("100ms", "100000us"),
            ("WDIAG", "wdiag"),
        ] {
            assert!(same_value(left, right), "{left} {right}");
        }
        for (left, right) in [("2G", "3G"), ("b", ""), ("1m", "1s"), ("10", "1"), ("True", "False"), ("2", "2G")] {
            assert!(!same_value(left, right), "{left} {right}");
        }
    }

    #[test]
    fn the_hash_is_the_one_of_obproxy() {
        assert_eq!(proxy_hash("123456"), "7c4a8d09ca3762af61e59520943dc26494f8941b");
    }

    #[tokio::test]
    async fn a_port_without_a_listener_is_no_refusal() {
        // Bound and not listened on: nobody else gets the port.
        let mute = tokio::net::TcpSocket::new_v4().unwrap();
        mute.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let error = ProxySql::login(mute.local_addr().unwrap(), || Ok(Vec::new()), "top-secret").await.err().unwrap();
        assert!(matches!(error, SqlError::Broken(_)));
        assert!(!format!("{error:?}").contains("top-secret"));
    }

    #[tokio::test]
    async fn a_squatter_is_told_nothing() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let squatter = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = squatter.local_addr().unwrap();
        let squat = async {
            let (mut stream, _) = squatter.accept().await.unwrap();
            let hello = b"\x0a5.6.25\0\x01\0\0\0saltsalt\0..................saltsaltsalt\0mysql_clear_password\0";
            let mut packet = vec![hello.len() as u8, 0, 0, 0];
            packet.extend_from_slice(hello);
            stream.write_all(&packet).await.unwrap();
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            heard
        };
        // It listens as a process that this agent has not started.
        let login = ProxySql::login(address, || Ok(vec![1]), "top-secret");
        let (result, heard) = tokio::join!(login, squat);
        let Some(SqlError::Stranger(who)) = result.err() else { panic!("it was taken for the proxy") };
        assert!(who.starts_with(&format!("pid {}", std::process::id())), "{who}");
        assert_eq!(heard, b"", "not a byte");
    }
}
