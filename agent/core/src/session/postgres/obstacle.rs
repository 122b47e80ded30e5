//! What keeps an admitted statement from running: a value that must be masked and would not be.
//! It refuses before the server has seen the statement, so that nothing has to be taken back.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::describe::Obstacle;
use super::statement::Known;
use super::{Conversation, Turn};
use crate::action::{Action, Effect, Effects, Statement};
use crate::policy::MaskPlan;

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
        let read = Statement {
            effects: Effects::of(&[Effect::Read]),
            relations: statement.relations.clone(),
            opaque: true,
            ..Statement::default()
        };
        let plan = turn.rules.judge(&self.context(turn.now), &Action::Sql(&read)).masks;
        self.with_view(turn, &plan, known.catalog.is_some(), |view| {
            view.store_obstacle(statement).or_else(|| view.probe_obstacle(statement))
        })
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
