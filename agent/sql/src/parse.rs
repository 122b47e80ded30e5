//! Text → parse trees, within bounds of size and stack.
//! It refuses texts over [`limits::SQL_BYTES`], NUL bytes and whatever the grammar or the decoder rejects.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use pg_query::ParserOptions;
use pg_query::protobuf::{self, RawStmt};
use weir_core::limits;
use weir_core::sql::Dialect;

/// The parse trees of a text, or nothing when it cannot be read.
pub(crate) fn parse(sql: &str, dialect: Dialect) -> Option<protobuf::ParseResult> {
    if sql.len() > limits::SQL_BYTES || Extent::of(sql).rescans > RESCANS {
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
    /// 2 MiB or more.
    Unknown,
    /// [`STACK_BYTES`] or more.
    Large,
}

/// Runs `work` on `sql` where the deepest tree of such a text fits: here, or on a thread of its own.
pub(crate) fn with_stack<T: Send + Refused>(stack: Stack, sql: &str, work: impl FnOnce() -> T + Send) -> T {
    let fits = match stack {
        Stack::Unknown => SMALL_STACK_TOKENS,
        Stack::Large => LARGE_STACK_TOKENS,
    };
    if sql.len() > limits::SQL_BYTES || Extent::of(sql).tokens <= fits {
        return work();
    }
    thread::scope(|scope| {
        let spawned = thread::Builder::new().stack_size(DEEP_STACK_BYTES).spawn_scoped(scope, work);
        spawned.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(T::refused)
    })
}

/// What a text counts as when no thread could be had for it.
pub(crate) trait Refused {
    fn refused() -> Self;
}

/// Two bounds on what a text can cost, from one look at its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    /// At least as many as the tree has levels: every level takes a word, a bracket or an operator of its own.
    tokens: usize,
    /// Bytes that the server's lexer reads again: it takes a run of operator characters whole and gives back all but the
    /// `/*` of a nested comment or the `+` it may end in, so that a run of those costs its square.
    rescans: usize,
}

impl Extent {
    fn of(sql: &str) -> Self {
        let (mut tokens, mut rescans) = (0_usize, 0_usize);
        let (mut in_word, mut run, mut returns, mut before) = (false, 0_usize, 0_usize, b' ');
        for &byte in sql.as_bytes() {
            let word = byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'_' | b'$');
            tokens += usize::from(word && !in_word);
            in_word = word;
            if is_operator(byte) {
                run += 1;
                returns += usize::from(byte == b'+' || (before == b'/' && byte == b'*'));
                tokens += 1;
            } else {
                rescans = rescans.saturating_add(run.saturating_mul(returns));
                (run, returns) = (0, 0);
                tokens += usize::from(matches!(byte, b'(' | b'['));
            }
            before = byte;
        }
        Self { tokens, rescans: rescans.saturating_add(run.saturating_mul(returns)) }
    }
}

/// `op_chars` of the server's lexer (scan.l); `:` because a cast is `::`.
fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!'
            | b'@'
            | b'#'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'%'
            | b'<'
            | b'>'
            | b'='
            | b':'
    )
}

/// Rescanned bytes that are still cheap: about 50 ms. Tables drawn with `+---+` in strings stay far below.
const RESCANS: usize = 16 * 1024 * 1024;
/// One level of a tree costs up to 30 KiB of stack to decode in a debug build, a sixth of that in a release build.
const SMALL_STACK_TOKENS: usize = 40;
const LARGE_STACK_TOKENS: usize = 1_500;
/// libpg_query hands out no tree of more than 5,000 levels.
const DEEP_STACK_BYTES: usize = 256 * 1024 * 1024;
