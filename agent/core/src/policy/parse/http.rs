//! `http:`: methods, hosts, paths and statuses.
//! It refuses spellings that would never match a normalised request.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::condition::{Condition, Test};
use super::super::glob::PathGlob;
use super::super::node::Node;
use super::matching::tests_of;
use super::{Keys, Reader, target};

pub(super) fn http(reader: &mut Reader<'_>, node: &Node) -> Option<Condition> {
    let mut tests = Vec::new();
    for (key, _, value) in reader.map(node, &HTTP_KEYS) {
        tests.extend(match key {
            "method" => methods(reader, value).map(Test::Method),
            "host" => {
                let patterns = target::hosts(reader, value, "http host");
                if patterns.iter().any(|pattern| pattern.port.is_some()) {
                    reader.problem(value.line, "http host has no port: use dst: {port: …}");
                }
                let hosts: Vec<_> = patterns.into_iter().map(|pattern| pattern.host).collect();
                (!hosts.is_empty()).then_some(Test::HttpHost(hosts))
            }
            "path" => paths(reader, value).map(Test::Path),
            _ => statuses(reader, value).map(Test::Status),
        });
    }
    tests_of(reader, node, "http", tests)
}

fn methods(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    let texts = reader.texts(node, "method");
    for (line, text) in &texts {
        if !text.bytes().all(|byte| byte.is_ascii_uppercase() || b"-_".contains(&byte)) {
            reader.problem(
                *line,
                format!("method {text:?}: methods are written in upper case, and compared so"),
            );
            return None;
        }
    }
    (!texts.is_empty()).then(|| texts.into_iter().map(|(_, text)| text.to_string()).collect())
}

fn paths(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<PathGlob>> {
    let texts = reader.texts(node, "path");
    let mut found = Vec::new();
    for (line, text) in &texts {
        match PathGlob::new(text).filter(|_| !text.contains(['?', '#'])) {
            Some(path) => found.push(path),
            None => reader
                .problem(*line, format!("path {text:?}: begin with `/`, and leave out query and fragment")),
        }
    }
    (!texts.is_empty() && found.len() == texts.len()).then_some(found)
}

/// `404`, `5xx`, `400-499`.
fn statuses(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(u16, u16)>> {
    let texts = reader.texts(node, "status");
    let mut found = Vec::new();
    for (line, text) in &texts {
        let (from, to) = match text.strip_suffix("xx") {
            Some(hundreds) => (format!("{hundreds}00"), format!("{hundreds}99")),
            None => {
                let (from, to) = text.split_once('-').unwrap_or((text, text));
                (from.into(), to.into())
            }
        };
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if (100..=599).contains(&from) && (from..=599).contains(&to) => {
                found.push((from, to))
            }
            (Ok(_) | Err(_), _) => {
                reader.problem(*line, format!("status {text:?}: write 404, 5xx or 400-499"))
            }
        }
    }
    (!texts.is_empty() && found.len() == texts.len()).then_some(found)
}

const HTTP_KEYS: Keys =
    Keys { of: "http", known: &["method", "host", "path", "status"], unbuilt: &[("body_over", "")] };
