//! The parts of an act that rules look at one by one: each effect with each relation it can concern.
//! It refuses to leave an effect or a relation of a statement out: each is in at least one part.

use alloc::vec::Vec;

use super::condition::Part;
use super::index::known;
use crate::action::{Access, Effect, Statement};

/// What must be covered: an effect goes with the relations it can concern.
pub(super) fn to_cover(statement: &Statement) -> Vec<Part<'_>> {
    let effects: Vec<Effect> = known(statement.effects).iter().collect();
    if statement.relations.is_empty() {
        return effects.into_iter().map(|effect| Part { effect: Some(effect), relation: None }).collect();
    }
    let lonely_relation = |access| !effects.iter().any(|effect| concerns(*effect, access));
    let lonely_effect =
        |effect| !statement.relations.iter().any(|relation| concerns(effect, relation.access));
    let mut parts = Vec::new();
    for relation in &statement.relations {
        let alone = lonely_relation(relation.access);
        for effect in &effects {
            if alone || lonely_effect(*effect) || concerns(*effect, relation.access) {
                parts.push(Part { effect: Some(*effect), relation: Some(relation) });
            }
        }
    }
    parts
}

/// What may be restricted: every effect with every relation.
pub(super) fn any_of(statement: &Statement, mut visit: impl FnMut(Part<'_>) -> bool) -> bool {
    let effects = known(statement.effects);
    effects.iter().any(|effect| match statement.relations.as_slice() {
        [] => visit(Part { effect: Some(effect), relation: None }),
        relations => {
            relations.iter().any(|relation| visit(Part { effect: Some(effect), relation: Some(relation) }))
        }
    })
}

/// Whether an effect can be about a relation that is accessed so. What is neither plainly reading nor plainly writing
/// concerns every relation.
fn concerns(effect: Effect, access: Access) -> bool {
    match effect {
        Effect::Read | Effect::CopyOut => access == Access::Read,
        Effect::Insert
        | Effect::Update
        | Effect::Delete
        | Effect::Truncate
        | Effect::Create
        | Effect::Alter
        | Effect::Drop
        | Effect::Grant
        | Effect::CopyIn => access == Access::Write,
        Effect::Call
        | Effect::Do
        | Effect::CopyProgram
        | Effect::Session
        | Effect::Txn
        | Effect::Listen
        | Effect::Lock
        | Effect::Explain
        | Effect::Admin
        | Effect::Replication
        | Effect::Unknown => true,
    }
}
