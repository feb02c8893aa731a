//! The CLI on a terminal.

use nix::pty::{Winsize, openpty};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::Stdio,
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

pub(crate) const COLUMNS: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(60);

/// Stdin, stdout and stderr of the program are one terminal.
pub(crate) struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    pub(crate) fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 40, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        let stdio = || Stdio::from(pair.slave.try_clone().unwrap());
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        // The command keeps its own copies of the other end, which would never be closed.
        drop(command);
        drop(pair.slave);
        let keyboard = File::from(pair.master);
        let mut master = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the last writer is an error of the terminal.
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                let _ = sender.send(buffer[..count].to_vec());
            }
        });
        Self { child, keyboard, screen, seen: String::new() }
    }

    /// Waits until the program has written this.
    pub(crate) fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.screen.recv_timeout(left);
            assert!(bytes.is_ok(), "{text:?} is not in {:?}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes.unwrap());
        }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code, and everything that was on the screen.
    pub(crate) async fn end(mut self) -> (i32, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        while let Ok(bytes) = self.screen.recv_timeout(PATIENCE) {
            self.seen += &String::from_utf8_lossy(&bytes);
        }
        (status.code().unwrap(), self.seen.replace("\r\n", "\n"))
    }
}
