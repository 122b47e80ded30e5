//! What the session asks of a policy, and how the verdicts on the statements of one message become one ruling.
//! It refuses to weaken: of several verdicts the strictest decides, of several masks the stricter.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Debug;

use super::deny::Pill;
use crate::action::{Action, Context, Statement};
use crate::approval::{Answer, Question};
use crate::audit::{Decision, Durability};
use crate::detect::{ClassId, ClassSet, Finding};
use crate::mask::Key;
use crate::policy::{
    Approval, Judgement, MaskPlan, MaskRule, Needs, Permit, Policy, ProtectedColumns, Verdict, Would,
};
use crate::sql::Catalog;

/// The policy, as this session sees it; tests put a small one of their own in its place.
pub trait Rules: Debug + Send + Sync {
    fn judge(&self, context: &Context<'_>, action: &Action<'_>) -> Judgement;
    /// Why the connection itself may not be: target, rule and message.
    fn refuses(&self, context: &Context<'_>) -> Option<(Arc<str>, Arc<str>, Arc<str>)>;
    fn needs(&self, context: &Context<'_>) -> Needs;
    fn protected_columns(&self, catalog: &Catalog) -> ProtectedColumns;
    fn classes_named(&self, column: &str) -> Vec<ClassId>;
    fn class_name(&self, class: ClassId) -> &str;
    fn classes(&self) -> &ClassSet;
    fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>);
    fn mask(&self, rule: &MaskRule, value: &str, key: &Key) -> Option<String>;
    fn grant(&self, question: &Question, answer: &Answer) -> Option<Permit>;
    fn commit(&self) -> &str;
    fn sha(&self) -> &str;
}

impl Rules for Policy {
    fn judge(&self, context: &Context<'_>, action: &Action<'_>) -> Judgement {
        Policy::judge(self, context, action)
    }

    fn refuses(&self, context: &Context<'_>) -> Option<(Arc<str>, Arc<str>, Arc<str>)> {
        let judgement = Policy::connection(self, context);
        let message = match judgement.verdict {
            Verdict::Allow(_) => return None,
            Verdict::Deny { message } => message,
            Verdict::Approve(_) => "a connection cannot wait for an approval".into(),
        };
        Some((judgement.target, judgement.rule, message))
    }

    fn needs(&self, context: &Context<'_>) -> Needs {
        Policy::needs(self, context, None)
    }

    fn protected_columns(&self, catalog: &Catalog) -> ProtectedColumns {
        Policy::protected_columns(self, catalog)
    }

    fn classes_named(&self, column: &str) -> Vec<ClassId> {
        Policy::classes_named(self, column).collect()
    }

    fn class_name(&self, class: ClassId) -> &str {
        Policy::class_name(self, class)
    }

    fn classes(&self) -> &ClassSet {
        Policy::classes(self)
    }

    fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>) {
        self.scanner().find(text, wanted, found);
    }

    fn mask(&self, rule: &MaskRule, value: &str, key: &Key) -> Option<String> {
        rule.mask.apply(self.class_name(rule.class), value, key)
    }

    fn grant(&self, question: &Question, answer: &Answer) -> Option<Permit> {
        Policy::grant(question, answer)
    }

    fn commit(&self) -> &str {
        Policy::commit(self)
    }

    fn sha(&self) -> &str {
        Policy::sha(self)
    }
}

/// The two are the same loaded policy.
pub fn same(one: &Arc<dyn Rules>, other: &Arc<dyn Rules>) -> bool {
    core::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

/// What may become of one client message.
#[derive(Debug)]
pub enum Ruled {
    Allow(Permit),
    Ask(Arc<Approval>),
    Deny(Pill),
}

/// The verdict on one client message, all its statements taken together.
#[derive(Debug)]
pub struct Ruling {
    pub verdict: Ruled,
    pub target: Arc<str>,
    pub rule: Arc<str>,
    pub plan: Arc<MaskPlan>,
    pub durability: Durability,
    pub would: Option<Would>,
}

impl Ruling {
    pub fn decision(&self, masks: bool) -> Decision {
        match (&self.verdict, &self.would) {
            (Ruled::Deny(_), _) => Decision::Denied,
            (Ruled::Ask(_), _) => Decision::Held,
            (Ruled::Allow(_), Some(would)) => would.decision,
            (Ruled::Allow(_), None) if masks => Decision::Masked,
            (Ruled::Allow(_), None) => Decision::Allowed,
        }
    }

    pub fn refuse(&mut self, rule: Arc<str>, pill: Pill) {
        self.rule = rule;
        self.verdict = Ruled::Deny(pill);
    }
}

/// Judges every statement; `None` when there is none (an empty query does nothing).
pub fn judge(rules: &dyn Rules, context: &Context<'_>, statements: &[Statement]) -> Option<Ruling> {
    let mut judged = statements.iter().map(|statement| ruling(rules.judge(context, &Action::Sql(statement))));
    let first = judged.next()?;
    Some(judged.fold(first, stricter))
}

fn ruling(judgement: Judgement) -> Ruling {
    let Judgement { verdict, target, rule, masks, injects: _, durability, would } = judgement;
    let verdict = match verdict {
        Verdict::Allow(permit) => Ruled::Allow(permit),
        Verdict::Approve(approval) => Ruled::Ask(approval),
        Verdict::Deny { message } => Ruled::Deny(Pill::denied(&message)),
    };
    Ruling { verdict, target, rule, plan: masks, durability, would }
}

fn stricter(one: Ruling, other: Ruling) -> Ruling {
    let plan = union(&one.plan, &other.plan);
    let durability = match (one.durability, other.durability) {
        (Durability::Fast, Durability::Fast) => Durability::Fast,
        (Durability::Strict, _) | (_, Durability::Strict) => Durability::Strict,
    };
    let (mut kept, dropped) =
        if rank(&other.verdict) > rank(&one.verdict) { (other, one) } else { (one, other) };
    if let (Ruled::Ask(first), Ruled::Ask(second)) = (&kept.verdict, &dropped.verdict)
        && first != second
    {
        kept.verdict = Ruled::Deny(Pill::denied(&format!(
            "rules {} and {} need different approvals: send the statements one by one",
            kept.rule, dropped.rule
        )));
    }
    let would = kept.would.or(dropped.would);
    Ruling { plan, durability, would, ..kept }
}

fn rank(verdict: &Ruled) -> u8 {
    match verdict {
        Ruled::Allow(_) => 0,
        Ruled::Ask(_) => 1,
        Ruled::Deny(_) => 2,
    }
}

/// Both plans at once; equal plans, the usual case, are shared.
fn union(one: &Arc<MaskPlan>, other: &Arc<MaskPlan>) -> Arc<MaskPlan> {
    if Arc::ptr_eq(one, other) || one == other || *other == Arc::default() {
        return one.clone();
    }
    let mut plan = MaskPlan::clone(one);
    plan.request.extend(other.request.iter().cloned());
    plan.response.extend(other.response.iter().cloned());
    Arc::new(plan)
}

/// The strictest rule of a plan for any of these classes.
pub fn strictest(
    rules: &[MaskRule],
    mut is_one_of: impl FnMut(ClassId) -> bool,
) -> Option<(usize, &MaskRule)> {
    rules.iter().enumerate().filter(|(_, rule)| is_one_of(rule.class)).max_by_key(|(_, rule)| rule.mask)
}
