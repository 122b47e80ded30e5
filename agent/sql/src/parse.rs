//! Text → parse trees, within bounds of size and stack.
//! It refuses texts over [`limits::SQL_BYTES`], NUL bytes and whatever the grammar or the decoder rejects.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use pg_query::ParserOptions;
use pg_query::protobuf::{self, RawStmt};
use weir_core::limits;
use weir_core::sql::Dialect;

use crate::STACK_BYTES;

/// The parse trees of a text, or nothing when it cannot be read.
pub(crate) fn parse(sql: &str, dialect: Dialect) -> Option<protobuf::ParseResult> {
    if sql.len() > limits::SQL_BYTES {
        return None;
    }
    let mut options = ParserOptions::DISABLE_ESCAPE_STRING_WARNING;
    if !dialect.standard_conforming_strings {
        options |= ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS;
    }
    // The crate summarises every tree it parses and asserts shapes while it does; a failed assertion is a refusal.
    catch_unwind(AssertUnwindSafe(|| pg_query::parse(sql, options))).ok()?.ok().map(|result| result.protobuf)
}

/// The part of `sql` that is one statement's own, without surrounding space. Offsets are bytes (PostgreSQL `RawStmt`).
pub(crate) fn own_text<'a>(sql: &'a str, raw: &RawStmt) -> &'a str {
    let start = usize::try_from(raw.stmt_location).unwrap_or(0);
    let end = match usize::try_from(raw.stmt_len) {
        Ok(0) | Err(_) => sql.len(),
        Ok(length) => start.saturating_add(length).min(sql.len()),
    };
    sql.get(start..end).unwrap_or(sql).trim()
}

/// What is known about the caller's stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    Unknown,
    Large,
}

/// Runs `work` on `sql` where its deepest tree fits: every level of a tree takes two bytes of text or more, so a short
/// text cannot be deep. A longer one costs more to parse than the thread it gets.
pub(crate) fn with_stack<T: Send + Refused>(stack: Stack, sql: &str, work: impl FnOnce() -> T + Send) -> T {
    if stack == Stack::Large || sql.len() <= SHALLOW_BYTES || sql.len() > limits::SQL_BYTES {
        return work();
    }
    thread::scope(|scope| {
        let spawned = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        spawned.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(T::refused)
    })
}

/// What a text counts as when no thread could be had for it.
pub(crate) trait Refused {
    fn refused() -> Self;
}

/// Texts up to this size are analysed on any stack of 2 MiB.
const SHALLOW_BYTES: usize = 384;
