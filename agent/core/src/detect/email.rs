//! E-mail addresses: `local@label.label`, also with `%40` for the `@` (URLs, forms).
//! It refuses image names (`icon@2x.png`) and versions (`package@1.2.3`), whose last label is no top-level domain.

use alloc::vec::Vec;
use core::ops::Range;

use super::edge::run_end;

/// RFC 5321, 4.5.3.1: 64 for the local part, 255 for the domain.
const LOCAL: usize = 64;
const DOMAIN: usize = 255;
/// RFC 1035, 2.3.4.
const LABEL: usize = 63;
pub(super) const LONGEST: usize = LOCAL + 3 + DOMAIN;

pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    let domain = match text.get(at..) {
        Some([b'@', ..]) => at + 1,
        Some([b'%', b'4', b'0', ..]) => at + 3,
        Some(_) | None => return at + 1,
    };
    if let Some(start) = local_start(text, at)
        && let Some(end) = domain_end(text, domain)
    {
        hits.push(start..end);
        return end;
    }
    at + 1
}

/// Begin of the local part that ends at `at`.
fn local_start(text: &[u8], at: usize) -> Option<usize> {
    let before = text.get(at.saturating_sub(LOCAL)..at)?;
    let length = before.iter().rev().position(|byte| !is_local(*byte)).unwrap_or(before.len());
    let mut start = at - length;
    // The first bytes may belong to an escape (`\n`, `%3D`), or to a character that was cut by the length limit.
    match (text.get(..start), text.get(start..at)) {
        (Some([.., b'\\']), Some([b'n' | b'r' | b't', ..])) => start += 1,
        (Some([.., b'%']), Some([high, low, ..])) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            start += 2
        }
        _ => {}
    }
    let local = text.get(start..at)?;
    let trimmed = match core::str::from_utf8(local) {
        Ok(local) => local.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '_').len(),
        Err(_) => run_back(local),
    };
    (trimmed > 0).then_some(at - trimmed)
}

/// Bytes left of a local part that is not UTF-8 after dropping what cannot begin one.
fn run_back(local: &[u8]) -> usize {
    let first = local.iter().position(|byte| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0xc0);
    local.len() - first.unwrap_or(local.len())
}

/// Letters, digits and what addresses really use; quotes, `=` and `/` stand before addresses more often than in them.
fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || byte >= 0x80
        || matches!(byte, b'.' | b'_' | b'+' | b'-' | b'\'' | b'&' | b'~')
}

/// End of the domain that begins at `start`: after the last label that can be a top-level domain.
fn domain_end(text: &[u8], start: usize) -> Option<usize> {
    let mut end = None;
    let mut at = start;
    loop {
        let stop = run_end(text, at, LABEL + 1, |byte| {
            byte.is_ascii_alphanumeric() || *byte == b'-' || *byte >= 0x80
        });
        let label = text.get(at..stop)?;
        if label.is_empty() || label.len() > LABEL || label.starts_with(b"-") || stop - start > DOMAIN {
            break;
        }
        if at > start
            && let Some(length) = top_level(label)
        {
            end = Some(at + length);
        }
        if text.get(stop) != Some(&b'.') {
            break;
        }
        at = stop + 1;
    }
    end.filter(|end| !is_image(text.get(start..*end).unwrap_or_default()))
}

/// Length of the top-level domain at the begin of a label: two letters or more, or a whole punycode label.
fn top_level(label: &[u8]) -> Option<usize> {
    if label.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"xn--")) {
        return Some(label.len());
    }
    let ascii = label.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let other = label.iter().take_while(|byte| **byte >= 0x80).count();
    (ascii >= 2 || other >= 2).then_some(ascii.max(other))
}

/// `2x.png` and the like: a resolution, then the ending of an image.
fn is_image(domain: &[u8]) -> bool {
    let Some(dot) = domain.iter().position(|byte| *byte == b'.') else { return false };
    let (scale, ending) = domain.split_at(dot);
    let scaled =
        matches!(scale, [digits @ .., b'x'] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    scaled && [&b".png"[..], b".jpg", b".jpeg", b".gif", b".webp", b".svg", b".avif"].contains(&ending)
}
