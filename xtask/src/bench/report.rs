//! The figures as a table or as JSON, each beside its goal. It refuses to hide a miss.

use serde_json::{Value, json};

use super::machine::Facts;
use super::rounds::{DIRECT, Rounds, Spread};

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    facts: Facts,
    lines: Vec<Line>,
}

/// One contender in one case.
#[derive(Debug)]
struct Line {
    case: String,
    contender: String,
    rate: Spread,
    to_direct: Spread,
    /// Of every peer in the same case: its name, and the ratios of rate and processor time to it.
    to_peers: Vec<(&'static str, Spread, Option<Spread>)>,
    cost: Option<Spread>,
    relay: Option<Spread>,
    steady: (usize, usize),
    goals: Vec<(Goal, f64)>,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// Times the rate of this peer, at least.
    Rate(&'static str, f64),
    /// Microseconds of processor time an act, at most.
    Cost(f64),
    /// Times the time of the direct run, at most.
    Time(f64),
    /// Nanoseconds of one connection in the kernel programs, at most.
    Hook(f64),
}

impl Goal {
    fn text(self) -> String {
        match self {
            Goal::Rate(peer, least) => format!("≥ {least}× {peer}"),
            Goal::Cost(most) => format!("≤ {most} µs an act"),
            Goal::Time(most) => format!("≤ {most}× the time of direct"),
            Goal::Hook(most) => format!("≤ {most} ns a connection"),
        }
    }

    fn met(self, figure: f64) -> bool {
        match self {
            Goal::Rate(_, least) => figure >= least,
            Goal::Cost(most) | Goal::Time(most) | Goal::Hook(most) => figure <= most,
        }
    }
}

impl Report {
    pub(super) fn new(facts: Facts) -> Report {
        Report { facts, lines: Vec::new() }
    }

    /// Adds every contender of a case; `goals` names the one that each goal is for.
    pub(super) fn add(&mut self, case: &str, rounds: &Rounds, goals: &[(&str, Goal)]) {
        for name in rounds.names() {
            let is_weir = name.starts_with("weir");
            let peers = rounds.names().iter().filter(|peer| is_weir && **peer != DIRECT && *peer != name);
            let cost = rounds.cost(name);
            let own = goals.iter().filter(|(whose, _)| whose == name).map(|(_, goal)| {
                let figure = match *goal {
                    Goal::Rate(peer, _) => rounds.to(name, peer).median,
                    Goal::Time(_) => 1.0 / rounds.to_direct(name).median,
                    Goal::Cost(_) | Goal::Hook(_) => cost.median,
                };
                (*goal, figure)
            });
            self.lines.push(Line {
                case: case.to_owned(),
                contender: (*name).to_owned(),
                rate: rounds.rate(name),
                to_direct: rounds.to_direct(name),
                to_peers: peers
                    .map(|peer| (*peer, rounds.to(name, peer), rounds.cost_to(name, peer)))
                    .collect(),
                cost: (cost.median > 0.0).then_some(cost),
                relay: is_weir.then(|| rounds.relay_cost(name)),
                steady: rounds.steady(),
                goals: own.collect(),
            });
        }
    }

    /// A figure that has no rate: nanoseconds a connection.
    pub(super) fn hook(&mut self, case: &str, contender: &str, nanoseconds: f64, goal: Option<Goal>) {
        let cost = nanoseconds / 1_000.0;
        self.lines.push(Line {
            case: case.to_owned(),
            contender: contender.to_owned(),
            rate: Spread::default(),
            to_direct: Spread::default(),
            to_peers: Vec::new(),
            cost: Some(Spread { median: cost, least: cost, most: cost }),
            relay: None,
            steady: (1, 1),
            goals: goal.map(|goal| (goal, nanoseconds)).into_iter().collect(),
        });
    }

    pub(super) fn print(&self) {
        for (name, value) in &self.facts {
            println!("{name:<13} {value}");
        }
        println!(
            "ratios: median of the rounds (least–most); CPU: µs of the proxy an act, its relaying threads in brackets"
        );
        let mut case = "";
        for line in &self.lines {
            if line.case != case {
                case = &line.case;
                println!("\n{case} ({} of {} rounds steady)", line.steady.0, line.steady.1);
                println!("  {:<22} {:>10} {:>20} {:>16}", "", "acts/s", "to direct", "CPU");
            }
            println!("{}", line.text());
        }
    }

    pub(super) fn json(&self) {
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let lines: Vec<Value> = self.lines.iter().map(Line::json).collect();
        println!("{}", json!({"facts": facts, "figures": lines}));
    }
}

impl Line {
    fn text(&self) -> String {
        let cost = match (self.cost, self.relay) {
            (Some(cost), Some(relay)) => format!("{:.1} [{:.1}]", cost.median, relay.median),
            (Some(cost), None) => format!("{:.1}", cost.median),
            (None, _) => "–".into(),
        };
        let (rate, ratio) = if self.rate.median > 0.0 {
            (format!("{:.0}", self.rate.median), shown(self.to_direct))
        } else {
            ("–".into(), "–".into())
        };
        let mut text = format!("  {:<22} {rate:>10} {ratio:>20} {cost:>16}", self.contender);
        for (peer, rate, cost) in &self.to_peers {
            text.push_str(&format!("\n      to {peer}: {}", shown(*rate)));
            if let Some(cost) = cost {
                text.push_str(&format!(", CPU {}", shown(*cost)));
            }
        }
        for (goal, figure) in &self.goals {
            let met = if goal.met(*figure) { "met" } else { "MISSED" };
            text.push_str(&format!("\n      goal {}: {met} ({figure:.2})", goal.text()));
        }
        text
    }

    fn json(&self) -> Value {
        let spread =
            |spread: Spread| json!({"median": spread.median, "least": spread.least, "most": spread.most});
        let goals: Vec<Value> = self
            .goals
            .iter()
            .map(|(goal, figure)| json!({"goal": goal.text(), "figure": figure, "met": goal.met(*figure)}))
            .collect();
        let peer = |(peer, rate, cost): &(&str, Spread, Option<Spread>)| {
            ((*peer).to_owned(), json!({"rate": spread(*rate), "cpu": cost.map(spread)}))
        };
        let peers: serde_json::Map<String, Value> = self.to_peers.iter().map(peer).collect();
        json!({
            "case": self.case,
            "contender": self.contender,
            "rate": spread(self.rate),
            "to_direct": spread(self.to_direct),
            "to": peers,
            "cpu_us": self.cost.map(spread),
            "relay_cpu_us": self.relay.map(spread),
            "steady_rounds": self.steady.0,
            "rounds": self.steady.1,
            "goals": goals,
        })
    }
}

fn shown(ratio: Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.least, ratio.most)
}
