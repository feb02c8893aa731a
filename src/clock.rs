//! The wall clock of the host.

/// Microseconds since 1970.
pub fn now_micros() -> i64 {
    #[cfg(test)]
    if let Some(simulated) = turmoil::since_epoch() {
        return i64::try_from(simulated.as_micros()).unwrap_or(i64::MAX);
    }
    jiff::Timestamp::now().as_microsecond()
}
