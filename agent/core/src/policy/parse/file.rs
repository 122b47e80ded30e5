//! One `policy:` document: its target, mode, default, credentials and rules.
//! It refuses rules that can never fire and rules that share a name.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::condition::Condition;
use super::super::node::Node;
use super::super::rule::{Mode, PolicyFile, Rule, Stage, Target, Then};
use super::super::{Inject, TargetTls};
use super::matching::Scope;
use super::{Draft, Keys, Lexicon, Reader, matching, outcome, suggestion, target};
use crate::action::Protocol;
use crate::audit::Durability;

pub(super) fn policy(
    reader: &mut Reader<'_>,
    root: &Node,
    bundle: Option<Mode>,
    lexicon: &Lexicon<'_>,
) -> Option<Draft> {
    let fields = reader.map(root, &KEYS);
    let field =
        |name: &str| fields.iter().find(|(key, ..)| *key == name).map(|(_, line, node)| (*line, *node));
    let name = field("policy").and_then(|(_, node)| reader.text(node, "policy"));
    if let Some(name) = name.filter(|name| !is_label(name)) {
        reader.problem(root.line, format!("policy name {name:?}: use letters, digits, `-`, `_` and `.`"));
    }
    let mode = field("mode").and_then(|(_, node)| mode(reader, node)).or(bundle).unwrap_or_default();
    let allows = field("default").is_some_and(|(_, node)| {
        reader.choice(node, "default", &[("deny", false), ("allow", true)]).unwrap_or(false)
    });
    if let Some((_, node)) = field("fallback") {
        fallback(reader, node);
    }
    if let Some((_, node)) = field("require") {
        require(reader, node, lexicon);
    }
    let tls = field("tls").map_or_else(TargetTls::default, |(_, node)| target::tls(reader, node));
    let Some((_, target_node)) = field("target") else {
        reader.problem(root.line, "the policy has no target: say which host it is for");
        return None;
    };
    let target = target::target(reader, target_node);
    // Without a target the rules are still read, so that their mistakes are told in the same run.
    let unknown = Target { protocol: None, hosts: Vec::new(), ports: Vec::new(), databases: Vec::new() };
    let own = target.as_ref().unwrap_or(&unknown);
    let injects = match (field("inject"), &target) {
        (Some((_, node)), Some(own)) => target::injects(reader, node, own, &tls, lexicon),
        (Some(_), None) | (None, _) => Vec::new(),
    };
    if tls.mode == super::super::TlsMode::Off
        && injects.iter().any(|own| matches!(*own.inject, Inject::Header { .. }))
    {
        reader.problem(root.line, "tls mode off sends injected headers in clear text: use auto or verify");
    }
    let scope = Scope { lexicon, protocol: own.protocol, unsure: target.is_none() };
    let mut draft = Vec::new();
    match field("rules") {
        Some((_, node)) => {
            for item in reader.items(node, "rules") {
                if let Some(rule) = rule(reader, item, own, &tls, mode, scope) {
                    refuse_twin(reader, &rule, &draft);
                    draft.push(rule);
                }
            }
        }
        None if !allows => reader.problem(
            root.line,
            "the policy has no rules and `default: deny`, so everything to its target is refused; say so with a deny rule",
        ),
        None => {}
    }
    let file = PolicyFile {
        name: name?.into(),
        path: reader.file.clone(),
        line: root.line,
        target: target?,
        mode,
        allows,
        injects,
        tls,
    };
    Some(Draft { file, rules: draft })
}

pub(super) fn mode(reader: &mut Reader<'_>, node: &Node) -> Option<Mode> {
    reader.choice(node, "mode", &[("enforce", Mode::Enforce), ("monitor", Mode::Monitor)])
}

/// Layers of the fence without which this policy promises nothing: where one is missing the bundle is refused.
fn require(reader: &mut Reader<'_>, node: &Node, lexicon: &Lexicon<'_>) {
    for (line, layer) in reader.texts(node, "require") {
        let Some(known) = &lexicon.surroundings.layers else { continue };
        match known.get(layer) {
            Some(true) => {}
            Some(false) => {
                reader
                    .problem(line, format!("this host's fence lacks the layer {layer:?}: see `weir check`"));
            }
            None => {
                let nearest = suggestion(layer, known.keys().map(String::as_str));
                reader.problem(line, format!("no layer of the fence is named {layer:?}{nearest}"));
            }
        }
    }
}

/// Every fallback this build has is `deny`; anything softer is refused rather than ignored.
fn fallback(reader: &mut Reader<'_>, node: &Node) {
    for (key, line, value) in reader.map(node, &FALLBACK_KEYS) {
        match reader.text(value, key) {
            Some("deny") | None => {}
            Some(other) => {
                reader.problem(line, format!("fallback {key}: {other} is not built yet; only deny is"));
            }
        }
    }
}

fn rule(
    reader: &mut Reader<'_>,
    node: &Node,
    target: &Target,
    tls: &TargetTls,
    inherited: Mode,
    scope: Scope<'_>,
) -> Option<Rule> {
    let fields = reader.map(node, &RULE_KEYS);
    let field = |name: &str| fields.iter().find(|(key, ..)| *key == name).map(|(.., node)| *node);
    let name = match field("name") {
        Some(node) => reader.text(node, "name"),
        None => {
            reader.problem(node.line, "the rule has no name");
            None
        }
    };
    if let Some(name) = name.filter(|name| !is_label(name) || *name == "default") {
        reader.problem(
            node.line,
            format!("rule name {name:?}: use letters, digits, `-`, `_` and `.`; `default` is taken"),
        );
    }
    let own_mode = field("mode").and_then(|node| mode(reader, node));
    let durability = field("durability").and_then(|node| {
        reader.choice(node, "durability", &[("fast", Durability::Fast), ("strict", Durability::Strict)])
    });
    let condition = match field("match") {
        Some(node) => matching::matching(reader, node, scope),
        None => {
            reader.problem(node.line, "the rule has no match; `match: {}` matches everything");
            None
        }
    };
    let then = match field("then") {
        Some(node) => outcome::then(reader, node, name.unwrap_or_default(), target, tls, scope.lexicon),
        None => {
            reader.problem(node.line, "the rule has no then: allow, deny, approve, mask, inject or opaque");
            None
        }
    };
    let (condition, then) = (condition?, then?);
    let rule = Rule {
        name: Arc::from(name?),
        file: 0,
        line: node.line,
        mode: own_mode.unwrap_or(inherited),
        stage: Stage::of(&condition),
        names_unknown: Rule::names_unknown(&condition),
        condition,
        then,
        durability,
    };
    if own_mode == Some(Mode::Monitor) && inherited == Mode::Enforce {
        refuse_idle_monitor(reader, &rule);
    }
    if !scope.unsure {
        refuse_dead(reader, &rule, target);
    }
    Some(rule)
}

/// A monitored rule shows what it *would take away*; one that gives has nothing to show.
fn refuse_idle_monitor(reader: &mut Reader<'_>, rule: &Rule) {
    match rule.then {
        Then::Allow | Then::Opaque | Then::Inject(_) => reader.problem(
            rule.line,
            format!(
                "rule {:?}: mode monitor on {} does nothing: it neither admits nor is reported",
                rule.name,
                rule.then.name()
            ),
        ),
        Then::Deny(_) | Then::Approve(_) | Then::Mask(_) => {}
    }
}

/// Rules whose outcome and condition never meet.
fn refuse_dead(reader: &mut Reader<'_>, rule: &Rule, target: &Target) {
    let mut refuse = |reason: &str| reader.problem(rule.line, format!("rule {:?}: {reason}", rule.name));
    match (&rule.then, rule.stage) {
        (Then::Allow | Then::Approve(_) | Then::Mask(_) | Then::Inject(_), Stage::Response) => {
            refuse(
                "what depends on the response can only be denied: everything else is decided before the request leaves",
            );
        }
        (Then::Opaque, Stage::Act | Stage::Response) => {
            refuse("opaque passage is decided before anything is read: match only who, dst and when");
        }
        (Then::Approve(_), Stage::Connection) if target.protocol.is_none() => {
            refuse(
                "approval of a whole connection is not built yet; give the target a protocol, and acts are held one by one",
            );
        }
        (Then::Mask(_), _) if !matches!(target.protocol, Some(Protocol::Postgres | Protocol::Http)) => {
            refuse("masks need a target with `protocol: postgres` or `protocol: http`");
        }
        (Then::Opaque, Stage::Connection) if target.protocol.is_some_and(spoken) => {
            refuse(
                "the target's protocol is read, so nothing there is opaque; leave `protocol` out of the target",
            );
        }
        (Then::Allow | Then::Approve(_) | Then::Mask(_) | Then::Inject(_), _)
            if matches!(target.protocol, Some(Protocol::Ssh | Protocol::Tls | Protocol::Opaque)) =>
        {
            refuse(
                "this protocol is not read, so there is no act to decide about: use `opaque: allow` or deny",
            );
        }
        (
            Then::Allow | Then::Deny(_) | Then::Approve(_) | Then::Mask(_) | Then::Inject(_) | Then::Opaque,
            _,
        ) => {}
    }
    if rule.durability == Some(Durability::Fast) && !matches!(rule.then, Then::Allow | Then::Approve(_)) {
        refuse(
            "`durability: fast` is said by the rule that allows or approves; others may only ask for strict",
        );
    }
    if never(&rule.condition) {
        refuse("match can never be true: the same thing is asked for and excluded");
    }
}

fn spoken(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Postgres | Protocol::Http => true,
        Protocol::Opaque | Protocol::Tls | Protocol::Ssh => false,
    }
}

/// `{not: {}}`, alone or among others, excludes everything.
fn never(condition: &Condition) -> bool {
    match condition {
        Condition::All(all) => all.iter().any(never),
        Condition::Any(any) => any.iter().all(never),
        Condition::Not(inner) => always(inner),
        Condition::Test(_) => false,
    }
}

fn always(condition: &Condition) -> bool {
    match condition {
        Condition::All(all) => all.iter().all(always),
        Condition::Any(any) => any.iter().any(always),
        Condition::Not(inner) => never(inner),
        Condition::Test(_) => false,
    }
}

fn refuse_twin(reader: &mut Reader<'_>, rule: &Rule, earlier: &[Rule]) {
    if let Some(twin) = earlier.iter().find(|other| other.name == rule.name) {
        reader.problem(rule.line, format!("rule {:?} is already declared on line {}", rule.name, twin.line));
    }
}

fn is_label(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

const KEYS: Keys = Keys {
    of: "a policy",
    known: &["policy", "target", "mode", "default", "fallback", "inject", "tls", "rules", "require"],
    unbuilt: &[("record", "the audit row is always written; session recording comes later")],
};

const RULE_KEYS: Keys = Keys {
    of: "a rule",
    known: &["name", "mode", "match", "then", "durability"],
    unbuilt: &[("record", ""), ("alert", ""), ("limit", "")],
};

const FALLBACK_KEYS: Keys = Keys {
    of: "fallback",
    known: &["unknown_statement", "opaque_lineage", "untypable_mask", "policy_error"],
    unbuilt: &[],
};
