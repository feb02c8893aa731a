//! As much of systemd as the supervisor of the agent asks for, over the protocol of D-Bus, for one unit. It does to the
//! disk what systemd 252 does (`strace -f systemctl --root=DIR enable|disable UNIT`): makes and removes the link by which
//! a unit starts with the host, and the directory of such links, and syncs neither.

use super::units::{LINKS, UNIT, UNITS};
use std::{
    collections::HashMap,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread,
};
use zbus::{
    Message, ObjectPath, Variant,
    message::Header,
    wire::{
        Endian,
        serialized::{Context, Data},
    },
};

const SOCKET: &str = "/run/dbus/system_bus_socket";
const SELF: &str = ":1.0";
const OBJECT: &str = "/org/freedesktop/systemd1";
const UNIT_OBJECT: &str = "/org/freedesktop/systemd1/unit/it";
const JOB: &str = "/org/freedesktop/systemd1/job/1";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const CLD_KILLED: i32 = 2;
const SIGTERM: i32 = 15;

/// Since boot.
#[derive(Default)]
struct Unit {
    is_loaded: bool,
    began: bool,
    process: Option<Child>,
}

pub(super) fn file() -> PathBuf {
    Path::new(UNITS).join(UNIT)
}

fn link() -> PathBuf {
    Path::new(LINKS).join(UNIT)
}

/// Boots: starts the unit if it is enabled, and takes calls.
pub(super) fn boot() {
    fs::create_dir_all(Path::new(SOCKET).parent().unwrap()).unwrap();
    let listener = UnixListener::bind(SOCKET).unwrap();
    let unit = Arc::new(Mutex::new(Unit::default()));
    if file().exists() && link().exists() {
        unit.lock().unwrap().start();
    }
    thread::spawn(move || {
        for stream in listener.incoming() {
            let unit = Arc::clone(&unit);
            // Whoever hangs up ends it.
            thread::spawn(move || serve(stream.unwrap(), &unit));
        }
    });
}

fn serve(stream: UnixStream, unit: &Mutex<Unit>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut line = String::new();
    while !line.ends_with("BEGIN\r\n") {
        line.clear();
        reader.read_line(&mut line)?;
        if line.contains("AUTH ") {
            writer.write_all(b"OK 0123456789abcdef0123456789abcdef\r\n")?;
        } else if line.starts_with("NEGOTIATE") {
            writer.write_all(b"AGREE_UNIX_FD\r\n")?;
        }
    }
    loop {
        let call = read(&mut reader)?;
        for answer in unit.lock().unwrap().answer(&call) {
            writer.write_all(answer.data())?;
        }
    }
}

/// One message, of a sender with the byte order of this machine.
fn read(reader: &mut impl io::Read) -> io::Result<Message> {
    let mut bytes = vec![0; 16];
    reader.read_exact(&mut bytes)?;
    let length = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let rest = length(12).next_multiple_of(8) + length(4);
    reader.take(rest as u64).read_to_end(&mut bytes)?;
    #[expect(unsafe_code, reason = "it comes from the library that reads it")]
    let message = unsafe { Message::from_bytes(Data::new(bytes, Context::new(Endian::native(), 0))) };
    message.map_err(io::Error::other)
}

impl Unit {
    fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    fn start(&mut self) {
        (self.is_loaded, self.began) = (true, true);
        self.process = Some(Command::new("sleep").arg("1000").spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// What is enabled is referred to by the target and stays loaded; the rest is forgotten when it is at rest.
    fn read_again(&mut self) {
        let enabled = file().exists() && link().exists();
        if self.is_running() || enabled {
            self.is_loaded = true;
        } else {
            *self = Self::default();
        }
    }

    fn answer(&mut self, call: &Message) -> Vec<Message> {
        let header = call.header();
        let member = header.member().unwrap().to_string();
        let done = || vec![reply(&header, &())];
        let absent = || vec![Message::error(&header, NO_SUCH_UNIT).sender(SELF).build(&"no such unit").unwrap()];
        match &*member {
            "Hello" => vec![reply(&header, &":1.1")],
            "AddMatch" | "RemoveMatch" | "Subscribe" => done(),
            "GetNameOwner" => vec![reply(&header, &SELF)],
            "Get" => vec![reply(&header, &Variant::from("252"))],
            "GetAll" => vec![reply(&header, &self.properties())],
            "Reload" => {
                self.read_again();
                done()
            }
            "GetUnit" | "ResetFailedUnit" | "StopUnit" if !self.is_loaded => absent(),
            "StartUnit" if !file().exists() => absent(),
            "GetUnit" => vec![reply(&header, &path(UNIT_OBJECT))],
            "ResetFailedUnit" => {
                self.began &= self.is_running();
                self.read_again();
                done()
            }
            "StartUnit" => {
                self.start();
                job(&header)
            }
            "StopUnit" => {
                self.stop();
                job(&header)
            }
            "EnableUnitFiles" => {
                fs::create_dir_all(LINKS).unwrap();
                let linked = symlink(file(), link());
                assert!(linked.is_ok() || link().is_symlink(), "{linked:?}");
                vec![reply(&header, &(true, changes("symlink")))]
            }
            "DisableUnitFiles" => {
                let _ = fs::remove_file(link());
                // Only if it is empty.
                let _ = fs::remove_dir(LINKS);
                vec![reply(&header, &changes("unlink"))]
            }
            other => panic!("nobody has told what systemd does when it is asked for {other}"),
        }
    }

    fn properties(&mut self) -> HashMap<&'static str, Variant<'static>> {
        let active = if self.is_running() { "active" } else { "inactive" };
        let ended = self.began && !self.is_running();
        HashMap::from([
            ("LoadState", Variant::from("loaded")),
            ("ActiveState", Variant::from(active)),
            ("Result", Variant::from("success")),
            ("ExecMainCode", Variant::from(if ended { CLD_KILLED } else { 0 })),
            ("ExecMainStatus", Variant::from(if ended { SIGTERM } else { 0 })),
            ("MainPID", Variant::from(self.process.as_ref().map_or(0, Child::id))),
            ("ExecMainStartTimestampMonotonic", Variant::from(u64::from(self.began))),
        ])
    }
}

fn path(path: &'static str) -> ObjectPath<'static> {
    path.try_into().unwrap()
}

fn changes(kind: &str) -> Vec<(String, String, String)> {
    vec![(kind.to_owned(), link().display().to_string(), file().display().to_string())]
}

fn reply<B: serde::Serialize + zbus::DynamicType>(to: &Header<'_>, body: &B) -> Message {
    Message::method_return(to).sender(SELF).build(body).unwrap()
}

/// The answer to whoever has asked for a job, and the end of that job.
fn job(header: &Header<'_>) -> Vec<Message> {
    let ended = Message::signal(OBJECT, "org.freedesktop.systemd1.Manager", "JobRemoved").sender(SELF);
    let ended = ended.build(&(1_u32, path(JOB), UNIT, "done")).unwrap();
    vec![reply(header, &path(JOB)), ended]
}
