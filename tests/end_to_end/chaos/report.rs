//! The lines and the table that a run prints.

use super::{
    plan::Round,
    round::{Phase, Report},
};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

pub(super) fn line(round: &Round, report: &Report) -> String {
    let strikes: Vec<String> = report
        .strikes
        .iter()
        .map(|strike| format!("{} at {} ms ({})", strike.blow, strike.at.as_millis(), strike.ran))
        .collect();
    let outcomes = report.outcomes.join(", ");
    format!(
        "round {:>3}  {:<8}  {}  ->  {outcomes}  recovered in {} ms",
        round.number,
        round.scenario,
        strikes.join("; then "),
        report.recovery.as_millis(),
    )
}

#[derive(Default)]
struct Row {
    rounds: usize,
    executing: usize,
    rolling_back: usize,
    at_rest: usize,
    recoveries: Vec<Duration>,
    violations: usize,
}

/// A row for each combination of programs and ways; a round with two blows counts in the rows of both.
#[derive(Default)]
pub(super) struct Table(BTreeMap<String, Row>);

impl Table {
    pub(super) fn add(&mut self, report: &Report) {
        for (index, strike) in report.strikes.iter().enumerate() {
            let row = self.0.entry(strike.kind.clone()).or_default();
            match strike.phase {
                Phase::Executing => row.executing += 1,
                Phase::RollingBack => row.rolling_back += 1,
                Phase::AtRest => row.at_rest += 1,
            }
            let seen = report.strikes[..index].iter().any(|earlier| earlier.kind == strike.kind);
            if !seen {
                row.rounds += 1;
                row.recoveries.push(report.recovery);
                row.violations += report.violations.len();
            }
        }
    }

    pub(super) fn text(mut self) -> String {
        let mut text = format!(
            "{:<34} {:>6} {:>9} {:>12} {:>7} {:>10} {:>7} {:>10}\n",
            "blow", "rounds", "executing", "rolling back", "at rest", "median ms", "max ms", "violations"
        );
        for (kind, row) in &mut self.0 {
            row.recoveries.sort_unstable();
            let median = row.recoveries.get(row.recoveries.len() / 2).copied().unwrap_or_default().as_millis();
            let longest = row.recoveries.last().copied().unwrap_or_default().as_millis();
            writeln!(
                text,
                "{kind:<34} {:>6} {:>9} {:>12} {:>7} {median:>10} {longest:>7} {:>10}",
                row.rounds, row.executing, row.rolling_back, row.at_rest, row.violations
            )
            .unwrap();
        }
        text
    }
}
