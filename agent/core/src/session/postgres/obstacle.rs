//! What keeps an admitted statement from running: a value that must be masked and would not be.
//! It refuses before the server has seen the statement, so that nothing has to be taken back.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::describe::{Obstacle, View};
use super::judge::Rules;
use super::protected::Protected;
use super::statement::Known;
use super::{Conversation, Turn};
use crate::action::{Action, Context, Effect, Effects, Statement};
use crate::policy::{MaskPlan, Policy};
use crate::sql::{Catalog, Grammar};

impl Conversation {
    pub(super) fn obstacle(
        &mut self,
        turn: &Turn<'_>,
        known: &Known,
        plan: &Arc<MaskPlan>,
    ) -> Option<Obstacle> {
        if let Some(obstacle) =
            known.statements.iter().find_map(|each| self.covert_obstacle(turn, known, each))
        {
            return Some(obstacle);
        }
        if plan.response.is_empty() {
            return None;
        }
        if self.settings.encoding == super::settings::Encoding::Overlapping {
            let rule = plan.response.first()?.rule.clone();
            return Some(Obstacle {
                rule,
                message: "values cannot be masked in this client_encoding; use UTF8".into(),
            });
        }
        self.with_view(turn, plan, known.catalog.is_some(), |view| {
            known.statements.iter().find_map(|statement| view.obstacle(statement))
        })
    }

    /// What is written may be read later, and what a condition admits tells about what it looked at: both are weighed
    /// under the masks that reading the same relations would have.
    fn covert_obstacle(&mut self, turn: &Turn<'_>, known: &Known, statement: &Statement) -> Option<Obstacle> {
        let protected = self.catalog.protected(&turn.rules);
        let guarded = self.is_guarded(turn);
        let unread = known.catalog.is_none() || statement.relations.iter().any(|relation| relation.oid == 0);
        let probes = statement
            .probes
            .iter()
            .any(|probe| protected.holds_any(&probe.sources) || (probe.opaque && guarded && unread));
        if statement.stores.is_empty() && !probes {
            return None;
        }
        let plan = turn.rules.judge(&self.context(turn.now), &Action::Sql(&reading(statement))).masks;
        self.with_view(turn, &plan, known.catalog.is_some(), |view| view.covert_obstacle(statement))
    }
}

/// What would keep an admitted statement from running, and by which rule, as far as that can be told without a server.
#[must_use]
pub fn foresee(
    policy: &Arc<Policy>,
    context: &Context<'_>,
    statement: &Statement,
    catalog: &Arc<Catalog>,
    grammar: &dyn Grammar,
) -> Option<(Arc<str>, String)> {
    let rules: Arc<dyn Rules> = policy.clone();
    let protected = Protected::of(rules.as_ref(), catalog);
    let guarded = rules.needs(context).catalog;
    let see = |plan: &Arc<MaskPlan>, look: &dyn Fn(&View<'_>) -> Option<Obstacle>| {
        let texts = &catalog.texts;
        let catalog = Some(catalog);
        look(&View { rules: &rules, plan, catalog, protected: &protected, grammar, guarded, texts })
    };
    let read = policy.judge(context, &Action::Sql(&reading(statement))).masks;
    let plan = policy.judge(context, &Action::Sql(statement)).masks;
    let obstacle = see(&read, &|view| view.covert_obstacle(statement))
        .or_else(|| see(&plan, &|view| view.obstacle(statement)))?;
    Some((obstacle.rule, obstacle.message))
}

/// A statement that reads what this one touches.
fn reading(statement: &Statement) -> Statement {
    Statement {
        effects: Effects::of(&[Effect::Read]),
        relations: statement.relations.clone(),
        opaque: true,
        ..Statement::default()
    }
}

/// Values that must be masked on the way out cannot be, inside a statement: it is refused when it holds one.
pub(super) fn request_obstacle(
    turn: &Turn<'_>,
    statements: &[Statement],
    plan: &MaskPlan,
    message: &[u8],
) -> Option<Obstacle> {
    let first = plan.request.first()?;
    let wanted = crate::detect::ClassSet(plan.request.iter().map(|rule| rule.class).collect());
    let mut found = Vec::new();
    turn.rules.find(message, &wanted, &mut found);
    let copies = statements.iter().any(|statement| statement.effects.has(Effect::CopyIn));
    let message = match found.first() {
        Some(finding) => {
            format!("the statement holds a value of class {}", turn.rules.class_name(finding.class))
        }
        None if copies => "COPY data cannot be masked".into(),
        None => return None,
    };
    Some(Obstacle { rule: first.rule.clone(), message })
}
