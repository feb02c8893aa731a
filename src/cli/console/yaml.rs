//! Data of the API as YAML 1.2. A string that could be read as something else is written in quotes, as in JSON, which is
//! YAML too.

use serde_json::Value;
use std::fmt::Write as _;

pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(members) if !members.is_empty() => object(&mut text, members, 0),
        Value::Array(items) if !items.is_empty() => array(&mut text, items, 0),
        scalar => {
            text.push_str(&inline(scalar));
            text.push('\n');
        }
    }
    text
}

fn object(text: &mut String, members: &serde_json::Map<String, Value>, depth: usize) {
    for (index, (name, value)) in members.iter().enumerate() {
        // The first member of an object in a list follows its dash.
        if index > 0 || !text.ends_with("- ") {
            indent(text, depth);
        }
        text.push_str(&string(name));
        text.push(':');
        below(text, value, depth);
    }
}

fn array(text: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(text, depth);
        match item {
            Value::Object(members) if !members.is_empty() => {
                text.push_str("- ");
                object(text, members, depth + 1);
            }
            _ => {
                text.push('-');
                below(text, item, depth);
            }
        }
    }
}

/// The value behind a name or a dash.
fn below(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('\n');
            object(text, members, depth + 1);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            array(text, items, depth + 1);
        }
        scalar => {
            text.push(' ');
            text.push_str(&inline(scalar));
            text.push('\n');
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    (0..depth).for_each(|_| text.push_str("  "));
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

fn string(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    // JSON leaves these as they are; YAML forbids control characters and breaks lines at some of them.
    let mut quoted = String::new();
    for char in Value::from(text).to_string().chars() {
        match char {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing to a string cannot fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(char));
            }
            _ => quoted.push(char),
        }
    }
    quoted
}

/// Words that start with a letter, without a character that means something to YAML.
fn is_plain(text: &str) -> bool {
    const NO_STRINGS: [&str; 11] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"];
    let harmless = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | '/' | ' ');
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && !text.ends_with(' ')
        && text.chars().all(harmless)
        && !NO_STRINGS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_data_is_indented() {
        let data = json!({
            "contents": [{"id": 1, "alias": "", "services": [{"name": "p1", "ports": [2883, 2884]}]},
                {"id": 2, "services": []}],
            "page": {"number": 1, "last": null, "done": true, "empty": {}},
            "nested": [[1, 2], []],
        });
        let expected = "\
contents:
  - alias: \"\"
    id: 1
    services:
      - name: p1
        ports:
          - 2883
          - 2884
  - id: 2
    services: []
nested:
  -
    - 1
    - 2
  - []
page:
  done: true
  empty: {}
  last: null
  number: 1
";
        assert_eq!(document(&data), expected);
        assert_eq!(document(&json!([])), "[]\n");
    }

    #[test]
    fn what_could_be_something_else_is_quoted() {
        for plain in ["db1", "Install rpm", "x86_64", "a/b-c.d"] {
            assert_eq!(string(plain), plain);
        }
        let special = [
            "",
            "10.0.0.1",
            "1e3",
            "0x1f",
            "No",
            "NULL",
            "- a",
            "a: b",
            "a #b",
            "*x",
            "&x",
            "2021-09-03",
            "a\nb",
            " a",
            "a ",
            "~",
        ];
        for special in special {
            assert!(string(special).starts_with('"'), "{special:?}");
        }
        assert_eq!(string("a\u{85}\u{1b}b"), r#""a\u0085\u001bb""#);
    }
}
