//! The lines and the tables that a run prints, and whether its blows were worth it.

use super::{
    plan::{FEWEST_BLOWS, MOST_MISSES, MOST_MISSES_OF_ONE, Round, Work},
    round::Report,
    strike::{Phase, Strike},
};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

pub(super) fn line(round: &Round, report: &Report) -> String {
    let strikes: Vec<String> = report.strikes.iter().map(told).collect();
    let outcomes = report.outcomes.join(", ");
    format!(
        "round {:>3}  {:<8}  {}  ->  {outcomes}  recovered in {} ms",
        round.number,
        round.scenario,
        strikes.join("; then "),
        report.recovery.as_millis(),
    )
}

fn told(strike: &Strike) -> String {
    let hit: Vec<String> = strike.hit.iter().map(Work::to_string).collect();
    let hit = if hit.is_empty() { "nothing".into() } else { hit.join(" and ") };
    let ran = if strike.ran.is_empty() { String::new() } else { format!(": {}", strike.ran) };
    format!("{} at {} ms hit {hit}{ran}", strike.blow, strike.at.as_millis())
}

#[derive(Default)]
struct Row {
    rounds: usize,
    executing: usize,
    rolling_back: usize,
    other: usize,
    nothing: usize,
    recoveries: Vec<Duration>,
    violations: usize,
}

/// Of the blows at some work.
#[derive(Default)]
struct Hits {
    rounds: usize,
    /// Meant for something else or not.
    hit: usize,
    meant: usize,
    missed: usize,
}

#[derive(Default)]
pub(super) struct Table {
    /// For each combination of programs and ways; a round with two blows counts in the rows of both.
    blows: BTreeMap<String, Row>,
    works: BTreeMap<Work, Hits>,
}

impl Table {
    pub(super) fn add(&mut self, round: &Round, report: &Report) {
        for (index, strike) in report.strikes.iter().enumerate() {
            let row = self.blows.entry(strike.kind.clone()).or_default();
            match strike.phase {
                _ if strike.hit.is_empty() => row.nothing += 1,
                _ if !strike.hit.contains(&Work::Proxies) => row.other += 1,
                Phase::RollingBack => row.rolling_back += 1,
                Phase::Executing | Phase::AtRest => row.executing += 1,
            }
            let seen = report.strikes[..index].iter().any(|earlier| earlier.kind == strike.kind);
            if !seen {
                row.rounds += 1;
                row.recoveries.push(report.recovery);
                row.violations += report.violations.len();
            }
            for work in &strike.hit {
                self.works.entry(*work).or_default().hit += 1;
            }
            let hits = self.works.entry(strike.aim).or_default();
            hits.meant += 1;
            hits.missed += usize::from(!strike.hit.contains(&strike.aim));
        }
        let works = round.errands.iter().map(|drawn| drawn.errand.work());
        works.chain([Work::Proxies]).for_each(|work| self.works.entry(work).or_default().rounds += 1);
    }

    /// What is wrong with the blows of the whole run.
    pub(super) fn idle_blows(&self) -> Vec<String> {
        let all = self.works.values().map(|hits| hits.meant).sum();
        let nothing = self.blows.values().map(|row| row.nothing).sum();
        let mut found = Vec::new();
        let mut bound = |whose: String, misses: usize, blows: usize, percent: usize| {
            if blows >= FEWEST_BLOWS && misses * 100 > blows * percent {
                found.push(format!("{misses} of {blows} {whose}, more than {percent} percent"));
            }
        };
        bound("blows hit nothing".into(), nothing, all, MOST_MISSES);
        for (work, hits) in &self.works {
            bound(format!("blows meant for {work} missed it"), hits.missed, hits.meant, MOST_MISSES_OF_ONE);
        }
        found
    }

    pub(super) fn text(&mut self) -> String {
        let mut text = format!(
            "{:<34} {:>6} {:>9} {:>12} {:>6} {:>7} {:>9} {:>6} {:>10}\n",
            "blow", "rounds", "executing", "rolling back", "other", "nothing", "median ms", "max ms", "violations"
        );
        for (kind, row) in &mut self.blows {
            row.recoveries.sort_unstable();
            let median = row.recoveries.get(row.recoveries.len() / 2).copied().unwrap_or_default().as_millis();
            let longest = row.recoveries.last().copied().unwrap_or_default().as_millis();
            writeln!(
                text,
                "{kind:<34} {:>6} {:>9} {:>12} {:>6} {:>7} {median:>9} {longest:>6} {:>10}",
                row.rounds, row.executing, row.rolling_back, row.other, row.nothing, row.violations
            )
            .unwrap();
        }
        writeln!(text, "\n{:<12} {:>6} {:>4} {:>6} {:>7}", "work", "rounds", "hit", "meant", "missed").unwrap();
        for (work, hits) in &self.works {
            writeln!(text, "{work:<12} {:>6} {:>4} {:>6} {:>7}", hits.rounds, hits.hit, hits.meant, hits.missed)
                .unwrap();
        }
        text
    }
}
