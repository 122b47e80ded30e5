//! AWS credentials: access key ids (`AKIA…`, `ASIA…`), and secret keys where their name or an id stands before them.
//! It refuses 40 characters without that context: half of all hashes look like that.

use alloc::vec::Vec;
use core::ops::Range;

use super::edge::{ends_word, run_end, starts_word, word_before};

const ID: usize = 20;
const SECRET: usize = 40;
pub(super) const LONGEST: usize = SECRET;
/// Bytes between an id and its secret, as in credential files and CSV exports.
const NEARBY: usize = 160;
/// Bytes of quotes, blanks and signs between the name of a secret and its value.
const GAP: usize = 24;

pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    if let Some(id) = key_id(text, at) {
        let end = id.end;
        hits.push(id);
        return match secret_near(text, end) {
            Some(secret) => {
                let end = secret.end;
                hits.push(secret);
                end
            }
            None => end,
        };
    }
    if let Some(secret) = named_secret(text, at) {
        let end = secret.end;
        hits.push(secret);
        return end;
    }
    at + 1
}

/// `at` is the second letter of the prefix.
fn key_id(text: &[u8], at: usize) -> Option<Range<usize>> {
    let start = at.checked_sub(1)?;
    let id = text.get(start..start + ID)?;
    let prefixed = id.starts_with(b"AKIA") || id.starts_with(b"ASIA");
    let shaped = id.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (prefixed && shaped && starts_word(text, start) && ends_word(text, start + ID))
        .then_some(start..start + ID)
}

/// The first secret within reach after an id. It stops at another id, which has a secret of its own.
fn secret_near(text: &[u8], from: usize) -> Option<Range<usize>> {
    let limit = text.len().min(from + NEARBY);
    let mut at = from;
    while at < limit {
        let end = run_end(text, at, SECRET + 1, is_secret);
        let word = text.get(at..end)?;
        if word.len() == ID && (word.starts_with(b"AKIA") || word.starts_with(b"ASIA")) {
            return None;
        }
        if is_whole_secret(text, at, end) && is_mixed(word) {
            return Some(at..end);
        }
        at = run_end(text, end, NEARBY, is_secret).max(at + 1);
    }
    None
}

/// `at` is the `k` of a name like `aws_secret_access_key` or `SecretKey`.
fn named_secret(text: &[u8], at: usize) -> Option<Range<usize>> {
    let name_end = at + 3;
    if !text.get(at..name_end)?.eq_ignore_ascii_case(b"key") || !word_before(text, at, 16, b's', &[b"secret"])
    {
        return None;
    }
    let start =
        run_end(text, name_end, GAP, |byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'/' | b'+'));
    let end = run_end(text, start, SECRET + 1, is_secret);
    is_whole_secret(text, start, end).then_some(start..end)
}

fn is_whole_secret(text: &[u8], start: usize, end: usize) -> bool {
    end - start == SECRET && starts_word(text, start) && text.get(end).is_none_or(|next| *next != b'=')
}

fn is_secret(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+')
}

/// Upper case, lower case and a digit: a hex digest is not mixed.
fn is_mixed(word: &[u8]) -> bool {
    word.iter().any(u8::is_ascii_uppercase)
        && word.iter().any(u8::is_ascii_lowercase)
        && word.iter().any(u8::is_ascii_digit)
}
