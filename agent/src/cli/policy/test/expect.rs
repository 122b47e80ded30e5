//! `expect:` of a case, and how a verdict differs from it.

use weir_core::action::Effects;
use weir_core::policy::{Node, Policy, Value};

use super::case::{Mistake, Verdicts, effects, list};
use super::strangers;

/// Only what is written is compared.
pub(super) struct Expected {
    decision: Option<String>,
    rule: Option<String>,
    reason: Option<String>,
    effects: Option<Effects>,
    /// Classes, and their mask where it is named.
    masks: Option<Vec<(String, Option<String>)>>,
    inject: Option<bool>,
    durability: Option<String>,
    would: Option<String>,
}

impl Expected {
    pub(super) fn read(node: &Node, policy: &Policy) -> Result<Expected, Mistake> {
        if let Some((line, key)) = strangers(node, &KEYS).first() {
            return Err((*line, format!("unknown key {key:?} in expect (known: {})", KEYS.join(", "))));
        }
        let word = |name: &str, allowed: &[&str]| match node.field(name) {
            None => Ok(None),
            Some(node) => match node.scalar().filter(|text| allowed.is_empty() || allowed.contains(text)) {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err((node.line, format!("{name} is one of {}", allowed.join(", ")))),
            },
        };
        let inject = word("inject", &["true", "false"])?.map(|text| text == "true");
        let expected = Expected {
            decision: word("decision", &["allow", "deny", "approve"])?,
            rule: word("rule", &[])?,
            reason: word("reason", &[])?,
            effects: node.field("effects").map(effects).transpose()?,
            masks: node.field("mask").map(|node| masks(node, policy)).transpose()?,
            durability: word("durability", &["fast", "strict"])?,
            would: word("would", &["deny", "approve", "mask", "nothing"])?,
            inject,
        };
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => Ok(expected),
            Value::Null | Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
                Err((node.line, "expect is empty, so the case tests nothing".into()))
            }
        }
    }

    pub(super) fn differences(&self, found: &Verdicts) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, wanted: &str, got: &str| {
            if wanted != got {
                differences.push(format!("{what}: expected {wanted}, got {got}"));
            }
        };
        if let Some(decision) = &self.decision {
            compare("decision", decision, found.decision);
        }
        if let Some(rule) = &self.rule {
            compare("rule", rule, &found.rule);
        }
        if let Some(effects) = self.effects {
            compare("effects", &names(effects), &names(found.effects));
        }
        if let Some(durability) = &self.durability {
            compare("durability", durability, &found.durability);
        }
        if let Some(would) = &self.would {
            compare("would", would, if found.would.is_empty() { "nothing" } else { &found.would });
        }
        if let Some(inject) = self.inject {
            compare("inject", &inject.to_string(), &(found.injects > 0).to_string());
        }
        if let Some(masks) = &self.masks {
            compare_masks(masks, &found.masks, &mut differences);
        }
        if let Some(reason) = self.reason.as_ref().filter(|reason| !found.message.contains(reason.as_str())) {
            differences.push(format!("reason: expected {reason:?} in {:?}", found.message));
        }
        if let (false, Some(_)) = (differences.is_empty() || found.message.is_empty(), &self.decision) {
            differences.push(format!("the verdict said: {}", found.message));
        }
        differences
    }
}

/// Every expected class is masked as expected, and no other class is masked.
fn compare_masks(wanted: &[(String, Option<String>)], found: &[(String, String)], into: &mut Vec<String>) {
    for (class, mask) in wanted {
        match found.iter().find(|(own, _)| own == class) {
            None => into.push(format!("mask: {class} is not masked")),
            Some((_, own)) => {
                if let Some(mask) = mask.as_ref().filter(|mask| !own.starts_with(mask.as_str())) {
                    into.push(format!("mask: {class}: expected {mask}, got {own}"));
                }
            }
        }
    }
    for (class, mask) in found.iter().filter(|(class, _)| !wanted.iter().any(|(own, _)| own == class)) {
        into.push(format!("mask: {class} is masked ({mask}), which was not expected"));
    }
}

/// `[ssn, email]` or `{ssn: redact}`.
fn masks(node: &Node, policy: &Policy) -> Result<Vec<(String, Option<String>)>, Mistake> {
    let masks: Vec<(String, Option<String>)> = match &node.value {
        Value::Map(entries) => {
            entries.iter().map(|(key, mask)| (key.text.clone(), mask.scalar().map(str::to_owned))).collect()
        }
        Value::Null | Value::Scalar(_) | Value::List(_) => {
            list(node).into_iter().map(|class| (class, None)).collect()
        }
    };
    match masks.iter().find(|(class, _)| policy.class_named(class).is_none()) {
        Some((class, _)) => Err((node.line, format!("no class is named {class:?}"))),
        None => Ok(masks),
    }
}

fn names(effects: Effects) -> String {
    effects.iter().map(|effect| effect.name()).collect::<Vec<_>>().join(", ")
}

const KEYS: [&str; 8] = ["decision", "rule", "reason", "effects", "mask", "inject", "durability", "would"];
