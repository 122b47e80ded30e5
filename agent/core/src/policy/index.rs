//! Which rules can match an act at all, found by bit sets: one bit a rule, one set a principal, effect and table.
//! It refuses to decide: it only leaves out rules whose condition could not hold, and keeps the rest in order.

use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::condition::who::{Principal, Who};
use super::condition::{Condition, Test};
use super::rule::Rule;
use crate::action::{Action, Effect, Effects, Statement};
use crate::identity::Identity;

/// One bit a rule.
type Bits = Vec<u64>;

#[derive(Debug, Default)]
pub(super) struct Index {
    words: usize,
    /// Rules of each file.
    files: Vec<Bits>,
    who: Dimension,
    tables: Dimension,
    /// Rules that an effect can match, by effect; rules without a test on effects are in all of them.
    effects: Vec<Bits>,
}

/// Rules by an exact key, and the rules that do not depend on one.
#[derive(Debug, Default)]
struct Dimension {
    keyed: [HashMap<String, Bits>; 4],
    free: Bits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Workload,
    User,
    Group,
    Table,
}

impl Index {
    pub(super) fn new(rules: &[Rule], files: usize) -> Index {
        let words = rules.len().div_ceil(64);
        let mut index = Index {
            words,
            files: alloc::vec![alloc::vec![0; words]; files],
            who: Dimension::new(words),
            tables: Dimension::new(words),
            effects: alloc::vec![alloc::vec![0; words]; Effect::ALL.len()],
        };
        for (place, rule) in rules.iter().enumerate() {
            if let Some(file) = index.files.get_mut(rule.file) {
                set(file, place);
            }
            index.who.add(place, keys_of(&rule.condition, principals), words);
            index.tables.add(place, keys_of(&rule.condition, tables), words);
            let effects = effects_of(&rule.condition);
            for (effect, bits) in Effect::ALL.iter().zip(&mut index.effects) {
                if effects.is_none_or(|effects| effects.has(*effect)) {
                    set(bits, place);
                }
            }
        }
        index
    }

    /// Calls `visit` with each rule of `files` that may match, in order.
    pub(super) fn each_candidate(
        &self,
        files: &[usize],
        identity: &Identity,
        action: &Action<'_>,
        mut visit: impl FnMut(usize),
    ) {
        let mut who: Vec<&Bits> = Vec::with_capacity(8);
        self.who.collect(identity_keys(identity), &mut who);
        let statement = match action {
            Action::Sql(statement) => Some(*statement),
            Action::Connect | Action::Http(_) | Action::Response(_) => None,
        };
        let mut tables: Vec<&Bits> = Vec::new();
        if let Some(statement) = statement {
            self.tables.collect(
                statement.relations.iter().map(|relation| (Kind::Table, relation.name.as_str())),
                &mut tables,
            );
        }
        for word in 0..self.words {
            let at = |bits: &Bits| bits.get(word).copied().unwrap_or(0);
            let any = |sets: &[&Bits]| sets.iter().fold(0, |sum, bits| sum | at(bits));
            let own =
                files.iter().filter_map(|file| self.files.get(*file)).fold(0, |sum, bits| sum | at(bits));
            let mut found = own & any(&who);
            if let Some(statement) = statement.filter(|_| found != 0) {
                found &= self.by_effect(statement, word);
                if !statement.relations.is_empty() {
                    found &= any(&tables);
                }
            }
            while found != 0 {
                visit(word * 64 + found.trailing_zeros() as usize);
                found &= found - 1;
            }
        }
    }

    fn by_effect(&self, statement: &Statement, word: usize) -> u64 {
        let effects = known(statement.effects);
        let sets = Effect::ALL.iter().zip(&self.effects).filter(|(effect, _)| effects.has(**effect));
        sets.fold(0, |sum, (_, bits)| sum | bits.get(word).copied().unwrap_or(0))
    }
}

/// A statement without any effect was not understood.
pub(super) fn known(effects: Effects) -> Effects {
    if effects.is_empty() { Effects::of(&[Effect::Unknown]) } else { effects }
}

impl Dimension {
    fn new(words: usize) -> Self {
        Self { keyed: Default::default(), free: alloc::vec![0; words] }
    }

    fn add(&mut self, place: usize, keys: Option<Vec<(Kind, String)>>, words: usize) {
        match keys {
            None => set(&mut self.free, place),
            Some(keys) => {
                for (kind, key) in keys {
                    if let Some(map) = self.keyed.get_mut(kind as usize) {
                        set(map.entry(key).or_insert_with(|| alloc::vec![0; words]), place);
                    }
                }
            }
        }
    }

    fn collect<'a, 'k>(&'a self, keys: impl Iterator<Item = (Kind, &'k str)>, into: &mut Vec<&'a Bits>) {
        into.push(&self.free);
        for (kind, key) in keys {
            if let Some(bits) = self.keyed.get(kind as usize).and_then(|map| map.get(key)) {
                into.push(bits);
            }
        }
    }
}

/// What each rule's `match` surely needs of one dimension, from the tests that stand at its top; `None`: nothing.
fn keys_of(
    condition: &Condition,
    keys: impl Fn(&Test) -> Option<Vec<(Kind, String)>> + Copy,
) -> Option<Vec<(Kind, String)>> {
    match condition {
        Condition::All(all) => all.iter().find_map(|each| keys_of(each, keys)),
        Condition::Test(test) => keys(test),
        Condition::Any(_) | Condition::Not(_) => None,
    }
}

/// Exact principals of a list; a glob, a uid or an executable in it makes the rule free of this dimension.
fn principals(test: &Test) -> Option<Vec<(Kind, String)>> {
    let Test::Who(who) = test else { return None };
    let exact = |principal: &Principal| match principal {
        Principal::Workload(name) => name.exact().map(|name| (Kind::Workload, name.into())),
        Principal::User(name) => name.exact().map(|name| (Kind::User, name.into())),
        Principal::Group(name) => Some((Kind::Group, name.clone())),
        Principal::Exe(_) | Principal::ExeDigest(_) | Principal::Uid(_) => None,
    };
    match who {
        Who::Any(list) => list.iter().map(exact).collect(),
        Who::All(list) => list.iter().find_map(exact).map(|key| alloc::vec![key]),
    }
}

fn tables(test: &Test) -> Option<Vec<(Kind, String)>> {
    let Test::Tables(tables) = test else { return None };
    tables.iter().map(|table| table.name.exact().map(|name| (Kind::Table, name.into()))).collect()
}

fn effects_of(condition: &Condition) -> Option<Effects> {
    match condition {
        Condition::All(all) => all.iter().find_map(effects_of),
        Condition::Test(Test::Effects(effects)) => Some(*effects),
        Condition::Test(_) | Condition::Any(_) | Condition::Not(_) => None,
    }
}

fn identity_keys(identity: &Identity) -> impl Iterator<Item = (Kind, &str)> {
    [(Kind::Workload, identity.workload.as_str()), (Kind::User, identity.user.as_str())]
        .into_iter()
        .chain(identity.groups.iter().map(|group| (Kind::Group, group.as_str())))
}

fn set(bits: &mut Bits, place: usize) {
    if let Some(word) = bits.get_mut(place / 64) {
        *word |= 1 << (place % 64);
    }
}
