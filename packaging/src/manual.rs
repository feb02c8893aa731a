//! Manual pages and completions, made of the very definitions that the programs parse their arguments with.

use clap::{Command, builder::Resettable};
use clap_complete::Shell;
use clap_mangen::Man;
use std::io;

/// What a program reads from its environment, and what its exit codes mean.
pub(crate) struct Appendix {
    pub(crate) environment: &'static [(&'static str, &'static str)],
    pub(crate) exit_codes: &'static [(u8, &'static str)],
}

/// The pages of a program, with the appendix on its first page.
pub(crate) fn pages_with(
    command: Command,
    section: &str,
    version: &str,
    appendix: &Appendix,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    // What help says at its end has sections of its own here.
    let mut pages = pages(command.after_help(Resettable::Reset), section, version)?;
    if let Some((_, text)) = pages.first_mut() {
        text.extend(appendix.text().bytes());
    }
    Ok(pages)
}

impl Appendix {
    fn text(&self) -> String {
        let item = |name: &str, meaning: &str| format!(".TP\n\\fB{name}\\fR\n{meaning}\n");
        let variables: String = self.environment.iter().map(|(name, meaning)| item(name, meaning)).collect();
        let codes: String = self.exit_codes.iter().map(|(code, meaning)| item(&code.to_string(), meaning)).collect();
        // A hyphen is a minus in roff only if it is escaped, and nobody can search for a dash.
        format!(".SH ENVIRONMENT\n{variables}.SH \"EXIT STATUS\"\n{codes}").replace('-', "\\-")
    }
}

/// A page for the command and one for each command below it: (file name, text).
pub(crate) fn pages(command: Command, section: &str, version: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    collect(&command, section, version, &mut pages)?;
    Ok(pages)
}

fn collect(command: &Command, section: &str, version: &str, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let page = Man::new(command.clone()).section(section).source(format!("oblet {version}")).manual("oblet");
    let mut text = Vec::new();
    page.render(&mut text)?;
    pages.push((page.get_filename(), text));
    command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .try_for_each(|below| collect(below, section, version, pages))
}

pub(crate) fn completion(shell: Shell, mut command: Command) -> Vec<u8> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_of_the_command_line_lists_variables_and_exit_codes() {
        let appendix = Appendix { environment: oblet::cli::environment(), exit_codes: oblet::cli::exit_codes() };
        let pages = pages_with(oblet::cli::command(), "1", "0", &appendix).unwrap();
        let (name, text) = &pages[0];
        let text = String::from_utf8_lossy(text);
        assert_eq!(name, "oblet.1");
        for part in [".SH ENVIRONMENT\n", "\\fBOBLET_PASSWORD_FILE\\fR\n", ".SH \"EXIT STATUS\"", "\\fB130\\fR\n"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(!text.contains("EXTRA"), "{text}");
    }
}
