//! `then:` → what a rule does. A rule does one thing.
//! It refuses outcomes this build does not have, and masks that could reach nothing.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::node::{Node, Value};
use super::super::outcome::stricter;
use super::super::problem::suggestion;
use super::super::rule::{Target, Then};
use super::super::{Approval, Filter, MaskPlan, MaskRule, TargetTls};
use super::reader::duration_ns;
use super::{Keys, Lexicon, Reader, class, principal, target};
use crate::action::Protocol;
use crate::detect::ClassId;
use crate::limits::APPROVAL_NS;
use crate::mask::Mask;

pub(super) fn then(
    reader: &mut Reader<'_>,
    node: &Node,
    rule: &str,
    target: &Target,
    tls: &TargetTls,
    lexicon: &Lexicon<'_>,
) -> Option<Then> {
    match &node.value {
        Value::Scalar(word) => match word.as_str() {
            "allow" => Some(Then::Allow),
            "deny" => Some(Then::Deny(format!("refused by the rule {rule}").into())),
            other => {
                let nearest = suggestion(other, ["allow", "deny"]);
                reader.problem(node.line, format!("then cannot be {other:?}{nearest}"));
                None
            }
        },
        Value::Null | Value::List(_) | Value::Map(_) => {
            let fields = reader.map(node, &THEN_KEYS);
            let [(key, line, value)] = fields.as_slice() else {
                if fields.len() > 1 {
                    reader.problem(
                        node.line,
                        "a rule does one thing: write a rule for each (masks and injects add up)",
                    );
                }
                return None;
            };
            one(reader, key, *line, value, rule, target, tls, lexicon)
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one rule, passed on once")]
fn one(
    reader: &mut Reader<'_>,
    key: &str,
    line: u32,
    value: &Node,
    rule: &str,
    target: &Target,
    tls: &TargetTls,
    lexicon: &Lexicon<'_>,
) -> Option<Then> {
    match key {
        "allow" => match reader.boolean(value, "allow")? {
            true => Some(Then::Allow),
            false => {
                reader.problem(line, "allow: false says nothing; use deny");
                None
            }
        },
        "deny" => {
            let message = reader.text(value, "deny")?;
            if message.len() > MESSAGE_BYTES {
                reader.problem(value.line, format!("the message is longer than {MESSAGE_BYTES} bytes"));
            }
            Some(Then::Deny(message.into()))
        }
        "approve" => approve(reader, value, rule, lexicon).map(|approval| Then::Approve(Arc::new(approval))),
        "mask" => masks(reader, value, rule, target.protocol, lexicon).map(|plan| Then::Mask(Arc::new(plan))),
        "inject" => {
            let injects = target::rule_injects(reader, value, target, tls, lexicon);
            (!injects.is_empty()).then(|| Then::Inject(injects.into_iter().map(Arc::new).collect()))
        }
        "opaque" => match reader.text(value, "opaque")? {
            "allow" => Some(Then::Opaque),
            other => {
                reader.problem(value.line, format!("opaque cannot be {other:?}: only `opaque: allow`; without it, what weir does not speak is refused"));
                None
            }
        },
        other => {
            reader.problem(line, format!("`{other}` in then is read by nothing"));
            None
        }
    }
}

fn approve(reader: &mut Reader<'_>, node: &Node, rule: &str, lexicon: &Lexicon<'_>) -> Option<Approval> {
    let mut approval = Approval {
        by: Vec::new(),
        within_ns: APPROVAL_NS,
        message: format!("the rule {rule} asks for an approval").into(),
    };
    for (key, line, value) in reader.map(node, &APPROVE_KEYS) {
        match key {
            "by" => {
                for (line, who) in reader.texts(value, "by") {
                    approver(reader, line, who, lexicon);
                    approval.by.push(who.into());
                }
            }
            "within" => {
                let text = reader.text(value, "within")?;
                match duration_ns(text).filter(|time| (1..=LONGEST_WAIT_NS).contains(time)) {
                    Some(time) => approval.within_ns = time,
                    None => reader.problem(
                        value.line,
                        format!("within {text:?}: write a number and s, m or h, at most 24h"),
                    ),
                }
            }
            "reason" => approval.message = reader.text(value, "reason")?.into(),
            "quorum" => {
                if reader.number(value, "quorum", 100) != Some(1) {
                    reader.problem(value.line, "a quorum other than 1 is not built yet");
                }
            }
            "scope" => {
                if reader.text(value, "scope") != Some("statement") {
                    reader.problem(
                        value.line,
                        "only `scope: statement` is built: each act is approved by itself",
                    );
                }
            }
            other => reader.problem(line, format!("`{other}` in approve is read by nothing")),
        }
    }
    approval.by.sort();
    approval.by.dedup();
    if approval.by.is_empty() {
        reader.problem(node.line, "approve needs by: a list of group: and user: who may answer");
        return None;
    }
    Some(approval)
}

fn approver(reader: &mut Reader<'_>, line: u32, who: &str, lexicon: &Lexicon<'_>) {
    let own = lexicon.surroundings;
    match who.split_once(':') {
        _ if who.contains('*') => {
            reader.problem(line, format!("approver {who:?}: name people and groups whole"))
        }
        Some(("group", name)) if !name.is_empty() => {
            principal::known(
                reader,
                line,
                "group",
                name,
                own.groups.as_deref(),
                "any person's `groups` in the configuration",
            );
        }
        Some(("user", name)) if !name.is_empty() => {
            principal::known(
                reader,
                line,
                "user",
                name,
                own.users.as_deref(),
                "`people` of the configuration",
            );
        }
        Some(_) | None => reader.problem(line, format!("approver {who:?}: write group:NAME or user:NAME")),
    }
}

fn masks(
    reader: &mut Reader<'_>,
    node: &Node,
    rule: &str,
    protocol: Option<Protocol>,
    lexicon: &Lexicon<'_>,
) -> Option<MaskPlan> {
    let mut plan = MaskPlan::default();
    for item in reader.items(node, "mask") {
        let fields = reader.map(item, &MASK_KEYS);
        let field = |name: &str| fields.iter().find(|(key, ..)| *key == name).map(|(.., node)| *node);
        let (Some(class_node), Some(with)) = (field("class"), field("with")) else {
            if let Value::Map(_) = item.value {
                reader.problem(item.line, "a mask needs class and with, as in {class: email, with: redact}");
            }
            continue;
        };
        let id =
            reader.text(class_node, "class").and_then(|name| lexicon.class(reader, class_node.line, name));
        let mask = mask(reader, with);
        let directions = [("request", (true, false)), ("response", (false, true)), ("both", (true, true))];
        let (request, response) =
            field("in").and_then(|node| reader.choice(node, "in", &directions)).unwrap_or((false, true));
        if request && protocol == Some(Protocol::Postgres) {
            reader.problem(
                item.line,
                "masking what goes to PostgreSQL is not built yet: leave `in` out, or use `in: response`",
            );
        }
        let filters = [("deny", Filter::Deny), ("equality", Filter::Equality), ("allow", Filter::Allow)];
        let filter = field("filter").and_then(|node| reader.choice(node, "filter", &filters));
        if filter.is_some() && (protocol == Some(Protocol::Http) || !response) {
            reader.problem(item.line, "filter is about columns in SQL: this mask has none to watch");
        }
        let (Some(class), Some(mask)) = (id, mask) else { continue };
        reachable(reader, class_node.line, class, protocol, lexicon);
        let entry = MaskRule { class, mask, filter: filter.unwrap_or_default(), rule: rule.into() };
        if request {
            add(reader, item.line, &mut plan.request, &entry);
        }
        if response {
            add(reader, item.line, &mut plan.response, &entry);
        }
    }
    (plan != MaskPlan::default()).then_some(plan)
}

fn add(reader: &mut Reader<'_>, line: u32, list: &mut Vec<MaskRule>, entry: &MaskRule) {
    if list.iter().any(|own| own.class == entry.class) {
        reader.problem(line, "the class is masked twice in one rule");
    }
    stricter(list, entry);
}

/// A class must be findable where the mask is to be laid.
fn reachable(
    reader: &mut Reader<'_>,
    line: u32,
    id: ClassId,
    protocol: Option<Protocol>,
    lexicon: &Lexicon<'_>,
) {
    let detects = lexicon.classes.get(usize::from(id.0)).is_some_and(class::detects);
    let columns = lexicon.patterns.columns.iter().any(|(_, own)| *own == id);
    let json = lexicon.patterns.json.iter().any(|(_, own)| *own == id);
    match protocol {
        Some(Protocol::Postgres) if !columns && !detects => {
            reader.problem(
                line,
                "this mask can never fire: the class has neither columns nor anything to detect",
            );
        }
        Some(Protocol::Http) if !json && !detects => {
            reader.problem(
                line,
                "this mask can never fire: the class has neither json paths nor anything to detect",
            );
        }
        Some(Protocol::Postgres | Protocol::Http | Protocol::Opaque | Protocol::Tls | Protocol::Ssh)
        | None => {}
    }
}

/// `redact`, `nullify`, `token`, `hash`, `{hash: {len: 16}}`, `{partial: {first: 0, last: 4}}`.
fn mask(reader: &mut Reader<'_>, node: &Node) -> Option<Mask> {
    if let Value::Scalar(_) = node.value {
        let words = [
            ("redact", Mask::Redact),
            ("nullify", Mask::Nullify),
            ("token", Mask::Token),
            ("hash", Mask::Hash { length: 16 }),
            ("partial", Mask::Partial { first: 0, last: 4 }),
        ];
        return reader.choice(node, "with", &words);
    }
    let fields = reader.map(node, &WITH_KEYS);
    let [(kind, _, options)] = fields.as_slice() else {
        if fields.len() > 1 {
            reader.problem(node.line, "with takes one mask");
        }
        return None;
    };
    if *kind == "token" {
        let choices = [("opaque", Mask::Token)];
        let format = reader.map(options, &TOKEN_KEYS).first().map(|(.., node)| *node)?;
        if format.scalar() == Some("preserve") {
            reader.problem(format.line, "tokens that keep a format are not built yet; use opaque");
            return None;
        }
        return reader.choice(format, "format", &choices);
    }
    let keys = if *kind == "hash" { &HASH_KEYS } else { &PARTIAL_KEYS };
    let (mut length, mut first, mut last) = (16, 0, 0);
    for (key, _, value) in reader.map(options, keys) {
        let number = reader.number(value, key, 64).and_then(|number| u8::try_from(number).ok())?;
        match key {
            "len" => length = number,
            "first" => first = number,
            _ => last = number,
        }
    }
    match *kind {
        "hash" if length < 8 => {
            reader
                .problem(options.line, "a hash shorter than 8 digits gives equal values to different people");
            None
        }
        "hash" => Some(Mask::Hash { length }),
        _ if first == 0 && last == 0 => {
            reader.problem(
                options.line,
                "partial keeps first or last characters, as in {partial: {last: 4}}; to keep none use redact",
            );
            None
        }
        _ => Some(Mask::Partial { first, last }),
    }
}

/// Bytes of a message to a user.
const MESSAGE_BYTES: usize = 500;
/// A held act keeps a connection open; nobody waits longer than a day.
const LONGEST_WAIT_NS: u64 = 86_400 * 1_000_000_000;

const THEN_KEYS: Keys = Keys {
    of: "then",
    known: &["allow", "deny", "approve", "mask", "inject", "opaque"],
    unbuilt: &[
        ("limit", ""),
        ("clamp", ""),
        ("alert", "refusals are in the audit, and `weir audit tail` follows it"),
        ("record", "the audit row is always written"),
    ],
};

const APPROVE_KEYS: Keys = Keys {
    of: "approve",
    known: &["by", "within", "reason", "quorum", "scope"],
    unbuilt: &[
        ("lasts", "each act is approved by itself"),
        ("show", "approvers always see the whole act"),
        ("ticket", ""),
    ],
};

const MASK_KEYS: Keys = Keys {
    of: "a mask",
    known: &["class", "with", "in", "filter"],
    unbuilt: &[
        ("derived", "values computed from a masked column are masked whole or refused"),
        ("max_probes", ""),
        ("reversible", ""),
        ("json", "give the class a json path"),
    ],
};

const WITH_KEYS: Keys = Keys {
    of: "with",
    known: &["partial", "hash", "token"],
    unbuilt: &[("fpe", ""), ("shift", ""), ("bucket", ""), ("truncate", ""), ("drop", "")],
};

const HASH_KEYS: Keys = Keys { of: "hash", known: &["len"], unbuilt: &[] };
const PARTIAL_KEYS: Keys = Keys {
    of: "partial",
    known: &["first", "last"],
    unbuilt: &[("char", ""), ("keep_separators", "separators are always kept")],
};
const TOKEN_KEYS: Keys = Keys { of: "token", known: &["format"], unbuilt: &[] };
