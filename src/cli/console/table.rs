//! How a table is laid out.

use comfy_table::{Cell, Color as Paint, ColumnConstraint, ContentArrangement, Table, presets};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

/// Narrower than this, wrapped text is unreadable: the terminal wraps the whole line instead.
const NARROWEST_FREE_TEXT: usize = 16;
/// Between two columns.
const GAP: u16 = 3;

/// A column of a table: its heading, and where its value is in an entry (RFC 6901).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) heading: &'static str,
    at: &'static str,
    wide: bool,
    free: bool,
}

pub(crate) const fn column(heading: &'static str, at: &'static str) -> Column {
    Column { heading, at, wide: false, free: false }
}

impl Column {
    /// Only shown with `-o wide`.
    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }

    /// Holds free text, which is wrapped where the terminal is too narrow. Ids and names never are.
    pub(crate) const fn free(self) -> Self {
        Self { free: true, ..self }
    }

    pub(crate) fn text(&self, entry: &Value) -> String {
        match entry.pointer(self.at) {
            Some(Value::String(time)) if self.at.ends_with("Time") && !time.is_empty() => local_time(time),
            value => text(value),
        }
    }
}

pub(super) struct Layout {
    pub(super) headers: bool,
    pub(super) color: bool,
    pub(super) wide: bool,
    /// Columns of the terminal; None if nothing has to fit.
    pub(super) width: Option<u16>,
}

impl Layout {
    /// The lines of a table; None if it has no rows.
    pub(super) fn table(&self, columns: &[Column], rows: impl IntoIterator<Item = Vec<String>>) -> Option<String> {
        let shown = |column: &Column| self.wide || !column.wide;
        let mut table = self.empty();
        if self.headers {
            let headings = columns.iter().filter(|column| shown(column)).map(|column| column.heading);
            table.set_header(headings.collect::<Vec<_>>());
        }
        for row in rows {
            let cells = columns.iter().zip(&row).filter(|(column, _)| shown(column)).map(|(_, text)| cell(text));
            table.add_row(cells.collect::<Vec<_>>());
        }
        if table.is_empty() {
            return None;
        }
        let free = columns.iter().filter(|column| shown(column)).map(|column| column.free).collect::<Vec<_>>();
        self.fit(&mut table, free.iter().rposition(|free| *free));
        Some(lines(table))
    }

    /// A line for each field.
    pub(super) fn fields<'a>(&self, fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
        let mut table = self.empty();
        for (heading, value) in fields {
            table.add_row([Cell::new(format!("{heading}:")), cell(&value)]);
        }
        self.fit(&mut table, Some(1));
        lines(table)
    }

    fn empty(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        if self.color {
            table.enforce_styling();
        }
        table
    }

    /// Wraps the free text where the lines are longer than the terminal is wide.
    fn fit(&self, table: &mut Table, free: Option<usize>) {
        for column in table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        let (Some(width), Some(free)) = (self.width, free) else { return };
        let widths = table.column_max_content_widths();
        let fixed = |index: usize, content: &u16| if index == free { 0 } else { usize::from(content + GAP) };
        let fixed: usize = widths.iter().enumerate().map(|(index, content)| fixed(index, content)).sum();
        let width = usize::from(width).max(fixed + NARROWEST_FREE_TEXT);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        // The gap behind the last column is trimmed.
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX).saturating_add(GAP));
        for (index, column) in table.column_iter_mut().enumerate() {
            if index != free {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
}

fn lines(table: Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn cell(text: &str) -> Cell {
    let cell = Cell::new(text);
    match text {
        "FAILED" | "OFFLINE" | "UNAVAILABLE" | "UNREACHABLE" => cell.fg(Paint::Red),
        "RUNNING" | "CANCELING" | "CREATING" | "DELETING" | "ROLLED BACK" => cell.fg(Paint::Yellow),
        "SUCCESSFUL" | "ONLINE" | "AVAILABLE" => cell.fg(Paint::Green),
        _ => cell,
    }
}

/// A point in time of the API as the operator's clock shows it.
pub(crate) fn local_time(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(point) => point.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => printable(time),
    }
}

/// What comes from hosts and logs must not control the operator's terminal.
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

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[column("ID", "/id"), column("STEP", "/step").free(), column("HOST", "/host").wide()];

    fn layout(wide: bool, width: Option<u16>) -> String {
        let rows = [vec!["34807".into(), "Install rpm by package and version".into(), "db1".into()]];
        Layout { headers: true, color: false, wide, width }.table(COLUMNS, rows).unwrap()
    }

    #[test]
    fn free_text_is_wrapped_to_the_terminal_and_nothing_else_is() {
        assert_eq!(layout(false, None), "ID      STEP\n34807   Install rpm by package and version\n");
        assert_eq!(layout(false, Some(30)), "ID      STEP\n34807   Install rpm by package\n        and version\n");
        let narrow = layout(false, Some(3));
        assert!(
            narrow.lines().all(|line| line.len() <= 8 + NARROWEST_FREE_TEXT) && narrow.contains("34807"),
            "{narrow}"
        );
    }

    #[test]
    fn wide_columns_are_shown_on_demand() {
        assert_eq!(
            layout(true, None),
            "ID      STEP                                 HOST\n34807   Install rpm by package and version   db1\n"
        );
    }

    #[test]
    fn the_last_column_ends_where_the_terminal_ends() {
        for width in 31..60 {
            let widest = layout(true, Some(width)).lines().map(str::len).max();
            assert!(widest <= Some(width.into()), "{width}");
        }
    }
}
