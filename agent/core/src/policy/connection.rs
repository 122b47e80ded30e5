//! Judges a connection before its acts: may it be opened, must it be read, who logs in.
//! It refuses nothing that an act could still decide better, and passes nothing unread without a rule that says so.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::condition::{Facts, Part, Side, Test};
use super::host::{Host, Reach};
use super::judge::untargeted;
use super::outcome::{Choice, contradiction};
use super::rule::{Mode, PolicyFile, Rule, Stage, Then};
use super::{ConnectionJudgement, Inject, Needs, Policy, TargetTls, Would};
use crate::action::{Action, Context, Protocol, Request};
use crate::audit::{Decision, Durability};
use crate::destination::Evidence;

/// What a connection's verdict would be if only some modes were in force.
struct Opened {
    choice: Choice,
    rule: Arc<str>,
    file: Option<usize>,
    opaque: bool,
    durability: Option<Durability>,
}

pub(super) fn judge(policy: &Policy, context: &Context<'_>) -> ConnectionJudgement {
    let files: Vec<(usize, Reach)> = policy
        .files
        .iter()
        .enumerate()
        .map(|(place, file)| (place, file.target.may_reach(context)))
        .filter(|(_, reach)| reach.restricts())
        .collect();
    let mut opened = weigh(policy, context, &files, false);
    let full = policy.monitored.then(|| weigh(policy, context, &files, true));
    let would = full.and_then(|full| match (&full.choice, &opened.choice) {
        (Choice::Deny(_), Choice::Allow) => Some(Would { decision: Decision::WouldDeny, rule: full.rule }),
        (Choice::Deny(_) | Choice::Allow | Choice::Approve(_), _) => None,
    });
    let own: Vec<&PolicyFile> = admitting(policy, &files).map(|(_, file)| file).collect();
    let (tls, login) = match settings(context, &own) {
        Ok(settings) => settings,
        Err(message) => {
            opened.choice = Choice::Deny(message);
            opened.rule = policy.default_rule();
            (TargetTls::default(), None)
        }
    };
    let durability = match (opened.durability, opened.opaque) {
        (Some(said), _) => said,
        // Nobody will know what passed: the row that says so must survive.
        (None, true) => Durability::Strict,
        (None, false) => Durability::Fast,
    };
    ConnectionJudgement {
        stands_for: stands_for(context, &own, &tls),
        target: policy.file_name(opened.file.or(files.first().map(|(file, _)| *file))),
        terminate_tls: !opened.opaque || reads_content(policy, context, &files) || login.is_some(),
        needs_name: needs_name(policy, context),
        opaque: opened.opaque,
        verdict: opened.choice.into_verdict(),
        rule: opened.rule,
        tls,
        login,
        durability,
        would,
    }
}

impl Policy {
    /// Whether no word of the client's, neither the protocol it turns out to speak nor a name it claims, keeps the
    /// connection from passing unread. Only then may its server be dialled before it has spoken.
    #[must_use]
    pub fn passes_whatever_is_said(&self, context: &Context<'_>) -> bool {
        let every = [Protocol::Opaque, Protocol::Tls, Protocol::Ssh, Protocol::Http, Protocol::Postgres];
        let passes = |protocol| {
            let judged = judge(self, &Context { protocol, ..*context });
            judged.passes_unread() && !judged.needs_name
        };
        let hangs = |rule: &Rule| {
            let file = self.files.get(rule.file);
            file.is_some_and(|file| file.target.may_reach(context).restricts())
                && hangs_on_a_claim(rule, context)
        };
        every.into_iter().all(passes) && !self.rules.iter().any(hangs)
    }
}

/// A name that is claimed later could make the rule restrict, read, or no longer admit.
fn hangs_on_a_claim(rule: &Rule, context: &Context<'_>) -> bool {
    let admits = matches!(rule.then, Then::Opaque);
    let mut hangs = false;
    rule.condition.each_test(&mut |test, negated| {
        if let Test::Host(patterns) = test {
            // What is proved stays proved, and an address is no name.
            let proved = super::host::best(patterns, context.destination, None).admits();
            let named = patterns.iter().any(|pattern| match pattern.host {
                Host::Name(_) | Host::Below(_) => true,
                Host::Any | Host::Address(_) | Host::Network(..) => false,
            });
            hangs |= (!admits || negated) && !proved && named;
        }
    });
    hangs
}

fn weigh(policy: &Policy, context: &Context<'_>, files: &[(usize, Reach)], everything: bool) -> Opened {
    let in_force = |mode: Mode| everything || mode == Mode::Enforce;
    let facts = Facts::new(context, &Action::Connect, &policy.scanner);
    let mut opened = Opened {
        choice: Choice::Allow,
        rule: policy.default_rule(),
        file: None,
        opaque: false,
        durability: None,
    };
    let mut own = admitting(policy, files).peekable();
    let targeted = own.peek().is_some();
    let watched = match targeted {
        true => own.all(|(_, file)| !in_force(file.mode)),
        false => !in_force(policy.mode),
    };
    if !targeted && !watched {
        opened.choice = Choice::Deny(untargeted(&facts));
    }
    // A watched connection passes whatever it speaks.
    opened.opaque = watched;
    let mut refused_unread = false;
    for (rule, reach) in connection_rules(policy, files).filter(|(rule, _)| in_force(rule.mode)) {
        let holds = |side| rule.condition.holds(&facts, Part::default(), side);
        match &rule.then {
            Then::Deny(message) if surely_restricts(rule, context, policy) => {
                opened.choice = Choice::Deny(message.clone());
                (opened.rule, opened.file, opened.opaque) = (rule.name.clone(), Some(rule.file), false);
                return opened;
            }
            // Holding a whole unread connection is not built, so what asks for it refuses it.
            Then::Deny(_) | Then::Approve(_) => refused_unread |= holds(Side::Restrict),
            Then::Opaque if reach.admits() && holds(Side::Admit) && targeted => {
                (opened.rule, opened.file, opened.opaque) = (rule.name.clone(), Some(rule.file), true);
                if opened.durability != Some(Durability::Strict) {
                    opened.durability = rule.durability.or(opened.durability);
                }
            }
            Then::Opaque | Then::Allow | Then::Mask(_) | Then::Inject(_) => {}
        }
    }
    opened.opaque &= !refused_unread;
    opened
}

fn admitting<'p>(
    policy: &'p Policy,
    files: &'p [(usize, Reach)],
) -> impl Iterator<Item = (usize, &'p PolicyFile)> {
    let places = files.iter().filter(|(_, reach)| reach.admits());
    places.filter_map(|(place, _)| policy.files.get(*place).map(|file| (*place, file)))
}

fn connection_rules<'p>(
    policy: &'p Policy,
    files: &'p [(usize, Reach)],
) -> impl Iterator<Item = (&'p Rule, Reach)> {
    policy
        .rules
        .iter()
        .filter(|rule| rule.stage == Stage::Connection)
        .filter_map(|rule| files.iter().find(|(file, _)| *file == rule.file).map(|(_, reach)| (rule, *reach)))
}

/// While it is not known what will be spoken, a rule restricts only if it does so for everything that could be.
fn surely_restricts(rule: &Rule, context: &Context<'_>, policy: &Policy) -> bool {
    let possible: &[Protocol] = match context.protocol {
        Protocol::Opaque => {
            &[Protocol::Opaque, Protocol::Postgres, Protocol::Http, Protocol::Tls, Protocol::Ssh]
        }
        Protocol::Tls => &[Protocol::Tls, Protocol::Postgres, Protocol::Http],
        Protocol::Postgres => &[Protocol::Postgres],
        Protocol::Http => &[Protocol::Http],
        Protocol::Ssh => &[Protocol::Ssh],
    };
    let restricts = |protocol| {
        let facts = Facts::new(context, &Action::Connect, &policy.scanner).assuming(protocol);
        rule.condition.holds(&facts, Part::default(), Side::Restrict)
    };
    possible.iter().all(|protocol| restricts(*protocol))
}

/// The upstream leg and the login, where the files that apply agree about them.
fn settings(
    context: &Context<'_>,
    files: &[&PolicyFile],
) -> Result<(TargetTls, Option<Arc<Inject>>), Arc<str>> {
    let mut said = files.iter().map(|file| &file.tls).filter(|tls| **tls != TargetTls::default());
    let tls = said.next().cloned().unwrap_or_default();
    if said.any(|other| *other != tls) {
        return Err("two policies set different `tls` for this destination".into());
    }
    let may_log_in = match context.protocol {
        Protocol::Opaque | Protocol::Tls | Protocol::Postgres => true,
        Protocol::Http | Protocol::Ssh => false,
    };
    let logins: Vec<Arc<Inject>> = files
        .iter()
        .filter(|file| may_log_in && file.mode == Mode::Enforce)
        .flat_map(|file| &file.injects)
        .filter(|own| matches!(*own.inject, Inject::Login { .. }))
        .map(|own| own.inject.clone())
        .collect();
    match contradiction(&logins) {
        Some(message) => Err(message.into()),
        None => Ok((tls, logins.into_iter().next())),
    }
}

/// A target that verifies its server by another name (`tls.name`) vouches with it for the names that it declares itself.
fn stands_for(context: &Context<'_>, files: &[&PolicyFile], tls: &TargetTls) -> Vec<String> {
    if tls.name.is_empty() {
        return Vec::new();
    }
    let port = context.destination.port();
    let declares = |name: &str| {
        let patterns = files.iter().filter(|file| file.tls == *tls).flat_map(|file| &file.target.hosts);
        patterns.into_iter().any(|pattern| {
            pattern.port.is_none_or(|own| own == port)
                && match pattern.host {
                    Host::Name(_) | Host::Below(_) => pattern.host.is_name(name),
                    Host::Any | Host::Address(_) | Host::Network(..) => false,
                }
        })
    };
    let names = context.destination.names().iter().map(|name| &name.host);
    names.filter(|name| declares(name)).cloned().collect()
}

/// Before a name is claimed any may turn out to be right; afterwards only a claimed one, by a certificate.
fn needs_name(policy: &Policy, context: &Context<'_>) -> bool {
    let has = |evidence| context.destination.names().iter().any(|name| name.evidence == evidence);
    if has(Evidence::Certificate) {
        return false;
    }
    let claimed = has(Evidence::Claimed);
    policy.files.iter().any(|file| {
        let reach = file.target.may_reach(context);
        !reach.admits()
            && file.target.waits_for_name(context)
            && file.target.may_speak(context)
            && (!claimed || reach == Reach::Claimed)
    })
}

/// Some file that applies has acts to judge, credentials to put in or masks to lay.
fn reads_content(policy: &Policy, context: &Context<'_>, files: &[(usize, Reach)]) -> bool {
    let facts = Facts::new(context, &Action::Connect, &policy.scanner);
    let rules = policy.rules.iter().filter(|rule| files.iter().any(|(file, _)| *file == rule.file));
    let mut reading = rules.filter(|rule| match rule.then {
        Then::Allow | Then::Approve(_) | Then::Mask(_) | Then::Inject(_) => true,
        Then::Deny(_) => rule.stage != Stage::Connection,
        Then::Opaque => false,
    });
    let credentials = admitting(policy, files).any(|(_, file)| !file.injects.is_empty());
    credentials || reading.any(|rule| rule.condition.may_hold(&facts, known_on_connection))
}

/// What must be gathered before the acts of this connection, or this one request, can be judged.
pub(super) fn needs(policy: &Policy, context: &Context<'_>, request: Option<&Request<'_>>) -> Needs {
    let action = request.map_or(Action::Connect, Action::Http);
    let facts = Facts::new(context, &action, &policy.scanner);
    let known = |test: &Test| match test {
        Test::Method(_) | Test::Path(_) | Test::HttpHost(_) => request.is_some(),
        Test::Who(_)
        | Test::Host(_)
        | Test::Port(_)
        | Test::Protocol(_)
        | Test::When(_)
        | Test::Effects(_)
        | Test::Tables(_)
        | Test::Functions(_)
        | Test::Objects(_)
        | Test::WithoutWhere(_)
        | Test::Opaque(_)
        | Test::Words(_)
        | Test::Status(_)
        | Test::Text(_) => known_on_connection(test),
    };
    let mut needs = Needs::default();
    for rule in &policy.rules {
        let Some(file) = policy.files.get(rule.file) else { continue };
        let reach = file.target.may_reach(context).max(file.target.place(context, facts.request_host()));
        if !reach.restricts() || !file.target.may_speak(context) || !rule.condition.may_hold(&facts, known) {
            continue;
        }
        let reads = |wanted: super::condition::text::Direction| {
            rule.condition.has(|test| matches!(test, Test::Text(text) if text.direction == wanted))
        };
        needs.request_body |= reads(super::condition::text::Direction::Request);
        needs.response_body |= rule.stage == Stage::Response;
        needs.catalog |= rule.condition.has(|test| matches!(test, Test::Tables(_) | Test::Functions(_)));
        if let (Then::Mask(plan), Mode::Enforce) = (&rule.then, rule.mode) {
            needs.request_body |= !plan.request.is_empty();
            needs.response_body |= !plan.response.is_empty();
            needs.catalog = true;
        }
    }
    match context.protocol {
        Protocol::Postgres => Needs { request_body: false, response_body: false, ..needs },
        Protocol::Http => Needs { catalog: false, ..needs },
        Protocol::Opaque | Protocol::Tls | Protocol::Ssh => needs,
    }
}

/// Facts that stay the same while a connection lives. The time does not.
fn known_on_connection(test: &Test) -> bool {
    match test {
        Test::Who(_) | Test::Host(_) | Test::Port(_) => true,
        Test::Protocol(_)
        | Test::When(_)
        | Test::Effects(_)
        | Test::Tables(_)
        | Test::Functions(_)
        | Test::Objects(_)
        | Test::WithoutWhere(_)
        | Test::Opaque(_)
        | Test::Words(_)
        | Test::Method(_)
        | Test::HttpHost(_)
        | Test::Path(_)
        | Test::Status(_)
        | Test::Text(_) => false,
    }
}
