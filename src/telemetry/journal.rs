//! Entries of the journal: the message says all of an event, as `journalctl` shows nothing else by itself, and every
//! field stands in the entry once more, to be searched for.
//!
//! The protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/

use std::{fmt, fmt::Write as _, io, os::unix::net::UnixDatagram};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

const SOCKET: &str = "/run/systemd/journal/socket";
/// An entry is one datagram, whose size the kernel limits to about 200 KiB.
const MAX_VALUE_BYTES: usize = 32 << 10;

pub(super) struct Journal {
    socket: UnixDatagram,
    identifier: String,
}

impl Journal {
    /// Fails where no journal listens.
    pub(super) fn open(identifier: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SOCKET)?;
        Ok(Self { socket, identifier: identifier.to_owned() })
    }

    fn entry(&self, metadata: &Metadata<'_>, fields: &Fields) -> Vec<u8> {
        let mut entry = Vec::new();
        let mut line = fields.message.clone();
        for (name, value) in &fields.named {
            let _ = write!(line, " {name}={value}");
        }
        put(&mut entry, "MESSAGE", line.trim_start());
        put(&mut entry, "PRIORITY", priority(*metadata.level()));
        put(&mut entry, "SYSLOG_IDENTIFIER", &self.identifier);
        put(&mut entry, "OBLET_TARGET", metadata.target());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            put(&mut entry, "CODE_FILE", file);
            put(&mut entry, "CODE_LINE", &line.to_string());
        }
        for (name, value) in &fields.named {
            put(&mut entry, &journal_name(name), value);
        }
        entry
    }
}

/// The levels of syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

/// `OBLET_...`, so that no field takes the place of one that the journal knows; capitals, digits and underscores only.
fn journal_name(field: &str) -> String {
    let allowed = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    format!("OBLET_{}", field.chars().map(allowed).collect::<String>())
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    let value = value.get(..value.floor_char_boundary(MAX_VALUE_BYTES)).unwrap_or(value);
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        // A value of several lines goes with its length before it.
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// What an event or a span says.
#[derive(Default, Clone)]
struct Fields {
    message: String,
    named: Vec<(&'static str, String)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            name => self.named.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.named.extend(of_span.named.iter().cloned());
            }
        }
        // A journal that is gone or full has nowhere to complain to, and must not stop the program.
        let _ = self.socket.send(&self.entry(event.metadata(), &fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn an_entry_says_all_in_its_message_and_each_field_by_itself() {
        let (socket, reader) = UnixDatagram::pair().unwrap();
        let journal = Journal { socket, identifier: "oblet-test".to_owned() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(journal), || {
            let _request = tracing::info_span!("request", trace_id = "7f").entered();
            tracing::warn!(task = 7, error = "first line\nsecond", "the task waits");
        });
        let mut buffer = [0; 4096];
        let length = reader.recv(&mut buffer).unwrap();
        let entry = &buffer[..length];
        let text = String::from_utf8_lossy(entry);
        assert!(text.contains("the task waits task=7 error=first line\nsecond trace_id=7f\n"), "{text}");
        for line in ["PRIORITY=4\n", "SYSLOG_IDENTIFIER=oblet-test\n", "OBLET_TASK=7\n", "OBLET_TRACE_ID=7f\n"] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let lines = b"OBLET_ERROR\n\x11\0\0\0\0\0\0\0first line\nsecond\n";
        assert!(entry.windows(lines.len()).any(|window| window == lines), "{text}");
    }

    #[test]
    fn a_value_too_long_for_a_datagram_is_cut_between_two_letters() {
        let mut entry = Vec::new();
        put(&mut entry, "MESSAGE", &"\u{e9}".repeat(MAX_VALUE_BYTES));
        assert_eq!(entry.len(), "MESSAGE=\n".len() + MAX_VALUE_BYTES);
        assert!(String::from_utf8(entry).is_ok());
    }
}
