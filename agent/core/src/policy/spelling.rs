//! Other spellings of the same text: JSON escapes, percent-encoding, SQL without its constants and comments.
//! It refuses nothing: what cannot be decoded is kept as it stands, so that a rule still sees it.

use alloc::vec::Vec;

/// A body as it came, and as JSON strings and form fields would be read.
pub(super) fn of_body(body: &[u8]) -> Vec<Vec<u8>> {
    let mut spellings = alloc::vec![body.to_vec()];
    if body.contains(&b'\\') {
        spellings.push(json_unescaped(body));
    }
    if body.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        spellings.push(percent_decoded(body));
    }
    spellings
}

pub(super) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let decoded = match (first, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            (b'+', _) => {
                out.push(b' ');
                rest = after;
                continue;
            }
            _ => None,
        };
        match decoded {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

/// Every escape of RFC 8259 section 7 resolved, wherever it stands.
pub(super) fn json_unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let Some((kind, after)) = after.split_first() else {
            out.push(b'\\');
            break;
        };
        rest = after;
        match kind {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'u' => match unit(after) {
                Some((high @ 0xd800..0xdc00, tail)) => match tail.strip_prefix(b"\\u").and_then(unit) {
                    Some((low @ 0xdc00..0xe000, tail)) => {
                        push(&mut out, 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                        rest = tail;
                    }
                    Some(_) | None => rest = tail,
                },
                Some((code, tail)) => {
                    push(&mut out, code);
                    rest = tail;
                }
                None => out.extend_from_slice(b"\\u"),
            },
            other => out.push(*other),
        }
    }
    out
}

/// SQL with constants and comments blanked, so that `SELECT 'delete'` holds no word `delete`. Where a backslash
/// makes the end of a constant depend on settings, the text is kept whole.
pub(super) fn sql_words(text: &[u8]) -> Vec<u8> {
    if text.contains(&b'\\') {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        // A quoted identifier is a word, and an apostrophe in it opens no constant.
        if *first == b'"' {
            let end = quoted(after, b'"');
            out.push(b'"');
            out.extend_from_slice(after.get(..end).unwrap_or_default());
            rest = after.get(end..).unwrap_or_default();
            continue;
        }
        let end = match (first, after) {
            (b'\'', _) => quoted(after, b'\''),
            (b'-', [b'-', ..]) => after.iter().position(|byte| *byte == b'\n').unwrap_or(after.len()),
            (b'/', [b'*', ..]) => comment(after),
            (b'$', _)
                if !out.last().is_some_and(|byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_') =>
            {
                dollar(after)
            }
            _ => 0,
        };
        match end {
            0 => out.push(*first),
            _ => out.push(b' '),
        }
        rest = after.get(end..).unwrap_or_default();
    }
    out
}

/// Bytes up to and including the closing quote; a doubled quote begins a new constant right away, which is the same.
fn quoted(text: &[u8], quote: u8) -> usize {
    text.iter().position(|byte| *byte == quote).map_or(text.len(), |at| at + 1)
}

/// `after` begins with the `*` of `/*`; comments nest.
fn comment(after: &[u8]) -> usize {
    let (mut at, mut depth) = (1, 1_u32);
    while depth > 0 {
        match after.get(at..) {
            Some([b'*', b'/', ..]) => (at, depth) = (at + 2, depth - 1),
            Some([b'/', b'*', ..]) => (at, depth) = (at + 2, depth + 1),
            Some([_, ..]) => at += 1,
            Some([]) | None => return after.len(),
        }
    }
    at
}

/// `after` follows the first `$`: the length of the rest of `$tag$…$tag$`, 0 when it is no dollar quote.
fn dollar(after: &[u8]) -> usize {
    let Some(length) = after.iter().position(|byte| *byte == b'$') else { return 0 };
    let tag = after.get(..length).unwrap_or_default();
    let named = tag.first().is_none_or(|byte| !byte.is_ascii_digit())
        && tag.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || !byte.is_ascii());
    let body = after.get(length + 1..).unwrap_or_default();
    if !named {
        return 0;
    }
    let mut at = 0;
    while let Some(found) = body.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'$')) {
        let close = body.get(at + found + 1..).unwrap_or_default();
        if close.strip_prefix(tag).is_some_and(|rest| rest.first() == Some(&b'$')) {
            return length + 1 + at + found + tag.len() + 2;
        }
        at += found + 1;
    }
    after.len()
}

fn unit(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let code = digits.iter().try_fold(0, |code, digit| Some(code << 4 | u32::from(hex(*digit)?)))?;
    Some((code, rest))
}

fn push(out: &mut Vec<u8>, code: u32) {
    let mut buffer = [0; 4];
    let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> std::string::String {
        std::string::String::from_utf8(sql_words(sql.as_bytes())).unwrap()
    }

    #[test]
    fn constants_and_comments_hold_no_words() {
        assert_eq!(words("SELECT 'delete'"), "SELECT  ");
        assert_eq!(words("a 'x''y' b"), "a    b");
        assert_eq!(words("a -- delete\nb"), "a  \nb");
        assert_eq!(words("a /* x /* delete */ y */ b"), "a   b");
        assert_eq!(words("a $$delete$$ b $t$ $$ delete $t$ c"), "a   b   c");
        assert_eq!(words("f(a$1) \"delete\" $1"), "f(a$1) \"delete\" $1");
        assert_eq!(words("SELECT E'a\\' delete"), "SELECT E'a\\' delete");
        assert_eq!(words("a 'open"), "a  ");
        assert_eq!(words("a \"it's\" delete"), "a \"it's\" delete");
    }

    #[test]
    fn json_and_percent_spellings_are_read() {
        assert_eq!(
            json_unescaped(br#"\u0070roject \"x\" \ud83d\ude00 \u00"#),
            "project \"x\" 😀 \\u00".as_bytes()
        );
        assert_eq!(percent_decoded(b"a%20b+c%zz%4"), b"a b c%zz%4");
        assert_eq!(json_unescaped(b"\\"), b"\\");
    }
}
