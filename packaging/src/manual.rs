//! Manual pages and completions, made of the very definitions that the programs parse their arguments with.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::io;

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
