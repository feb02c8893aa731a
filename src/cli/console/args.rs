//! The options that say how everything is printed.

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct OutputArgs {
    /// Output format; with json and yaml, errors have the same format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", global = true)]
    pub(crate) output: Format,
    /// Print tables without the header line
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,
    /// When to use colours; takes precedence over NO_COLOR in the environment
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", global = true)]
    pub(crate) color: Color,
    /// Do not show progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// The API's data as JSON
    Json,
    /// The API's data as YAML
    Yaml,
    /// Only the ids or names that other commands accept
    Name,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}
