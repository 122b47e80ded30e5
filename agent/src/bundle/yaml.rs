//! YAML text → documents with line numbers.
//! It refuses what makes the same text mean two things: aliases, anchors, tags, keys that occur twice or are no text.

use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use weir_core::policy::{Document, Key, Node, Problem, Value};

/// Every document of one file; problems are added, and a file with a syntax error has no documents.
pub fn documents(file: &Arc<str>, text: &str, problems: &mut Vec<Problem>) -> Vec<Document> {
    let mut builder = Builder { file, parser: Parser::new_from_str(text), problems, nodes: 0 };
    match builder.stream() {
        Ok(roots) => {
            roots.into_iter().map(|root| Document { file: file.clone(), root }).filter(is_something).collect()
        }
        Err(Broken) => Vec::new(),
    }
}

/// An empty document between two `---` says nothing.
fn is_something(document: &Document) -> bool {
    document.root.value != Value::Null
}

struct Builder<'a, 'p> {
    file: &'a Arc<str>,
    parser: Parser<'a, StrInput<'a>>,
    problems: &'p mut Vec<Problem>,
    nodes: usize,
}

/// The text cannot be read on; the reason is noted.
struct Broken;

impl<'a> Builder<'a, '_> {
    fn stream(&mut self) -> Result<Vec<Node>, Broken> {
        let mut roots = Vec::new();
        loop {
            let (event, _) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(roots),
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    roots.push(self.node(event, span, DEPTH)?);
                }
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd => return Err(Broken),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Broken> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(fault)) => {
                let line = u32::try_from(fault.marker().line()).unwrap_or(0);
                // `*.example.com` without quotes is an alias to YAML, and the usual way to meet one here.
                let hint = match fault.info().contains("anchor") {
                    true => "; a pattern that begins with `*` needs quotes",
                    false => "",
                };
                self.note(line, format!("this is not YAML: {}{hint}", fault.info()));
                Err(Broken)
            }
            None => Err(Broken),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Broken> {
        let line = u32::try_from(span.start.line()).unwrap_or(0);
        self.nodes += 1;
        if depth == 0 || self.nodes > NODES {
            self.note(line, format!("nested deeper than {DEPTH} or more than {NODES} values"));
            return Err(Broken);
        }
        let (anchor, tagged) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            Event::Alias(_)
            | Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => (0, false),
        };
        if anchor != 0 {
            self.note(
                line,
                "anchors (`&name`) are refused: write shared values as a list `NAME: [..]` and use \"@NAME\"",
            );
        }
        if tagged {
            self.note(line, "tags (`!…`) are refused");
        }
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) if matches!(&*text, "" | "~" | "null") => Value::Null,
            Event::Scalar(text, ..) => Value::Scalar(text.into_owned()),
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            Event::Alias(_) => {
                self.note(line, "aliases (`*name`) are refused; a pattern that begins with `*` needs quotes");
                Value::Null
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(Broken),
        };
        Ok(Node { line, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Broken> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth - 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Broken> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if let Event::MappingEnd = event {
                return Ok(entries);
            }
            let key = self.node(event, span, depth - 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth - 1)?;
            let line = key.line;
            let Value::Scalar(text) = key.value else {
                self.note(line, "a key must be a plain text");
                continue;
            };
            if text == "<<" {
                self.note(line, "merge keys (`<<`) are refused");
            } else if let Some((twin, _)) = entries.iter().find(|(key, _)| key.text == text) {
                let first = twin.line;
                self.note(line, format!("the key {text:?} occurs twice (first on line {first})"));
            } else {
                entries.push((Key { line, text }, value));
            }
        }
    }

    fn note(&mut self, line: u32, message: impl Into<String>) {
        self.problems.push(Problem::new(self.file, line, message));
    }
}

/// Lists and maps in each other; the vocabulary needs about ten.
const DEPTH: usize = 32;
/// Values of one file.
const NODES: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Document>, Vec<String>) {
        let mut problems = Vec::new();
        let documents = documents(&Arc::from("a.yaml"), text, &mut problems);
        (documents, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn documents_know_their_lines() {
        let (documents, problems) = read("a: 1\n---\nb:\n  - x\n  - y: z\n");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(documents.len(), 2);
        let list = documents[1].root.field("b").unwrap();
        let Value::List(items) = &list.value else { panic!("no list") };
        assert_eq!((items[0].line, items[1].line), (4, 5));
    }

    #[test]
    fn what_has_two_meanings_is_refused() {
        for (text, line, part) in [
            ("a: &x 1\nb: *x\n", 1, "anchors"),
            ("a: 1\nb: !!int 2\n", 2, "tags"),
            ("a: 1\nb: 2\na: 3\n", 3, "occurs twice (first on line 1)"),
            ("a: {<<: {b: 1}}\n", 1, "merge"),
            ("a: [1\n", 0, "not YAML"),
            ("? [a]\n: b\n", 1, "plain text"),
            ("host: *.example.com\n", 1, "quotes"),
        ] {
            let (_, problems) = read(text);
            assert!(
                problems.iter().any(|problem| problem.contains(part)
                    && (line == 0 || problem.starts_with(&format!("a.yaml:{line}:")))),
                "{text:?}: {problems:?}"
            );
        }
    }

    #[test]
    fn depth_is_bounded() {
        let (_, problems) = read(&format!("a: {}{}", "[".repeat(200), "]".repeat(200)));
        assert!(problems.iter().any(|problem| problem.contains("deeper")), "{problems:?}");
    }
}
