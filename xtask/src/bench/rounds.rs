//! Contenders take turns in rounds; a figure is the median of what the rounds say, with its range.
//! It refuses a round whose two direct runs disagree: then the machine, not a proxy, made the difference.

use anyhow::Result;

use super::machine::Spent;

/// What one run of a contender gave.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Run {
    /// Acts done: transactions, requests, rows.
    pub(super) acts: f64,
    /// Acts a second.
    pub(super) rate: f64,
    /// Of the proxy; zero for none.
    pub(super) spent: Spent,
}

/// Name of the contender without a proxy; it must come first.
pub(super) const DIRECT: &str = "direct";
/// The two direct runs around a round may differ by this part.
const STEADY: f64 = 0.10;

/// All runs of one case.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    names: Vec<&'static str>,
    rounds: Vec<Round>,
}

#[derive(Debug)]
struct Round {
    runs: Vec<Run>,
    /// Mean of the direct runs before and after.
    direct: f64,
    steady: bool,
}

impl Rounds {
    /// Runs every contender once a round, and the direct one before and after. One round to warm up does not count.
    pub(super) fn take(
        case: &str,
        names: &[&'static str],
        count: usize,
        mut run: impl FnMut(&str) -> Result<Run>,
    ) -> Result<Rounds> {
        debug_assert_eq!(names.first(), Some(&DIRECT));
        let mut rounds = Rounds { names: names.to_vec(), rounds: Vec::new() };
        for number in 0..=count {
            let runs = names.iter().map(|name| run(name)).collect::<Result<Vec<_>>>()?;
            let after = run(DIRECT)?.rate;
            let rates: Vec<_> =
                names.iter().zip(&runs).map(|(name, run)| format!("{name} {:.0}/s", run.rate)).collect();
            eprintln!("bench: {case}: round {number} of {count}: {}, direct {after:.0}/s", rates.join(", "));
            if number > 0 {
                rounds.add(runs, after);
            }
        }
        Ok(rounds)
    }

    fn add(&mut self, runs: Vec<Run>, after: f64) {
        let before = runs.first().map_or(0.0, |run| run.rate);
        let direct = f64::midpoint(before, after);
        let steady = (before - after).abs() <= STEADY * direct;
        self.rounds.push(Round { runs, direct, steady });
    }

    /// Rounds that count, and rounds in all. Where no round was steady all count, and the report shows `0 steady`.
    pub(super) fn steady(&self) -> (usize, usize) {
        (self.rounds.iter().filter(|round| round.steady).count(), self.rounds.len())
    }

    fn each(&self, name: &str, figure: impl Fn(&Round, &Run) -> f64) -> Spread {
        let Some(index) = self.names.iter().position(|own| *own == name) else { return Spread::default() };
        let any = self.steady().0 == 0;
        let counted = self.rounds.iter().filter(|round| any || round.steady);
        Spread::of(counted.filter_map(|round| Some(figure(round, round.runs.get(index)?))).collect())
    }

    pub(super) fn rate(&self, name: &str) -> Spread {
        self.each(name, |_, run| run.rate)
    }

    pub(super) fn to_direct(&self, name: &str) -> Spread {
        self.each(name, |round, run| run.rate / round.direct)
    }

    pub(super) fn to(&self, name: &str, peer: &str) -> Spread {
        let peer = self.names.iter().position(|own| *own == peer);
        let rate = |round: &Round| peer.and_then(|peer| round.runs.get(peer)).map_or(0.0, |run| run.rate);
        self.each(name, |round, run| run.rate / rate(round))
    }

    /// Processor time of the proxy for each act, microseconds; it does not depend on the neighbours, so every round counts.
    pub(super) fn cost(&self, name: &str) -> Spread {
        self.each(name, |_, run| run.spent.all as f64 / 1_000.0 / run.acts)
    }

    /// Processor time of one proxy over that of another, within a round.
    pub(super) fn cost_to(&self, name: &str, peer: &str) -> Option<Spread> {
        let peer = self.names.iter().position(|own| *own == peer)?;
        let cost = |run: &Run| run.spent.all as f64 / run.acts;
        let ratio = |round: &Round, run: &Run| cost(run) / round.runs.get(peer).map_or(f64::NAN, cost);
        Some(self.each(name, ratio)).filter(|ratio| ratio.median.is_finite())
    }

    pub(super) fn relay_cost(&self, name: &str) -> Spread {
        self.each(name, |_, run| run.spent.relay as f64 / 1_000.0 / run.acts)
    }

    pub(super) fn names(&self) -> &[&'static str] {
        &self.names
    }
}

/// Median and range.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Spread {
        figures.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (figures.first(), figures.last()) else { return Spread::default() };
        let half = figures.len() / 2;
        let upper = figures.get(half).copied().unwrap_or_default();
        let lower = if figures.len().is_multiple_of(2) {
            figures.get(half - 1).copied().unwrap_or(upper)
        } else {
            upper
        };
        Spread { median: f64::midpoint(lower, upper), least: *least, most: *most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64) -> Run {
        Run { acts: rate, rate, spent: Spent { all: 2_000 * rate as u64, relay: 0 } }
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_unsteady_rounds_do_not_count() {
        let mut rounds = Rounds { names: vec![DIRECT, "weir"], rounds: Vec::new() };
        rounds.add(vec![run(100.0), run(80.0)], 100.0);
        rounds.add(vec![run(50.0), run(45.0)], 50.0);
        rounds.add(vec![run(100.0), run(10.0)], 50.0);
        assert_eq!(rounds.steady(), (2, 3));
        let ratio = rounds.to_direct("weir");
        assert_eq!((ratio.least, ratio.most), (0.8, 0.9));
        assert!((ratio.median - 0.85).abs() < 1e-9);
        assert_eq!(rounds.to("weir", DIRECT).most, 0.9);
        assert!((rounds.cost("weir").median - 2.0).abs() < 1e-9);
    }

    #[test]
    fn the_median_of_even_counts_lies_between() {
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
