//! A bundle's documents → a [`Policy`]: strict, closed vocabulary, every problem at once.
//! It refuses what it cannot enforce: unknown words, rules that can never fire, sections that are not built.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::classes::Patterns;
use super::condition::when::Zone;
use super::index::Index;
use super::node::{Document, Node, Value};
use super::problem::{Problem, suggestion};
use super::rule::{Mode, PolicyFile, Rule};
use super::{Policy, Version};
use crate::detect::{ClassDefinition, ClassId, ClassSet, Scanner};
use reader::{Keys, Reader};

mod class;
mod file;
mod http;
mod matching;
mod outcome;
mod principal;
mod reader;
mod target;
mod window;

/// What the host knows of the names that policies use; `None` accepts any name.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    pub workloads: Option<Vec<String>>,
    pub users: Option<Vec<String>>,
    pub groups: Option<Vec<String>>,
    /// Providers of secrets (`secrets:` of the configuration).
    pub providers: Option<Vec<String>>,
    /// Layers of the fence by name: whether this host has them.
    pub layers: Option<BTreeMap<String, bool>>,
    /// Time zones by name, for those that [`zone_names`] lists and the host knows.
    pub zones: BTreeMap<String, Zone>,
}

/// Words that the files share.
pub(super) struct Lexicon<'a> {
    surroundings: &'a Surroundings,
    classes: Vec<ClassDefinition>,
    ids: BTreeMap<String, ClassId>,
    patterns: Patterns,
    /// `name: [..]` → entries with their lines.
    lists: BTreeMap<String, Vec<String>>,
}

/// Named zones (not `UTC`, not fixed offsets) that the documents use.
#[must_use]
pub fn zone_names(documents: &[Document]) -> Vec<String> {
    let mut names = Vec::new();
    for document in documents {
        document.root.each_named("tz", &mut |name| {
            if Zone::fixed(name).is_none() {
                names.push(name.to_string());
            }
        });
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// # Errors
/// Everything that is wrong, sorted by file and line.
pub(super) fn compile(
    documents: &[Document],
    surroundings: &Surroundings,
    version: Version,
) -> Result<Policy, Vec<Problem>> {
    let mut problems = Vec::new();
    let (shared, policies): (Vec<&Document>, Vec<&Document>) =
        documents.iter().partition(|document| document.root.field("policy").is_none());
    let mut lexicon = Lexicon {
        surroundings,
        classes: Vec::new(),
        ids: BTreeMap::new(),
        patterns: Patterns::default(),
        lists: BTreeMap::new(),
    };
    let mode = read_shared(&shared, &mut lexicon, &mut problems);
    let mut drafts = Vec::new();
    for document in policies {
        let mut reader = Reader::new(&document.file, &mut problems);
        drafts.extend(file::policy(&mut reader, &document.root, mode, &lexicon));
    }
    drafts.sort_by(|one, other| one.file.name.cmp(&other.file.name));
    refuse_twins(&drafts, &mut problems);
    if let (true, Some(document)) = (drafts.is_empty() && problems.is_empty(), documents.first()) {
        problems.push(Problem::new(
            &document.file,
            0,
            "the bundle has no policy: write `policy: NAME` with a target and rules, or every connection is refused",
        ));
    }
    let scanner = Scanner::new(&lexicon.classes).unwrap_or_else(|fault| {
        let file = documents.first().map_or_else(|| Arc::from(""), |document| document.file.clone());
        problems.push(Problem::new(&file, 0, format!("classes: {fault}")));
        Scanner::default()
    });
    if !problems.is_empty() {
        problems.sort();
        problems.dedup();
        return Err(problems);
    }
    Ok(assemble(drafts, mode.unwrap_or_default(), lexicon, scanner, version))
}

/// A `policy:` document that was understood; its rules do not know their place yet.
pub(super) struct Draft {
    file: PolicyFile,
    rules: Vec<Rule>,
}

fn assemble(
    drafts: Vec<Draft>,
    mode: Mode,
    lexicon: Lexicon<'_>,
    scanner: Scanner,
    version: Version,
) -> Policy {
    let mut files = Vec::new();
    let mut rules: Vec<Rule> = Vec::new();
    for (place, mut draft) in drafts.into_iter().enumerate() {
        draft.rules.sort_by(|one, other| one.name.cmp(&other.name));
        rules.extend(draft.rules.into_iter().map(|rule| Rule { file: place, ..rule }));
        files.push(draft.file);
    }
    let watches = |mode: &Mode| *mode == Mode::Monitor;
    Policy {
        monitored: watches(&mode)
            || files.iter().any(|file| watches(&file.mode))
            || rules.iter().any(|rule| watches(&rule.mode)),
        index: Index::new(&rules, files.len()),
        mode,
        files,
        rules,
        patterns: lexicon.patterns,
        every_class: ClassSet((0..).map(ClassId).take(lexicon.classes.len()).collect()),
        classes: lexicon.classes,
        scanner,
        version,
        names: Default::default(),
    }
}

/// Classes, shared lists and the bundle's mode.
fn read_shared(
    documents: &[&Document],
    lexicon: &mut Lexicon<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Mode> {
    let mut mode: Option<(Mode, u32)> = None;
    for document in documents {
        let mut reader = Reader::new(&document.file, problems);
        let entries = match &document.root.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            Value::Scalar(_) | Value::List(_) => {
                reader.problem(document.root.line, "a document is a map: `policy: NAME …` or `classes: …`");
                &[]
            }
        };
        if let Some(key) = entries.iter().find(|(key, _)| POLICY_KEYS.contains(&key.text.as_str())) {
            reader.problem(
                key.0.line,
                format!("`{}` without `policy: NAME`: a policy document begins with its name", key.0.text),
            );
            continue;
        }
        for (key, node) in entries {
            match (key.text.as_str(), &node.value) {
                ("classes", _) => class::classes(&mut reader, node, lexicon),
                ("mode", _) => {
                    let read = file::mode(&mut reader, node);
                    if let (Some(_), Some((_, line))) = (read, mode) {
                        reader.problem(key.line, format!("the bundle's mode is already set (line {line})"));
                    }
                    mode = mode.or(read.map(|mode| (mode, key.line)));
                }
                (name, Value::List(_)) => shared_list(&mut reader, key.line, name, node, lexicon),
                (name, Value::Null | Value::Scalar(_) | Value::Map(_)) => {
                    let nearest = suggestion(name, ["policy", "classes", "mode"]);
                    reader.problem(
                        key.line,
                        format!("unknown key {name:?} in a shared document{nearest}; shared lists are `NAME: [..]`"),
                    );
                }
            }
        }
    }
    mode.map(|(mode, _)| mode)
}

fn shared_list(reader: &mut Reader<'_>, line: u32, name: &str, node: &Node, lexicon: &mut Lexicon<'_>) {
    let entries: Vec<String> =
        reader.texts(node, &format!("the list {name:?}")).into_iter().map(|(_, text)| text.into()).collect();
    if lexicon.lists.insert(name.into(), entries).is_some() {
        reader.problem(line, format!("the list {name:?} is declared twice"));
    }
}

/// Names tell rules apart in the audit, so none may occur twice.
fn refuse_twins(drafts: &[Draft], problems: &mut Vec<Problem>) {
    for (place, draft) in drafts.iter().enumerate() {
        let earlier = drafts.iter().take(place).find(|other| other.file.name == draft.file.name);
        if let Some(twin) = earlier {
            problems.push(Problem::new(
                &draft.file.path,
                draft.file.line,
                format!(
                    "policy {:?} is already declared at {}:{}",
                    draft.file.name, twin.file.path, twin.file.line
                ),
            ));
        }
    }
}

impl Lexicon<'_> {
    /// Entries with every `@list` replaced by the list's entries.
    fn expand<'n>(&'n self, reader: &mut Reader<'_>, texts: Vec<(u32, &'n str)>) -> Vec<(u32, &'n str)> {
        let mut expanded = Vec::new();
        for (line, text) in texts {
            let Some(name) = text.strip_prefix('@') else {
                expanded.push((line, text));
                continue;
            };
            match self.lists.get(name) {
                Some(list) => expanded.extend(list.iter().map(|entry| (line, entry.as_str()))),
                None => {
                    let nearest = suggestion(name, self.lists.keys().map(String::as_str));
                    reader.problem(line, format!("no shared list is named {name:?}{nearest}"));
                }
            }
        }
        expanded
    }

    fn class(&self, reader: &mut Reader<'_>, line: u32, name: &str) -> Option<ClassId> {
        let found = self.ids.get(name).copied();
        if found.is_none() {
            let nearest = suggestion(name, self.ids.keys().map(String::as_str));
            reader.problem(line, format!("no class is named {name:?}{nearest}"));
        }
        found
    }
}

/// Keys that only a `policy:` document has.
const POLICY_KEYS: [&str; 7] = ["target", "rules", "default", "fallback", "inject", "tls", "require"];
