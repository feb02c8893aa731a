//! Logs in to a MySQL port and prints what `SHOW PROXYINFO BINARY` answers.
//! The password comes from OBLET_SQL_PASSWORD, so that it stands in no argument vector.

use oblet_standins::client::Client;
use std::{
    env,
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
};

const BAD_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [host, port, user] = arguments.as_slice() else {
        let _ = writeln!(io::stderr(), "usage: sql-login HOST PORT USER (password in OBLET_SQL_PASSWORD)");
        return ExitCode::from(BAD_USAGE);
    };
    match ask(host, port, user) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{user} at {host}:{port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(host: &str, port: &str, user: &str) -> Result<(), Box<dyn Error>> {
    let password = env::var("OBLET_SQL_PASSWORD").unwrap_or_default();
    let rows = Client::login(host, port.parse()?, user, &password)?.query("SHOW PROXYINFO BINARY")?;
    for row in rows {
        let cells: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
        writeln!(io::stdout(), "{}", cells.join("\t"))?;
    }
    Ok(())
}
