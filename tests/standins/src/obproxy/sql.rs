//! The statements that root@proxysys can send.

use super::{
    Proxy, alter,
    answer::Answer,
    quoting::{self, Backslash, Token},
    show,
};

pub(super) fn carry_out(statement: &str, proxy: &Proxy) -> Answer {
    let backslash = if proxy.faults.no_backslash_escapes { Backslash::Stands } else { Backslash::Escapes };
    let Some(tokens) = quoting::tokens(statement, backslash) else {
        return Answer::unknown(); // S10
    };
    let words: Vec<String> = tokens.iter().map(Token::keyword).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (words.as_slice(), tokens.as_slice()) {
        (["alter", "proxyconfig", "set", ..], [_, _, _, items @ ..]) => match quoting::assignments(items) {
            Some(pairs) => alter::alter(&pairs, proxy),
            None => Answer::unknown(), // S10
        },
        (["show", "proxyconfig", ..], [_, _, rest @ ..]) => show::config(rest, proxy),
        (["show", "proxyinfo", "binary"], _) => show::binary(proxy),
        (["show", "proxyinfo", "upgrade"], _) => show::upgrade(proxy),
        (["show", "proxycluster", ..], _) => Answer::error(4018, "Entry not exist"), // S13
        (["show", what, ..], _) if show::WITHOUT_ROWS_HERE.contains(what) => not_played(what),
        (["select", "proxy_version", "(", ")"], _) => {
            Answer::rows(&["proxy_version()"], [[proxy.version.number().to_owned()]]) // S12
        }
        (["select", "*", "from", table, ..], _) if show::TABLES.contains(table) => not_played(table),
        (["select", "*", "from", ..], _) => Answer::error(4016, "Internal error"), // S14
        (["select" | "update", ..], _) => Answer::unsupported(),                   // S11
        (["ping", "proxy"] | ["set", "autocommit", "=", "0" | "1"], _) => Answer::Ok, // S12; other SET are silent
        _ => Answer::unknown(),                                                    // S10
    }
}

/// S13, S14: the real one answers, with columns that the facts do not name.
fn not_played(what: &str) -> Answer {
    Answer::error(1235, format!("the stand-in for obproxy has no rows for {what}"))
}
