//! Ports for servers of tests. obproxy listens for metrics and for RPC on every address of the machine, so tests that run
//! at the same time must not share any.
//!
//! The ports come in blocks, below those that the kernel gives to clients. Who listens on the first port of a block has
//! the block, until his process ends.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::Mutex,
};

const FIRST: u16 = 11_000;
const BLOCK: u16 = 40;
const BLOCKS: u16 = 500;

#[derive(Default)]
struct Own {
    guards: Vec<TcpListener>,
    next: u16,
    end: u16,
}

static OWN: Mutex<Own> = Mutex::new(Own { guards: Vec::new(), next: 0, end: 0 });

/// A port that no other test has, on which nobody listens.
pub(crate) fn own() -> u16 {
    let mut own = OWN.lock().unwrap();
    loop {
        if own.next == own.end {
            let (guard, first) = block();
            own.guards.push(guard);
            (own.next, own.end) = (first + 1, first + BLOCK);
        }
        let port = own.next;
        own.next += 1;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

fn block() -> (TcpListener, u16) {
    // Processes that start one after the other seldom look at the same block.
    let begin = (std::process::id() % u32::from(BLOCKS)) as u16;
    let candidates = (0..BLOCKS).map(|number| FIRST + (begin + number) % BLOCKS * BLOCK);
    let mut free = candidates.filter_map(|first| Some((TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()?, first)));
    free.next().unwrap_or_else(|| panic!("other tests have all ports"))
}
