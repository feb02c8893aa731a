//! `ALTER PROXYCONFIG SET`.

use super::{Proxy, answer::Answer, config::Refusal, kind::Kind};
use crate::mysql;
use std::sync::atomic::Ordering;

/// Silent on several items of which one is refused: those before it are in force here, so that nobody counts on all or none.
pub(super) fn alter(pairs: &[(&str, &str)], proxy: &Proxy) -> Answer {
    for (name, value) in pairs {
        let refused = match name.eq_ignore_ascii_case("proxy_local_cmd") {
            true => command(value, proxy),
            false => set(name, value, proxy),
        };
        if let Some(refused) = refused {
            return refused;
        }
    }
    Answer::Ok
}

fn set(name: &str, value: &str, proxy: &Proxy) -> Option<Answer> {
    if let Some(item) = proxy.with_config(|config| config.item(&name.to_ascii_lowercase()))
        && item.kind == Kind::Password
    {
        let hash = mysql::hex(&mysql::sha1(&[value.as_bytes()]));
        proxy.log.debug(&format!("alter password(key_string=\"{}\", value_string=\"{hash}\")", item.name)); // A19
    }
    if proxy.faults.refuse_sys_password && name.eq_ignore_ascii_case("obproxy_sys_password") {
        return Some(Answer::error(4147, "Invalid config"));
    }
    let refusal = proxy.with_config(|config| config.alter(name, value)).err()?;
    Some(match refusal {
        Refusal::Unknown => {
            let (code, message) = proxy.version.rules.unknown_item; // S16, V6
            Answer::error(code, message)
        }
        Refusal::Invalid => Answer::error(4147, "Invalid config"), // S17
        Refusal::Level => Answer::error(4170, "Invalid level"),    // S18
        Refusal::Fixed => Answer::unsupported(),                   // S19
        Refusal::Unsaved => Answer::error(4016, "Internal error"),
    })
}

/// S3: 0 to 4. X5 says how the exit comes about.
fn command(value: &str, proxy: &Proxy) -> Option<Answer> {
    if matches!(value, "2" | "3" | "4") {
        return Some(Answer::error(1235, format!("the stand-in for obproxy has no proxy_local_cmd={value}")));
    }
    let refused = set("proxy_local_cmd", value, proxy);
    if refused.is_none() {
        proxy.told_to_exit.store(value == "1", Ordering::Relaxed);
    }
    refused
}
