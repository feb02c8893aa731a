//! One client: login, then commands.

use super::{Proxy, answer::Answer, login, sql};
use crate::mysql::{self, Packets};
use std::{io, net::TcpStream, sync::atomic::Ordering, time::Duration};

const LOGIN_PATIENCE: Duration = Duration::from_secs(10);
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
pub(super) const AUTOCOMMIT: u16 = 2;

pub(super) fn serve(stream: TcpStream, id: u32, proxy: &Proxy) -> io::Result<()> {
    stream.set_read_timeout(Some(LOGIN_PATIENCE))?;
    stream.set_write_timeout(Some(WRITE_PATIENCE))?;
    let peer = stream.peer_addr()?.ip();
    let mut packets = Packets::new(stream);
    if !login::login(&mut packets, id, peer, proxy)? {
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
            // Silent on prepared statements and the rest.
            _ => Answer::unsupported(),
        };
        answer.send(&mut packets)?;
    }
}
