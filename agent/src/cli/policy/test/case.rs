//! One case of a test file: an actor, a moment, an act, and what is expected of the verdict.

use std::sync::Arc;

use weir_core::action::{Action, Effect, Effects, Protocol, Response};
use weir_core::audit::Decision;
use weir_core::policy::{Judgement, Node, Policy, Value, Verdict};
use weir_core::sql::Catalog;

use super::expect::Expected;
use super::strangers;
use crate::cli::policy::grammar;
use crate::cli::policy::scene::{self, Actor, Line, Scene};
use crate::config::Config;

pub(super) struct Case {
    pub(super) name: String,
    scene: Scene,
    act: Act,
    expected: Expected,
}

enum Act {
    Connect,
    Sql { text: String, catalog: Option<Arc<Catalog>> },
    Http { line: Line, body: Vec<u8>, response: Option<(u16, Vec<u8>)> },
}

/// What a verdict came to, for comparison.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    pub(super) decision: &'static str,
    pub(super) rule: String,
    pub(super) message: String,
    pub(super) effects: Effects,
    /// (class, mask).
    pub(super) masks: Vec<(String, String)>,
    pub(super) injects: usize,
    pub(super) durability: String,
    /// `deny`, `approve`, `mask` or empty.
    pub(super) would: String,
}

/// Line and message.
pub(super) type Mistake = (u32, String);

impl Case {
    /// A key of the case goes before the same key of the file.
    pub(super) fn read(
        file: &Node,
        case: &Node,
        policy: &Policy,
        config: Option<&Config>,
    ) -> Result<Case, Mistake> {
        let at = |message: String| (case.line, message);
        if let Some((line, key)) = strangers(case, &CASE_KEYS).first() {
            return Err((*line, format!("unknown key {key:?} in a case (known: {})", CASE_KEYS.join(", "))));
        }
        let key = |name: &str| case.field(name).or_else(|| file.field(name));
        let text = |name: &str| key(name).and_then(Node::scalar);
        let sample = match text("policy") {
            Some(name) => Some(policy.sample(name).ok_or_else(|| {
                at(format!(
                    "no policy is named {name:?} (known: {})",
                    policy.policies().collect::<Vec<_>>().join(", ")
                ))
            })?),
            None => None,
        };
        let destination = match (text("dst"), &sample) {
            (Some(dst), _) => scene::destination(dst),
            (None, Some(sample)) => scene::at(&sample.host, sample.port),
            (None, None) => return Err(at("the case needs dst: HOST:PORT, or the file policy: NAME".into())),
        }
        .map_err(|fault| at(fault.to_string()))?;
        let clock = match case.field("at").or_else(|| file.field("clock")).and_then(Node::scalar) {
            Some(time) => scene::time(time).map_err(|fault| at(fault.to_string()))?,
            None => {
                return Err(
                    at("the case needs a frozen time: clock: in the file, or at: in the case".into()),
                );
            }
        };
        let act = act(file, case, &destination)?;
        let protocol = match act {
            Act::Connect => Protocol::Opaque,
            Act::Sql { .. } => Protocol::Postgres,
            Act::Http { .. } => Protocol::Http,
        };
        let actor = key("as").map_or_else(|| Ok(Actor::default()), actor)?;
        let database = text("database").map(str::to_owned);
        let scene = Scene {
            identity: actor.identity(config),
            destination,
            protocol,
            database: database.unwrap_or_else(|| sample.map(|sample| sample.database).unwrap_or_default()),
            wall_ns: clock,
        };
        let expected = case.field("expect").ok_or_else(|| at("the case expects nothing".into()))?;
        let name = case.field("name").and_then(Node::scalar).map_or_else(|| title(case), str::to_owned);
        Ok(Case { name, scene, act, expected: Expected::read(expected, policy)? })
    }

    /// What differs from what is expected.
    pub(super) fn run(&self, policy: &Arc<Policy>) -> Vec<String> {
        self.expected.differences(&self.judge(policy))
    }

    fn judge(&self, policy: &Arc<Policy>) -> Verdicts {
        let context = self.scene.context();
        match &self.act {
            Act::Connect => verdicts(policy, policy.judge(&context, &Action::Connect), Effects::NONE),
            Act::Http { line, body, response } => {
                let request = line.request(Some(body));
                let judged = verdicts(policy, policy.judge(&context, &Action::Http(&request)), Effects::NONE);
                match response {
                    Some((status, body)) if judged.decision == "allow" => {
                        let response = Response { request, status: *status, body: Some(body) };
                        verdicts(policy, policy.judge(&context, &Action::Response(&response)), Effects::NONE)
                    }
                    Some(_) | None => judged,
                }
            }
            Act::Sql { text, catalog } => {
                let statements = grammar::statements(text, catalog.as_ref());
                let judged = statements.iter().map(|statement| {
                    let judgement = policy.judge(&context, &Action::Sql(statement));
                    let verdicts = verdicts(policy, judgement, statement.effects);
                    match grammar::obstacle(policy, &context, statement, catalog.as_ref()) {
                        Some((rule, message)) if verdicts.decision != "deny" => {
                            Verdicts { decision: "deny", rule: rule.to_string(), message, ..verdicts }
                        }
                        Some(_) | None => verdicts,
                    }
                });
                judged.reduce(stricter).unwrap_or_default()
            }
        }
    }
}

fn verdicts(policy: &Policy, judgement: Judgement, effects: Effects) -> Verdicts {
    let (decision, message) = match &judgement.verdict {
        Verdict::Allow(_) => ("allow", String::new()),
        Verdict::Deny { message } => ("deny", message.to_string()),
        Verdict::Approve(approval) => ("approve", format!("{} {}", approval.message, approval.by.join(" "))),
    };
    let rules = judgement.masks.request.iter().chain(&judgement.masks.response);
    let masks =
        rules.map(|mask| (policy.class_name(mask.class).to_owned(), weir_core::policy::mask_name(mask.mask)));
    let would = judgement.would.map(|would| match would.decision {
        Decision::WouldDeny => "deny",
        Decision::WouldHold => "approve",
        Decision::WouldMask
        | Decision::Allowed
        | Decision::Masked
        | Decision::Denied
        | Decision::Held
        | Decision::Approved
        | Decision::Expired
        | Decision::Failed => "mask",
    });
    Verdicts {
        decision,
        rule: judgement.rule.to_string(),
        message,
        effects,
        masks: masks.collect(),
        injects: judgement.injects.len(),
        durability: format!("{:?}", judgement.durability).to_lowercase(),
        would: would.unwrap_or_default().to_owned(),
    }
}

/// Of two statements in one text the stricter verdict counts.
fn stricter(one: Verdicts, other: Verdicts) -> Verdicts {
    let rank = |verdicts: &Verdicts| match verdicts.decision {
        "deny" => 2,
        "approve" => 1,
        _ => 0,
    };
    let effects = one.effects.union(other.effects);
    let (mut kept, left) = if rank(&other) > rank(&one) { (other, one) } else { (one, other) };
    kept.masks.extend(left.masks);
    Verdicts { effects, ..kept }
}

fn act(file: &Node, case: &Node, destination: &weir_core::destination::Destination) -> Result<Act, Mistake> {
    let at = |message: &str| (case.line, message.to_owned());
    let text = |name: &str| case.field(name).and_then(Node::scalar);
    match (text("sql"), text("http"), text("connect")) {
        (Some(sql), None, None) => {
            let tables = case.field("catalog").or_else(|| file.field("catalog"));
            let tables = tables.map_or_else(|| Ok(Vec::new()), tables_of)?;
            let catalog = scene::catalog(&tables).map_err(|fault| at(&fault.to_string()))?;
            Ok(Act::Sql { text: sql.into(), catalog })
        }
        (None, Some(line), None) => {
            let line = Line::parse(line, destination).map_err(|fault| at(&fault.to_string()))?;
            let body = text("body").unwrap_or_default().as_bytes().to_vec();
            let response = case.field("response").map(response).transpose()?;
            Ok(Act::Http { line, body, response })
        }
        (None, None, Some("true")) => Ok(Act::Connect),
        (None, None, _) => Err(at("the case has no act: sql, http, or connect: true")),
        _ => Err(at("a case has one act: sql, http or connect")),
    }
}

fn response(node: &Node) -> Result<(u16, Vec<u8>), Mistake> {
    let status = node.field("status").and_then(Node::scalar).unwrap_or("200");
    let status = status.parse().map_err(|_| (node.line, format!("{status:?} is no status")))?;
    let body = node.field("body").and_then(Node::scalar).unwrap_or_default();
    Ok((status, body.as_bytes().to_vec()))
}

/// `{schema.table: [column, …]}`.
fn tables_of(node: &Node) -> Result<Vec<(String, Vec<String>)>, Mistake> {
    let Value::Map(entries) = &node.value else {
        return Err((node.line, "catalog is a map: {schema.table: [columns]}".into()));
    };
    Ok(entries.iter().map(|(key, columns)| (key.text.clone(), list(columns))).collect())
}

fn actor(node: &Node) -> Result<Actor, Mistake> {
    if let Some((line, key)) = strangers(node, &ACTOR_KEYS).first() {
        return Err((*line, format!("unknown key {key:?} in as (known: {})", ACTOR_KEYS.join(", "))));
    }
    let text = |name: &str| node.field(name).and_then(Node::scalar).unwrap_or_default().to_owned();
    let uid = match text("uid").as_str() {
        "" => 0,
        digits => digits.parse().map_err(|_| (node.line, format!("uid {digits:?} is no number")))?,
    };
    let mut groups = node.field("groups").map(list).unwrap_or_default();
    groups.extend(node.field("group").map(list).unwrap_or_default());
    Ok(Actor { workload: text("workload"), user: text("user"), groups, exe: text("exe"), uid })
}

/// A list of texts, or one text.
pub(super) fn list(node: &Node) -> Vec<String> {
    match &node.value {
        Value::List(items) => items.iter().filter_map(Node::scalar).map(str::to_owned).collect(),
        Value::Scalar(text) => vec![text.clone()],
        Value::Null | Value::Map(_) => Vec::new(),
    }
}

/// The act itself names a case that has no name.
fn title(case: &Node) -> String {
    let act =
        ["sql", "http"].iter().find_map(|key| case.field(key).and_then(Node::scalar)).unwrap_or("connect");
    act.chars().take(TITLE).collect()
}

/// The effects of a list of names.
pub(super) fn effects(node: &Node) -> Result<Effects, Mistake> {
    list(node).iter().try_fold(Effects::NONE, |set, name| {
        let effect =
            Effect::parse(name).ok_or_else(|| (node.line, format!("no effect is named {name:?}")))?;
        Ok(set.with(effect))
    })
}

/// Characters of an act shown as a title.
const TITLE: usize = 70;

const CASE_KEYS: [&str; 13] = [
    "name", "policy", "at", "as", "dst", "database", "catalog", "sql", "http", "connect", "body", "response",
    "expect",
];

const ACTOR_KEYS: [&str; 6] = ["workload", "user", "group", "groups", "exe", "uid"];
