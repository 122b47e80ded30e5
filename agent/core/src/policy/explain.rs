//! Why a verdict is what it is: the facts, every rule that was looked at, and the result.
//! It refuses to judge a second time: the result is the judge's own.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;

use super::condition::{Facts, Part, Side};
use super::host::Reach;
use super::judge::{covers, restricts};
use super::rule::{Mode, Rule, Then};
use super::{Filter, MaskRule, Policy, Verdict, parts};
use crate::action::{Action, Context};
use crate::mask::Mask;

/// The whole story of one act.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// (name, value) of everything rules may look at.
    pub facts: Vec<(String, String)>,
    pub files: Vec<FileTrace>,
    /// Rules of the files that target the act.
    pub rules: Vec<RuleTrace>,
    /// `allow`, `deny` or `approve`.
    pub decision: String,
    pub target: String,
    pub rule: String,
    /// Of a refusal, or of the question.
    pub message: String,
    /// `class: mask (direction, rule)`.
    pub masks: Vec<String>,
    /// Where credentials go in; never what they are.
    pub injects: Vec<String>,
    pub durability: crate::audit::Durability,
    /// What enforcement would have decided, where it differs.
    pub would: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct FileTrace {
    pub policy: String,
    pub file: String,
    pub line: u32,
    pub targets: bool,
    pub why: String,
}

#[derive(Debug, Serialize)]
pub struct RuleTrace {
    pub policy: String,
    pub rule: String,
    pub file: String,
    pub line: u32,
    pub then: &'static str,
    pub monitored: bool,
    pub matched: bool,
    pub why: String,
}

pub(super) fn explain(policy: &Policy, context: &Context<'_>, action: &Action<'_>) -> Explanation {
    let facts = Facts::new(context, action, &policy.scanner);
    let judgement = policy.judge(context, action);
    let (decision, message) = match &judgement.verdict {
        Verdict::Allow(_) => ("allow", String::new()),
        Verdict::Deny { message } => ("deny", message.to_string()),
        Verdict::Approve(approval) => {
            ("approve", format!("{} (by {})", approval.message, approval.by.join(", ")))
        }
    };
    let mut masks: Vec<String> = Vec::new();
    for (direction, list) in [("request", &judgement.masks.request), ("response", &judgement.masks.response)]
    {
        masks.extend(list.iter().map(|mask| describe(policy, direction, mask)));
    }
    Explanation {
        facts: facts_of(context, action),
        files: policy.files.iter().map(|file| file_trace(file, &facts)).collect(),
        rules: rules(policy, &facts),
        decision: decision.into(),
        target: judgement.target.to_string(),
        rule: judgement.rule.to_string(),
        message,
        masks,
        injects: judgement.injects.iter().map(|inject| place(inject)).collect(),
        durability: judgement.durability,
        would: judgement.would.map(|would| {
            let decision = match would.decision {
                crate::audit::Decision::WouldDeny => "deny",
                crate::audit::Decision::WouldHold => "approve",
                crate::audit::Decision::WouldMask => "mask",
                crate::audit::Decision::Allowed
                | crate::audit::Decision::Masked
                | crate::audit::Decision::Denied
                | crate::audit::Decision::Held
                | crate::audit::Decision::Approved
                | crate::audit::Decision::Expired
                | crate::audit::Decision::Failed => "differ",
            };
            format!("{decision} by {}", would.rule)
        }),
    }
}

/// How a mask is written in policies and listings.
#[must_use]
pub fn mask_name(mask: Mask) -> String {
    match mask {
        Mask::Partial { first, last } => format!("partial(first {first}, last {last})"),
        Mask::Hash { length } => format!("hash({length})"),
        Mask::Token => "token".to_owned(),
        Mask::Redact => "redact".to_owned(),
        Mask::Nullify => "nullify".to_owned(),
    }
}

fn describe(policy: &Policy, direction: &str, mask: &MaskRule) -> String {
    let class = policy.class_name(mask.class);
    let filter = match mask.filter {
        Filter::Allow => ", filter allow",
        Filter::Equality => "",
        Filter::Deny => ", filter deny",
    };
    format!("{class}: {} ({direction}{filter}, {})", mask_name(mask.mask), mask.rule)
}

fn place(inject: &super::Inject) -> String {
    match inject {
        super::Inject::Header { name, secret, .. } => {
            format!("header {name} from {}#{}", secret.provider, secret.name)
        }
        super::Inject::Login { user, password, .. } => {
            format!("login {user} from {}#{}", password.provider, password.name)
        }
    }
}

fn facts_of(context: &Context<'_>, action: &Action<'_>) -> Vec<(String, String)> {
    let identity = context.identity;
    let names = context.destination.names().iter();
    let names: Vec<String> = names.map(|name| format!("{} ({:?})", name.host, name.evidence)).collect();
    let mut facts: Vec<(&str, String)> = alloc::vec![
        ("workload", identity.workload.clone()),
        ("user", identity.user.clone()),
        ("groups", identity.groups.join(", ")),
        ("exe", identity.process.exe.clone()),
        ("uid", identity.process.uid.to_string()),
        ("destination", context.destination.address().to_string()),
        ("names", names.join(", ")),
        ("protocol", context.protocol.name().to_owned()),
        ("database", context.database.to_owned()),
    ];
    match action {
        Action::Connect => facts.push(("act", "connect".to_owned())),
        Action::Sql(statement) => {
            let effects: Vec<&str> = statement.effects.iter().map(|effect| effect.name()).collect();
            let relations = statement.relations.iter().map(|relation| {
                let schema = relation.schema.as_deref().unwrap_or("?");
                format!("{schema}.{} ({:?})", relation.name, relation.access).to_lowercase()
            });
            let functions = statement.functions.iter().filter(|function| !function.safe);
            facts.push(("effects", effects.join(", ")));
            facts.push(("relations", relations.collect::<Vec<_>>().join(", ")));
            facts.push((
                "functions",
                functions.map(|function| function.name.as_str()).collect::<Vec<_>>().join(", "),
            ));
            facts.push((
                "objects",
                statement
                    .objects
                    .iter()
                    .map(|object| format!("{object:?}").to_lowercase())
                    .collect::<Vec<_>>()
                    .join(", "),
            ));
            facts.push(("without_where", statement.without_where.to_string()));
            facts.push(("opaque", statement.opaque.to_string()));
        }
        Action::Http(request) => {
            facts.push(("request", format!("{} {} (host {})", request.method, request.path, request.host)));
            facts.push(("also read as", request.other_paths.join(" or ")));
            let body =
                request.body.map_or_else(|| "not read".to_owned(), |body| format!("{} bytes", body.len()));
            facts.push(("body", body));
        }
        Action::Response(response) => facts.push(("status", response.status.to_string())),
    }
    facts
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn file_trace(file: &super::rule::PolicyFile, facts: &Facts<'_>) -> FileTrace {
    let context = facts.context;
    let reach = match facts.action {
        Action::Connect => file.target.may_reach(context),
        Action::Sql(_) | Action::Http(_) | Action::Response(_) => {
            file.target.reach(context, facts.protocol, facts.request_host())
        }
    };
    let why = match reach {
        Reach::Address => "the address is in its target",
        Reach::Certificate => "the server proved the name by certificate",
        Reach::LookedUp => "the agent's own look-up of the name gave this address",
        Reach::Claimed => "the name is only claimed: rules that restrict apply, rules that admit do not",
        Reach::No if file.target.place(context, facts.request_host()).restricts() => {
            "another protocol or database"
        }
        Reach::No => "another destination",
    };
    FileTrace {
        policy: file.name.to_string(),
        file: file.path.to_string(),
        line: file.line,
        targets: reach.restricts(),
        why: why.to_owned(),
    }
}

fn rules(policy: &Policy, facts: &Facts<'_>) -> Vec<RuleTrace> {
    let mut traces = Vec::new();
    for rule in &policy.rules {
        let Some(file) = policy.files.get(rule.file) else { continue };
        let trace = file_trace(file, facts);
        if !trace.targets {
            continue;
        }
        let (matched, why) = match rule.stage.judges(facts.action) {
            true => why(rule, facts),
            false => (false, "looks at another stage of the connection".to_owned()),
        };
        traces.push(RuleTrace {
            policy: file.name.to_string(),
            rule: rule.name.to_string(),
            file: file.path.to_string(),
            line: rule.line,
            then: rule.then.name(),
            monitored: rule.mode == Mode::Monitor,
            matched,
            why,
        });
    }
    traces
}

fn why(rule: &Rule, facts: &Facts<'_>) -> (bool, String) {
    let parts = match facts.action {
        Action::Sql(statement) => parts::to_cover(statement),
        Action::Connect | Action::Http(_) | Action::Response(_) => alloc::vec![Part::default()],
    };
    match rule.then {
        Then::Deny(_) | Then::Mask(_) | Then::Approve(_) => {
            if restricts(rule, facts) {
                return (true, "matches".to_owned());
            }
            (false, blame(rule, facts, parts.first().copied().unwrap_or_default(), Side::Restrict))
        }
        Then::Allow | Then::Inject(_) | Then::Opaque => {
            let open: Vec<Part<'_>> =
                parts.iter().copied().filter(|part| !covers(rule, facts, *part)).collect();
            match (open.first(), open.len() == parts.len()) {
                (None, _) => (true, "covers the whole act".to_owned()),
                (Some(part), true) => (false, blame(rule, facts, *part, Side::Admit)),
                (Some(part), false) => (true, format!("covers a part, not {}", part_name(*part))),
            }
        }
    }
}

fn blame(rule: &Rule, facts: &Facts<'_>, part: Part<'_>, side: Side) -> String {
    match rule.condition.blame(facts, part, side) {
        Some((test, false)) => format!("{} does not match", test.key()),
        Some((test, true)) => format!("excluded by not: {}", test.key()),
        None if part.effect.is_some() && !rule.names_unknown => {
            "the effect unknown is admitted only by a rule that names it".to_owned()
        }
        None => "does not match".to_owned(),
    }
}

fn part_name(part: Part<'_>) -> String {
    match (part.effect, part.relation) {
        (Some(effect), Some(relation)) => format!("{} on {}", effect.name(), relation.name),
        (Some(effect), None) => effect.name().to_owned(),
        (None, _) => "the act".to_owned(),
    }
}
