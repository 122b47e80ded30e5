//! What a server says outside of results: errors, notices, notifications, reported settings, column names.
//! It refuses to let values out there that are masked in rows; where none are masked nothing is touched.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::judge::Rules;
use super::ledger::Expect;
use super::mask::Layout;
use super::{Conversation, Turn};
use crate::action::{Action, Effect, Effects, Statement};
use crate::detect::ClassSet;
use crate::mask::Key;
use crate::policy::MaskPlan;
use crate::wire::postgres::{Fields, Violation, backend, cstr, message};

/// The masks of a plan, for texts.
pub fn standing(rules: &Arc<dyn Rules>, plan: &Arc<MaskPlan>) -> Arc<Layout> {
    let wanted = ClassSet(plan.response.iter().map(|rule| rule.class).collect());
    Arc::new(Layout { rules: rules.clone(), plan: plan.clone(), wanted, cells: Vec::new() })
}

impl Conversation {
    /// The masks that any read of this identity would have, so that nothing slips out before the first one.
    pub(super) fn standing_masks(&self, turn: &Turn<'_>) -> Option<Arc<Layout>> {
        let read = Statement { effects: Effects::of(&[Effect::Read]), opaque: true, ..Statement::default() };
        let plan = turn.rules.judge(&self.context(turn.now), &Action::Sql(&read)).masks;
        (!plan.response.is_empty()).then(|| standing(&turn.rules, &plan))
    }
}

impl Conversation {
    /// The statement that the server is at may have looked at masked values.
    pub(super) fn looks_at_masked(&mut self, turn: &Turn<'_>) -> bool {
        let Some(plan) = self.guard.as_ref().map(|guard| guard.plan.clone()) else { return false };
        let number = match self.ledger.front() {
            Some(Expect::Parse { deed, .. } | Expect::Bind { deed, .. }) => *deed,
            Some(Expect::Query(results) | Expect::Execute(results) | Expect::Call(results)) => results.deed,
            Some(
                Expect::Describe { .. }
                | Expect::Close { .. }
                | Expect::Sync
                | Expect::CopyEnd
                | Expect::Catalog,
            )
            | None => None,
        };
        let Some(deed) = number.and_then(|number| self.deeds.get(&number)) else { return false };
        let statements = deed.statements.clone();
        let catalog = self.catalog.catalog().is_some();
        self.with_view(turn, &plan, catalog, |view| {
            statements.iter().any(|each| each.opaque || view.touches(each))
        })
    }
}

/// Rewrites an error or notice; `false` when it stays as it is. `exposed`: the statement looks at masked values.
pub fn error(masks: &Layout, key: &Key, tag: u8, body: &[u8], exposed: bool, out: &mut Vec<u8>) -> bool {
    // Only what fails while rows are read can quote them: errors with a position are about the text itself.
    let exposed = exposed && backend::error_field(body, b'P').is_empty();
    // What a function of the user's raises is worded by that function.
    let raised = backend::error_field(body, b'C').starts_with(b"P0") || tag == b'N';
    // Classes 22 (data exception) and 23 (integrity constraint) quote the values they are about.
    let class = backend::error_field(body, b'C').get(..2);
    let quotes = class == Some(b"22") || class == Some(b"23");
    let mut changed = false;
    let mut fields: Vec<(u8, Vec<u8>)> = Vec::new();
    for (code, text) in backend::error_fields(body) {
        let kept = match code {
            b'D' | b'W' if quotes || exposed => {
                changed = true;
                continue;
            }
            b'H' | b'q' if exposed => {
                changed = true;
                continue;
            }
            b'M' if exposed => {
                changed = true;
                if raised { WITHHELD.into() } else { bare(text) }
            }
            b'M' if quotes => {
                let bare = unquoted(text);
                changed |= bare != text;
                bare
            }
            _ => text.to_vec(),
        };
        let kept = match code {
            b'S' | b'V' | b'C' | b'P' | b'p' | b'F' | b'L' | b'R' => kept,
            _ => match masks.scrub(&kept, key) {
                Some(scrubbed) => {
                    changed = true;
                    scrubbed
                }
                None => kept,
            },
        };
        fields.push((code, kept));
    }
    if changed {
        out.clear();
        let fields: Vec<(u8, &[u8])> = fields.iter().map(|(code, text)| (*code, text.as_slice())).collect();
        backend::write_error(out, tag, &fields);
    }
    changed
}

/// NotificationResponse: process id, channel, payload.
///
/// # Errors
/// Fields that do not fill the body.
pub fn notification(masks: &Layout, key: &Key, body: &[u8], out: &mut Vec<u8>) -> Result<bool, Violation> {
    let mut fields = Fields::new(body);
    let process = fields.int32()?;
    let (channel, payload) = (fields.cstr()?, fields.cstr()?);
    fields.end()?;
    let (masked_channel, masked_payload) = (masks.scrub(channel, key), masks.scrub(payload, key));
    if masked_channel.is_none() && masked_payload.is_none() {
        return Ok(false);
    }
    out.clear();
    message(out, b'A', |body| {
        body.extend_from_slice(&process.to_be_bytes());
        cstr(body, masked_channel.as_deref().unwrap_or(channel));
        cstr(body, masked_payload.as_deref().unwrap_or(payload));
    });
    Ok(true)
}

/// ParameterStatus.
pub fn parameter(masks: &Layout, key: &Key, name: &[u8], value: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(masked) = masks.scrub(value, key) else { return false };
    out.clear();
    message(out, b'S', |body| {
        cstr(body, name);
        cstr(body, &masked);
    });
    true
}

/// Column names of a RowDescription.
pub fn names(masks: &Layout, key: &Key, columns: &[backend::Column], out: &mut Vec<u8>) -> bool {
    let mut changed = false;
    let mut masked = columns.to_vec();
    for column in &mut masked {
        if let Some(name) = masks.scrub(&column.name, key) {
            column.name = name;
            changed = true;
        }
    }
    if changed {
        out.clear();
        backend::write_row_description(out, &masked);
    }
    changed
}

/// The text without anything that may be a value. Translated messages have other quotes, so they go as a whole.
fn bare(text: &[u8]) -> Vec<u8> {
    if !text.is_ascii() {
        return WITHHELD.into();
    }
    let mut bare = Vec::with_capacity(text.len());
    let mut number = false;
    for byte in unquoted(text) {
        if !byte.is_ascii_digit() {
            bare.push(byte);
        } else if !number {
            bare.extend_from_slice("…".as_bytes());
        }
        number = byte.is_ascii_digit();
    }
    bare
}

const WITHHELD: &[u8] = b"weir withholds this message: it may hold masked values";

/// The text with everything between quotes replaced by an ellipsis.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let mut bare = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = memchr::memchr2(b'"', b'\'', rest) {
        let (before, quoted) = rest.split_at(open);
        bare.extend_from_slice(before);
        let quote = quoted.first().copied().unwrap_or(b'"');
        let inner = quoted.get(1..).unwrap_or_default();
        bare.push(quote);
        bare.extend_from_slice("…".as_bytes());
        bare.push(quote);
        // The value may hold quotes itself: the last one closes.
        match memchr::memrchr(quote, inner) {
            Some(close) => rest = inner.get(close + 1..).unwrap_or_default(),
            None => return bare,
        }
    }
    bare.extend_from_slice(rest);
    bare
}
