//! A policy as people and the rim look at it: its rules, its names, a sample of each target.
//! It refuses to show values: patterns, messages and secrets stay inside.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Inject, Policy, condition, host, rule};

/// One rule as it was understood, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSummary {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    pub file: Arc<str>,
    pub line: u32,
    /// `allow`, `deny`, `approve`, `mask`, `inject` or `opaque: allow`.
    pub then: &'static str,
    pub monitored: bool,
    /// Keys of `match` that it tests, in order.
    pub tests: Vec<&'static str>,
}

/// A destination as a test names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// A name, or an address.
    pub host: String,
    pub port: u16,
    pub database: String,
    pub protocol: Option<crate::action::Protocol>,
}

impl Policy {
    /// Exact host names that targets and rules speak of: the rim looks them up, so that an address can be known by
    /// name ([`crate::destination::Evidence::LookedUp`]). Sorted, without doubles.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.files.iter().flat_map(|file| host::names(&file.target.hosts)).collect();
        for rule in &self.rules {
            rule.condition.each_test(&mut |test, _| match test {
                condition::Test::Host(patterns) => names.extend(host::names(patterns)),
                condition::Test::HttpHost(hosts) => names.extend(hosts.iter().filter_map(host::Host::name)),
                condition::Test::Who(_)
                | condition::Test::Port(_)
                | condition::Test::Protocol(_)
                | condition::Test::When(_)
                | condition::Test::Effects(_)
                | condition::Test::Tables(_)
                | condition::Test::Functions(_)
                | condition::Test::Objects(_)
                | condition::Test::WithoutWhere(_)
                | condition::Test::Opaque(_)
                | condition::Test::Words(_)
                | condition::Test::Method(_)
                | condition::Test::Path(_)
                | condition::Test::Status(_)
                | condition::Test::Text(_) => {}
            });
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Every credential that a target or a rule puts in.
    pub fn injects(&self) -> impl Iterator<Item = &Inject> {
        let by_files = self.files.iter().flat_map(|file| file.injects.iter().map(|one| &one.inject));
        let by_rules = self.rules.iter().flat_map(|rule| match &rule.then {
            rule::Then::Inject(injects) => injects.as_slice(),
            _ => &[],
        });
        by_files.chain(by_rules).map(|inject| &**inject)
    }

    /// Every file of roots that a target names (`tls.ca`).
    pub fn authorities(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| file.tls.ca.as_str()).filter(|path| !path.is_empty())
    }

    /// Every rule, in the order in which they are looked at.
    #[must_use]
    pub fn rules(&self) -> Vec<RuleSummary> {
        let summary = |rule: &rule::Rule| {
            let file = self.files.get(rule.file)?;
            let mut tests = Vec::new();
            rule.condition.each_test(&mut |test, _| tests.push(test.key()));
            Some(RuleSummary {
                policy: file.name.clone(),
                rule: rule.name.clone(),
                file: file.path.clone(),
                line: rule.line,
                then: rule.then.name(),
                monitored: rule.mode == rule::Mode::Monitor,
                tests,
            })
        };
        self.rules.iter().filter_map(summary).collect()
    }

    /// Names of the policy files, sorted.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|file| &*file.name)
    }

    /// A destination that the file `name` targets, for tests of policies: its first host, port and database.
    #[must_use]
    pub fn sample(&self, name: &str) -> Option<Sample> {
        self.files.iter().find(|file| &*file.name == name).map(|file| file.target.sample())
    }
}
