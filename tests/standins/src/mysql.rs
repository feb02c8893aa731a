//! The part of the MySQL client/server protocol that both ends here need.
//!
//! Source: MySQL internals manual, "Client/Server Protocol" (protocol 10, capabilities of 4.1, text result sets with EOF packets).

use sha1::{Digest as _, Sha1};
use std::io::{self, Read, Write};

pub const PLUGIN: &str = "mysql_native_password";
pub const SALT_BYTES: usize = 20;
pub const UTF8: u8 = 45;

pub const CLIENT_LONG_PASSWORD: u32 = 1;
pub const CLIENT_LONG_FLAG: u32 = 1 << 2;
pub const CLIENT_CONNECT_WITH_DB: u32 = 1 << 3;
pub const CLIENT_PROTOCOL_41: u32 = 1 << 9;
pub const CLIENT_TRANSACTIONS: u32 = 1 << 13;
pub const CLIENT_SECURE_CONNECTION: u32 = 1 << 15;
pub const CLIENT_MULTI_RESULTS: u32 = 1 << 17;
pub const CLIENT_PLUGIN_AUTH: u32 = 1 << 19;
pub const CLIENT_PLUGIN_AUTH_LENENC_DATA: u32 = 1 << 21;

pub const COM_QUIT: u8 = 0x01;
pub const COM_INIT_DB: u8 = 0x02;
pub const COM_QUERY: u8 = 0x03;
pub const COM_PING: u8 = 0x0e;
pub const COM_STMT_PREPARE: u8 = 0x16;

/// Nothing spoken here comes near it; a longer packet is a broken or hostile peer.
const LONGEST_PACKET: usize = 1 << 20;

/// Packets over a byte stream, with their sequence numbers.
pub struct Packets<S> {
    stream: S,
    sequence: u8,
}

impl<S: Read + Write> Packets<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, sequence: 0 }
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// A new command begins.
    pub fn restart(&mut self) {
        self.sequence = 0;
    }

    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut header = [0_u8; 4];
        self.stream.read_exact(&mut header)?;
        let [a, b, c, sequence] = header;
        let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
        if length > LONGEST_PACKET {
            return Err(malformed());
        }
        self.sequence = sequence.wrapping_add(1);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    pub fn write(&mut self, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).ok().filter(|&length| length < 0xff_ffff).ok_or_else(malformed)?;
        let [a, b, c, _] = length.to_le_bytes();
        let mut packet = vec![a, b, c, self.sequence];
        packet.extend_from_slice(body);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet)
    }
}

/// Takes a packet apart.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count).ok_or_else(malformed)?;
        self.0 = tail;
        Ok(head)
    }

    pub fn byte(&mut self) -> io::Result<u8> {
        self.bytes(1)?.first().copied().ok_or_else(malformed)
    }

    /// A little-endian number of at most 8 bytes.
    pub fn number(&mut self, bytes: usize) -> io::Result<u64> {
        Ok(self.bytes(bytes)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// Text up to a NUL byte, or up to the end.
    pub fn text(&mut self) -> io::Result<String> {
        let length = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(self.bytes(length)?).into_owned();
        self.0 = self.0.get(1..).unwrap_or_default();
        Ok(text)
    }

    /// A string led by its length; None is SQL's NULL.
    pub fn counted(&mut self) -> io::Result<Option<&'a [u8]>> {
        let length = match self.byte()? {
            0xfb => return Ok(None),
            0xfc => self.number(2)?,
            0xfd => self.number(3)?,
            0xfe => self.number(8)?,
            short => u64::from(short),
        };
        self.bytes(usize::try_from(length).map_err(|_| malformed())?).map(Some)
    }
}

pub fn put_counted(packet: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        length @ 0..=250 => packet.push(u8::try_from(length).unwrap_or_default()),
        length => {
            packet.push(0xfe);
            packet.extend_from_slice(&(length as u64).to_le_bytes());
        }
    }
    packet.extend_from_slice(bytes);
}

pub fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// What the client of mysql_native_password sends: it proves that it knows the hash of the password.
pub fn scramble(salt: &[u8], password_sha1: [u8; 20]) -> [u8; 20] {
    let mut token = sha1(&[salt, &sha1(&[&password_sha1])]);
    token.iter_mut().zip(password_sha1).for_each(|(byte, other)| *byte ^= other);
    token
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Forty hexadecimal digits, in either case.
pub fn unhex(text: &str) -> Option<[u8; 20]> {
    if text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 20];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

pub fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed packet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_the_one_that_obproxy_documents() {
        assert_eq!(hex(&sha1(&[b"123456"])), "7c4a8d09ca3762af61e59520943dc26494f8941b");
    }

    #[test]
    fn hashes_are_read_back() {
        let hash = sha1(&[b"123456"]);
        assert_eq!(unhex(&hex(&hash)), Some(hash));
        assert_eq!(unhex(&format!("+{}", "1".repeat(39))), None);
        assert_eq!(unhex("secret"), None);
    }

    #[test]
    fn counted_strings_come_back() {
        for length in [0, 250, 251, 70_000] {
            let text = vec![b'x'; length];
            let mut packet = Vec::new();
            put_counted(&mut packet, &text);
            assert_eq!(Fields(&packet).counted().unwrap(), Some(text.as_slice()));
        }
    }

    #[test]
    fn a_short_packet_is_an_error() {
        assert!(Fields(&[5, b'a']).counted().is_err());
        assert!(Fields(&[1]).number(2).is_err());
    }
}
