//! Logs in to a MySQL port and prints what a statement answers, a row per line.
//! The password comes from OBLET_SQL_PASSWORD, so that it stands in no argument vector; OBLET_SQL_HASH, the SHA-1 of a
//! password in hexadecimal, opens the door just as well.

use oblet_standins::{client::Client, mysql};
use std::{
    env,
    error::Error,
    io::{self, Write as _},
    process::ExitCode,
};

const BAD_USAGE: u8 = 64;
const USAGE: &str = "usage: sql-login HOST PORT USER [STATEMENT] (password in OBLET_SQL_PASSWORD, or its SHA-1 in OBLET_SQL_HASH; the statement is SHOW PROXYINFO BINARY unless given)";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (host, port, user, statement) = match arguments.as_slice() {
        [host, port, user] => (host, port, user, "SHOW PROXYINFO BINARY"),
        [host, port, user, statement] => (host, port, user, statement.as_str()),
        _ => {
            let _ = writeln!(io::stderr(), "{USAGE}");
            return ExitCode::from(BAD_USAGE);
        }
    };
    match ask(host, port, user, statement) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{user} at {host}:{port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(host: &str, port: &str, user: &str, statement: &str) -> Result<(), Box<dyn Error>> {
    let rows = login(host, port.parse()?, user)?.query(statement)?;
    for row in rows {
        let cells: Vec<String> = row.into_iter().map(Option::unwrap_or_default).collect();
        writeln!(io::stdout(), "{}", cells.join("\t"))?;
    }
    Ok(())
}

fn login(host: &str, port: u16, user: &str) -> Result<Client, Box<dyn Error>> {
    if let Ok(hash) = env::var("OBLET_SQL_HASH") {
        let hash = mysql::unhex(&hash).ok_or("OBLET_SQL_HASH is not 40 hexadecimal digits")?;
        return Ok(Client::login_by_hash(host, port, user, hash)?);
    }
    let password = env::var("OBLET_SQL_PASSWORD").unwrap_or_default();
    Ok(Client::login(host, port, user, &password)?)
}
