//! The statements that obproxy answers itself, and the few that MySQL clients send on their own account.

use super::{
    Proxy,
    config::{self, ITEMS},
    session::Answer,
};

/// obproxy's own code for text it cannot read.
const SYNTAX_ERROR: u16 = 1064;

pub(super) fn carry_out(statement: &str, proxy: &Proxy) -> Answer {
    let Some(tokens) = tokens(statement) else {
        return syntax_error(statement);
    };
    let words: Vec<String> = tokens.iter().map(Token::word).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["set", ..] => Answer::Ok,
        ["select", ..] => select(tokens.get(1..).unwrap_or_default()).unwrap_or_else(|| syntax_error(statement)),
        ["show", "proxyconfig"] => show_config("%", proxy),
        ["show", "proxyconfig", "like", _] => show_config(tokens.last().map_or("%", Token::text), proxy),
        ["show", "proxyinfo", "binary"] => Answer::Rows {
            columns: vec!["name".into(), "info".into()],
            rows: vec![vec![
                Some("binary info".into()),
                Some(format!("ObProxy-OceanBase {} (stand-in)", proxy.version)),
            ]],
        },
        ["alter", "proxyconfig", "set", ..] => match assignments(tokens.get(3..).unwrap_or_default()) {
            Some(pairs) => alter(&pairs, proxy),
            None => syntax_error(statement),
        },
        _ => syntax_error(statement),
    }
}

fn alter(pairs: &[(String, String)], proxy: &Proxy) -> Answer {
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !config::known(name)) {
        return Answer::error(1193, "HY000", format!("Unknown system variable '{name}'"));
    }
    let command = pairs.iter().find(|(name, _)| name == "proxy_local_cmd").map(|(_, value)| value.as_str());
    match command {
        None | Some("0") => {}
        Some("1") => return Answer::Exit,
        Some(other) => return Answer::error(1235, "0A000", format!("proxy_local_cmd={other} is not supported here")),
    }
    let saved = proxy.with_config(|config| {
        pairs.iter().for_each(|(name, value)| config.alter(name, value));
        config.save()
    });
    match saved {
        Ok(()) => Answer::Ok,
        Err(error) => Answer::error(1026, "HY000", format!("the local configuration could not be written: {error}")),
    }
}

fn show_config(pattern: &str, proxy: &Proxy) -> Answer {
    let row = |item: &config::Item| {
        let value = proxy.with_config(|config| config.get(item.name).to_owned());
        let reboot = if item.need_reboot { "True" } else { "False" };
        [item.name, &value, item.name, reboot, "USER"].map(|cell| Some(cell.to_owned())).to_vec()
    };
    Answer::Rows {
        columns: ["name", "value", "info", "need_reboot", "visible_level"].map(String::from).to_vec(),
        rows: ITEMS.iter().filter(|item| like(pattern.as_bytes(), item.name.as_bytes())).map(row).collect(),
    }
}

/// A list of numbers, strings and variables, as clients ask for them after a login.
fn select(tokens: &[Token]) -> Option<Answer> {
    let list = match tokens {
        [list @ .., Token::Word(limit), Token::Word(_)] if limit.eq_ignore_ascii_case("limit") => list,
        list => list,
    };
    let (mut columns, mut row) = (Vec::new(), Vec::new());
    for item in list.split(|token| *token == Token::Sign(',')) {
        let [token] = item else { return None };
        columns.push(token.text().to_owned());
        row.push(match token {
            Token::Quoted(text) => Some(text.clone()),
            Token::Word(word) if word.starts_with("@@") => variable(word).map(str::to_owned),
            Token::Word(word) if word.parse::<i64>().is_ok() => Some(word.clone()),
            Token::Word(_) | Token::Sign(_) => return None,
        });
    }
    Some(Answer::Rows { columns, rows: vec![row] })
}

fn variable(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('@').to_ascii_lowercase();
    match name.rsplit('.').next()? {
        "version" => Some("5.6.25"),
        "version_comment" => Some("obproxy stand-in"),
        "max_allowed_packet" => Some("1048576"),
        "autocommit" => Some("1"),
        "sql_mode" => Some("STRICT_ALL_TABLES"),
        "time_zone" => Some("+00:00"),
        "tx_isolation" | "transaction_isolation" => Some("READ-COMMITTED"),
        _ => None,
    }
}

/// `a = 'b', c = 1`
fn assignments(tokens: &[Token]) -> Option<Vec<(String, String)>> {
    let pair = |item: &[Token]| match item {
        [Token::Word(name), Token::Sign('='), value @ (Token::Word(_) | Token::Quoted(_))] => {
            Some((name.to_ascii_lowercase(), value.text().to_owned()))
        }
        _ => None,
    };
    tokens.split(|token| *token == Token::Sign(',')).map(pair).collect()
}

/// SQL's LIKE without escapes: `%` any text, `_` any character.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'%', rest)), after) => like(rest, text) || after.is_some_and(|(_, text)| like(pattern, text)),
        (Some((b'_', pattern)), Some((_, text))) => like(pattern, text),
        (Some((a, pattern)), Some((b, text))) => a.eq_ignore_ascii_case(b) && like(pattern, text),
        (Some(_), None) => false,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Sign(char),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Quoted(text) => text,
            Self::Sign(_) => "",
        }
    }

    /// Lower case for comparison with a keyword; anything but a word is none.
    fn word(&self) -> String {
        match self {
            Self::Word(text) => text.to_ascii_lowercase(),
            Self::Quoted(_) | Self::Sign(_) => String::new(),
        }
    }
}

/// None: a string does not end.
fn tokens(statement: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = statement.trim().trim_end_matches(';').chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            space if space.is_whitespace() => {}
            quote @ ('\'' | '"' | '`') => {
                let mut text = String::new();
                loop {
                    match rest.next()? {
                        '\\' => text.push(rest.next()?),
                        end if end == quote && rest.next_if_eq(&quote).is_none() => break,
                        other => text.push(other),
                    }
                }
                tokens.push(Token::Quoted(text));
            }
            '=' | ',' | '(' | ')' => tokens.push(Token::Sign(first)),
            _ => {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|c| !c.is_whitespace() && !"=,()'\"`".contains(*c)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Some(tokens)
}

fn syntax_error(statement: &str) -> Answer {
    // Only the verb: a statement may hold a password.
    let verb = statement.split_whitespace().next().unwrap_or_default();
    let message = format!("You have an error in your SQL syntax, or the stand-in does not know this kind of {verb}");
    Answer::error(SYNTAX_ERROR, "42000", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_take_quotes_and_plain_words() {
        let statement = r"work_thread_num=8, app_name = 'it''s, \'quoted\'' ,syslog_level=INFO;";
        let pairs = assignments(&tokens(statement).unwrap()).unwrap();
        let expected = [("work_thread_num", "8"), ("app_name", "it's, 'quoted'"), ("syslog_level", "INFO")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(assignments(&tokens("a=1,").unwrap()).is_none());
        assert!(tokens("a='b").is_none());
    }

    #[test]
    fn like_knows_both_wildcards() {
        assert!(like(b"%thread%", b"work_thread_num"));
        assert!(like(b"proxy_id", b"proxy_id"));
        assert!(like(b"proxy__d", b"PROXY_ID"));
        assert!(like(b"%", b""));
        assert!(!like(b"proxy", b"proxy_id"));
        assert!(!like(b"%x", b"proxy_id"));
    }

    #[test]
    fn clients_questions_are_answered() {
        let asked = tokens("@@max_allowed_packet, 1, 'x', @@unheard_of LIMIT 1").unwrap();
        let Some(Answer::Rows { rows, .. }) = select(&asked) else { panic!("no rows") };
        let expected = vec![Some("1048576".to_owned()), Some("1".to_owned()), Some("x".to_owned()), None];
        assert_eq!(rows, [expected]);
        assert_eq!(select(&tokens("now()").unwrap()), None);
    }
}
