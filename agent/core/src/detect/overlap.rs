//! Makes findings disjoint: the longer wins, then the class listed first.
//! It refuses to lose bytes: what sticks out of the winner stays a finding of its own class.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Finding;

/// Sorts by position and leaves no overlap; the union of all spans stays the same.
pub(super) fn resolve(found: &mut Vec<Finding>) {
    found.sort_unstable_by_key(|finding| (finding.start, finding.end));
    if is_disjoint(found) {
        return;
    }
    merge_same_class(found);
    found.sort_unstable_by_key(|finding| {
        (core::cmp::Reverse(finding.end - finding.start), finding.class, finding.start)
    });
    let mut placed: BTreeMap<usize, Finding> = BTreeMap::new();
    for finding in found.drain(..) {
        for piece in uncovered(&placed, finding) {
            placed.insert(piece.start, piece);
        }
    }
    found.extend(placed.into_values());
}

fn is_disjoint(found: &[Finding]) -> bool {
    found.windows(2).all(|pair| matches!(pair, [one, next] if one.end <= next.start))
}

/// Overlapping findings of one class are one value.
fn merge_same_class(found: &mut Vec<Finding>) {
    found.sort_unstable_by_key(|finding| (finding.class, finding.start));
    found.dedup_by(|next, kept| {
        let same = next.class == kept.class && next.start < kept.end;
        if same {
            kept.end = kept.end.max(next.end);
        }
        same
    });
}

/// The parts of a finding that no placed one covers.
fn uncovered(placed: &BTreeMap<usize, Finding>, finding: Finding) -> Vec<Finding> {
    let mut pieces = Vec::new();
    let mut start = match placed.range(..=finding.start).next_back() {
        Some((_, before)) => finding.start.max(before.end),
        None => finding.start,
    };
    for (next, other) in placed.range(finding.start..finding.end) {
        if start < *next {
            pieces.push(Finding { start, end: *next, ..finding });
        }
        start = start.max(other.end);
    }
    if start < finding.end {
        pieces.push(Finding { start, ..finding });
    }
    pieces
}
