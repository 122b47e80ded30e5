//! Bodies that a rule reads: gathered whole, understood by their media type, masked value by value.
//! It refuses what it cannot read in full: codings, character sets and media types it does not know.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::exchange::Counts;
use super::form;
use super::judge::Judge;
use crate::detect::{ClassId, ClassSet, Finding};
use crate::limits::{HTTP_BODY_BYTES, MASKED_BYTES};
use crate::mask::{Key, Mask};
use crate::policy::MaskRule;
use crate::wire::http1::{Body, Framing, Violation};
use crate::wire::json::{self, Documents, Kind};

/// A body being gathered: as it came, and without its chunk framing.
#[derive(Debug)]
pub(super) struct Gather {
    body: Body,
    raw: Vec<u8>,
    content: Option<Vec<u8>>,
}

/// Why gathering stopped.
#[derive(Debug)]
pub(super) enum GatherError {
    Large,
    Malformed(Violation),
}

impl Gather {
    pub(super) fn new(framing: Framing) -> Self {
        Self {
            body: Body::new(framing),
            raw: Vec::new(),
            content: (framing == Framing::Chunked).then(Vec::new),
        }
    }

    /// Takes what belongs to the body from the front of `input`.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<usize, GatherError> {
        let mut taken = 0;
        while !self.body.is_done() {
            let rest = input.get(taken..).unwrap_or_default();
            let step = self.body.step(rest).map_err(GatherError::Malformed)?;
            if step.taken == 0 {
                break;
            }
            if self.raw.len() + step.taken > HTTP_BODY_BYTES {
                return Err(GatherError::Large);
            }
            self.raw.extend_from_slice(rest.get(..step.taken).unwrap_or_default());
            if let Some(content) = &mut self.content {
                content.extend_from_slice(rest.get(step.content).unwrap_or_default());
            }
            taken += step.taken;
        }
        Ok(taken)
    }

    /// Bytes held so far.
    pub(super) fn held(&self) -> u64 {
        self.raw.len() as u64
    }

    pub(super) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    pub(super) fn ends_with_stream(&self) -> bool {
        self.body.ends_with_stream()
    }

    pub(super) fn content(&self) -> &[u8] {
        self.content.as_deref().unwrap_or(&self.raw)
    }

    pub(super) fn into_raw(self) -> Vec<u8> {
        self.raw
    }
}

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json(Documents),
    Text,
    Form,
}

/// Whether the bytes of a body are its text: no coding, and a character set in which ASCII means ASCII.
pub(super) fn readable(content_type: &[u8], encoded: bool) -> Result<(), &'static str> {
    if encoded {
        return Err("the body is compressed, and a rule has to read it: send it without Content-Encoding");
    }
    for parameter in content_type.split(|byte| *byte == b';').skip(1) {
        let parameter = parameter.trim_ascii();
        let Some(at) = parameter.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = parameter.split_at_checked(at).unwrap_or_default();
        let value = value.strip_prefix(b"=").unwrap_or(value).trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        let known = CHARSETS.iter().any(|charset| value.eq_ignore_ascii_case(charset.as_bytes()));
        if name.trim_ascii().eq_ignore_ascii_case(b"charset") && !known {
            return Err("the body is in a character set that a rule cannot read");
        }
    }
    Ok(())
}

/// How a body of this type is masked.
pub(super) fn media(content_type: &[u8]) -> Result<Media, &'static str> {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let kind = core::str::from_utf8(kind).map_err(|_| UNREADABLE)?.to_ascii_lowercase();
    match kind.as_str() {
        "text/event-stream" => Err(EVENT_STREAM),
        "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Ok(Media::Json(Documents::Many))
        }
        "application/json" | "text/json" => Ok(Media::Json(Documents::One)),
        "application/x-www-form-urlencoded" => Ok(Media::Form),
        kind if kind.ends_with("+json") => Ok(Media::Json(Documents::One)),
        kind if kind.starts_with("text/") => Ok(Media::Text),
        _ => Err(UNREADABLE),
    }
}

/// Applies the masks of one act in one direction.
pub(super) struct Masker<'a> {
    judge: &'a dyn Judge,
    key: &'a Key,
    /// The strictest mask of each class.
    masks: Vec<(ClassId, Mask)>,
    wanted: ClassSet,
    counts: &'a mut Counts,
    found: Vec<Finding>,
}

impl<'a> Masker<'a> {
    pub(super) fn new(
        judge: &'a dyn Judge,
        key: &'a Key,
        rules: &[MaskRule],
        counts: &'a mut Counts,
    ) -> Self {
        let mut masks: Vec<(ClassId, Mask)> = Vec::new();
        for rule in rules {
            match masks.iter_mut().find(|(class, _)| *class == rule.class) {
                Some((_, mask)) => *mask = (*mask).max(rule.mask),
                None => masks.push((rule.class, rule.mask)),
            }
        }
        let wanted = ClassSet(masks.iter().map(|(class, _)| *class).collect());
        Self { judge, key, masks, wanted, counts, found: Vec::new() }
    }

    /// The masked body; `None` when nothing in it is protected.
    pub(super) fn body(&mut self, media: Media, bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        match media {
            Media::Json(documents) => self.json(documents, bytes),
            Media::Form => self.form(bytes),
            // UTF-16 without a declared character set, or no text at all.
            Media::Text
                if bytes.contains(&0) || bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") =>
            {
                Err("the body is in a character set that a rule cannot read")
            }
            Media::Text => self.text(bytes),
        }
    }

    /// A form body or a query string: only values that change are encoded anew.
    pub(super) fn form(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        const BAD: &str = "the form is malformed, and a mask has to read it";
        let mut out = Vec::new();
        let mut changed = false;
        for (index, pair) in bytes.split(|byte| *byte == b'&').enumerate() {
            if index > 0 {
                out.push(b'&');
            }
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at_checked(at).unwrap_or_default();
            let key = form::decode(name).ok_or(BAD)?;
            let plain = form::decode(value.strip_prefix(b"=").unwrap_or(value)).ok_or(BAD)?;
            let classes = self.classes_at(&[Cow::Borrowed(key.as_str())]);
            match self.string(key.as_bytes())? {
                Some(masked) => {
                    changed = true;
                    form::encode(&masked, &mut out);
                }
                None => out.extend_from_slice(name),
            }
            let masked = match self.strictest(&classes) {
                Some(class) if !plain.is_empty() => Some(self.value(class, &plain)?.unwrap_or_default()),
                Some(_) | None => self.string(plain.as_bytes())?,
            };
            match masked {
                Some(masked) => {
                    changed = true;
                    out.push(b'=');
                    form::encode(&masked, &mut out);
                }
                None => out.extend_from_slice(value),
            }
        }
        Ok(changed.then_some(out))
    }

    /// Plain text: findings are replaced where they stand.
    pub(super) fn text(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        let mut found = core::mem::take(&mut self.found);
        found.clear();
        self.judge.find(bytes, &self.wanted, &mut found);
        let mut out = Vec::new();
        let mut at = 0;
        for finding in &found {
            let value = bytes.get(finding.start..finding.end).unwrap_or_default();
            let Some(mask) = self.mask_of(finding.class) else { continue };
            let masked =
                self.value((finding.class, mask), &String::from_utf8_lossy(value))?.unwrap_or_default();
            out.extend_from_slice(bytes.get(at..finding.start).unwrap_or_default());
            out.extend_from_slice(masked.as_bytes());
            at = finding.end;
        }
        self.found = found;
        if at == 0 {
            return Ok(None);
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
        Ok(Some(out))
    }

    fn json(&mut self, documents: Documents, bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        let mut out = Vec::new();
        let mut at = 0;
        // Classes of the keys from the root: a class given to an object holds for everything in it.
        let mut inherited: Vec<Vec<ClassId>> = Vec::new();
        let mut fault = None;
        let scanned = json::scan(bytes, documents, |path, span, kind| {
            if kind == Kind::Key {
                inherited.truncate(path.len().saturating_sub(1));
                inherited.push(self.classes_at(path));
            }
            let classes = inherited.get(..path.len()).unwrap_or_default();
            let class = self.strictest(classes.iter().flatten());
            match self.token(bytes, &span, kind, class) {
                Ok(Some(token)) => {
                    out.extend_from_slice(bytes.get(at..span.start).unwrap_or_default());
                    out.extend_from_slice(&token);
                    at = span.end;
                }
                Ok(None) => {}
                Err(reason) => fault = Some(reason),
            }
        });
        if let Some(reason) = fault {
            return Err(reason);
        }
        scanned.map_err(|_| "the JSON is malformed, and a mask has to read it")?;
        if at == 0 {
            return Ok(None);
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
        Ok(Some(out))
    }

    /// The token in place of this one, if it changes.
    fn token(
        &mut self,
        bytes: &[u8],
        span: &Range<usize>,
        kind: Kind,
        class: Option<(ClassId, Mask)>,
    ) -> Result<Option<Vec<u8>>, &'static str> {
        let token =
            bytes.get(span.clone()).and_then(|token| core::str::from_utf8(token).ok()).unwrap_or_default();
        let text = match kind {
            Kind::Null => return Ok(None),
            Kind::Key | Kind::String => json::unescape(token).map_err(|_| UNREADABLE)?,
            Kind::Number | Kind::Boolean => Cow::Borrowed(token),
        };
        let masked = match (kind, class) {
            (Kind::String | Kind::Number | Kind::Boolean, Some(class)) => self.value(class, &text)?,
            (Kind::Key, _) | (_, None) => match self.string(text.as_bytes())? {
                // A name must stay a name; a value that is all gone is no value.
                Some(masked) if masked.is_empty() && kind != Kind::Key => None,
                Some(masked) => Some(masked),
                None => return Ok(None),
            },
            (Kind::Null, Some(_)) => return Ok(None),
        };
        let mut token = Vec::new();
        match masked {
            Some(masked) => json::quote(&masked, &mut token),
            None => token.extend_from_slice(b"null"),
        }
        Ok(Some(token))
    }

    /// Findings in a piece of text; `None` when there are none.
    fn string(&mut self, text: &[u8]) -> Result<Option<String>, &'static str> {
        match self.text(text)? {
            Some(masked) => String::from_utf8(masked).map(Some).map_err(|_| UNREADABLE),
            None => Ok(None),
        }
    }

    fn value(&mut self, (class, mask): (ClassId, Mask), value: &str) -> Result<Option<String>, &'static str> {
        self.counts.add(class);
        let masked = self.judge.masked(class, mask, value, self.key);
        if masked.as_ref().is_some_and(|masked| masked.len() > MASKED_BYTES) {
            return Err("a masked value is too large");
        }
        Ok(masked)
    }

    fn classes_at(&self, keys: &[Cow<'_, str>]) -> Vec<ClassId> {
        let mut classes = Vec::new();
        self.judge.json_classes(keys, &mut classes);
        classes
    }

    fn mask_of(&self, class: ClassId) -> Option<Mask> {
        self.masks.iter().find(|(known, _)| *known == class).map(|(_, mask)| *mask)
    }

    fn strictest<'c>(&self, classes: impl IntoIterator<Item = &'c ClassId>) -> Option<(ClassId, Mask)> {
        let masks = classes.into_iter().filter_map(|class| self.mask_of(*class).map(|mask| (*class, mask)));
        masks.max_by_key(|(_, mask)| *mask)
    }
}

const EVENT_STREAM: &str = "event streams cannot be masked yet: ask for a whole answer (in many APIs `\"stream\": false`), or \
                            leave this path out of the mask";
const UNREADABLE: &str = "the body is of a type that masks cannot read (they read JSON, forms and text): leave this path \
                          out of the mask";
/// Character sets in which every ASCII byte means what it says.
const CHARSETS: &[&str] = &["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252"];
