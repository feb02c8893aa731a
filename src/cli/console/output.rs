use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use super::{
    args::{Color, Format, OutputArgs},
    error::CliError,
    table::{Column, Layout, printable, text},
    yaml,
};

/// What a format is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Table,
    Data,
    Name,
}

/// Data goes to stdout; all that is said about it goes to stderr.
pub(crate) struct Output {
    format: Format,
    layout: Layout,
    color_errors: bool,
    /// A program reads stderr: errors are data there, and nothing else may be.
    only_errors: bool,
    pub(crate) progress: Progress,
}

/// How the way to the end of a task is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    None,
    Lines,
    Bars,
}

impl Format {
    pub(crate) fn shape(self) -> Shape {
        match self {
            Self::Table | Self::Wide => Shape::Table,
            Self::Json | Self::Yaml => Shape::Data,
            Self::Name => Shape::Name,
        }
    }
}

impl Output {
    pub(crate) fn new(args: &OutputArgs) -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = |is_terminal: bool| match args.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !no_color,
        };
        let wide = args.output == Format::Wide;
        let only_errors = args.output.shape() == Shape::Data && !stderr_is_terminal;
        Self {
            format: args.output,
            layout: Layout {
                headers: !args.no_headers,
                color: color(io::stdout().is_terminal()),
                wide,
                // None unless stdout is a terminal.
                width: comfy_table::Table::new().width().filter(|_| !wide),
            },
            color_errors: color(stderr_is_terminal),
            only_errors,
            progress: match (args.quiet || only_errors, stderr_is_terminal) {
                (true, _) => Progress::None,
                (false, true) => Progress::Bars,
                (false, false) => Progress::Lines,
            },
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.format.shape()
    }

    /// Prints the entries of a list; `name` points at what other commands take as argument.
    pub(crate) fn list(&self, data: &Value, columns: &[Column], name: &str) -> Result<(), CliError> {
        let entries = entries(data);
        match self.shape() {
            Shape::Data => self.data(data),
            Shape::Name => self.names(entries.iter().map(|entry| text(entry.pointer(name)))),
            Shape::Table => self.table(columns, entries.iter().map(|entry| cells(entry, columns))),
        }
    }

    /// Prints one entry, a line for each of its fields.
    pub(crate) fn entry(&self, data: &Value, fields: &[Column], name: &str) -> Result<(), CliError> {
        match self.shape() {
            Shape::Data => self.data(data),
            Shape::Name => self.names([text(data.pointer(name))]),
            Shape::Table => self.fields(fields.iter().map(|field| (field.heading, field.text(data)))),
        }
    }

    /// Prints a list inside an entry as a table below it; nothing if it is empty or tables are not asked for.
    pub(crate) fn section(&self, data: &Value, at: &str, columns: &[Column]) -> Result<(), CliError> {
        match data.pointer(at).map(entries) {
            Some(list @ [_, ..]) if self.shape() == Shape::Table => {
                self.text("\n")?;
                self.table(columns, list.iter().map(|entry| cells(entry, columns)))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn fields<'a>(&self, fields: impl IntoIterator<Item = (&'a str, String)>) -> Result<(), CliError> {
        self.text(&self.layout.fields(fields))
    }

    /// Prints rows with a cell for each of the columns.
    pub(crate) fn table(
        &self,
        columns: &[Column],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Result<(), CliError> {
        match self.layout.table(columns, rows) {
            Some(table) => self.text(&table),
            None => {
                self.note("No entries.");
                Ok(())
            }
        }
    }

    pub(crate) fn data(&self, data: &Value) -> Result<(), CliError> {
        self.text(&match self.format {
            Format::Yaml => yaml::document(data),
            _ => format!("{}\n", harmless(&format!("{data:#}"))),
        })
    }

    /// Prints data of which more may follow, so that a program can read it piece by piece.
    pub(crate) fn piece(&self, data: &Value) -> Result<(), CliError> {
        self.text(&match self.format {
            Format::Yaml => format!("---\n{}", yaml::document(data)),
            _ => format!("{}\n", harmless(&data.to_string())),
        })
    }

    pub(crate) fn names(&self, names: impl IntoIterator<Item = String>) -> Result<(), CliError> {
        self.text(&names.into_iter().map(|name| format!("{name}\n")).collect::<String>())
    }

    /// Prints what was changed where the API answers no data: a table says it on stderr alone.
    pub(crate) fn changed(&self, data: &Value, name: impl ToString) -> Result<(), CliError> {
        match self.shape() {
            Shape::Table => Ok(()),
            Shape::Data => self.data(data),
            Shape::Name => self.names([name.to_string()]),
        }
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
        if !self.only_errors {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Says how the work goes, unless the operator does not want to know.
    pub(crate) fn remark(&self, text: &str) {
        if self.progress != Progress::None {
            self.note(text);
        }
    }

    pub(crate) fn error(&self, error: &CliError) {
        let label = if self.color_errors { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
        let text = match (self.shape(), self.format) {
            _ if matches!(error, CliError::OutputClosed) => return,
            (Shape::Data, Format::Yaml) => yaml::document(&error.data()),
            (Shape::Data, _) => format!("{}\n", harmless(&error.data().to_string())),
            _ => error.reports().iter().map(|report| format!("{label} {}\n", report.trim_end())).collect(),
        };
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// The error of a command line that cannot be parsed, in the format that it asks for, as far as that can be told.
pub(crate) fn usage_error(error: &clap::Error, args: &[String]) {
    let format = |name: &str| {
        let pairs = args.iter().zip(args.iter().skip(1));
        pairs.into_iter().any(|(option, value)| (option == "-o" || option == "--output") && value == name)
            || args.iter().any(|arg| *arg == format!("-o{name}") || *arg == format!("--output={name}"))
    };
    let text = error.to_string();
    let message = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    let data = json!({"code": null, "status": null, "traceId": null, "details": [],
        "message": message.strip_prefix("error: ").unwrap_or(&message)});
    // Help into a closed pipe is no failure, and a usage error tells by its exit code.
    let _ = match error.use_stderr() {
        true if format("json") => writeln!(io::stderr(), "{}", harmless(&data.to_string())),
        true if format("yaml") => write!(io::stderr(), "{}", yaml::document(&data)),
        _ => error.print(),
    };
}

/// JSON without the control characters that JSON allows in strings: one of them begins a terminal's commands (CSI).
fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '\u{7f}'..='\u{9f}' => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(char));
            }
            _ => text.push(char),
        }
    }
    text
}

/// The entries of a list: its `contents`, or the list itself where it is bare.
pub(crate) fn entries(data: &Value) -> &[Value] {
    data.get("contents").unwrap_or(data).as_array().map_or(&[], Vec::as_slice)
}

fn cells(entry: &Value, columns: &[Column]) -> Vec<String> {
    columns.iter().map(|column| column.text(entry)).collect()
}
