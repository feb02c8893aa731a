//! Server-sent events, read as the HTML standard says in "Server-sent events", section "Interpreting an event stream".

use std::mem;

/// More than any event of a coordinator; keeps something else at the other end from filling the memory.
const MAX_EVENT_BYTES: usize = 4 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// `message` unless it has another.
    pub(crate) name: String,
    /// That of the last event that had one; empty if none had.
    pub(crate) id: String,
    pub(crate) data: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an event has more than {MAX_EVENT_BYTES} bytes")]
pub(crate) struct TooLong;

/// Takes the bytes of a stream as they come. An event that is not ended by an empty line is none.
#[derive(Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    /// The line before ended with a carriage return, to which a line feed may still belong.
    after_return: bool,
    begun: bool,
    name: String,
    id: String,
    /// Each of its lines with a line feed.
    data: String,
}

impl Parser {
    /// The events that end within these bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let belongs_to_return = mem::take(&mut self.after_return) && byte == b'\n';
            match byte {
                _ if belongs_to_return => {}
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    events.extend(self.end_line());
                }
                _ if self.line.len() + self.data.len() >= MAX_EVENT_BYTES => return Err(TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let bytes = mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let line = match mem::replace(&mut self.begun, true) {
            true => &text,
            false => text.strip_prefix('\u{feff}').unwrap_or(&text),
        };
        if line.is_empty() {
            return self.end_event();
        }
        // A line that begins with a colon is a comment: its field has no name.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let name = mem::take(&mut self.name);
        let mut data = mem::take(&mut self.data);
        // Without data it is no event.
        data.pop()?;
        let name = if name.is_empty() { "message".into() } else { name };
        Some(Event { name, id: self.id.clone(), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::Index};

    fn event(name: &str, id: &str, data: &str) -> Event {
        Event { name: name.into(), id: id.into(), data: data.into() }
    }

    fn parse(text: &str) -> Vec<Event> {
        Parser::default().feed(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_event_ends_with_an_empty_line_whatever_ends_the_lines() {
        let expected = [event("log", "7", "a\nb")];
        for ending in ["\n", "\r", "\r\n"] {
            let text = ["event: log", "id:7", ": keep alive", "data: a", "data:b", "", "data: unfinished"].join(ending);
            assert_eq!(parse(&text), expected, "{ending:?}");
        }
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        assert_eq!(parse("data\n\n"), [event("message", "", "")]);
        assert_eq!(parse("data:  two spaces\n\n"), [event("message", "", " two spaces")]);
        assert_eq!(parse("\u{feff}data: a\n\n"), [event("message", "", "a")]);
        assert_eq!(parse("id: 1\ndata: a\n\ndata: b\n\n"), [event("message", "1", "a"), event("message", "1", "b")]);
        assert_eq!(parse("id: 1\nid: 2\0\ndata: a\n\n"), [event("message", "1", "a")]);
        assert_eq!(parse("event: log\nid: 3\n\ndata: a\n\n"), [event("message", "3", "a")]);
        assert_eq!(parse("retry: 5\nunknown: b\nDATA: c\n\n"), []);
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(b"data: "), Ok(Vec::new()));
        let megabyte = vec![b'x'; 1 << 20];
        let fed: Result<Vec<_>, _> = (0..5).map(|_| parser.feed(&megabyte)).collect();
        assert_eq!(fed, Err(TooLong));
    }

    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            Just(Vec::new()),
            "(event|data|id|retry|:|)(: ?|)[a-zé\u{feff}\0: ]{0,6}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..8),
        ];
        let ending = prop::sample::select(vec!["\n", "\r", "\r\n"]);
        let ended = (line, ending).prop_map(|(mut line, ending)| {
            line.extend(ending.as_bytes());
            line
        });
        prop::collection::vec(ended, 0..24).prop_map(|lines| lines.concat())
    }

    proptest! {
        #[test]
        fn events_do_not_depend_on_how_the_bytes_are_cut(bytes in lines(), cuts in prop::collection::vec(any::<Index>(), 0..12)) {
            let whole = Parser::default().feed(&bytes).unwrap();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let (mut parser, mut events, mut begin) = (Parser::default(), Vec::new(), 0);
            for end in ends {
                events.extend(parser.feed(&bytes[begin..end]).unwrap());
                begin = end;
            }
            prop_assert_eq!(events, whole);
        }

        #[test]
        fn what_is_written_is_read(events in prop::collection::vec(("[a-z]{1,5}", "[0-9]{1,5}", "[^\r\n]{0,9}(\n[^\r\n]{0,9}){0,3}"), 0..6)) {
            let mut text = String::new();
            for (name, id, data) in &events {
                let data: String = data.split('\n').map(|line| format!("data: {line}\n")).collect();
                text += &format!(":\n\nevent: {name}\nid: {id}\n{data}\n");
            }
            let expected: Vec<_> = events.iter().map(|(name, id, data)| event(name, id, data)).collect();
            prop_assert_eq!(parse(&text), expected);
        }
    }
}
