//! What a statement is answered with, as packets.

use super::session::AUTOCOMMIT;
use crate::mysql::{self, Packets};
use std::{io, net::TcpStream};

/// S1
const VARCHAR: u8 = 15;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Rows { columns: Vec<String>, rows: Vec<Vec<Option<String>>> },
    Error { code: u16, state: &'static str, message: String },
}

impl Answer {
    pub(super) fn error(code: u16, message: impl Into<String>) -> Self {
        Self::Error { code, state: "HY000", message: message.into() }
    }

    /// S10
    pub(super) fn unknown() -> Self {
        Self::error(5010, "Unknown operator, bad internal cmd")
    }

    /// S11
    pub(super) fn unsupported() -> Self {
        Self::error(1235, "Not supported feature or function")
    }

    pub(super) fn rows<R: IntoIterator<Item = String>>(columns: &[&str], rows: impl IntoIterator<Item = R>) -> Self {
        Self::Rows {
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            rows: rows.into_iter().map(|row| row.into_iter().map(Some).collect()).collect(),
        }
    }

    pub(super) fn send(&self, packets: &mut Packets<TcpStream>) -> io::Result<()> {
        match self {
            Self::Ok => packets.write(&[0, 0, 0, AUTOCOMMIT as u8, 0, 0, 0]),
            Self::Error { code, state, message } => {
                let mut packet = vec![0xff];
                packet.extend_from_slice(&code.to_le_bytes());
                packet.push(b'#');
                packet.extend_from_slice(state.as_bytes());
                packet.extend_from_slice(message.as_bytes());
                packets.write(&packet)
            }
            Self::Rows { columns, rows } => {
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
}

fn definition(name: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    for text in ["def", "", "", "", name, name] {
        mysql::put_counted(&mut packet, text.as_bytes());
    }
    packet.extend_from_slice(&[0x0c, mysql::UTF8, 0]);
    packet.extend_from_slice(&4096_u32.to_le_bytes());
    packet.extend_from_slice(&[VARCHAR, 0, 0, 0, 0, 0]);
    packet
}
