//! The wall clock of the host.

/// Microseconds since 1970.
pub fn now_micros() -> i64 {
    #[cfg(test)]
    if let Some(simulated) = crate::simulation::now_micros() {
        return simulated;
    }
    jiff::Timestamp::now().as_microsecond()
}
