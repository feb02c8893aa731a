//! One client: handshake, login, commands.

use super::{Config, Proxy, sql};
use crate::mysql::{self, Fields, Packets};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io,
    net::{IpAddr, TcpStream},
    process,
    sync::atomic::Ordering,
    time::Duration,
};

const LOGIN_PATIENCE: Duration = Duration::from_secs(10);
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
const SERVER_VERSION: &str = "5.6.25";
const AUTOCOMMIT: u16 = 2;
const CAPABILITIES: u32 = mysql::CLIENT_LONG_PASSWORD
    | mysql::CLIENT_CONNECT_WITH_DB
    | mysql::CLIENT_PROTOCOL_41
    | mysql::CLIENT_SECURE_CONNECTION
    | mysql::CLIENT_PLUGIN_AUTH;

/// What a statement is answered with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    /// OK, and the process ends.
    Exit,
    Rows {
        columns: Vec<String>,
        rows: Vec<Vec<Option<String>>>,
    },
    Error {
        code: u16,
        state: &'static str,
        message: String,
    },
}

impl Answer {
    pub(super) fn error(code: u16, state: &'static str, message: impl Into<String>) -> Self {
        Self::Error { code, state, message: message.into() }
    }
}

pub(super) fn serve(stream: TcpStream, id: u32, proxy: &Proxy) -> io::Result<()> {
    stream.set_read_timeout(Some(LOGIN_PATIENCE))?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    let peer = stream.peer_addr()?.ip();
    let mut packets = Packets::new(stream);
    if !login(&mut packets, id, peer, proxy)? {
        return Ok(());
    }
    // An idle client may stay, as with obproxy's own wait_timeout of hours.
    packets.stream().set_read_timeout(None)?;
    loop {
        packets.restart();
        let packet = match packets.read() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        };
        let answer = match packet.split_first() {
            Some((&mysql::COM_QUIT, _)) => return Ok(()),
            Some((&(mysql::COM_PING | mysql::COM_INIT_DB), _)) => Answer::Ok,
            Some((&mysql::COM_QUERY, statement)) => {
                proxy.requests.fetch_add(1, Ordering::Relaxed);
                sql::carry_out(&String::from_utf8_lossy(statement), proxy)
            }
            Some((&mysql::COM_STMT_PREPARE, _)) => {
                Answer::error(1295, "HY000", "This command is not supported in the prepared statement protocol yet")
            }
            _ => Answer::error(1047, "08S01", "Unknown command"),
        };
        send(&mut packets, &answer)?;
        if answer == Answer::Exit {
            process::exit(0);
        }
    }
}

/// False: the client was told that it is not let in.
fn login(packets: &mut Packets<TcpStream>, id: u32, peer: IpAddr, proxy: &Proxy) -> io::Result<bool> {
    let salt = salt();
    packets.write(&greeting(id, &salt))?;
    let hello = packets.read()?;
    let mut fields = Fields(&hello);
    let capabilities = fields.number(4)? as u32 & (CAPABILITIES | mysql::CLIENT_PLUGIN_AUTH_LENENC_DATA);
    fields.bytes(4 + 1 + 23)?;
    let user = fields.text()?;
    let mut token = if capabilities & mysql::CLIENT_PLUGIN_AUTH_LENENC_DATA != 0 {
        fields.counted()?.unwrap_or_default().to_vec()
    } else {
        let length = fields.byte()?;
        fields.bytes(length.into())?.to_vec()
    };
    if capabilities & mysql::CLIENT_CONNECT_WITH_DB != 0 {
        fields.text()?;
    }
    let plugin = fields.text()?;
    if capabilities & mysql::CLIENT_PLUGIN_AUTH != 0 && plugin != mysql::PLUGIN {
        let mut switch = vec![0xfe];
        switch.extend_from_slice(mysql::PLUGIN.as_bytes());
        switch.push(0);
        switch.extend_from_slice(&salt);
        switch.push(0);
        packets.write(&switch)?;
        token = packets.read()?;
    }
    let (allowed, private_only) = proxy.with_config(|config| {
        (admits(config, &user, &token, &salt), config.get("skip_proxy_sys_private_check") != "True")
    });
    let near = match peer {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    };
    if allowed && (near || !private_only) {
        send(packets, &Answer::Ok)?;
        return Ok(true);
    }
    proxy.log(&format!("refused {user} from {peer}"));
    let message = format!("Access denied for user '{user}'@'{peer}' (using password: YES)");
    send(packets, &Answer::error(1045, "42000", message))?;
    Ok(false)
}

/// Only the proxy's own users: there is no cluster behind it.
fn admits(config: &Config, user: &str, token: &[u8], salt: &[u8]) -> bool {
    let item = match user {
        "root@proxysys" => "obproxy_sys_password",
        "inspector@proxysys" => "inspector_password",
        _ => return false,
    };
    let hash = config.get(item);
    if hash.is_empty() {
        return token.is_empty();
    }
    unhex(hash).is_some_and(|hash| token == mysql::scramble(salt, hash))
}

fn unhex(text: &str) -> Option<[u8; 20]> {
    let mut bytes = [0; 20];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Unpredictable enough for a stand-in, and never NUL, which would end it early in some clients.
fn salt() -> [u8; mysql::SALT_BYTES] {
    let mut salt = [0; mysql::SALT_BYTES];
    for chunk in salt.chunks_mut(8) {
        let random = RandomState::new().build_hasher().finish().to_le_bytes();
        chunk.iter_mut().zip(random).for_each(|(byte, random)| *byte = random % 94 + 33);
    }
    salt
}

fn greeting(id: u32, salt: &[u8; mysql::SALT_BYTES]) -> Vec<u8> {
    let (head, tail) = salt.split_at(8);
    let [a, b, c, d] = CAPABILITIES.to_le_bytes();
    let mut packet = vec![10];
    packet.extend_from_slice(SERVER_VERSION.as_bytes());
    packet.push(0);
    packet.extend_from_slice(&id.to_le_bytes());
    packet.extend_from_slice(head);
    packet.extend_from_slice(&[0, a, b, mysql::UTF8]);
    packet.extend_from_slice(&AUTOCOMMIT.to_le_bytes());
    packet.extend_from_slice(&[c, d, mysql::SALT_BYTES as u8 + 1]);
    packet.extend_from_slice(&[0; 10]);
    packet.extend_from_slice(tail);
    packet.push(0);
    packet.extend_from_slice(mysql::PLUGIN.as_bytes());
    packet.push(0);
    packet
}

fn send(packets: &mut Packets<TcpStream>, answer: &Answer) -> io::Result<()> {
    match answer {
        Answer::Ok | Answer::Exit => packets.write(&[0, 0, 0, AUTOCOMMIT as u8, 0, 0, 0]),
        Answer::Error { code, state, message } => {
            let mut packet = vec![0xff];
            packet.extend_from_slice(&code.to_le_bytes());
            packet.push(b'#');
            packet.extend_from_slice(state.as_bytes());
            packet.extend_from_slice(message.as_bytes());
            packets.write(&packet)
        }
        Answer::Rows { columns, rows } => {
            let end = [0xfe, 0, 0, AUTOCOMMIT as u8, 0];
            // No result here has more columns than fit in one byte.
            packets.write(&[columns.len() as u8])?;
            for column in columns {
                packets.write(&definition(column))?;
            }
            packets.write(&end)?;
            for row in rows {
                let mut packet = Vec::new();
                for cell in row {
                    match cell {
                        Some(text) => mysql::put_counted(&mut packet, text.as_bytes()),
                        None => packet.push(0xfb),
                    }
                }
                packets.write(&packet)?;
            }
            packets.write(&end)
        }
    }
}

/// A column of type VAR_STRING.
fn definition(name: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    for text in ["def", "", "", "", name, name] {
        mysql::put_counted(&mut packet, text.as_bytes());
    }
    packet.extend_from_slice(&[0x0c, mysql::UTF8, 0]);
    packet.extend_from_slice(&4096_u32.to_le_bytes());
    packet.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0]);
    packet
}
