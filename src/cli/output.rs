use comfy_table::{Cell, Color as Paint, Table, presets};
use serde_json::Value;
use std::io::{self, IsTerminal, Write};

use super::{
    args::{Color, Global},
    error::CliError,
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
    Name,
}

/// A column of a table: its heading, and where its value stands in an entry (RFC 6901).
pub(crate) type Column = (&'static str, &'static str);

/// Data goes to stdout; all that is said about it goes to stderr.
pub(crate) struct Output {
    pub(crate) format: Format,
    headers: bool,
    color: bool,
    color_errors: bool,
    pub(crate) progress: Progress,
}

/// How the way to the end of a task is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    None,
    Lines,
    Bars,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = |is_terminal: bool| match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !no_color,
        };
        Self {
            format: global.output,
            headers: !global.no_headers,
            color: color(io::stdout().is_terminal()),
            color_errors: color(stderr_is_terminal),
            progress: match (global.quiet, stderr_is_terminal) {
                (true, _) => Progress::None,
                (false, true) => Progress::Bars,
                (false, false) => Progress::Lines,
            },
        }
    }

    /// Prints the entries of a list; `name` points at what other commands take as argument.
    pub(crate) fn list(&self, data: &Value, columns: &[Column], name: &str) -> Result<(), CliError> {
        let entries = entries(data);
        match self.format {
            Format::Json => self.json(data),
            Format::Name => self.names(entries.iter().map(|entry| text(entry.pointer(name)))),
            Format::Table => {
                let rows = entries.iter().map(|entry| cells(entry, columns));
                self.table(&columns.iter().map(|(heading, _)| *heading).collect::<Vec<_>>(), rows)
            }
        }
    }

    /// Prints one entry, a line for each of its fields.
    pub(crate) fn entry(&self, data: &Value, fields: &[Column], name: &str) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(data),
            Format::Name => self.names([text(data.pointer(name))]),
            Format::Table => self.fields(fields.iter().map(|(heading, at)| (*heading, text(data.pointer(at))))),
        }
    }

    /// Prints a list inside an entry as a table below it; nothing if it is empty or tables are not asked for.
    pub(crate) fn section(&self, data: &Value, at: &str, columns: &[Column]) -> Result<(), CliError> {
        match data.pointer(at).map(entries) {
            Some(list @ [_, ..]) if self.format == Format::Table => {
                self.text("\n")?;
                let headings: Vec<_> = columns.iter().map(|(heading, _)| *heading).collect();
                self.table(&headings, list.iter().map(|entry| cells(entry, columns)))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn fields<'a>(&self, fields: impl IntoIterator<Item = (&'a str, String)>) -> Result<(), CliError> {
        let mut table = self.empty_table();
        for (heading, value) in fields {
            table.add_row([Cell::new(format!("{heading}:")), self.cell(&value)]);
        }
        self.print(table)
    }

    pub(crate) fn table(&self, headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), CliError> {
        let mut table = self.empty_table();
        if self.headers {
            table.set_header(headings);
        }
        for row in rows {
            table.add_row(row.iter().map(|text| self.cell(text)));
        }
        if table.is_empty() {
            self.note("There are none.");
            return Ok(());
        }
        self.print(table)
    }

    pub(crate) fn json(&self, data: &Value) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(data).map_err(io::Error::from)?;
        self.text(&format!("{text}\n"))
    }

    pub(crate) fn names(&self, names: impl IntoIterator<Item = String>) -> Result<(), CliError> {
        self.text(&names.into_iter().map(|name| format!("{name}\n")).collect::<String>())
    }

    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }

    /// Prints lines that a program on a host has written.
    pub(crate) fn log(&self, text: &str) -> Result<(), CliError> {
        let lines: String = text
            .split_inclusive('\n')
            .flat_map(|line| {
                let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
                [printable(line.strip_suffix('\r').unwrap_or(line)), end.to_owned()]
            })
            .collect();
        self.text(&lines)
    }

    /// Says something to the operator. Nobody is left to be told if stderr is closed.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Says how the work goes, unless the operator does not want to know.
    pub(crate) fn remark(&self, text: &str) {
        if self.progress != Progress::None {
            self.note(text);
        }
    }

    pub(crate) fn error(&self, report: &str) {
        let label = if self.color_errors { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
        self.note(&format!("{label} {}", report.trim_end()));
    }

    fn empty_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        if self.color {
            table.enforce_styling();
        }
        table
    }

    fn print(&self, mut table: Table) -> Result<(), CliError> {
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        self.text(&table.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>())
    }

    fn cell(&self, text: &str) -> Cell {
        let cell = Cell::new(text);
        match text {
            "FAILED" | "OFFLINE" | "UNAVAILABLE" => cell.fg(Paint::Red),
            "RUNNING" | "CANCELING" | "CREATING" | "DELETING" => cell.fg(Paint::Yellow),
            "SUCCESSFUL" | "ONLINE" | "AVAILABLE" => cell.fg(Paint::Green),
            _ => cell,
        }
    }
}

/// The entries of a list: its `contents`, or the list itself where it is bare.
pub(crate) fn entries(data: &Value) -> &[Value] {
    data.get("contents").unwrap_or(data).as_array().map_or(&[], Vec::as_slice)
}

fn cells(entry: &Value, columns: &[Column]) -> Vec<String> {
    columns.iter().map(|(_, at)| text(entry.pointer(at))).collect()
}

/// What comes from hosts and logs must not steer the operator's terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() && char != '\t' { char::REPLACEMENT_CHARACTER } else { char })
        .collect()
}

/// A value as a person reads it.
pub(crate) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) if text.is_empty() => "-".into(),
        Some(Value::String(text)) => printable(text),
        Some(Value::Array(items)) if items.is_empty() => "-".into(),
        Some(Value::Array(items)) => items.iter().map(|item| text(Some(item))).collect::<Vec<_>>().join(","),
        Some(other) => other.to_string(),
    }
}
