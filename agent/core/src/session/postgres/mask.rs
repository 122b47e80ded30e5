//! Cells on their way to the workload: protected columns are replaced whole, protected values inside other cells in place.
//! It refuses to write what the client could not decode: where a mask does not fit the type, the cell becomes NULL.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::judge::{Rules, strictest};
use crate::detect::{ClassId, ClassSet, Finding};
use crate::mask::{Key, Mask};
use crate::policy::{MaskPlan, MaskRule};
use crate::wire::postgres::{Violation, message, row};

/// What happens to each cell of a result.
#[derive(Debug, Clone)]
pub struct Layout {
    pub rules: Arc<dyn Rules>,
    pub plan: Arc<MaskPlan>,
    /// Classes looked for inside cells.
    pub wanted: ClassSet,
    pub cells: Vec<Cell>,
}

#[derive(Debug, Clone)]
pub struct Cell {
    pub name: String,
    /// Index of the rule in `plan.response` that replaces the whole cell.
    pub rule: Option<usize>,
    pub shape: Shape,
    pub binary: bool,
}

/// How a type's values are written, as far as masks care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Text in both formats: text, varchar, bpchar, name, unknown, xml.
    Text,
    Json,
    /// Like json; the binary format has a version byte in front.
    Jsonb,
    /// Text inside a structure that quotes it: arrays of text, records.
    Nested,
    /// Numbers of fixed form, times, uuids: nothing a detector finds in the binary form.
    Fixed,
    /// Anything else: numeric, bigint, bytea, types of extensions.
    Other,
}

impl Shape {
    /// The shape of a built-in type by OID (`pg_type.dat`); `texts` are user-defined string types such as citext.
    pub fn of(type_oid: u32, texts: &[u32]) -> Shape {
        match type_oid {
            25 | 1043 | 1042 | 19 | 705 | 142 | 18 => Shape::Text,
            114 => Shape::Json,
            3802 => Shape::Jsonb,
            1009 | 1015 | 1014 | 1003 | 143 | 199 | 3807 | 2249 | 2287 => Shape::Nested,
            16 | 21 | 23 | 26 | 28 | 29 | 700 | 701 | 1082 | 1083 | 1114 | 1184 | 1186 | 1266 | 2950 => {
                Shape::Fixed
            }
            other if texts.contains(&other) => Shape::Text,
            _ => Shape::Other,
        }
    }

    /// A replaced value can be written in this format; NULL always can.
    pub fn takes_text(self, binary: bool) -> bool {
        match self {
            Shape::Text | Shape::Json | Shape::Jsonb => true,
            Shape::Nested | Shape::Fixed | Shape::Other => !binary,
        }
    }
}

/// Room that lives between rows, so that a row costs no allocation of its own.
#[derive(Debug, Default)]
pub struct Scratch {
    pub out: Vec<u8>,
    found: Vec<Finding>,
}

/// Masks of one row are counted here.
pub type Counts = BTreeMap<ClassId, u64>;

impl Layout {
    /// Writes the masked form of a DataRow into `scratch.out`; `false` when nothing in it changed.
    ///
    /// # Errors
    /// A row that does not parse, or with another number of cells than was described.
    pub fn row(
        &self,
        body: &[u8],
        key: &Key,
        scratch: &mut Scratch,
        counts: &mut Counts,
    ) -> Result<bool, Violation> {
        let mut cells = row::cells(body)?;
        if cells.left() != self.cells.len() {
            return Err(Violation::Field("row does not fit its description"));
        }
        let Scratch { out, found } = scratch;
        out.clear();
        let mut changed = false;
        let mut failed = None;
        message(out, b'D', |out| {
            out.extend_from_slice(body.get(..2).unwrap_or_default());
            for cell in &self.cells {
                match cells.cell() {
                    Ok(Some(None)) => out.extend_from_slice(&NULL),
                    Ok(Some(Some(value))) => changed |= self.cell(cell, value, key, out, found, counts),
                    Ok(None) => failed = Some(Violation::Field("row is short")),
                    Err(violation) => failed = Some(violation),
                }
            }
            if let Err(violation) = cells.cell() {
                failed = Some(violation);
            }
        });
        failed.map_or(Ok(changed), Err)
    }

    fn cell(
        &self,
        cell: &Cell,
        value: &[u8],
        key: &Key,
        out: &mut Vec<u8>,
        found: &mut Vec<Finding>,
        counts: &mut Counts,
    ) -> bool {
        if let Some(rule) = cell.rule.and_then(|rule| self.plan.response.get(rule)) {
            *counts.entry(rule.class).or_default() += 1;
            replace(self.rules.as_ref(), rule, cell, value, key, out);
            return true;
        }
        found.clear();
        let searched = !(self.wanted.0.is_empty() || cell.shape == Shape::Fixed);
        if searched {
            self.rules.find(value, &self.wanted, found);
        }
        if found.is_empty() {
            sized(out, |out| out.extend_from_slice(value));
            return false;
        }
        for finding in found.iter() {
            *counts.entry(finding.class).or_default() += 1;
        }
        match (cell.shape, cell.binary) {
            (Shape::Text, _) | (Shape::Nested, false) => sized(out, |out| self.text(value, found, key, out)),
            (Shape::Json, _) | (Shape::Jsonb, _) => self.json(value, found, key, out),
            (Shape::Nested | Shape::Fixed | Shape::Other, _) => out.extend_from_slice(&NULL),
        }
        true
    }

    /// A text with its findings replaced; for fields of errors, notices, notifications and COPY rows too.
    pub fn text(&self, value: &[u8], found: &[Finding], key: &Key, out: &mut Vec<u8>) {
        let mut from = 0;
        for finding in found {
            out.extend_from_slice(value.get(from..finding.start).unwrap_or_default());
            let hit = value.get(finding.start..finding.end).unwrap_or_default();
            out.extend_from_slice(self.replacement(finding.class, hit, key).as_bytes());
            from = finding.end;
        }
        out.extend_from_slice(value.get(from..).unwrap_or_default());
    }

    /// The masked form of a text, where anything in it is protected.
    pub fn scrub(&self, value: &[u8], key: &Key) -> Option<Vec<u8>> {
        self.scrub_counted(value, key).map(|(masked, _)| masked)
    }

    /// The masked form, and the class of each value that was masked.
    pub fn scrub_counted(&self, value: &[u8], key: &Key) -> Option<(Vec<u8>, Vec<ClassId>)> {
        let mut found = Vec::new();
        self.rules.find(value, &self.wanted, &mut found);
        if found.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(value.len());
        self.text(value, &found, key, &mut out);
        Some((out, found.iter().map(|finding| finding.class).collect()))
    }

    fn replacement(&self, class: ClassId, hit: &[u8], key: &Key) -> String {
        strictest(&self.plan.response, |known| known == class)
            .and_then(|(_, rule)| self.rules.mask(rule, &lossy(hit), key))
            .unwrap_or_default()
    }

    /// Findings inside JSON strings are replaced there; a number or word that is one becomes a string.
    fn json(&self, value: &[u8], found: &[Finding], key: &Key, out: &mut Vec<u8>) {
        sized(out, |out| {
            let mut at = 0;
            let mut from = 0;
            let mut inside = false;
            for finding in found {
                if finding.start < from {
                    continue;
                }
                inside = in_string(value.get(at..finding.start).unwrap_or_default(), inside);
                at = finding.start;
                let (start, end) = if inside {
                    (finding.start, finding.end)
                } else {
                    token(value, finding.start, finding.end)
                };
                let start = start.max(from);
                out.extend_from_slice(value.get(from..start).unwrap_or_default());
                let hit = value.get(finding.start..finding.end).unwrap_or_default();
                let masked = self.replacement(finding.class, hit, key);
                if !inside {
                    out.push(b'"');
                }
                json_text(out, &masked);
                if !inside {
                    out.push(b'"');
                }
                from = end;
                inside = in_string(value.get(at..end).unwrap_or_default(), inside);
                at = end;
            }
            out.extend_from_slice(value.get(from..).unwrap_or_default());
        });
    }
}

/// Length of a NULL cell.
const NULL: [u8; 4] = (-1_i32).to_be_bytes();

/// Writes the whole cell as its mask.
fn replace(rules: &dyn Rules, rule: &MaskRule, cell: &Cell, value: &[u8], key: &Key, out: &mut Vec<u8>) {
    let version = usize::from(cell.shape == Shape::Jsonb && cell.binary);
    let text = lossy(value.get(version..).unwrap_or_default());
    let fits = match cell.shape {
        Shape::Text | Shape::Json | Shape::Jsonb => true,
        Shape::Nested | Shape::Fixed | Shape::Other => false,
    };
    let masked = if fits && rule.mask != Mask::Nullify { rules.mask(rule, &text, key) } else { None };
    match masked {
        None => out.extend_from_slice(&NULL),
        Some(masked) => sized(out, |out| match cell.shape {
            Shape::Json | Shape::Jsonb => {
                out.extend_from_slice(value.get(..version).unwrap_or_default());
                out.push(b'"');
                json_text(out, &masked);
                out.push(b'"');
            }
            Shape::Text | Shape::Nested | Shape::Fixed | Shape::Other => {
                out.extend_from_slice(masked.as_bytes());
            }
        }),
    }
}

/// What is text is borrowed, after the fast check.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Writes a cell with its length in front.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
    if let Some(word) = out.get_mut(start..start + 4) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

fn json_text(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => out.push(b' '),
            _ => out.push(byte),
        }
    }
}

/// Whether the end of `json` lies inside a string, given that its start does or does not.
fn in_string(json: &[u8], mut inside: bool) -> bool {
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => inside = !inside,
            b'\\' if inside => {
                bytes.next();
            }
            _ => {}
        }
    }
    inside
}

/// The JSON number or word around a finding.
fn token(json: &[u8], start: usize, end: usize) -> (usize, usize) {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let before = json.get(..start).unwrap_or_default().iter().rev().take_while(|byte| part(byte)).count();
    let after = json.get(end..).unwrap_or_default().iter().take_while(|byte| part(byte)).count();
    (start - before, end + after)
}
