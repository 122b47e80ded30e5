//! Tests on what a statement does to relations, functions and objects.
//! It refuses to read SQL: the analysis is done elsewhere, and what it could not resolve is `Unknown` here.

use super::super::glob::Qualified;
use super::{Part, Truth};
use crate::action::{Effect, Object, Statement};

pub(super) fn tables(patterns: &[Qualified], part: Part<'_>) -> Truth {
    match part.relation {
        Some(relation) => Truth::any(
            patterns.iter().map(|pattern| named(pattern, relation.schema.as_deref(), &relation.name)),
        ),
        None => match part.effect {
            // `SELECT 1` reads nothing that a pattern could leave out. `DROP SCHEMA` is not like that.
            Some(Effect::Read | Effect::Explain) => Truth::Absent,
            Some(
                Effect::Insert
                | Effect::Update
                | Effect::Delete
                | Effect::Truncate
                | Effect::Create
                | Effect::Alter
                | Effect::Drop
                | Effect::Grant
                | Effect::Call
                | Effect::Do
                | Effect::CopyIn
                | Effect::CopyOut
                | Effect::CopyProgram
                | Effect::Session
                | Effect::Txn
                | Effect::Listen
                | Effect::Lock
                | Effect::Admin
                | Effect::Replication
                | Effect::Unknown,
            )
            | None => Truth::No,
        },
    }
}

/// Built-ins known to be harmless count only where a pattern names them: `functions: [upper]` matches, and a
/// statement that calls `upper` besides a listed function still has only listed functions for an admitting rule.
pub(super) fn functions(patterns: &[Qualified], statement: Option<&Statement>, part: Part<'_>) -> Truth {
    let Some(statement) = statement else { return Truth::No };
    let called = |pattern: &Qualified| {
        Truth::any(
            statement
                .functions
                .iter()
                .map(|function| named(pattern, function.schema.as_deref(), &function.name)),
        )
    };
    let any = Truth::any(patterns.iter().map(called));
    // For the effect `call` an admitting rule must know every function; one it does not list is not covered.
    let strangers = statement.functions.iter().filter(|function| !function.safe).any(|function| {
        Truth::any(patterns.iter().map(|pattern| named(pattern, function.schema.as_deref(), &function.name)))
            != Truth::Yes
    });
    match (any, part.effect) {
        (Truth::Yes, Some(Effect::Call)) if strangers => Truth::Unknown,
        (Truth::Yes, _) => Truth::Yes,
        // A statement with parts that could not be resolved may call anything.
        (Truth::No, _) if statement.opaque => Truth::Unknown,
        (other, _) => other,
    }
}

/// Rules that admit must know every object, rules that restrict one.
pub(super) fn objects(wanted: &[Object], statement: Option<&Statement>) -> Truth {
    let Some(statement) = statement else { return Truth::No };
    let known = statement.objects.iter().filter(|object| wanted.contains(object)).count();
    match (known > 0, known == statement.objects.len()) {
        (false, _) => Truth::No,
        (true, true) => Truth::Yes,
        (true, false) => Truth::Unknown,
    }
}

fn named(pattern: &Qualified, schema: Option<&str>, name: &str) -> Truth {
    if !pattern.name.matches(name) {
        return Truth::No;
    }
    match schema {
        Some(schema) => Truth::of(pattern.schema.matches(schema)),
        None if pattern.schema == super::super::glob::Glob::Any => Truth::Yes,
        None => Truth::Unknown,
    }
}
