//! Weighs the matching rules of one act: deny > approve > (masks and credentials add up) > allow.
//! It refuses to look at the order of rules or files: rules are sorted by name once, and only strictness decides.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::condition::{Facts, Part, Side};
use super::host::{Host, HostPattern, Reach};
use super::outcome::{Choice, Outcome, contradiction, joint_approval, plan};
use super::rule::{Mode, Rule, Target, Then};
use super::{Judgement, Policy, parts};
use crate::action::{Action, Context, Effect, Effects};
use crate::audit::Durability;

/// The rules that speak about an act, before modes are looked at.
pub(super) struct Matches<'p, 'a> {
    pub(super) policy: &'p Policy,
    /// Files that target the act, and how well that is known.
    pub(super) files: Vec<(usize, Reach)>,
    pub(super) parts: Vec<Part<'a>>,
    found: Vec<Match<'p>>,
    /// Places of parts; each match has a slice of it.
    covered: Vec<u32>,
}

struct Match<'p> {
    rule: &'p Rule,
    /// It takes something away, or puts a credential in.
    applies: bool,
    covers: core::ops::Range<usize>,
}

pub(super) fn judge(policy: &Policy, context: &Context<'_>, action: &Action<'_>) -> Judgement {
    let facts = Facts::new(context, action, &policy.scanner);
    let matches = Matches::find(policy, &facts);
    let enforced = matches.weigh(&facts, false);
    // Without a monitored rule or file both worlds are the same.
    let would = policy.monitored.then(|| matches.weigh(&facts, true)).and_then(|full| full.beyond(&enforced));
    let target = enforced.file.or(matches.files.first().map(|(file, _)| *file));
    Judgement {
        target: policy.file_name(target),
        durability: enforced.durability.unwrap_or_else(|| usual_durability(action)),
        masks: plan(&enforced.masks, &policy.names.unmasked),
        rule: enforced.rule,
        injects: enforced.injects,
        verdict: enforced.choice.into_verdict(),
        would,
    }
}

impl<'p, 'a> Matches<'p, 'a> {
    pub(super) fn find(policy: &'p Policy, facts: &Facts<'a>) -> Matches<'p, 'a> {
        let files = targets(policy, facts);
        let parts = match facts.action {
            Action::Sql(statement) => parts::to_cover(statement),
            Action::Connect | Action::Http(_) | Action::Response(_) => alloc::vec![Part::default()],
        };
        let mut matches = Matches { policy, files, parts, found: Vec::new(), covered: Vec::new() };
        let places: Vec<usize> = matches.files.iter().map(|(file, _)| *file).collect();
        policy.index.each_candidate(&places, facts.context.identity, facts.action, |place| {
            if let Some(rule) = policy.rules.get(place).filter(|rule| rule.stage.judges(facts.action)) {
                matches.add(rule, facts);
            }
        });
        matches
    }

    fn add(&mut self, rule: &'p Rule, facts: &Facts<'_>) {
        let reach =
            self.files.iter().find(|(file, _)| *file == rule.file).map_or(Reach::No, |(_, reach)| *reach);
        let restricts = reach.restricts() && rule.then.side() == Side::Restrict && restricts(rule, facts);
        let start = self.covered.len();
        let may_cover = match rule.then {
            Then::Allow | Then::Inject(_) => reach.admits(),
            Then::Approve(_) => reach.admits() && restricts,
            Then::Deny(_) | Then::Mask(_) | Then::Opaque => false,
        };
        if may_cover {
            for (place, part) in (0..).zip(&self.parts) {
                if covers(rule, facts, *part) {
                    self.covered.push(place);
                }
            }
        }
        let covers = start..self.covered.len();
        let injects = matches!(rule.then, Then::Inject(_)) && covers.len() == self.parts.len();
        if restricts || injects || !covers.is_empty() {
            self.found.push(Match { rule, applies: restricts || injects, covers });
        }
    }

    /// With `everything`, monitored rules and defaults count as if they were enforced.
    pub(super) fn weigh(&self, facts: &Facts<'_>, everything: bool) -> Outcome<'p> {
        let in_force = |mode: Mode| everything || mode == Mode::Enforce;
        let found = || self.found.iter().filter(move |found| in_force(found.rule.mode));
        let mut outcome = Outcome {
            choice: Choice::Allow,
            rule: self.policy.default_rule(),
            file: None,
            masks: Vec::new(),
            injects: Vec::new(),
            durability: self.durability(&in_force),
        };
        for each in found().filter(|each| each.applies) {
            match &each.rule.then {
                Then::Deny(message) => {
                    outcome.decide(Choice::Deny(message.clone()), each.rule);
                    return outcome;
                }
                Then::Mask(plan) => outcome.masks.push((plan, &each.rule.name)),
                Then::Inject(injects) => outcome.injects.extend(injects.iter().cloned()),
                Then::Approve(_) | Then::Allow | Then::Opaque => {}
            }
        }
        if let Action::Response(_) = facts.action {
            return outcome;
        }
        if let Some(message) = self.cover(facts, &in_force, &mut outcome) {
            outcome.choice = Choice::Deny(message);
            outcome.rule = self.policy.default_rule();
            outcome.file = None;
            return outcome;
        }
        let approvals: Vec<&Rule> = found()
            .filter(|each| each.applies && matches!(each.rule.then, Then::Approve(_)))
            .map(|each| each.rule)
            .collect();
        if let Some(first) = approvals.first() {
            outcome.decide(joint_approval(&approvals), first);
        }
        if let Err(message) = self.put_in(facts, &in_force, &mut outcome) {
            outcome.choice = Choice::Deny(message.into());
        }
        outcome
    }

    /// Names the admitting rules in `outcome`, or says what none of them covers.
    fn cover(
        &self,
        facts: &Facts<'_>,
        in_force: &impl Fn(Mode) -> bool,
        outcome: &mut Outcome<'p>,
    ) -> Option<Arc<str>> {
        let admitting = self.files.iter().filter(|(_, reach)| reach.admits());
        let mut files = admitting.filter_map(|(file, _)| self.policy.files.get(*file)).peekable();
        if files.peek().is_none() {
            return in_force(self.policy.mode).then(|| untargeted(facts));
        }
        let strict: Vec<_> = files.filter(|file| in_force(file.mode)).collect();
        if strict.is_empty() {
            return None;
        }
        let mut left = alloc::vec![true; self.parts.len()];
        let mut names: Vec<&Rule> = Vec::new();
        for each in self.found.iter().filter(|each| in_force(each.rule.mode)) {
            if !matches!(each.rule.then, Then::Allow | Then::Approve(_)) {
                continue;
            }
            let mut needed = false;
            for place in self.covered.get(each.covers.clone()).unwrap_or_default() {
                if let Some(open) = left.get_mut(*place as usize) {
                    needed |= core::mem::take(open);
                }
            }
            if needed {
                names.push(each.rule);
            }
        }
        let allowed = strict.iter().all(|file| file.allows);
        let uncovered = self
            .parts
            .iter()
            .zip(&left)
            .filter(|(part, open)| **open && !(allowed && part.effect != Some(Effect::Unknown)));
        if let Some((part, _)) = uncovered.into_iter().next() {
            return Some(uncovered_message(facts, *part));
        }
        if let Some(first) = names.first() {
            outcome.file = Some(first.file);
            outcome.rule = match names.as_slice() {
                [one] => one.name.clone(),
                many => many.iter().map(|rule| &*rule.name).collect::<Vec<_>>().join(", ").into(),
            };
        }
        None
    }

    /// Credentials of the files that apply. One that cannot go in safely, or two that contradict, refuse the act.
    fn put_in(
        &self,
        facts: &Facts<'_>,
        in_force: &impl Fn(Mode) -> bool,
        outcome: &mut Outcome<'p>,
    ) -> Result<(), String> {
        let Action::Http(_) = facts.action else { return Ok(()) };
        // Each credential needs the proof of its own target: what another policy trusts vouches for nothing here.
        let rules = self.found.iter().filter(|each| {
            each.applies && in_force(each.rule.mode) && matches!(each.rule.then, Then::Inject(_))
        });
        let mut proved = rules
            .filter_map(|each| self.policy.files.get(each.rule.file))
            .all(|file| proves(&file.target.hosts, &file.target, facts));
        for (place, reach) in &self.files {
            let Some(file) =
                self.policy.files.get(*place).filter(|file| reach.admits() && in_force(file.mode))
            else {
                continue;
            };
            for own in &file.injects {
                let hosts = if own.hosts.is_empty() { &file.target.hosts } else { &own.hosts };
                let wanted = super::host::best(hosts, facts.context.destination, facts.request_host());
                if wanted.admits() {
                    proved &= proves(hosts, &file.target, facts);
                    outcome.injects.push(own.inject.clone());
                }
            }
        }
        if outcome.injects.is_empty() {
            return Ok(());
        }
        if !proved {
            return Err(
                "a credential would go in here, and the server has not proved its name by certificate".into(),
            );
        }
        contradiction(&outcome.injects).map_or(Ok(()), Err)
    }

    /// `strict` of any matching rule; else `fast` of one that admits (the loader lets no other rule say it).
    fn durability(&self, in_force: &impl Fn(Mode) -> bool) -> Option<Durability> {
        let mut said = self.found.iter().filter(|each| in_force(each.rule.mode));
        let mut fast = None;
        said.find_map(|each| match each.rule.durability {
            Some(Durability::Strict) => Some(Durability::Strict),
            Some(Durability::Fast) => {
                fast = Some(Durability::Fast);
                None
            }
            None => None,
        })
        .or(fast)
    }
}

/// Files that target the act, in order of name.
fn targets(policy: &Policy, facts: &Facts<'_>) -> Vec<(usize, Reach)> {
    let reach = |file: &super::rule::PolicyFile| match facts.action {
        Action::Connect => file.target.may_reach(facts.context),
        Action::Sql(_) | Action::Http(_) | Action::Response(_) => {
            file.target.reach(facts.context, facts.protocol, facts.request_host())
        }
    };
    let reached = policy.files.iter().enumerate().map(|(place, file)| (place, reach(file)));
    reached.filter(|(_, reach)| reach.restricts()).collect()
}

/// The server proved one of these names by certificate, or one of them is the literal address, and has a port.
fn proves(hosts: &[HostPattern], target: &Target, facts: &Facts<'_>) -> bool {
    hosts.iter().any(|pattern| {
        let literal =
            matches!(pattern.host, Host::Address(_)) && (pattern.port.is_some() || !target.ports.is_empty());
        match pattern.reach(facts.context.destination, facts.request_host()) {
            Reach::Certificate => true,
            Reach::Address => literal,
            Reach::No | Reach::Claimed | Reach::LookedUp => false,
        }
    })
}

pub(super) fn restricts(rule: &Rule, facts: &Facts<'_>) -> bool {
    match facts.statement() {
        Some(statement) => parts::any_of(statement, |part| rule.condition.holds(facts, part, Side::Restrict)),
        None => rule.condition.holds(facts, Part::default(), Side::Restrict),
    }
}

pub(super) fn covers(rule: &Rule, facts: &Facts<'_>, part: Part<'_>) -> bool {
    (part.effect != Some(Effect::Unknown) || rule.names_unknown)
        && rule.condition.holds(facts, part, Side::Admit)
}

/// `fast` for what only reads; everything else is on the disk before it leaves.
pub(super) fn usual_durability(action: &Action<'_>) -> Durability {
    let reading = match action {
        Action::Connect => true,
        Action::Sql(statement) => {
            let effects = super::index::known(statement.effects);
            effects.within(Effects::of(&[Effect::Read, Effect::Txn, Effect::Session, Effect::Explain]))
        }
        Action::Http(request) => matches!(request.method, "GET" | "HEAD"),
        Action::Response(response) => matches!(response.request.method, "GET" | "HEAD"),
    };
    if reading { Durability::Fast } else { Durability::Strict }
}

pub(super) fn untargeted(facts: &Facts<'_>) -> Arc<str> {
    let destination = facts.context.destination;
    let asked = facts.request_host().or(destination.host()).filter(|host| !host.is_empty());
    match asked {
        Some(host) => {
            let host: String = host.chars().take(SHOWN).collect();
            format!("no policy targets {} ({host})", destination.address()).into()
        }
        None => format!("no policy targets {}", destination.address()).into(),
    }
}

fn uncovered_message(facts: &Facts<'_>, part: Part<'_>) -> Arc<str> {
    let place = |relation: &crate::action::Relation| {
        let name: String = relation.name.chars().take(SHOWN).collect();
        match &relation.schema {
            Some(schema) => format!("{}.{name}", schema.chars().take(SHOWN).collect::<String>()),
            None => name,
        }
    };
    match (part.effect, part.relation) {
        (Some(Effect::Unknown), _) => "the statement could not be understood, and no rule allows that".into(),
        (Some(effect), Some(relation)) => {
            format!("no rule allows {} on {}", effect.name(), place(relation)).into()
        }
        (Some(effect), None) => format!("no rule allows {}", effect.name()).into(),
        (None, _) => match facts.request() {
            Some(_) => "no rule allows this request".into(),
            None => "no rule allows this connection".into(),
        },
    }
}

/// Characters of a name shown in a message.
const SHOWN: usize = 64;
