//! Why an obproxy has failed, in its own words. Its exit code is 0 whatever happened (C3), and the reason stands in
//! `log/obproxy.log` alone (X3), which belongs to the run user.

use super::super::beneath::Directory;
use crate::steps::ObproxyVersion;
use serde::{Deserialize, Serialize};
use std::{io, path::Path};

const NAME: &str = "obproxy.log";
const LIMIT_BYTES: u64 = 256 << 10;
const MOST_LINES: usize = 5;
const LONGEST_LINE: usize = 400;

/// The log of one start: what was written before is not of it.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct LogOfStart {
    from: u64,
}

/// The lines that tell of failures.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Complaints(Vec<String>);

impl LogOfStart {
    /// To be taken before the program starts. `dir` is the directory of the proxy.
    pub(super) fn begin(dir: &Path) -> Self {
        // A log that is not there yet begins at its beginning.
        let length = open(dir).and_then(|log| log.file(NAME)).and_then(|file| file.metadata());
        Self { from: length.map_or(0, |metadata| metadata.len()) }
    }

    pub(super) fn complaints(self, dir: &Path, version: ObproxyVersion) -> io::Result<Complaints> {
        let bytes = match open(dir).and_then(|log| log.read_end(NAME, self.from, LIMIT_BYTES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Complaints::default()),
            read => read?,
        };
        Ok(Complaints::find(&String::from_utf8_lossy(&bytes), version))
    }
}

fn open(dir: &Path) -> io::Result<Directory> {
    Directory::open(dir)?.existing("log")
}

impl Complaints {
    /// Grave ones first, in the order in which they were written; the same words only once.
    fn find(text: &str, version: ObproxyVersion) -> Self {
        let mut found: Vec<String> = Vec::new();
        for level in version.failure_levels {
            let mark = format!(" {level} ");
            for line in text.lines().filter(|line| line.contains(&mark)) {
                let words = words(line);
                if found.len() < MOST_LINES && !words.is_empty() && !found.contains(&words) {
                    found.push(words);
                }
            }
        }
        Self(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.0
    }

    /// The port of the metrics could not be listened on; the proxy serves on without them (L6).
    pub(super) fn lacks_metrics(&self) -> bool {
        self.0.iter().any(|line| line.contains("prometheus"))
    }

    /// What the codes in these lines mean; none for codes that are not known.
    pub(super) fn meaning(&self) -> Option<&'static str> {
        let codes = self.0.iter().filter_map(|line| code(line));
        codes.filter_map(meaning_of).next()
    }
}

/// obproxy's codes for what keeps it from starting (C4, C5, C15 to C17, L4, L5).
fn meaning_of(code: i32) -> Option<&'static str> {
    match code {
        -4002 => Some("an argument is not valid"),
        -4016 => Some("a port is taken, or a value could not be saved"),
        -4104 => Some("the command line is not understood"),
        -4147 => Some("the value of a parameter is not valid, or it knows of no cluster"),
        _ => None,
    }
}

/// `ret=-4016` of a line.
fn code(line: &str) -> Option<i32> {
    let (_, rest) = line.split_once("ret=")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// What a line says behind its columns, fit for a terminal.
fn words(line: &str) -> String {
    // Columns stand in brackets: time, module, thread, trace, lag; the words follow the last of them.
    let told = line.rsplit_once("] ").map_or(line, |(_, words)| words);
    told.chars().filter(|c| !c.is_control()).take(LONGEST_LINE).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn version(text: &str) -> ObproxyVersion {
        ObproxyVersion::of(&format!("obproxy-{text}-1.el8.x86_64").parse().unwrap())
    }

    const LOG: &str = "\
[2026-11-21 12:00:00.000001] INFO  [PROXY] main (main.cpp:1) [7][Y0-0] [lt=0] [dc=0] begins\n\
[2026-11-21 12:00:00.000002] WDIAG [PROXY] start (a.cpp:1) [7][Y0-0] [lt=0] [dc=0] fail to init prometheus(ret=-4016)\n\
[2026-11-21 12:00:00.000003] EDIAG [PROXY] start (a.cpp:2) [7][Y0-0] [lt=0] [dc=0] fail to start \x1b[31mserver(ret=-4016)\n\
[2026-11-21 12:00:00.000004] EDIAG [PROXY] start (a.cpp:2) [7][Y0-0] [lt=0] [dc=0] fail to start \x1b[31mserver(ret=-4016)\n";

    #[test]
    fn grave_lines_come_first_and_mean_something() {
        let complaints = Complaints::find(LOG, version("4.3.1.0"));
        assert_eq!(complaints.lines()[1], "fail to init prometheus(ret=-4016)");
        assert!(complaints.lines()[0].ends_with("server(ret=-4016)") && !complaints.lines()[0].contains('\x1b'));
        assert_eq!(complaints.lines().len(), 2);
        assert!(complaints.lacks_metrics());
        assert_eq!(complaints.meaning(), Some("a port is taken, or a value could not be saved"));
        assert!(Complaints::find(LOG, version("3.2.0")).is_empty(), "older versions have other levels");
    }

    #[test]
    fn only_what_this_start_has_written_counts() {
        let dir = tempfile::tempdir().unwrap();
        let start = LogOfStart::begin(dir.path());
        assert!(start.complaints(dir.path(), version("4.3.1.0")).unwrap().is_empty());
        fs::create_dir(dir.path().join("log")).unwrap();
        let log = dir.path().join("log/obproxy.log");
        fs::write(&log, LOG).unwrap();
        assert_eq!(start.complaints(dir.path(), version("4.3.1.0")).unwrap().lines().len(), 2);
        let later = LogOfStart::begin(dir.path());
        assert!(later.complaints(dir.path(), version("4.3.1.0")).unwrap().is_empty());
        fs::write(&log, LOG.lines().nth(2).unwrap()).unwrap();
        assert_eq!(
            later.complaints(dir.path(), version("4.3.1.0")).unwrap().lines().len(),
            1,
            "the log was begun anew"
        );
    }

    #[test]
    fn a_code_is_read_wherever_it_stands() {
        assert_eq!(code("x(ret=-4147), y"), Some(-4147));
        assert_eq!(code("ret=abc"), None);
        assert_eq!(code("nothing"), None);
    }
}
