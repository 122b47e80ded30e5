//! `match:` → a condition. Keys are joined by "and", lists by "or"; `any:` and `not:` combine.
//! It refuses fields that the target's protocol does not have.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::condition::text::{Direction, Text, Words, pattern};
use super::super::condition::{Condition, Test};
use super::super::glob::{Glob, Qualified};
use super::super::node::{Node, Value};
use super::super::problem::suggestion;
use super::{Keys, Lexicon, Reader, class, http, principal, target, window};
use crate::action::{Effect, Effects, Object, Protocol};
use crate::detect::ClassSet;

#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) lexicon: &'a Lexicon<'a>,
    pub(super) protocol: Option<Protocol>,
    /// The target itself was refused, so nothing can be said about its protocol.
    pub(super) unsure: bool,
}

/// `None` when anything in it was refused; the rule is then left out, and the bundle with it.
pub(super) fn matching(reader: &mut Reader<'_>, node: &Node, scope: Scope<'_>) -> Option<Condition> {
    let mut all = Vec::new();
    let mut sound = matches!(node.value, Value::Map(_));
    for (key, line, value) in reader.map(node, &MATCH_KEYS) {
        let condition = match key {
            "who" => principal::who(reader, value, scope).map(|who| Condition::Test(Test::Who(who))),
            "dst" => destination(reader, value),
            "when" => {
                window::when(reader, value, scope.lexicon).map(|when| Condition::Test(Test::When(when)))
            }
            "sql" => {
                let inner = sql(reader, value, scope);
                inner.filter(|_| spoken(reader, line, "sql", Protocol::Postgres, scope))
            }
            "http" => {
                let inner = http::http(reader, value);
                inner.filter(|_| spoken(reader, line, "http", Protocol::Http, scope))
            }
            "text" => text(reader, line, value, scope).map(|text| Condition::Test(Test::Text(text))),
            "any" => any(reader, value, scope),
            "not" => matching(reader, value, scope).map(|inner| Condition::Not(Box::new(inner))),
            other => {
                reader.problem(line, format!("`{other}` in match is read by nothing"));
                None
            }
        };
        sound &= condition.is_some();
        all.extend(condition);
    }
    if let (Value::Map(entries), true) = (&node.value, sound) {
        sound = entries.len() == all.len();
    }
    sound.then(|| joined(all))
}

fn joined(mut all: Vec<Condition>) -> Condition {
    match (all.len(), all.pop()) {
        (1, Some(one)) => one,
        (_, Some(last)) => {
            all.push(last);
            Condition::All(all)
        }
        (_, None) => Condition::All(all),
    }
}

fn any(reader: &mut Reader<'_>, node: &Node, scope: Scope<'_>) -> Option<Condition> {
    let Value::List(items) = &node.value else {
        reader.problem(node.line, "any is a list of matches: any: [{…}, {…}]");
        return None;
    };
    let found: Vec<Condition> = items.iter().filter_map(|item| matching(reader, item, scope)).collect();
    if items.is_empty() {
        reader.problem(node.line, "any is an empty list, which can never match");
    }
    (found.len() == items.len() && !items.is_empty()).then_some(Condition::Any(found))
}

/// A field needs the target to say which protocol is spoken there.
fn spoken(reader: &mut Reader<'_>, line: u32, field: &str, needed: Protocol, scope: Scope<'_>) -> bool {
    let message = match scope.protocol {
        _ if scope.unsure => return true,
        Some(protocol) if protocol == needed => return true,
        Some(protocol) => format!(
            "`{field}` can never match here: the target speaks {}, and {field} belongs to {}",
            protocol.name(),
            needed.name()
        ),
        None => format!("`{field}` needs `protocol: {}` in the target", needed.name()),
    };
    reader.problem(line, message);
    false
}

fn destination(reader: &mut Reader<'_>, node: &Node) -> Option<Condition> {
    let mut tests = Vec::new();
    let fields = reader.map(node, &DST_KEYS);
    for (key, _, value) in &fields {
        match *key {
            "host" => tests.push(Test::Host(target::hosts(reader, value, "host"))),
            "port" => tests.push(Test::Port(target::ports(reader, value))),
            _ => {
                let Value::List(items) = &value.value else {
                    tests.push(Test::Protocol(target::protocol(reader, value).into_iter().collect()));
                    continue;
                };
                let names = items.iter().filter_map(|item| target::protocol(reader, item)).collect();
                tests.push(Test::Protocol(names));
            }
        }
    }
    tests_of(reader, node, "dst", tests)
}

/// Several tests of one map must all hold.
pub(super) fn tests_of(
    reader: &mut Reader<'_>,
    node: &Node,
    what: &str,
    tests: Vec<Test>,
) -> Option<Condition> {
    match &node.value {
        Value::Map(entries) if entries.is_empty() => {
            reader.problem(node.line, format!("{what} is empty, so it says nothing"));
            None
        }
        Value::Map(entries) => {
            (entries.len() == tests.len()).then(|| joined(tests.into_iter().map(Condition::Test).collect()))
        }
        Value::Null | Value::Scalar(_) | Value::List(_) => None,
    }
}

fn sql(reader: &mut Reader<'_>, node: &Node, scope: Scope<'_>) -> Option<Condition> {
    let mut tests = Vec::new();
    for (key, _, value) in reader.map(node, &SQL_KEYS) {
        tests.extend(match key {
            "effects" => effects(reader, value).map(Test::Effects),
            "tables" => qualified(reader, value, "tables", scope).map(Test::Tables),
            "schemas" => {
                let names = reader.texts(value, "schemas");
                let names = scope.lexicon.expand(reader, names);
                let all = |name: &str| Qualified { schema: Glob::new(name), name: Glob::Any };
                (!names.is_empty())
                    .then(|| Test::Tables(names.into_iter().map(|(_, name)| all(name)).collect()))
            }
            "functions" => qualified(reader, value, "functions", scope).map(Test::Functions),
            "objects" => objects(reader, value).map(Test::Objects),
            "without_where" => reader.boolean(value, "without_where").map(Test::WithoutWhere),
            "opaque" => reader.boolean(value, "opaque").map(Test::Opaque),
            _ => words(reader, value, "sql text").map(Test::Words),
        });
    }
    tests_of(reader, node, "sql", tests)
}

fn effects(reader: &mut Reader<'_>, node: &Node) -> Option<Effects> {
    let texts = reader.texts(node, "effects");
    let count = texts.len();
    let mut found = Vec::new();
    for (line, text) in texts {
        match Effect::parse(text) {
            Some(effect) => found.push(effect),
            None if text == "ddl" => {
                reader.problem(line, "effect \"ddl\": write ddl:create, ddl:alter, ddl:drop")
            }
            None => {
                let nearest = suggestion(text, Effect::ALL.iter().map(|effect| effect.name()));
                reader.problem(line, format!("no effect is named {text:?}{nearest}"));
            }
        }
    }
    (count > 0 && found.len() == count).then(|| Effects::of(&found))
}

fn qualified(reader: &mut Reader<'_>, node: &Node, what: &str, scope: Scope<'_>) -> Option<Vec<Qualified>> {
    let names = reader.texts(node, what);
    let names = scope.lexicon.expand(reader, names);
    let count = names.len();
    let mut found = Vec::new();
    for (line, name) in names {
        match Qualified::new(name) {
            Some(pattern) => found.push(pattern),
            None => reader.problem(line, format!("{what}: {name:?} is neither NAME nor SCHEMA.NAME")),
        }
    }
    (count > 0 && found.len() == count).then_some(found)
}

fn objects(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<Object>> {
    let texts = reader.texts(node, "objects");
    let count = texts.len();
    let mut found = Vec::new();
    for (line, text) in texts {
        match OBJECTS.iter().find(|(name, _)| *name == text) {
            Some((_, object)) => found.push(*object),
            None => {
                let nearest = suggestion(text, OBJECTS.iter().map(|(name, _)| *name));
                reader.problem(line, format!("no kind of object is named {text:?}{nearest}"));
            }
        }
    }
    (count > 0 && found.len() == count).then_some(found)
}

fn words(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<Words> {
    let words: Vec<String> = reader.texts(node, what).into_iter().map(|(_, word)| word.to_string()).collect();
    if words.is_empty() {
        return None;
    }
    Words::new(&words).map_err(|reason| reader.problem(node.line, reason)).ok()
}

fn text(reader: &mut Reader<'_>, line: u32, node: &Node, scope: Scope<'_>) -> Option<Text> {
    let mut text = Text {
        direction: Direction::Request,
        words: None,
        patterns: Vec::new(),
        classes: ClassSet::default(),
    };
    let fields = reader.map(node, &TEXT_KEYS);
    let mut direction = None;
    let mut read = 0;
    for (key, _, value) in &fields {
        match *key {
            "in" => {
                let choices = [("request", Direction::Request), ("response", Direction::Response)];
                direction = reader.choice(value, "in", &choices);
                read += usize::from(direction.is_some());
            }
            "keywords" => {
                text.words = words(reader, value, "keywords");
                read += usize::from(text.words.is_some());
            }
            "patterns" => {
                let texts = reader.texts(value, "patterns");
                let count = texts.len();
                for (line, source) in texts {
                    match pattern(source) {
                        Ok(regex) => text.patterns.push(regex),
                        Err(reason) => {
                            reader.problem(line, format!("pattern {source:?} cannot be used: {reason}"))
                        }
                    }
                }
                read += usize::from(count > 0 && text.patterns.len() == count);
            }
            _ => read += usize::from(text_classes(reader, value, scope, &mut text.classes)),
        }
    }
    if text.words.is_none() && text.patterns.is_empty() && text.classes.0.is_empty() && read == fields.len() {
        reader.problem(line, "text needs keywords, patterns or classes");
        return None;
    }
    let Some(direction) = direction else {
        if !fields.iter().any(|(key, ..)| *key == "in") {
            reader.problem(line, "text needs `in: request` or `in: response`");
        }
        return None;
    };
    text.direction = direction;
    let entries = match &node.value {
        Value::Map(entries) => entries.len(),
        Value::Null | Value::Scalar(_) | Value::List(_) => 0,
    };
    let spoken = match (direction, scope.protocol) {
        (Direction::Request, Some(Protocol::Postgres)) => true,
        (Direction::Response, Some(Protocol::Postgres)) => {
            reader.problem(
                line,
                "text in a response of PostgreSQL is not built yet: mask its columns by a class",
            );
            false
        }
        (Direction::Request | Direction::Response, _) => spoken(reader, line, "text", Protocol::Http, scope),
    };
    (spoken && read == entries).then_some(text)
}

/// Only what can be detected in text can be found in one.
fn text_classes(reader: &mut Reader<'_>, node: &Node, scope: Scope<'_>, classes: &mut ClassSet) -> bool {
    let texts = reader.texts(node, "classes");
    let count = texts.len();
    for (line, name) in texts {
        let Some(id) = scope.lexicon.class(reader, line, name) else { continue };
        let definition = scope.lexicon.classes.get(usize::from(id.0));
        if definition.is_some_and(class::detects) {
            classes.0.push(id);
        } else {
            reader.problem(
                line,
                format!("class {name:?} has no detect, pattern or keywords, so no text can hold it"),
            );
        }
    }
    classes.0.sort_unstable();
    classes.0.dedup();
    count > 0 && !classes.0.is_empty()
}

const MATCH_KEYS: Keys = Keys {
    of: "match",
    known: &["who", "dst", "when", "sql", "http", "text", "any", "not"],
    unbuilt: &[
        ("target", "the file's target says where its rules apply; narrow it with dst"),
        ("llm", ""),
        ("mcp", ""),
        ("vector", ""),
        ("k8s", "match http: {method: …, path: …} instead"),
        ("repeat", ""),
    ],
};

const DST_KEYS: Keys = Keys { of: "dst", known: &["host", "port", "protocol"], unbuilt: &[] };

const SQL_KEYS: Keys = Keys {
    of: "sql",
    known: &["effects", "tables", "schemas", "functions", "objects", "without_where", "opaque", "text"],
    unbuilt: &[
        ("columns", "mask the columns by a class, or match their tables"),
        ("rows_over", ""),
        ("limit_over", ""),
    ],
};

const TEXT_KEYS: Keys = Keys { of: "text", known: &["in", "keywords", "patterns", "classes"], unbuilt: &[] };

const OBJECTS: [(&str, Object); 11] = [
    ("table", Object::Table),
    ("view", Object::View),
    ("index", Object::Index),
    ("schema", Object::Schema),
    ("database", Object::Database),
    ("function", Object::Function),
    ("role", Object::Role),
    ("sequence", Object::Sequence),
    ("type", Object::Type),
    ("extension", Object::Extension),
    ("other", Object::Other),
];
