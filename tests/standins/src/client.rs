//! A MySQL client that can log in and ask one question.

use crate::mysql::{self, Fields, Packets};
use std::{
    fmt, io,
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    /// The server answered with an error packet.
    Refused {
        code: u16,
        message: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "no answer: {error}"),
            Self::Refused { code, message } => write!(f, "refused with {code}: {message}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Rows of a text result set; None is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

pub struct Client {
    packets: Packets<TcpStream>,
}

impl Client {
    /// Connects and logs in; no wait is longer than five seconds.
    pub fn login(host: &str, port: u16, user: &str, password: &str) -> Result<Self, Error> {
        let hash = (!password.is_empty()).then(|| mysql::sha1(&[password.as_bytes()]));
        Self::login_with(host, port, user, hash)
    }

    /// Logs in with the SHA-1 of the password alone: mysql_native_password asks for nothing more (A11 of
    /// `docs/facts/obproxy.md`).
    pub fn login_by_hash(host: &str, port: u16, user: &str, password_sha1: [u8; 20]) -> Result<Self, Error> {
        Self::login_with(host, port, user, Some(password_sha1))
    }

    fn login_with(host: &str, port: u16, user: &str, hash: Option<[u8; 20]>) -> Result<Self, Error> {
        let address = (host, port).to_socket_addrs()?.next().ok_or_else(|| io::Error::other("unknown host"))?;
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut packets = Packets::new(stream);

        let greeting = refused(packets.read()?)?;
        let mut fields = Fields(&greeting);
        fields.byte()?;
        fields.text()?;
        fields.number(4)?;
        let mut salt = fields.bytes(8)?.to_vec();
        fields.bytes(1 + 2 + 1 + 2 + 2 + 1 + 10)?;
        salt.extend_from_slice(fields.bytes(mysql::SALT_BYTES - 8)?);

        packets.write(&answer(user, hash, &salt))?;
        refused(packets.read()?)?;
        Ok(Self { packets })
    }

    /// Sends one statement; a statement without a result set answers no rows.
    pub fn query(&mut self, statement: &str) -> Result<Rows, Error> {
        self.packets.restart();
        self.packets.write(&[&[mysql::COM_QUERY], statement.as_bytes()].concat())?;
        let head = refused(self.packets.read()?)?;
        let columns = head.first().copied().unwrap_or_default();
        if columns == 0 {
            return Ok(Vec::new());
        }
        // The definitions of the columns, and the EOF that ends them.
        for _ in 0..=columns {
            self.packets.read()?;
        }
        let mut rows = Vec::new();
        loop {
            let packet = refused(self.packets.read()?)?;
            if packet.len() < 9 && packet.first() == Some(&0xfe) {
                return Ok(rows);
            }
            let mut fields = Fields(&packet);
            let cell = |_| Ok(fields.counted()?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
            rows.push((0..columns).map(cell).collect::<io::Result<_>>()?);
        }
    }
}

fn answer(user: &str, hash: Option<[u8; 20]>, salt: &[u8]) -> Vec<u8> {
    let capabilities = mysql::CLIENT_LONG_PASSWORD
        | mysql::CLIENT_LONG_FLAG
        | mysql::CLIENT_PROTOCOL_41
        | mysql::CLIENT_TRANSACTIONS
        | mysql::CLIENT_SECURE_CONNECTION
        | mysql::CLIENT_MULTI_RESULTS
        | mysql::CLIENT_PLUGIN_AUTH;
    let mut packet = capabilities.to_le_bytes().to_vec();
    packet.extend_from_slice(&(1_u32 << 20).to_le_bytes());
    packet.push(mysql::UTF8);
    packet.extend_from_slice(&[0; 23]);
    packet.extend_from_slice(user.as_bytes());
    packet.push(0);
    match hash {
        // An empty password is told by an empty answer.
        None => packet.push(0),
        Some(hash) => mysql::put_counted(&mut packet, &mysql::scramble(salt, hash)),
    }
    packet.extend_from_slice(mysql::PLUGIN.as_bytes());
    packet.push(0);
    packet
}

fn refused(packet: Vec<u8>) -> Result<Vec<u8>, Error> {
    if packet.first() != Some(&0xff) {
        return Ok(packet);
    }
    let mut fields = Fields(packet.get(1..).unwrap_or_default());
    let code = fields.number(2)? as u16;
    // "#" and five characters of SQL state.
    fields.bytes(6)?;
    Err(Error::Refused { code, message: fields.text()? })
}
