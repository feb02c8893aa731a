//! Who is let in.

use super::{Proxy, answer::Answer, session::AUTOCOMMIT};
use crate::mysql::{self, Fields, Packets};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream},
    thread,
    time::Duration,
};

/// A1
const SERVER_VERSION: &str = "5.6.25";
/// A16
const OBSERVER_PATIENCE: Duration = Duration::from_secs(1);
const CAPABILITIES: u32 = mysql::CLIENT_LONG_PASSWORD
    | mysql::CLIENT_CONNECT_WITH_DB
    | mysql::CLIENT_PROTOCOL_41
    | mysql::CLIENT_SECURE_CONNECTION
    | mysql::CLIENT_PLUGIN_AUTH;

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
enum User<'a> {
    /// One of the proxy's own, with the item that holds its password.
    Proxy(&'static str),
    /// Someone of a tenant of a cluster.
    Tenant(&'a str),
    /// Nobody that the proxy knows where to send.
    Nowhere,
}

impl<'a> User<'a> {
    fn of(name: &'a str) -> Self {
        let (user, cluster) = name.split_once('#').map_or((name, None), |(user, rest)| (user, Some(rest)));
        match (user, cluster) {
            ("root@proxysys", _) => Self::Proxy("obproxy_sys_password"), // A2
            ("inspector@proxysys", _) => Self::Proxy("inspector_password"), // A15
            (user, Some(cluster)) if !user.ends_with("@proxysys") => Self::Tenant(cluster),
            _ => Self::Nowhere, // A14
        }
    }
}

/// False: the client is not let in, and knows it by an error or by the end of the connection.
pub(super) fn login(packets: &mut Packets<TcpStream>, id: u32, peer: IpAddr, proxy: &Proxy) -> io::Result<bool> {
    let salt = salt();
    packets.write(&greeting(id, &salt))?;
    let (name, token) = hello(packets, &salt)?;
    let item = match User::of(&name) {
        User::Proxy(item) => item,
        User::Tenant(cluster) if cluster == proxy.cluster => {
            thread::sleep(OBSERVER_PATIENCE); // A16
            return Ok(false);
        }
        User::Tenant(_) => {
            Answer::error(4669, "cluster not exist").send(packets)?; // A16
            return Ok(false);
        }
        User::Nowhere => return Ok(false),
    };
    let allowed = proxy.with_config(|config| {
        admits(config.get(item), &token, &salt) && (is_near(peer) || config.is_true("skip_proxy_sys_private_check")) // A13
    });
    if allowed && !proxy.faults.refuse_logins {
        Answer::Ok.send(packets)?;
        return Ok(true);
    }
    proxy.log.info(&format!("refused {name} from {peer}"));
    // A10
    let with_password = if token.is_empty() { "NO" } else { "YES" };
    let message = format!("Access denied for user '{name}'@'{peer}' (using password: {with_password})");
    Answer::Error { code: 1045, state: "28000", message }.send(packets)?;
    Ok(false)
}

/// The user and the token that the client answers the greeting with.
fn hello(packets: &mut Packets<TcpStream>, salt: &[u8]) -> io::Result<(String, Vec<u8>)> {
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
        switch.extend_from_slice(salt);
        switch.push(0);
        packets.write(&switch)?;
        token = packets.read()?;
    }
    Ok((user, token))
}

/// A5, A6, A11: an empty hash is an empty password, and what is no hash lets nobody in.
fn admits(hash: &str, token: &[u8], salt: &[u8]) -> bool {
    if hash.is_empty() {
        return token.is_empty();
    }
    mysql::unhex(hash).is_some_and(|hash| token == mysql::scramble(salt, hash))
}

/// A12
fn is_near(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(ip) => ip == Ipv4Addr::LOCALHOST || ip.octets().starts_with(&[192, 168]),
        IpAddr::V6(ip) => ip == Ipv6Addr::LOCALHOST || ip.is_unique_local(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_addresses_are_near() {
        for near in ["127.0.0.1", "192.168.7.9", "::1", "fd00::7"] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in ["127.0.0.2", "10.1.2.3", "172.16.0.1", "203.0.113.5", "192.169.0.1", "fe80::1", "::2"] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }

    #[test]
    fn names_say_where_a_user_belongs() {
        assert_eq!(User::of("root@proxysys#x"), User::Proxy("obproxy_sys_password"));
        assert_eq!(User::of("root@sys#obdemo"), User::Tenant("obdemo"));
        for name in ["root", "root@sys", "foo@proxysys", "foo@proxysys#x", ""] {
            assert_eq!(User::of(name), User::Nowhere, "{name}");
        }
    }
}
