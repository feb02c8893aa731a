//! Statements taken apart: words, strings and signs.

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Quoted(String),
    Sign(char),
}

impl Token {
    /// Lower case for comparison with a keyword; anything but a word is none.
    pub(super) fn keyword(&self) -> String {
        match self {
            Self::Word(text) => text.to_ascii_lowercase(),
            Self::Quoted(_) => String::new(),
            Self::Sign(sign) => sign.to_string(),
        }
    }
}

/// How a backslash in a string is read. The facts cannot tell, so that a caller has to bear both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backslash {
    /// As MySQL does by default.
    Escapes,
    /// As MySQL does with NO_BACKSLASH_ESCAPES.
    Stands,
}

/// None: a string does not end, or there is a sign that no statement has.
pub(super) fn tokens(statement: &str, backslash: Backslash) -> Option<Vec<Token>> {
    let statement = statement.trim();
    let mut tokens = Vec::new();
    let mut rest = statement.strip_suffix(';').unwrap_or(statement).chars().peekable();
    while let Some(first) = rest.next() {
        match first {
            space if space.is_whitespace() => {}
            quote @ ('\'' | '"') => {
                let mut text = String::new();
                loop {
                    match rest.next()? {
                        '\\' if backslash == Backslash::Escapes => text.push_str(&escaped(rest.next()?)),
                        end if end == quote && rest.next_if_eq(&quote).is_none() => break,
                        other => text.push(other),
                    }
                }
                tokens.push(Token::Quoted(text));
            }
            '=' | ',' | '(' | ')' | '*' => tokens.push(Token::Sign(first)),
            '`' | ';' => return None,
            _ => {
                let mut word = String::from(first);
                while let Some(next) = rest.next_if(|c| !c.is_whitespace() && !"=,()*;'\"`".contains(*c)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Some(tokens)
}

/// MySQL's manual, "String Literals".
fn escaped(letter: char) -> String {
    match letter {
        '0' => "\0".into(),
        'b' => "\u{8}".into(),
        'n' => "\n".into(),
        'r' => "\r".into(),
        't' => "\t".into(),
        'Z' => "\u{1a}".into(),
        '%' => r"\%".into(),
        '_' => r"\_".into(),
        other => other.into(),
    }
}

/// S15: `a = 'b', c = 1, d = word`; several are S24.
pub(super) fn assignments(tokens: &[Token]) -> Option<Vec<(&str, &str)>> {
    let items = tokens.split(|token| *token == Token::Sign(','));
    items
        .map(|item| match item {
            [Token::Word(name), Token::Sign('='), Token::Quoted(value)] => Some((name.as_str(), value.as_str())),
            [Token::Word(name), Token::Sign('='), Token::Word(value)] if is_plain(value) => {
                Some((name.as_str(), value.as_str()))
            }
            _ => None,
        })
        .collect()
}

/// A number or a word. Silent on others, such as addresses, which need quotes here.
fn is_plain(value: &str) -> bool {
    let number = value.strip_prefix('-').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    number || value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// S5: case counts. Silent on a backslash before a wildcard; it escapes nothing here.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let mut pattern = pattern.chars();
    match pattern.next() {
        None => text.is_empty(),
        Some('%') => {
            let after = pattern.as_str();
            let tails = text.char_indices().filter_map(|(at, _)| text.get(at..));
            tails.chain([""]).any(|tail| like(after, tail))
        }
        Some(expected) => {
            let mut text = text.chars();
            let met = text.next().is_some_and(|found| expected == '_' || expected == found);
            met && like(pattern.as_str(), text.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(statement: &str, backslash: Backslash) -> Option<Vec<(String, String)>> {
        let tokens = tokens(statement, backslash)?;
        let pairs = assignments(&tokens)?;
        Some(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn assignments_take_quotes_numbers_and_words() {
        let statement = r#"work_thread_num=8, a = 'it''s, \'quoted\'' ,b="say ""no""",c=-5,syslog_level=INFO;"#;
        let pairs = read(statement, Backslash::Escapes).unwrap();
        let expected = [
            ("work_thread_num", "8"),
            ("a", "it's, 'quoted'"),
            ("b", r#"say "no""#),
            ("c", "-5"),
            ("syslog_level", "INFO"),
        ];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for bad in ["", "a=1,", "a", "a=", "a=127.0.0.1", "a='b", "a=b c", "`a`=1", "'a'=1", "a=1;b=2"] {
            assert_eq!(read(bad, Backslash::Escapes), None, "{bad}");
        }
    }

    #[test]
    fn a_backslash_is_read_in_two_ways() {
        let value = |backslash| read(r"a='x\\y\n'", backslash).map(|pairs| pairs[0].1.clone());
        assert_eq!(value(Backslash::Escapes).as_deref(), Some("x\\y\n"));
        assert_eq!(value(Backslash::Stands).as_deref(), Some(r"x\\y\n"));
        assert_eq!(read(r"a='\'", Backslash::Escapes), None);
        assert_eq!(read(r"a='\'", Backslash::Stands).unwrap()[0].1, r"\");
    }

    #[test]
    fn like_knows_both_wildcards() {
        assert!(like("%thread%", "work_thread_num") && like("proxy_id", "proxy_id") && like("%", ""));
        assert!(like("proxy__d", "proxy_id") && like("%ä_", "xäy"));
        assert!(!like("proxy", "proxy_id") && !like("%x", "proxy_id") && !like("Proxy_id", "proxy_id"));
    }
}
