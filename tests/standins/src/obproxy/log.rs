//! `log/obproxy.log` in the form of obproxy's lines.

use super::{config::Config, items::Item, version::Rules};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

pub(super) struct Log {
    file: PathBuf,
    rules: &'static Rules,
}

impl Log {
    /// D6: the other files are there as well, and stay empty.
    pub(super) fn open(root: &Path, rules: &'static Rules) -> Self {
        let directory = root.join("log");
        for name in rules.more_logs {
            let file = directory.join(format!("obproxy_{name}.log"));
            let _ = fs::OpenOptions::new().create(true).append(true).open(file);
        }
        Self { file: directory.join("obproxy.log"), rules }
    }

    pub(super) fn info(&self, text: &str) {
        self.line("INFO", text);
    }

    pub(super) fn warning(&self, text: &str) {
        self.line(self.rules.warning_level, text);
    }

    /// A19. Here whatever the level is.
    pub(super) fn debug(&self, text: &str) {
        self.line("DEBUG", text);
    }

    /// D14: every item that needs a restart, then every item; passwords as their hashes.
    pub(super) fn report(&self, config: &Config) {
        self.info("===================== *begin proxy need reboot config report * =====================");
        config.items().filter(|item| item.need_reboot).for_each(|item| self.item(config, item));
        self.info("===================== *begin proxy config report * =====================");
        config.items().for_each(|item| self.item(config, item));
        self.info("===================== *end proxy config report* =======================");
    }

    fn item(&self, config: &Config, item: &Item) {
        self.info(&format!("| {:<36} = {}", item.name, config.get(item.name)));
    }

    /// X3: the cause, and how it came through.
    pub(super) fn death(&self, cause: &str, code: i32) {
        self.line(self.rules.error_level, &format!("{cause}(ret={code})"));
        self.line(self.rules.error_level, &format!("obproxy init failed(ret={code})"));
        self.line(self.rules.warning_level, &format!("fail to start obproxy(ret={code})"));
    }

    /// A log that cannot be written stops nothing.
    fn line(&self, level: &str, text: &str) {
        let file = fs::OpenOptions::new().create(true).append(true).open(&self.file);
        if let Ok(mut file) = file {
            let line = format!(
                "[{}] {level} [PROXY] standin (standin.rs:1) [{}][Y0-0] [lt=0] [dc=0] {text}\n",
                timestamp(SystemTime::now()),
                process::id()
            );
            let _ = file.write_all(line.as_bytes());
        }
    }
}

/// `2026-11-21 12:00:00.123456`, in UTC.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:06}", since.subsec_micros())
}

/// The Gregorian date of a day counted from 1970-01-01.
fn date(mut days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    for (month, length) in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30].into_iter().enumerate() {
        if days < length {
            return (year, month + 1, days + 1);
        }
        days -= length;
    }
    (year, 12, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01 00:00:00.000000");
        assert_eq!(timestamp(UNIX_EPOCH + Duration::from_micros(951_827_696_000_007)), "2000-02-29 12:34:56.000007");
        assert_eq!(date(365 * 2 + 365 - 1 + 1), (1972, 12, 31));
    }
}
