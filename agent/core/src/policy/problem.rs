//! What is wrong with a bundle, with file and line; all of it at once.
//! It refuses to stop at the first mistake, and to name a mistake without saying what would be right.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// One reason why a bundle cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: Arc<str>,
    /// 1-based; 0 when the whole file is meant.
    pub line: u32,
    pub message: String,
}

impl Problem {
    #[must_use]
    pub fn new(file: &Arc<str>, line: u32, message: impl Into<String>) -> Self {
        Self { file: file.clone(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

impl core::error::Error for Problem {}

/// `"; did you mean \"effects\"?"` when one of `known` is near enough to be meant, else the whole list.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min();
    match nearest {
        Some((steps, candidate)) if steps <= (word.chars().count() / 3).max(1) => {
            format!("; did you mean {candidate:?}?")
        }
        _ if known.is_empty() => String::new(),
        _ if known.len() <= LISTED => format!(" (known: {})", known.join(", ")),
        _ => format!(" (known: {}, … {} in all)", known[..LISTED].join(", "), known.len()),
    }
}

/// Damerau–Levenshtein distance (adjacent letters swapped count once), without regard to ASCII case.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(WORD).map(|c| c.to_ascii_lowercase()).collect();
    let right: Vec<char> = right.chars().take(WORD).map(|c| c.to_ascii_lowercase()).collect();
    let mut rows: Vec<Vec<usize>> = Vec::with_capacity(left.len() + 1);
    rows.push((0..=right.len()).collect());
    for (i, a) in left.iter().enumerate() {
        let mut row = Vec::with_capacity(right.len() + 1);
        row.push(i + 1);
        for (j, b) in right.iter().enumerate() {
            let mut best = (rows[i][j + 1] + 1).min(row[j] + 1).min(rows[i][j] + usize::from(a != b));
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

/// Names shown when nothing is near.
const LISTED: usize = 12;
/// Letters of a word that are compared; longer words are never typos of ours.
const WORD: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_listed() {
        assert_eq!(suggestion("efects", ["effects", "tables"]), "; did you mean \"effects\"?");
        assert_eq!(suggestion("tabels", ["effects", "tables"]), "; did you mean \"tables\"?");
        assert_eq!(suggestion("zebra", ["effects", "tables"]), " (known: effects, tables)");
    }
}
