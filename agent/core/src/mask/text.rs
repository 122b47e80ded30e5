//! Masks values where they stand: inside a text, or a value as a whole.
//! It refuses to let a text grow without bound: beyond the limit all of it is redacted.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Key, Mask, redact};
use crate::detect::{ClassId, ClassSet, Finding, Scanner};
use crate::limits::MASKED_BYTES;

/// One entry of a plan: values of this class (by id and name) get this mask. Of several for one class the strictest holds.
pub type Plan<'a> = [(ClassId, &'a str, Mask)];

/// Replaces what the scanner finds of the plan's classes and counts it by class name. `None`: nothing was found, the
/// text may go as it is. The result is never longer than the text or [`MASKED_BYTES`], whichever is more.
#[must_use]
pub fn mask_text(
    text: &str,
    scanner: &Scanner,
    plan: &Plan<'_>,
    key: &Key,
    counts: &mut BTreeMap<String, u64>,
) -> Option<String> {
    let wanted = ClassSet(plan.iter().map(|(class, _, _)| *class).collect());
    let mut found = Vec::new();
    scanner.find(text.as_bytes(), &wanted, &mut found);
    if found.is_empty() {
        return None;
    }
    let mut masked = String::with_capacity(text.len());
    let mut rest = 0;
    for finding in found {
        let (start, end) = widen(text, finding, rest);
        let (name, mask) = strictest(plan, finding.class)?;
        masked.push_str(text.get(rest..start).unwrap_or_default());
        if let Some(value) = text.get(start..end).and_then(|value| mask.apply(name, value, key)) {
            masked.push_str(&value);
        }
        rest = end;
        *counts.entry(name.to_string()).or_default() += 1;
        if masked.len() > text.len().max(MASKED_BYTES) {
            return Some(redact::redact(name));
        }
    }
    masked.push_str(text.get(rest..).unwrap_or_default());
    let fits = masked.len() <= text.len().max(MASKED_BYTES);
    Some(if fits { masked } else { redact::redact(plan.first().map_or("", |(_, name, _)| name)) })
}

/// Masks a whole value (a cell or field whose place makes it protected) and counts it. `None` means "no value".
#[must_use]
pub fn mask_value(
    value: &str,
    class: &str,
    mask: Mask,
    key: &Key,
    counts: &mut BTreeMap<String, u64>,
) -> Option<String> {
    *counts.entry(class.to_string()).or_default() += 1;
    mask.apply(class, value, key)
}

fn strictest<'a>(plan: &Plan<'a>, class: ClassId) -> Option<(&'a str, Mask)> {
    let of_class = plan.iter().filter(|(id, _, _)| *id == class);
    of_class.map(|(_, name, mask)| (*name, *mask)).max_by_key(|(_, mask)| *mask)
}

/// The finding's bounds, moved outward to the borders of characters (they are there already for all built-in families).
fn widen(text: &str, finding: Finding, from: usize) -> (usize, usize) {
    let start = text.floor_char_boundary(finding.start).max(from);
    (start, text.ceil_char_boundary(finding.end))
}
