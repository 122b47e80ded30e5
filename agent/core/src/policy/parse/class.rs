//! `classes:`: what is protected, by column, JSON path, built-in detector, pattern or word.
//! It refuses classes that match nothing.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::classes::{ColumnPattern, JsonPath, column_shape};
use super::super::condition::text;
use super::super::node::{Node, Value};
use super::{Keys, Lexicon, Reader};
use crate::detect::{ClassDefinition, ClassId, Scanner};

pub(super) fn classes(reader: &mut Reader<'_>, node: &Node, lexicon: &mut Lexicon<'_>) {
    let Value::Map(entries) = &node.value else {
        reader.problem(node.line, "classes must be a map of class names");
        return;
    };
    for (key, body) in entries {
        let name = key.text.as_str();
        if !is_name(name) {
            reader.problem(key.line, format!("class name {name:?}: use letters, digits, `_` and `-`"));
        }
        if lexicon.ids.contains_key(name) {
            reader.problem(key.line, format!("class {name:?} is declared twice"));
            continue;
        }
        let Ok(number) = u16::try_from(lexicon.classes.len()) else {
            reader.problem(key.line, "too many classes (at most 65535)");
            return;
        };
        class(reader, key.line, name, body, ClassId(number), lexicon);
    }
}

fn class(
    reader: &mut Reader<'_>,
    line: u32,
    name: &str,
    body: &Node,
    id: ClassId,
    lexicon: &mut Lexicon<'_>,
) {
    let mut definition = ClassDefinition { name: name.into(), ..ClassDefinition::default() };
    let before = lexicon.patterns.columns.len() + lexicon.patterns.json.len();
    let fields = reader.map(body, &KEYS);
    let empty = fields.is_empty();
    for (key, _, node) in fields {
        let entries = reader.texts(node, &format!("{key} of class {name:?}"));
        for (line, entry) in entries {
            match key {
                "columns" => match ColumnPattern::new(entry) {
                    Some(pattern) => lexicon.patterns.columns.push((pattern, id)),
                    None => reader.problem(line, column_shape(entry)),
                },
                "json" => match JsonPath::new(entry) {
                    Some(path) => lexicon.patterns.json.push((path, id)),
                    None => reader.problem(
                        line,
                        format!(
                            "{entry:?} is no JSON path: write \"$.a.b\" or \"$..b\" (`[*]` and `*` allowed)"
                        ),
                    ),
                },
                "detect" => definition.families.push(entry.into()),
                "pattern" | "patterns" => {
                    if let Err(reason) = text::pattern(entry) {
                        reader.problem(line, format!("pattern {entry:?} cannot be used: {reason}"));
                    }
                    definition.patterns.push(entry.into());
                }
                "keywords" => definition.keywords.push(entry.into()),
                other => reader.problem(line, format!("class key {other:?} is read by nothing")),
            }
            probe(reader, line, key, entry);
        }
    }
    let places = lexicon.patterns.columns.len() + lexicon.patterns.json.len() - before;
    if !empty && places == 0 && !detects(&definition) {
        reader.problem(line, format!("class {name:?} matches nothing: give it {}", KEYS.known.join(", ")));
    }
    lexicon.ids.insert(name.to_string(), id);
    lexicon.classes.push(definition);
}

/// Compiles one detector by itself, so that a mistake has its own line.
fn probe(reader: &mut Reader<'_>, line: u32, key: &str, entry: &str) {
    let mut alone = ClassDefinition { name: "probe".into(), ..ClassDefinition::default() };
    let list: &mut Vec<String> = match key {
        "detect" => &mut alone.families,
        "pattern" | "patterns" if text::pattern(entry).is_ok() => &mut alone.patterns,
        "keywords" => &mut alone.keywords,
        _ => return,
    };
    list.push(entry.into());
    if let Err(fault) = Scanner::new(&[alone]) {
        reader.problem(line, fault.to_string());
    }
}

pub(super) fn detects(class: &ClassDefinition) -> bool {
    !(class.families.is_empty() && class.patterns.is_empty() && class.keywords.is_empty())
}

pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

const KEYS: Keys = Keys {
    of: "a class",
    known: &["columns", "json", "detect", "pattern", "patterns", "keywords"],
    unbuilt: &[],
};
