//! What the matching rules come to, and how several of them become one: joint approvals, the stricter mask.
//! It refuses to choose between contradictions: two credentials for one place refuse the act.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::rule::{Rule, Then};
use super::{Approval, Inject, MaskPlan, MaskRule, Permit, Verdict, Would};
use crate::audit::{Decision, Durability};

/// What would be decided if only some modes were in force.
#[derive(Debug, PartialEq)]
pub(super) struct Outcome<'p> {
    pub(super) choice: Choice,
    pub(super) rule: Arc<str>,
    /// File that decided, where one did.
    pub(super) file: Option<usize>,
    pub(super) masks: Vec<(&'p Arc<MaskPlan>, &'p Arc<str>)>,
    pub(super) injects: Vec<Arc<Inject>>,
    pub(super) durability: Option<Durability>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Choice {
    Allow,
    Deny(Arc<str>),
    Approve(Arc<Approval>),
}

impl Outcome<'_> {
    pub(super) fn decide(&mut self, choice: Choice, rule: &Rule) {
        self.choice = choice;
        self.rule = rule.name.clone();
        self.file = Some(rule.file);
    }

    /// What this outcome would take away that `enforced` does not.
    pub(super) fn beyond(&self, enforced: &Outcome<'_>) -> Option<Would> {
        let would = |decision, rule: &Arc<str>| Some(Would { decision, rule: rule.clone() });
        match (&self.choice, &enforced.choice) {
            (_, Choice::Deny(_)) => None,
            (Choice::Deny(_), Choice::Allow | Choice::Approve(_)) => would(Decision::WouldDeny, &self.rule),
            (Choice::Approve(_), Choice::Allow) => would(Decision::WouldHold, &self.rule),
            (Choice::Allow | Choice::Approve(_), Choice::Allow | Choice::Approve(_)) => self
                .masks
                .iter()
                .find(|mask| !enforced.masks.contains(mask))
                .and_then(|(_, rule)| would(Decision::WouldMask, rule)),
        }
    }
}

impl Choice {
    pub(super) fn into_verdict(self) -> Verdict {
        match self {
            Choice::Allow => Verdict::Allow(Permit(())),
            Choice::Deny(message) => Verdict::Deny { message },
            Choice::Approve(approval) => Verdict::Approve(approval),
        }
    }
}

/// One question for all rules that ask: only who may answer each of them may answer it, in the shortest time.
pub(super) fn joint_approval(rules: &[&Rule]) -> Choice {
    let mut asked = rules.iter().filter_map(|rule| match &rule.then {
        Then::Approve(approval) => Some(approval),
        Then::Allow | Then::Deny(_) | Then::Mask(_) | Then::Inject(_) | Then::Opaque => None,
    });
    let Some(first) = asked.next() else { return Choice::Deny("no approval is possible".into()) };
    let mut joint = Approval::clone(first);
    let mut alone = true;
    for other in asked {
        alone = false;
        joint.by.retain(|who| other.by.contains(who));
        joint.within_ns = joint.within_ns.min(other.within_ns);
    }
    if joint.by.is_empty() {
        let names: Vec<&str> = rules.iter().map(|rule| &*rule.name).collect();
        return Choice::Deny(
            format!("the rules {} ask different approvers, and nobody may answer for all", names.join(", "))
                .into(),
        );
    }
    Choice::Approve(if alone { first.clone() } else { joint.into() })
}

/// Two credentials for one place.
pub(super) fn contradiction(injects: &[Arc<Inject>]) -> Option<String> {
    for (place, one) in injects.iter().enumerate() {
        for other in injects.iter().skip(place + 1).filter(|other| *other != one) {
            match (&**one, &**other) {
                (Inject::Header { name, .. }, Inject::Header { name: again, .. })
                    if name.eq_ignore_ascii_case(again) =>
                {
                    return Some(format!("two policies inject different values for the header {name}"));
                }
                (Inject::Login { .. }, Inject::Login { .. }) => {
                    return Some("two policies inject different logins".into());
                }
                (
                    Inject::Header { .. } | Inject::Login { .. },
                    Inject::Header { .. } | Inject::Login { .. },
                ) => {}
            }
        }
    }
    None
}

/// The masks of all rules; of two on one class the stricter wins.
pub(super) fn plan(masks: &[(&Arc<MaskPlan>, &Arc<str>)], none: &Arc<MaskPlan>) -> Arc<MaskPlan> {
    match masks {
        [] => Arc::clone(none),
        [(one, _)] => Arc::clone(one),
        many => {
            let mut joint = MaskPlan::default();
            for (plan, _) in many {
                plan.request.iter().for_each(|rule| stricter(&mut joint.request, rule));
                plan.response.iter().for_each(|rule| stricter(&mut joint.response, rule));
            }
            joint.request.sort_by_key(|rule| rule.class);
            joint.response.sort_by_key(|rule| rule.class);
            joint.into()
        }
    }
}

pub(super) fn stricter(list: &mut Vec<MaskRule>, rule: &MaskRule) {
    match list.iter_mut().find(|own| own.class == rule.class) {
        Some(own) => {
            let filter = own.filter.max(rule.filter);
            if own.mask < rule.mask {
                own.clone_from(rule);
            }
            own.filter = filter;
        }
        None => list.push(rule.clone()),
    }
}
