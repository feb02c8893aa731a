//! The little of the MySQL protocol that a manager of obproxy needs: a login and statements as text.
//!
//! A client library answers whatever kind of authentication the other end asks for, and some of them hand the password to
//! it. This one knows a single kind, which hands over nothing that could be used again, and lets the caller look at who is
//! at the other end before it answers at all.
//!
//! Source: MySQL's documentation of the client/server protocol: protocol 10, capabilities of 4.1, results with EOF packets.

use sha1::{Digest as _, Sha1};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

pub(super) const PLUGIN: &str = "mysql_native_password";

const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
const PROTOCOL_41: u32 = 1 << 9;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const MULTI_RESULTS: u32 = 1 << 17;
const PLUGIN_AUTH: u32 = 1 << 19;
/// What every client of today says of itself; nothing that would change the form of an answer.
const CAPABILITIES: u32 =
    LONG_PASSWORD | LONG_FLAG | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | MULTI_RESULTS | PLUGIN_AUTH;
const UTF8MB4: u8 = 45;
const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;

/// obproxy's longest answer, its whole configuration, has some 60 KiB.
const LONGEST_PACKET: usize = 1 << 20;
const MOST_ROWS: usize = 10_000;
const MOST_COLUMNS: u64 = 64;

#[derive(Debug, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// Only the code is kept: the other end's words may quote the statement.
    #[error("the other end refused with error {0}")]
    Refused(u16),
    #[error("the other end requests an authentication method other than {PLUGIN}; no password was sent")]
    OtherAuthentication,
    #[error("the other end does not speak the protocol of MySQL")]
    Malformed,
}

/// Cells of a text result; None is NULL.
pub(super) type Row = Vec<Option<String>>;

/// A connection, after its greeting or later.
pub(super) struct Connection<S> {
    /// The configuration of a proxy comes in hundreds of packets, each a row.
    stream: BufReader<S>,
    sequence: u8,
}

/// What the other end has said before a login.
pub(super) struct Greeting {
    salt: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads the greeting and sends nothing.
    pub(super) async fn open(stream: S) -> Result<(Self, Greeting), ProtocolError> {
        let mut connection = Self { stream: BufReader::new(stream), sequence: 0 };
        let packet = connection.read().await?;
        Ok((connection, greeting(accepted(&packet)?)?))
    }

    /// Proves that the password is known, without telling it.
    pub(super) async fn login(&mut self, greeting: &Greeting, user: &str, password: &str) -> Result<(), ProtocolError> {
        let proof = proof(&greeting.salt, password);
        let mut packet = CAPABILITIES.to_le_bytes().to_vec();
        packet.extend_from_slice(&(LONGEST_PACKET as u32).to_le_bytes());
        packet.push(UTF8MB4);
        packet.extend_from_slice(&[0; 23]);
        packet.extend_from_slice(user.as_bytes());
        packet.push(0);
        // A proof has 20 bytes or none.
        packet.push(proof.len() as u8);
        packet.extend_from_slice(&proof);
        packet.extend_from_slice(PLUGIN.as_bytes());
        packet.push(0);
        self.write(&packet).await?;
        let mut answer = self.read().await?;
        // The other end may ask for the same kind once more, with another salt.
        if answer.first() == Some(&0xfe) {
            let salt = other_salt(&answer)?;
            self.write(&self::proof(&salt, password)).await?;
            answer = self.read().await?;
        }
        match accepted(&answer)?.first() {
            Some(0) => Ok(()),
            _ => Err(ProtocolError::OtherAuthentication),
        }
    }

    /// Rows of the answer; none for a statement that answers no rows.
    pub(super) async fn query(&mut self, statement: &str) -> Result<Vec<Row>, ProtocolError> {
        self.sequence = 0;
        let packet = zeroize::Zeroizing::new([&[COM_QUERY], statement.as_bytes()].concat());
        self.write(&packet).await?;
        let head = self.read().await?;
        let columns = match accepted(&head)?.first() {
            Some(0) => return Ok(Vec::new()),
            _ => Fields(&head).length()?.filter(|count| *count <= MOST_COLUMNS).ok_or(ProtocolError::Malformed)?,
        };
        // The definitions of the columns, and the packet that ends them.
        for _ in 0..=columns {
            self.read().await?;
        }
        let mut rows = Vec::new();
        loop {
            let packet = self.read().await?;
            if packet.len() < 9 && packet.first() == Some(&0xfe) {
                return Ok(rows);
            }
            let mut fields = Fields(accepted(&packet)?);
            rows.push((0..columns).map(|_| fields.text()).collect::<Result<Row, _>>()?);
            if rows.len() > MOST_ROWS {
                return Err(ProtocolError::Malformed);
            }
        }
    }

    /// Says good-bye; the other end notices a dropped connection as well.
    pub(super) async fn close(mut self) {
        self.sequence = 0;
        let _ = self.write(&[COM_QUIT]).await;
        let _ = self.stream.shutdown().await;
    }

    async fn read(&mut self) -> Result<Vec<u8>, ProtocolError> {
        let [a, b, c, sequence] = self.stream.read_u32_le().await?.to_le_bytes();
        let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
        if length > LONGEST_PACKET {
            return Err(ProtocolError::Malformed);
        }
        self.sequence = sequence.wrapping_add(1);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn write(&mut self, body: &[u8]) -> Result<(), ProtocolError> {
        if body.len() > LONGEST_PACKET {
            return Err(ProtocolError::Malformed);
        }
        // Shorter than 2^24, so that three bytes hold the length.
        let head = body.len() as u32 | u32::from(self.sequence) << 24;
        let packet = zeroize::Zeroizing::new([&head.to_le_bytes(), body].concat());
        self.sequence = self.sequence.wrapping_add(1);
        Ok(self.stream.write_all(&packet).await?)
    }
}

/// The packet, unless it is an error.
fn accepted(packet: &[u8]) -> Result<&[u8], ProtocolError> {
    match packet {
        [0xff, low, high, ..] => Err(ProtocolError::Refused(u16::from_le_bytes([*low, *high]))),
        [] | [0xff, ..] => Err(ProtocolError::Malformed),
        packet => Ok(packet),
    }
}

fn greeting(packet: &[u8]) -> Result<Greeting, ProtocolError> {
    let mut fields = Fields(packet);
    if fields.bytes(1)? != [10] {
        return Err(ProtocolError::Malformed);
    }
    fields.until_nul()?;
    fields.bytes(4)?;
    let mut salt = fields.bytes(8)?.to_vec();
    // A filler, the capabilities in two halves around character set and status, the length of the salt, a filler.
    fields.bytes(1 + 2 + 1 + 2 + 2 + 1 + 10)?;
    salt.extend_from_slice(fields.bytes(12)?);
    Ok(Greeting { salt })
}

/// The salt of a request to authenticate anew, if it is for the one kind that is answered.
fn other_salt(packet: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let mut fields = Fields(packet.get(1..).unwrap_or_default());
    if fields.until_nul()? != PLUGIN.as_bytes() {
        return Err(ProtocolError::OtherAuthentication);
    }
    Ok(fields.bytes(20)?.to_vec())
}

/// SHA1(password) XOR SHA1(salt SHA1(SHA1(password))); nothing for an empty password.
fn proof(salt: &[u8], password: &str) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = Sha1::digest(password.as_bytes());
    let mixed = Sha1::new().chain_update(salt).chain_update(Sha1::digest(once)).finalize();
    mixed.iter().zip(once).map(|(mixed, once)| mixed ^ once).collect()
}

/// Takes a packet apart.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], ProtocolError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(ProtocolError::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn until_nul(&mut self) -> Result<&'a [u8], ProtocolError> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or(ProtocolError::Malformed)?;
        let head = self.bytes(length)?;
        self.bytes(1)?;
        Ok(head)
    }

    /// A number led by its width; None stands for NULL.
    fn length(&mut self) -> Result<Option<u64>, ProtocolError> {
        let width = match *self.bytes(1)? {
            [0xfb] => return Ok(None),
            [0xfc] => 2,
            [0xfd] => 3,
            [0xfe] => 8,
            [short] => return Ok(Some(short.into())),
            _ => return Err(ProtocolError::Malformed),
        };
        Ok(Some(self.bytes(width)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))))
    }

    fn text(&mut self) -> Result<Option<String>, ProtocolError> {
        let Some(length) = self.length()? else { return Ok(None) };
        let bytes = self.bytes(usize::try_from(length).map_err(|_| ProtocolError::Malformed)?)?;
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packets(bodies: &[&[u8]]) -> Vec<u8> {
        let packet = |(number, body): (usize, &&[u8])| {
            let mut packet = vec![body.len() as u8, 0, 0, number as u8];
            packet.extend_from_slice(body);
            packet
        };
        bodies.iter().enumerate().flat_map(packet).collect()
    }

    fn hello(plugin: &str) -> Vec<u8> {
        let mut packet = vec![10];
        packet.extend_from_slice(b"5.6.25\0\x01\0\0\0saltsalt\0");
        packet.extend_from_slice(&[0; 18]);
        packet.extend_from_slice(b"saltsaltsalt\0");
        packet.extend_from_slice(plugin.as_bytes());
        packet.push(0);
        packet
    }

    /// Logs in at an end that says all this, whatever it hears; answers what it heard after its greeting.
    async fn login_at(said: &[&[u8]], password: &str) -> (Result<(), ProtocolError>, Vec<u8>) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(&packets(said)).await.unwrap();
        let (mut connection, greeting) = Connection::open(ours).await.unwrap();
        let result = connection.login(&greeting, "root@proxysys", password).await;
        drop(connection);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        (result, heard)
    }

    #[tokio::test]
    async fn the_password_is_proven_and_never_told() {
        let (result, heard) = login_at(&[&hello(PLUGIN), &[0, 0, 0, 2, 0, 0, 0]], "top-secret").await;
        result.unwrap();
        assert!(heard.windows(13).any(|part| part == b"root@proxysys"));
        assert!(!heard.windows(10).any(|part| part == b"top-secret"));
        let (result, _) = login_at(&[&hello(PLUGIN), &[0xff, 0x15, 0x04]], "top-secret").await;
        assert!(matches!(result, Err(ProtocolError::Refused(1045))));
    }

    #[tokio::test]
    async fn a_listener_that_wants_the_password_in_another_way_gets_no_answer() {
        for plugin in ["mysql_clear_password", "sha256_password", "caching_sha2_password"] {
            let switch = [&[0xfe], plugin.as_bytes(), b"\0saltsaltsaltsaltsalt\0"].concat();
            let (result, heard) = login_at(&[&hello(plugin), &switch], "top-secret").await;
            assert!(matches!(result, Err(ProtocolError::OtherAuthentication)), "{plugin}");
            assert_eq!(heard.iter().filter(|byte| **byte == b'@').count(), 1, "one packet was sent");
            assert!(!heard.windows(10).any(|part| part == b"top-secret"), "{plugin}");
        }
        // The second step of caching_sha2_password.
        let (result, _) = login_at(&[&hello(PLUGIN), &[1, 4]], "top-secret").await;
        assert!(matches!(result, Err(ProtocolError::OtherAuthentication)));
    }

    #[tokio::test]
    async fn the_same_kind_with_another_salt_is_answered() {
        let switch = [&[0xfe], PLUGIN.as_bytes(), b"\0tlastlastlastlastlas\0"].concat();
        let (result, heard) = login_at(&[&hello(PLUGIN), &switch, &[0, 0, 0]], "top-secret").await;
        result.unwrap();
        assert!(heard.ends_with(&proof(b"tlastlastlastlastlas", "top-secret")));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_stranger_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = accepted(&bytes).and_then(greeting);
            let _ = other_salt(&bytes);
            let mut fields = Fields(&bytes);
            while fields.text().is_ok() && !fields.0.is_empty() {}
        }
    }
}
