//! When a rule matches: a tree of tests over one part of an act.
//! It refuses to guess: what is not known counts as a match for rules that restrict and as none for rules that admit.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::action::{Action, Context, Effect, Protocol, Relation, Request, Statement};
use crate::detect::Scanner;

pub(super) mod http;
pub(super) mod sql;
pub(super) mod text;
pub(super) mod when;
pub(super) mod who;

/// All of `match:`; several keys of one map are [`Condition::All`].
#[derive(Debug)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Test(Test),
}

/// One test; a list in the file means any of its entries.
#[derive(Debug)]
pub(super) enum Test {
    Who(who::Who),
    Host(Vec<super::host::HostPattern>),
    Port(Vec<u16>),
    Protocol(Vec<Protocol>),
    When(when::When),
    Effects(crate::action::Effects),
    Tables(Vec<super::glob::Qualified>),
    Functions(Vec<super::glob::Qualified>),
    Objects(Vec<crate::action::Object>),
    WithoutWhere(bool),
    Opaque(bool),
    /// Words of the statement outside constants and comments.
    Words(text::Words),
    Method(Vec<alloc::string::String>),
    HttpHost(Vec<super::host::Host>),
    Path(Vec<super::glob::PathGlob>),
    Status(Vec<(u16, u16)>),
    Text(text::Text),
}

/// Whether the rule takes something away or gives something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// `deny`, `approve`, `mask`: one part of the act is enough, and not knowing is enough.
    Restrict,
    /// `allow`, `inject`, `opaque`, a granted `approve`: every part must be covered, by what is known.
    Admit,
}

/// What a test finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    /// It cannot be told: a claimed name, a body that was not read, a name the catalog does not hold.
    Unknown,
    /// The act has nothing of this kind (no relation at all): it cannot speak against a rule that admits
    /// nor for one that restricts.
    Absent,
}

/// One (effect, relation) of an act; both `None` for acts that are not SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Part<'a> {
    pub(super) effect: Option<Effect>,
    pub(super) relation: Option<&'a Relation>,
}

/// Everything a condition may look at.
pub(super) struct Facts<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) action: &'a Action<'a>,
    pub(super) scanner: &'a Scanner,
    /// The context's, or the one assumed while the connection's is not known yet.
    pub(super) protocol: Protocol,
    texts: text::Texts,
}

impl<'a> Facts<'a> {
    pub(super) fn new(context: &'a Context<'a>, action: &'a Action<'a>, scanner: &'a Scanner) -> Self {
        Self { context, action, scanner, protocol: context.protocol, texts: text::Texts::default() }
    }

    pub(super) fn assuming(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    pub(super) fn statement(&self) -> Option<&'a Statement> {
        match self.action {
            Action::Sql(statement) => Some(statement),
            Action::Connect | Action::Http(_) | Action::Response(_) => None,
        }
    }

    pub(super) fn request(&self) -> Option<&'a Request<'a>> {
        match self.action {
            Action::Http(request) => Some(request),
            Action::Response(response) => Some(&response.request),
            Action::Connect | Action::Sql(_) => None,
        }
    }

    pub(super) fn request_host(&self) -> Option<&'a str> {
        self.request().map(|request| request.host)
    }
}

impl Condition {
    pub(super) fn holds(&self, facts: &Facts<'_>, part: Part<'_>, side: Side) -> bool {
        self.evaluate(facts, part, side, false)
    }

    /// Whether it could hold for some act, where only the tests that `known` picks can be told now.
    pub(super) fn may_hold(&self, facts: &Facts<'_>, known: impl Fn(&Test) -> bool) -> bool {
        self.fold(false, &|test, negated| match known(test) {
            true => test.truth(facts, Part::default()).resolve(Side::Restrict, negated),
            false => !negated,
        })
    }

    fn evaluate(&self, facts: &Facts<'_>, part: Part<'_>, side: Side, negated: bool) -> bool {
        self.fold(negated, &|test, negated| test.truth(facts, part).resolve(side, negated))
    }

    fn fold(&self, negated: bool, leaf: &impl Fn(&Test, bool) -> bool) -> bool {
        match self {
            Condition::All(all) => all.iter().all(|each| each.fold(negated, leaf)),
            Condition::Any(any) => any.iter().any(|each| each.fold(negated, leaf)),
            Condition::Not(inner) => !inner.fold(!negated, leaf),
            Condition::Test(test) => leaf(test, negated),
        }
    }

    /// Visits every test with whether an odd number of `not:` stands above it.
    pub(super) fn each_test<'c>(&'c self, visit: &mut dyn FnMut(&'c Test, bool)) {
        self.walk(false, visit);
    }

    fn walk<'c>(&'c self, negated: bool, visit: &mut dyn FnMut(&'c Test, bool)) {
        match self {
            Condition::All(list) | Condition::Any(list) => {
                list.iter().for_each(|each| each.walk(negated, visit));
            }
            Condition::Not(inner) => inner.walk(!negated, visit),
            Condition::Test(test) => visit(test, negated),
        }
    }

    pub(super) fn has(&self, wanted: impl Fn(&Test) -> bool) -> bool {
        let mut found = false;
        self.each_test(&mut |test, _| found |= wanted(test));
        found
    }

    /// The first test, in the order written, that keeps the condition from holding; and whether it is negated.
    pub(super) fn blame(&self, facts: &Facts<'_>, part: Part<'_>, side: Side) -> Option<(&Test, bool)> {
        self.blamed(facts, part, side, false)
    }

    fn blamed(&self, facts: &Facts<'_>, part: Part<'_>, side: Side, negated: bool) -> Option<(&Test, bool)> {
        // Under `not`, what must not hold is to blame when it holds.
        if self.evaluate(facts, part, side, negated) != negated {
            return None;
        }
        match self {
            Condition::All(list) | Condition::Any(list) => {
                list.iter().find_map(|each| each.blamed(facts, part, side, negated))
            }
            Condition::Not(inner) => inner.blamed(facts, part, side, !negated),
            Condition::Test(test) => Some((test, negated)),
        }
    }
}

impl Truth {
    fn resolve(self, side: Side, negated: bool) -> bool {
        match self {
            Truth::Yes => true,
            Truth::No => false,
            Truth::Unknown => (side == Side::Restrict) != negated,
            Truth::Absent => (side == Side::Admit) != negated,
        }
    }

    pub(super) fn of(fact: bool) -> Truth {
        if fact { Truth::Yes } else { Truth::No }
    }

    /// Yes when any is, else Unknown when any is.
    pub(super) fn any(truths: impl IntoIterator<Item = Truth>) -> Truth {
        let mut best = Truth::No;
        for truth in truths {
            match truth {
                Truth::Yes => return Truth::Yes,
                Truth::Unknown => best = Truth::Unknown,
                Truth::No | Truth::Absent => {}
            }
        }
        best
    }
}

impl Test {
    pub(super) fn truth(&self, facts: &Facts<'_>, part: Part<'_>) -> Truth {
        match self {
            Test::Who(who) => Truth::of(who.is(facts.context.identity)),
            Test::Host(patterns) => {
                let reach = super::host::best(patterns, facts.context.destination, facts.request_host());
                match (reach.admits(), reach.restricts()) {
                    (true, _) => Truth::Yes,
                    (false, true) => Truth::Unknown,
                    (false, false) => Truth::No,
                }
            }
            Test::Port(ports) => Truth::of(ports.contains(&facts.context.destination.port())),
            Test::Protocol(protocols) => Truth::of(protocols.contains(&facts.protocol)),
            Test::When(when) => Truth::of(when.holds(facts.context.wall_ns)),
            Test::Effects(effects) => Truth::of(part.effect.is_some_and(|effect| effects.has(effect))),
            Test::Tables(tables) => sql::tables(tables, part),
            Test::Functions(functions) => sql::functions(functions, facts.statement(), part),
            Test::Objects(objects) => sql::objects(objects, facts.statement()),
            Test::WithoutWhere(wanted) => {
                Truth::of(facts.statement().is_some_and(|statement| statement.without_where == *wanted))
            }
            Test::Opaque(wanted) => {
                Truth::of(facts.statement().is_some_and(|statement| statement.opaque == *wanted))
            }
            Test::Words(words) => Truth::of(
                facts.statement().is_some_and(|statement| words.found(facts.texts.words(&statement.text))),
            ),
            Test::Method(methods) => http::method(methods, facts.request()),
            Test::HttpHost(hosts) => http::host(hosts, facts.request(), facts.context.destination),
            Test::Path(paths) => http::path(paths, facts.request()),
            Test::Status(ranges) => http::status(ranges, facts.action),
            Test::Text(text) => text.truth(facts, &facts.texts),
        }
    }

    /// The key that policies write for it.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Test::Who(_) => "who",
            Test::Host(_) => "dst.host",
            Test::Port(_) => "dst.port",
            Test::Protocol(_) => "dst.protocol",
            Test::When(_) => "when",
            Test::Effects(_) => "sql.effects",
            Test::Tables(_) => "sql.tables",
            Test::Functions(_) => "sql.functions",
            Test::Objects(_) => "sql.objects",
            Test::WithoutWhere(_) => "sql.without_where",
            Test::Opaque(_) => "sql.opaque",
            Test::Words(_) => "sql.text",
            Test::Method(_) => "http.method",
            Test::HttpHost(_) => "http.host",
            Test::Path(_) => "http.path",
            Test::Status(_) => "http.status",
            Test::Text(_) => "text",
        }
    }

    /// What it asks about exists as soon as the connection does.
    pub(super) fn about_connection(&self) -> bool {
        match self {
            Test::Who(_) | Test::Host(_) | Test::Port(_) | Test::Protocol(_) | Test::When(_) => true,
            Test::Effects(_)
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

    /// What it asks about exists only once the answer does.
    pub(super) fn about_response(&self) -> bool {
        match self {
            Test::Status(_) => true,
            Test::Text(text) => text.direction == text::Direction::Response,
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
            | Test::Method(_)
            | Test::HttpHost(_)
            | Test::Path(_) => false,
        }
    }
}
