//! Words, patterns and classes in what is sent and what comes back.
//! It refuses to be fooled by spelling: escaped and percent-encoded forms are read too.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;

use aho_corasick::{AhoCorasick, MatchKind};
use regex_automata::meta::Regex;
use regex_automata::util::syntax;

use super::super::spelling;
use super::{Facts, Truth};
use crate::action::{Action, Request};
use crate::detect::{ClassSet, Scanner};

#[derive(Debug)]
pub(in super::super) struct Text {
    pub(in super::super) direction: Direction,
    pub(in super::super) words: Option<Words>,
    pub(in super::super) patterns: Vec<Regex>,
    pub(in super::super) classes: ClassSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Direction {
    Request,
    Response,
}

/// Words found without regard to ASCII case, where they stand alone.
#[derive(Debug)]
pub(in super::super) struct Words(AhoCorasick);

/// The spellings of an act's texts, made once an act and only when a rule looks.
#[derive(Default)]
pub(super) struct Texts {
    request: OnceCell<Vec<Vec<u8>>>,
    response: OnceCell<Vec<Vec<u8>>>,
    words: OnceCell<Vec<u8>>,
}

impl Words {
    /// # Errors
    /// The words are too many or too long to compile.
    pub(in super::super) fn new(words: &[String]) -> Result<Words, String> {
        AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(words)
            .map(Words)
            .map_err(|fault| alloc::format!("the words cannot be compiled: {fault}"))
    }

    pub(super) fn found(&self, text: &[u8]) -> bool {
        let is_word =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        self.0.find_overlapping_iter(text).any(|hit| {
            let before = hit.start().checked_sub(1).and_then(|at| text.get(at));
            let inside = |at: Option<&u8>, edge: Option<&u8>| is_word(at) && is_word(edge);
            let last = hit.end().checked_sub(1).and_then(|at| text.get(at));
            !inside(before, text.get(hit.start())) && !inside(text.get(hit.end()), last)
        })
    }
}

/// # Errors
/// Why the pattern cannot be used.
pub(in super::super) fn pattern(text: &str) -> Result<Regex, String> {
    let regex = Regex::builder()
        .configure(Regex::config().nfa_size_limit(Some(PATTERN_BYTES)).utf8_empty(false))
        .syntax(syntax::Config::new().utf8(false))
        .build(text)
        .map_err(|fault| match fault.syntax_error() {
            Some(syntax) => alloc::format!("{syntax}").lines().last().unwrap_or("it does not parse").into(),
            None => String::from("it is too large when compiled"),
        })?;
    if regex.is_match("") {
        return Err("it matches the empty text, so it would match everything".into());
    }
    Ok(regex)
}

impl Text {
    pub(super) fn truth(&self, facts: &Facts<'_>, texts: &Texts) -> Truth {
        let (spellings, whole) = match (self.direction, facts.action) {
            (Direction::Request, Action::Sql(statement)) => {
                return Truth::of(self.found(statement.text.as_bytes(), facts.scanner));
            }
            (Direction::Request, Action::Http(request)) => {
                (texts.request.get_or_init(|| of_request(request)), request.body.is_some())
            }
            (Direction::Request, Action::Response(response)) => {
                (texts.request.get_or_init(|| of_request(&response.request)), response.request.body.is_some())
            }
            (Direction::Response, Action::Response(response)) => (
                texts.response.get_or_init(|| response.body.map(spelling::of_body).unwrap_or_default()),
                response.body.is_some(),
            ),
            (Direction::Request | Direction::Response, Action::Connect)
            | (Direction::Response, Action::Sql(_) | Action::Http(_)) => return Truth::Unknown,
        };
        match spellings.iter().any(|spelling| self.found(spelling, facts.scanner)) {
            true => Truth::Yes,
            false if whole => Truth::No,
            // The body was not read: the text may be in it.
            false => Truth::Unknown,
        }
    }

    fn found(&self, text: &[u8], scanner: &Scanner) -> bool {
        self.words.as_ref().is_some_and(|words| words.found(text))
            || self.patterns.iter().any(|pattern| pattern.is_match(text))
            || (!self.classes.0.is_empty() && {
                let mut found = Vec::new();
                scanner.find(text, &self.classes, &mut found);
                !found.is_empty()
            })
    }
}

impl Texts {
    pub(super) fn words(&self, statement: &str) -> &[u8] {
        self.words.get_or_init(|| spelling::sql_words(statement.as_bytes()))
    }
}

fn of_request(request: &Request<'_>) -> Vec<Vec<u8>> {
    let mut spellings = alloc::vec![request.path.as_bytes().to_vec(), request.query.as_bytes().to_vec()];
    spellings.extend(request.other_paths.iter().map(|path| path.as_bytes().to_vec()));
    if request.sent_path != request.path {
        spellings.push(spelling::percent_decoded(request.sent_path.as_bytes()));
    }
    spellings.push(spelling::percent_decoded(request.query.as_bytes()));
    spellings.extend(request.body.map(spelling::of_body).unwrap_or_default());
    spellings
}

/// Bytes one compiled pattern may take: generous for a list of words, small against `(\w{1000}){1000}`.
const PATTERN_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_alone_and_ignore_case() {
        let words = Words::new(&["export".into(), "pg_dump".into(), "#1".into()]).unwrap();
        for (text, found) in [
            ("EXPORT all", true),
            ("reexport", false),
            ("exports", false),
            ("(export)", true),
            ("x pg_dump;", true),
            ("item#1", true),
            ("", false),
        ] {
            assert_eq!(words.found(text.as_bytes()), found, "{text}");
        }
    }

    #[test]
    fn patterns_that_match_nothing_or_everything_are_refused() {
        assert!(pattern("(").unwrap_err().contains("unclosed"));
        assert!(pattern("a*").unwrap_err().contains("empty"));
        assert!(pattern(r"(?:\w{100}){1000}").is_err());
        assert!(pattern(r"\bMRN-\d{7}\b").unwrap().is_match("MRN-1234567"));
    }
}
