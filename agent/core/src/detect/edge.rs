//! Where words and numbers begin and end in raw text: what the families ask about the neighbours of a candidate.
//! It refuses to need UTF-8: a byte above 127 is neither letter nor digit, so it always ends a word.

/// A word may begin at `at`: nothing stands before it, or something that is no letter or digit, or the last character
/// of an escape (`\n`, `%3D`), which stands for something else.
pub(super) fn starts_word(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    match before {
        [.., last] if !last.is_ascii_alphanumeric() => true,
        [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f'] => true,
        [.., b'%', high, low] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        [..] => before.is_empty(),
    }
}

/// A word may end before `at`.
pub(super) fn ends_word(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|next| !next.is_ascii_alphanumeric())
}

/// End of the run of ASCII digits that begins at `at`.
pub(super) fn digits_end(text: &[u8], at: usize) -> usize {
    run_end(text, at, usize::MAX, u8::is_ascii_digit)
}

/// End of the run of bytes that `belongs` accepts, at most `most` bytes long.
pub(super) fn run_end(text: &[u8], at: usize, most: usize, belongs: impl Fn(&u8) -> bool) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let rest = rest.get(..most).unwrap_or(rest);
    at + rest.iter().position(|byte| !belongs(byte)).unwrap_or(rest.len())
}

/// A digit stands before `at`, with exactly one byte `separator` between.
pub(super) fn number_before(text: &[u8], at: usize, separator: u8) -> bool {
    matches!(text.get(..at), Some([.., digit, last]) if *last == separator && digit.is_ascii_digit())
}

/// A digit stands after `at`, with exactly one byte `separator` between.
pub(super) fn number_after(text: &[u8], at: usize, separator: u8) -> bool {
    matches!(text.get(at..), Some([first, digit, ..]) if *first == separator && digit.is_ascii_digit())
}

/// One of `words` (lower case, each beginning with `first`) stands in the `window` bytes before `at`, in any ASCII case.
pub(super) fn word_before(text: &[u8], at: usize, window: usize, first: u8, words: &[&[u8]]) -> bool {
    let near = text.get(at.saturating_sub(window)..at).unwrap_or_default();
    near.iter().enumerate().any(|(index, byte)| {
        byte.to_ascii_lowercase() == first
            && words.iter().any(|word| {
                near.get(index..index + word.len()).is_some_and(|there| there.eq_ignore_ascii_case(word))
            })
    })
}
