//! A policy's own patterns and keywords.
//! It refuses patterns that match nothing-at-all (they would match everywhere) or that compile to something huge.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use aho_corasick::{AhoCorasick, MatchKind};
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::{ClassDefinition, ClassId, ClassSet, DetectError, Finding};
use crate::limits::MATCH_BYTES;

/// Bytes of one pattern's text.
const PATTERN_BYTES: usize = 8 * 1024;
/// Bytes of one compiled pattern; `\w{1000}` is beyond it, every sane identifier is far below.
const COMPILED_BYTES: usize = 1024 * 1024;
/// Bytes of the search cache of one pattern, per thread that searches.
const CACHE_BYTES: usize = 2 * 1024 * 1024;
/// Nesting of groups in one pattern.
const NESTING: u32 = 64;
/// Bytes of one keyword.
const KEYWORD_BYTES: usize = 1024;

/// Patterns of all classes.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// All patterns in one automaton: most texts match none, and one pass tells.
    gate: Option<Regex>,
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    class: ClassId,
    regex: Regex,
    longest: usize,
}

impl Patterns {
    pub(super) const NONE: Patterns = Patterns { gate: None, patterns: Vec::new() };

    pub(super) fn new(classes: &[ClassDefinition]) -> Result<Patterns, DetectError> {
        let mut patterns = Vec::new();
        let mut texts = Vec::new();
        for (class, text) in listed(classes, |class| &class.patterns) {
            patterns.push(compile(class, text)?);
            texts.push(text.as_str());
        }
        // One pattern is its own gate; many together may exceed the size bound, then each is searched alone.
        let gate = if texts.len() > 1 { builder(COMPILED_BYTES * 8).build_many(&texts).ok() } else { None };
        Ok(Patterns { gate, patterns })
    }

    pub(super) fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>) {
        if self.patterns.is_empty() || self.gate.as_ref().is_some_and(|gate| !gate.is_match(text)) {
            return;
        }
        for pattern in self.patterns.iter().filter(|pattern| wanted.0.contains(&pattern.class)) {
            for hit in pattern.regex.find_iter(text).filter(|hit| !hit.is_empty()) {
                found.push(Finding { class: pattern.class, start: hit.start(), end: hit.end() });
            }
        }
    }

    pub(super) fn any(&self, wanted: &ClassSet) -> bool {
        self.patterns.iter().any(|pattern| wanted.0.contains(&pattern.class))
    }

    pub(super) fn longest(&self, wanted: &ClassSet) -> usize {
        let wanted = self.patterns.iter().filter(|pattern| wanted.0.contains(&pattern.class));
        wanted.map(|pattern| pattern.longest).max().unwrap_or(0)
    }
}

fn compile(class: ClassId, text: &str) -> Result<Pattern, DetectError> {
    let refuse = |reason: &str| DetectError::Pattern { pattern: text.to_owned(), reason: reason.to_owned() };
    if text.len() > PATTERN_BYTES {
        return Err(refuse("it is longer than 8 KiB"));
    }
    let tree = syntax::parse_with(text, &syntax_config()).map_err(|error| refuse(&error.to_string()))?;
    let properties = tree.properties();
    if properties.minimum_len() == Some(0) {
        return Err(refuse("it matches the empty string"));
    }
    if properties.minimum_len().is_none() {
        return Err(refuse("it can never match"));
    }
    let regex = builder(COMPILED_BYTES).build(text).map_err(|error| match error.size_limit() {
        Some(_) => refuse("it compiles to more than 1 MiB; use smaller repetitions"),
        None => refuse(&error.to_string()),
    })?;
    let longest = properties.maximum_len().map_or(MATCH_BYTES, |longest| longest.min(MATCH_BYTES));
    Ok(Pattern { class, regex, longest })
}

fn syntax_config() -> syntax::Config {
    syntax::Config::new().nest_limit(NESTING)
}

fn builder(compiled: usize) -> regex_automata::meta::Builder {
    let mut builder = Regex::builder();
    let limits = Regex::config()
        .nfa_size_limit(Some(compiled))
        .onepass_size_limit(Some(compiled))
        .hybrid_cache_capacity(CACHE_BYTES);
    builder.configure(limits).syntax(syntax_config());
    builder
}

/// Keywords of all classes.
#[derive(Debug, Default)]
pub(super) struct Keywords {
    automaton: Option<AhoCorasick>,
    keywords: Vec<Keyword>,
}

/// By pattern number of the automaton.
#[derive(Debug)]
struct Keyword {
    class: ClassId,
    length: usize,
}

impl Keywords {
    pub(super) const NONE: Keywords = Keywords { automaton: None, keywords: Vec::new() };

    pub(super) fn new(classes: &[ClassDefinition]) -> Result<Keywords, DetectError> {
        let mut keywords = Vec::new();
        let mut texts: Vec<&str> = Vec::new();
        for (class, text) in listed(classes, |class| &class.keywords) {
            let refuse =
                |reason: &str| DetectError::Keyword { keyword: text.to_owned(), reason: reason.to_owned() };
            if text.trim().is_empty() {
                return Err(refuse("it is empty"));
            }
            if text.len() > KEYWORD_BYTES {
                return Err(refuse("it is longer than 1 KiB"));
            }
            keywords.push(Keyword { class, length: text.len() });
            texts.push(text);
        }
        if texts.is_empty() {
            return Ok(Keywords::NONE);
        }
        // `Standard` reports all keywords at every place: one of an unwanted class must not hide another.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(&texts)
            .map_err(|error| DetectError::Keyword { keyword: String::new(), reason: error.to_string() })?;
        Ok(Keywords { automaton: Some(automaton), keywords })
    }

    pub(super) fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>) {
        let Some(automaton) = self.automaton.as_ref().filter(|_| self.any(wanted)) else { return };
        for hit in automaton.find_overlapping_iter(text) {
            let Some(keyword) = self.keywords.get(hit.pattern().as_usize()) else { continue };
            if wanted.0.contains(&keyword.class) && on_boundaries(text, hit.start(), hit.end()) {
                found.push(Finding { class: keyword.class, start: hit.start(), end: hit.end() });
            }
        }
    }

    pub(super) fn any(&self, wanted: &ClassSet) -> bool {
        self.keywords.iter().any(|keyword| wanted.0.contains(&keyword.class))
    }

    pub(super) fn longest(&self, wanted: &ClassSet) -> usize {
        let wanted = self.keywords.iter().filter(|keyword| wanted.0.contains(&keyword.class));
        wanted.map(|keyword| keyword.length).max().unwrap_or(0)
    }
}

/// No letter, digit or `_` goes on across either end. Scripts without blanks between words always pass.
fn on_boundaries(text: &[u8], start: usize, end: usize) -> bool {
    let word = |at: Option<usize>| {
        at.and_then(|at| text.get(at)).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    let begins = !(word(Some(start)) && word(start.checked_sub(1)));
    let ends = !(word(end.checked_sub(1)) && word(Some(end)));
    begins && ends
}

fn listed(
    classes: &[ClassDefinition],
    of: fn(&ClassDefinition) -> &Vec<String>,
) -> impl Iterator<Item = (ClassId, &String)> {
    classes
        .iter()
        .zip(0_u16..)
        .flat_map(move |(class, id)| of(class).iter().map(move |text| (ClassId(id), text)))
}
