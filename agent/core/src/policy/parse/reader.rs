//! Reads maps, lists and scalars of one file and notes every mistake with its line.
//! It refuses keys it does not know: a misspelt control must not be a control that is missing.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::node::{Node, Value};
use super::super::problem::{Problem, suggestion};

/// One file being read.
pub(super) struct Reader<'p> {
    pub(super) file: Arc<str>,
    problems: &'p mut Vec<Problem>,
}

/// What a map may hold.
pub(super) struct Keys {
    /// How messages call the map.
    pub(super) of: &'static str,
    pub(super) known: &'static [&'static str],
    /// Words of the vocabulary that this build does not have; each with what to do instead (may be empty).
    pub(super) unbuilt: &'static [(&'static str, &'static str)],
}

impl<'p> Reader<'p> {
    pub(super) fn new(file: &Arc<str>, problems: &'p mut Vec<Problem>) -> Self {
        Self { file: file.clone(), problems }
    }

    pub(super) fn problem(&mut self, line: u32, message: impl Into<String>) {
        self.problems.push(Problem::new(&self.file, line, message));
    }

    /// The entries of a map whose keys are known; all others are noted.
    pub(super) fn map<'n>(&mut self, node: &'n Node, keys: &Keys) -> Vec<(&'static str, u32, &'n Node)> {
        let Value::Map(entries) = &node.value else {
            self.problem(
                node.line,
                format!("{} must be a map of keys ({}), not {}", keys.of, keys.known.join(", "), shape(node)),
            );
            return Vec::new();
        };
        let mut found = Vec::new();
        for (key, value) in entries {
            if let Some(known) = keys.known.iter().find(|known| **known == key.text) {
                found.push((*known, key.line, value));
            } else if let Some((word, instead)) = keys.unbuilt.iter().find(|(word, _)| *word == key.text) {
                let hint = if instead.is_empty() { String::new() } else { format!("; {instead}") };
                self.problem(key.line, format!("`{word}` in {} is not built yet{hint}", keys.of));
            } else {
                let nearest = suggestion(&key.text, keys.known.iter().copied());
                self.problem(key.line, format!("unknown key {:?} in {}{nearest}", key.text, keys.of));
            }
        }
        found
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.value {
            Value::Scalar(text) if !text.is_empty() => Some(text),
            Value::Scalar(_) | Value::Null => {
                self.problem(node.line, format!("{what} is empty"));
                None
            }
            Value::List(_) | Value::Map(_) => {
                self.problem(node.line, format!("{what} must be one value, not {}", shape(node)));
                None
            }
        }
    }

    /// A list of texts; a single text counts as a list of one. An empty list can never match and is noted.
    pub(super) fn texts<'n>(&mut self, node: &'n Node, what: &str) -> Vec<(u32, &'n str)> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.problem(node.line, format!("{what} is an empty list, which can never match"));
                Vec::new()
            }
            Value::List(items) => {
                let mut texts = Vec::new();
                for item in items {
                    texts.extend(self.text(item, what).map(|text| (item.line, text)));
                }
                texts
            }
            Value::Scalar(_) | Value::Null => {
                self.text(node, what).map(|text| (node.line, text)).into_iter().collect()
            }
            Value::Map(_) => {
                self.problem(node.line, format!("{what} must be a list, not {}", shape(node)));
                Vec::new()
            }
        }
    }

    /// The items of a list; a single map counts as a list of one.
    pub(super) fn items<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                self.problem(node.line, format!("{what} is an empty list"));
                &[]
            }
            Value::List(items) => items,
            Value::Map(_) => core::slice::from_ref(node),
            Value::Scalar(_) | Value::Null => {
                self.problem(node.line, format!("{what} must be a list, not {}", shape(node)));
                &[]
            }
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let text = self.text(node, what)?;
        match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.problem(node.line, format!("{what} is true or false, not {text:?}"));
                None
            }
        }
    }

    pub(super) fn number(&mut self, node: &Node, what: &str, most: u64) -> Option<u64> {
        let text = self.text(node, what)?;
        let number = text.parse().ok().filter(|number| *number <= most);
        if number.is_none() {
            self.problem(node.line, format!("{what} is a number from 0 to {most}, not {text:?}"));
        }
        number
    }

    /// One word of a closed list.
    pub(super) fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
        if found.is_none() {
            let nearest = suggestion(text, choices.iter().map(|(word, _)| *word));
            self.problem(node.line, format!("{what} cannot be {text:?}{nearest}"));
        }
        found
    }
}

/// How a message calls what stands there.
pub(super) fn shape(node: &Node) -> &'static str {
    match node.value {
        Value::Null => "nothing",
        Value::Scalar(_) => "a single value",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}

/// `90s`, `15m`, `8h`, `30d` → nanoseconds.
pub(super) fn duration_ns(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000_000)
}
