//! Takes the hashes of passwords out of the logs of a proxy.
//!
//! obproxy prints its whole configuration into its log at each start (D14), and a hash in it is as good as the password
//! (A11). The configuration itself has to keep the hashes; a log is copied, collected and sent to others.
//!
//!  1. The digits are overwritten in place. The proxy appends meanwhile, and what it has written keeps its place.
//!  2. The files are the run user's: only regular ones without another name are touched, through descriptors.
//!  3. What was looked through is not read again, whatever it is called by then; of a file that is met for the first time
//!     only the end is read. So a look is bounded, and costs next to nothing if nothing was written.

use super::super::beneath::Directory;
use crate::{agent::step::StepContext, blocking, telemetry::chain};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

/// The log, and what it is called after it was put aside.
const PREFIX: &str = "obproxy.log";
const NAME: &[u8] = b"password";
/// A SHA-1; more digits are no less of a secret.
const DIGITS: u64 = 40;
const FILL: u8 = b'*';
/// How much is read of a file that is met for the first time, and of how many such files in a look: the proxy begins the
/// next file at 256 MB.
const FIRST_BYTES: u64 = 256 << 20;
const FIRST_FILES: usize = 4;
const CHUNK: usize = 256 << 10;

/// How far each file was looked through, by device and inode.
#[derive(Debug, Default)]
pub(super) struct Redaction(BTreeMap<(u64, u64), Reader>);

impl Redaction {
    /// Overwrites the hashes that were written since the last look; answers how many there were. `dir` is the directory of
    /// the proxy. Reads files, so it is not for the event loop.
    pub(super) fn look(&mut self, dir: &Path) -> io::Result<usize> {
        let Some(dir) = Directory::find(dir)? else { return Ok(0) };
        let log = match dir.existing("log") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            log => log?,
        };
        let mut files = Vec::new();
        let mut failed = None;
        for (name, is_directory) in log.entries()? {
            let Some(name) = name.to_str().filter(|name| !is_directory && name.starts_with(PREFIX)) else { continue };
            match log.own_file(name).and_then(|file| Ok((file.metadata()?, file))) {
                Ok(found) => files.push(found),
                // Put aside or removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => failed = Some(error),
            }
        }
        files.sort_by_key(|(metadata, _)| std::cmp::Reverse((metadata.mtime(), metadata.mtime_nsec())));
        let (mut overwritten, mut met) = (0, 0);
        let mut reached = BTreeMap::new();
        for (metadata, file) in files {
            let key = (metadata.dev(), metadata.ino());
            let mut reader = match self.0.remove(&key) {
                Some(reader) if reader.at <= metadata.len() => reader,
                // One that became shorter was begun anew.
                Some(_) => Reader::default(),
                None => {
                    met += 1;
                    let skip =
                        if met > FIRST_FILES { metadata.len() } else { metadata.len().saturating_sub(FIRST_BYTES) };
                    Reader { at: skip, ..Reader::default() }
                }
            };
            overwritten += reader.read_on(&file, metadata.len())?;
            reached.insert(key, reader);
        }
        self.0 = reached;
        failed.map_or(Ok(overwritten), Err)
    }
}

/// A look for a step, whose outcome does not hang on it: the next look of [`super::restarts`] comes soon.
pub(super) async fn redact(dir: &Path, context: &StepContext) {
    let place = dir.to_owned();
    let looked = blocking::run(move || Redaction::default().look(&place)).await;
    match looked.and_then(|looked| looked) {
        Ok(0) => {}
        Ok(count) => context.log.line(&format!("the proxy's log: {count} hashes of passwords overwritten")),
        Err(error) => {
            let why = chain(&error);
            context.log.line(&format!("the proxy's log may hold hashes of passwords: it cannot be changed: {why}"));
        }
    }
}

/// Where the reading of a file has come to, and what stands just before.
#[derive(Debug, Default)]
struct Reader {
    at: u64,
    /// So many bytes of [`NAME`] were just read.
    matched: usize,
    /// The name of a password stands earlier on this line.
    named: bool,
    /// So many hexadecimal digits were just read.
    digits: u64,
}

impl Reader {
    /// Reads up to `end`. A hash that stands there in part is overwritten by the look that finds the rest.
    fn read_on(&mut self, file: &File, end: u64) -> io::Result<usize> {
        let mut buffer = vec![0; CHUNK];
        let mut found = Vec::new();
        while self.at < end {
            let length = file.read_at(&mut buffer, self.at)?;
            for &byte in buffer.get(..length).unwrap_or_default() {
                found.extend(self.read(byte));
            }
            if length == 0 {
                break;
            }
        }
        // It may be the very end of the file.
        if let Some(hash) = self.hash() {
            found.push(hash);
            self.digits = 0;
        }
        for (start, length) in &found {
            file.write_all_at(&vec![FILL; usize::try_from(*length).unwrap_or_default()], *start)?;
        }
        if !found.is_empty() {
            file.sync_data()?;
        }
        Ok(found.len())
    }

    /// Takes the next byte; answers where the hash stands that ends before it, and how long it is.
    fn read(&mut self, byte: u8) -> Option<(u64, u64)> {
        let ended = if byte.is_ascii_hexdigit() { None } else { self.hash() };
        self.digits = if byte.is_ascii_hexdigit() { self.digits + 1 } else { 0 };
        self.matched = match NAME.get(self.matched) {
            Some(wanted) if byte.eq_ignore_ascii_case(wanted) => self.matched + 1,
            _ => usize::from(byte.eq_ignore_ascii_case(&b'p')),
        };
        self.named = byte != b'\n' && (self.named || self.matched == NAME.len());
        self.at += 1;
        ended
    }

    fn hash(&self) -> Option<(u64, u64)> {
        (self.named && self.digits >= DIGITS).then(|| (self.at - self.digits, self.digits))
    }
}

/// The text without anything that could be a hash, whatever it is called: for messages, which travel further than logs.
pub(super) fn without_hashes(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(start);
        let (digits, after) = from.split_at(from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len()));
        told.push_str(before);
        told.push_str(if digits.len() as u64 >= DIGITS { "***" } else { digits });
        rest = after;
    }
    told + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write as _, path::PathBuf};

    const HASH: &str = "7c4a8d09ca3762af61e59520943dc26494f8941b";

    fn proxy() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        let log = dir.path().join("log/obproxy.log");
        (dir, log)
    }

    fn append(path: &Path, text: &str) {
        fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn hashes_of_passwords_are_overwritten_and_everything_else_stays() {
        let (dir, log) = proxy();
        let upper = HASH.to_uppercase();
        let text = format!(
            "[dc=0] | obproxy_sys_password                 = {HASH}\n\
             | observer_sys_password1 = {HASH}, Observer_Sys_Password = *{upper}\n\
             | md5 = {HASH}\nREVISION:{HASH}, password=\n{HASH}\n\
             replace values('inspector_password', '{HASH}')\n\
             password={} passpassword={HASH}{HASH} p={HASH}",
            &HASH[1..]
        );
        fs::write(&log, &text).unwrap();
        assert_eq!(Redaction::default().look(dir.path()).unwrap(), 6);
        let after = fs::read_to_string(&log).unwrap();
        assert_eq!(after.len(), text.len());
        let stars = "*".repeat(40);
        assert!(after.starts_with(&format!("[dc=0] | obproxy_sys_password                 = {stars}\n")), "{after}");
        assert!(after.contains(&format!("| md5 = {HASH}\nREVISION:{HASH}, password=\n{HASH}\n")), "{after}");
        assert!(after.contains(&format!("password={} passpassword={stars}{stars} p={stars}", &HASH[1..])), "{after}");
        assert_eq!(after.matches(HASH).count(), 3);
    }

    #[test]
    fn a_look_goes_on_where_the_last_one_ended_also_in_the_midst_of_a_line_and_after_the_log_was_put_aside() {
        let (dir, log) = proxy();
        let mut redaction = Redaction::default();
        assert_eq!(redaction.look(dir.path()).unwrap(), 0);
        append(&log, &format!("x password = {}", &HASH[..10]));
        assert_eq!(redaction.look(dir.path()).unwrap(), 0);
        append(&log, &HASH[10..]);
        assert_eq!(redaction.look(dir.path()).unwrap(), 1, "whether or not the line has ended");
        let aside = dir.path().join("log/obproxy.log.20261121120000");
        fs::rename(&log, &aside).unwrap();
        append(&aside, &format!("\npassword={HASH}\n"));
        append(&log, &format!("password={HASH}\n"));
        assert_eq!(redaction.look(dir.path()).unwrap(), 2);
        assert_eq!(redaction.look(dir.path()).unwrap(), 0);
        // Begun anew, as by logrotate's copytruncate.
        fs::write(&log, format!("password {HASH}")).unwrap();
        assert_eq!(redaction.look(dir.path()).unwrap(), 1);
        for path in [&log, &aside] {
            assert!(!fs::read_to_string(path).unwrap().contains(HASH));
        }
    }

    #[test]
    fn a_hash_across_two_reads_is_found() {
        let (dir, log) = proxy();
        for before in [CHUNK - 50, CHUNK - 20, CHUNK - 10, CHUNK - 4] {
            let padding = " ".repeat(before);
            fs::write(&log, format!("{padding}password={HASH}\n")).unwrap();
            assert_eq!(Redaction::default().look(dir.path()).unwrap(), 1, "{before}");
        }
    }

    #[test]
    fn what_the_run_user_puts_in_the_place_of_a_log_is_left_alone() {
        let (dir, log) = proxy();
        let victim = tempfile::tempdir().unwrap();
        let precious = victim.path().join("precious");
        let text = format!("password={HASH}\n");
        fs::write(&precious, &text).unwrap();
        fs::hard_link(&precious, dir.path().join("log/obproxy.log.hard")).unwrap();
        std::os::unix::fs::symlink(&precious, dir.path().join("log/obproxy.log.soft")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("log/obproxy.log.fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(dir.path().join("log/obproxy.log.directory")).unwrap();
        fs::write(&log, &text).unwrap();
        assert!(Redaction::default().look(dir.path()).is_err(), "it is told");
        assert_eq!(fs::read_to_string(&precious).unwrap(), text);
        assert!(!fs::read_to_string(&log).unwrap().contains(HASH), "the others are looked through");
    }

    #[test]
    fn a_message_holds_no_hash() {
        let text = format!("name=obproxy_sys_password, value=\"{HASH}\", \u{fc} ret=-4147 dead beef");
        assert_eq!(without_hashes(&text), "name=obproxy_sys_password, value=\"***\", \u{fc} ret=-4147 dead beef");
        assert_eq!(without_hashes(HASH), "***");
    }
}
