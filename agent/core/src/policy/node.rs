//! A tree of lists, maps and scalars in which every node knows its line: what a bundle is before it means anything.
//! It refuses to know YAML: the text is read at the rim, which also refuses aliases, tags and keys that occur twice.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// One document of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Path below the bundle's folder.
    pub file: Arc<str>,
    pub root: Node,
}

/// A value and the line (1-based) on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub line: u32,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub line: u32,
    pub text: String,
}

impl Node {
    /// The value under `key` of a map.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node),
            Value::Null | Value::Scalar(_) | Value::List(_) => None,
        }
    }

    /// The text of a scalar.
    #[must_use]
    pub fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Calls `visit` for every scalar that stands under a key named `key`, at any depth.
    pub fn each_named<'a>(&'a self, key: &str, visit: &mut dyn FnMut(&'a str)) {
        match &self.value {
            Value::Null | Value::Scalar(_) => {}
            Value::List(items) => items.iter().for_each(|item| item.each_named(key, visit)),
            Value::Map(entries) => {
                for (name, node) in entries {
                    if let (true, Value::Scalar(text)) = (name.text == key, &node.value) {
                        visit(text);
                    }
                    node.each_named(key, visit);
                }
            }
        }
    }
}
