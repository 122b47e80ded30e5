//! Telephone numbers that say so: international with `+` (E.164), or North American `(NXX) NXX-XXXX`, `NXX-NXX-XXXX`.
//! It refuses bare digit strings: nothing tells them from order numbers.

use alloc::vec::Vec;
use core::ops::Range;

use super::edge::{digits_end, ends_word, number_after, number_before, starts_word};

/// 15 digits, `+`, and up to two separators between groups.
pub(super) const LONGEST: usize = 40;
/// E.164 allows 15 digits; fewer than 9 are rather dates and counters.
const INTERNATIONAL: core::ops::RangeInclusive<usize> = 9..=15;

/// `at` is a `+`, or the begin of three digits.
pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    let value = match text.get(at) {
        Some(b'+') => international(text, at),
        Some(_) | None => american(text, at..digits_end(text, at)),
    };
    let Some(value) = value else { return at + 1 };
    let end = value.end;
    hits.push(value);
    end
}

fn international(text: &[u8], start: usize) -> Option<Range<usize>> {
    let first = start + 1..digits_end(text, start + 1);
    if first.is_empty() || !starts_word(text, start) || text.get(first.start) == Some(&b'0') {
        return None;
    }
    let (mut end, mut digits) = (first.end, first.len());
    // A number that begins with nine digits in one piece has no separators: what follows is something else.
    let in_groups = digits < *INTERNATIONAL.start();
    while let Some(next) = next_group(text, start, end).filter(|_| in_groups) {
        let length = digits_end(text, next) - next;
        if length < 2 || digits + length > *INTERNATIONAL.end() {
            break;
        }
        end = next + length;
        digits += length;
    }
    (INTERNATIONAL.contains(&digits) && ends_word(text, end)).then_some(start..end)
}

/// Begin of the next group of digits: after one separator, or after brackets around an area code.
fn next_group(text: &[u8], start: usize, end: usize) -> Option<usize> {
    let bracketed = text.get(start..end)?.contains(&b'(');
    let ahead = match text.get(end..)? {
        [b' ' | b'-' | b'.' | b'/', b'(', ..] => 2,
        [b')', b' ' | b'-', ..] if bracketed => 2,
        [b' ' | b'-' | b'.' | b'/' | b'(', ..] => 1,
        [b')', ..] if bracketed => 1,
        [..] => return None,
    };
    text.get(end + ahead)?.is_ascii_digit().then_some(end + ahead)
}

fn american(text: &[u8], area: Range<usize>) -> Option<Range<usize>> {
    let bracketed = area.start.checked_sub(1).filter(|before| text.get(*before) == Some(&b'('));
    let (start, exchange_at, separator) = match (bracketed, text.get(area.end..)?) {
        (Some(start), [b')', b' ', ..]) => (start, area.end + 2, b'-'),
        (Some(start), [b')', ..]) => (start, area.end + 1, b'-'),
        (_, [separator @ (b'-' | b'.'), ..]) => (area.start, area.end + 1, *separator),
        (Some(_) | None, _) => return None,
    };
    let exchange = exchange_at..digits_end(text, exchange_at);
    if exchange.len() != 3 || text.get(exchange.end) != Some(&separator) {
        return None;
    }
    let line = exchange.end + 1..digits_end(text, exchange.end + 1);
    let alone = starts_word(text, start)
        && ends_word(text, line.end)
        && !number_after(text, line.end, separator)
        && (!number_before(text, start, separator) || text.get(..start)?.ends_with(b"1-"));
    (line.len() == 4 && alone && exists(text.get(area)?) && exists(text.get(exchange)?))
        .then_some(start..line.end)
}

/// NXX: 2–9 first, and not a service code (N11).
fn exists(code: &[u8]) -> bool {
    matches!(code, [b'2'..=b'9', second, third] if !(*second == b'1' && *third == b'1'))
}
