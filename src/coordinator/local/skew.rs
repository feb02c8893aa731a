//! How far two clocks are apart.

use std::fmt;

/// How far the clock of a host certainly is from the coordinator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skew {
    /// Ahead if above zero.
    milliseconds: i64,
}

impl Skew {
    /// A clock that showed `time` somewhere between two moments may have been right at either. However slow the network
    /// is, it makes no clock look wrong.
    pub(super) fn between(asked_at: i64, time: i64, answered_at: i64) -> Self {
        let micros =
            if time < asked_at { time.saturating_sub(asked_at) } else { time.saturating_sub(answered_at).max(0) };
        Self { milliseconds: micros / 1000 }
    }

    pub(super) fn milliseconds(self) -> i64 {
        self.milliseconds
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.milliseconds < 0 { "behind" } else { "ahead of" };
        write!(f, "{} ms {side} the coordinator's", self.milliseconds.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_certain_part_of_a_skew_counts() {
        let skew = |asked_at, time, answered_at| Skew::between(asked_at, time, answered_at).milliseconds;
        assert_eq!(skew(1_000_000, 1_900_000, 2_000_000), 0, "a slow network is no skew");
        assert_eq!(skew(1_000_000, 500_000, 2_000_000), -500);
        assert_eq!(skew(1_000_000, 4_500_000, 2_000_000), 2500);
        assert_eq!(Skew { milliseconds: -500 }.to_string(), "500 ms behind the coordinator's");
        assert_eq!(skew(0, i64::MAX, 0), i64::MAX / 1000);
    }
}
