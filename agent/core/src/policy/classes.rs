//! Which columns and JSON values belong to a class of protected values.
//! It refuses to look at values: that is `detect`'s business, which shares the class numbers.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::ProtectedColumns;
use super::glob::Glob;
use crate::action::Column;
use crate::detect::ClassId;
use crate::sql::{Catalog, Table};

/// The patterns of all classes, by what they match.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    pub(super) columns: Vec<(ColumnPattern, ClassId)>,
    pub(super) json: Vec<(JsonPath, ClassId)>,
}

/// `schema.table.column`, each part with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnPattern {
    schema: Glob,
    table: Glob,
    column: Glob,
}

/// A path from the root of a JSON text, through objects; arrays on the way do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(Glob),
    /// `..`: any number of keys.
    Descend,
}

impl ColumnPattern {
    pub(super) fn new(pattern: &str) -> Option<ColumnPattern> {
        let mut parts = pattern.split('.');
        let mut next = || parts.next().filter(|part| !part.is_empty()).map(Glob::new);
        let (schema, table, column) = (next()?, next()?, next()?);
        parts.next().is_none().then_some(ColumnPattern { schema, table, column })
    }

    fn matches(&self, table: &Table, column: &str) -> bool {
        self.column.matches(column) && self.table.matches(&table.name) && self.schema.matches(&table.schema)
    }
}

impl JsonPath {
    /// `$.a.b`, `$..b`, `$.items[*].b`, `$.a.*`.
    pub(super) fn new(pattern: &str) -> Option<JsonPath> {
        let mut rest = pattern.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("[*]") {
                rest = after;
                continue;
            }
            rest = match rest.strip_prefix("..") {
                Some(after) => {
                    steps.push(Step::Descend);
                    after
                }
                None => rest.strip_prefix('.')?,
            };
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (key, after) = rest.split_at_checked(end)?;
            if key.is_empty() {
                return None;
            }
            steps.push(Step::Key(Glob::new(key)));
            rest = after;
        }
        (!steps.is_empty()).then_some(JsonPath(steps))
    }

    fn matches(&self, path: &[&str]) -> bool {
        fits(&self.0, path)
    }
}

/// The value at `path` itself, or anything below it: an object under a protected key is protected whole.
fn fits(steps: &[Step], path: &[&str]) -> bool {
    match steps.split_first() {
        None => true,
        Some((Step::Key(key), rest)) => {
            path.split_first().is_some_and(|(first, below)| key.matches(first) && fits(rest, below))
        }
        Some((Step::Descend, rest)) => {
            (0..=path.len()).any(|skip| path.get(skip..).is_some_and(|below| fits(rest, below)))
        }
    }
}

impl Patterns {
    pub(super) fn protected(&self, catalog: &Catalog) -> ProtectedColumns {
        let mut columns = Vec::new();
        if self.columns.is_empty() {
            return ProtectedColumns::default();
        }
        for (oid, table) in &catalog.relations {
            let lineage = ancestors(catalog, table);
            for column in &table.columns {
                let belongs = |pattern: &ColumnPattern| {
                    lineage.iter().any(|table| pattern.matches(table, &column.name))
                };
                let classes: BTreeSet<ClassId> = self
                    .columns
                    .iter()
                    .filter(|(pattern, _)| belongs(pattern))
                    .map(|(_, class)| *class)
                    .collect();
                let place = Column { relation: *oid, attribute: column.attribute };
                columns.extend(classes.into_iter().map(|class| (place, class)));
            }
        }
        columns.sort_unstable();
        ProtectedColumns { columns }
    }

    pub(super) fn named<'a>(&'a self, column: &'a str) -> impl Iterator<Item = ClassId> + 'a {
        self.columns
            .iter()
            .filter(move |(pattern, _)| pattern.column.matches(column))
            .map(|(_, class)| *class)
    }

    pub(super) fn at<'a>(&'a self, path: &'a [&'a str]) -> impl Iterator<Item = ClassId> + 'a {
        self.json.iter().filter(move |(pattern, _)| pattern.matches(path)).map(|(_, class)| *class)
    }
}

/// The table and everything it inherits from: a partition's columns are its parent's, whatever the partition is called.
fn ancestors<'a>(catalog: &'a Catalog, table: &'a Table) -> Vec<&'a Table> {
    let mut found = alloc::vec![table];
    let mut seen = BTreeSet::new();
    let mut at = 0;
    while let Some(next) = found.get(at) {
        for parent in &next.parents {
            if let (true, Some(table)) = (seen.insert(*parent), catalog.relations.get(parent)) {
                found.push(table);
            }
        }
        at += 1;
    }
    found
}

/// `"schema.table.column"` for messages.
pub(super) fn column_shape(pattern: &str) -> String {
    match pattern.split('.').count() {
        1 => alloc::format!("{pattern:?} names a column in no table; write \"*.*.{pattern}\""),
        2 => alloc::format!("{pattern:?} names no schema; write \"*.{pattern}\""),
        _ => alloc::format!("{pattern:?} is not schema.table.column"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::TableColumn;
    use std::vec;

    fn table(schema: &str, name: &str, columns: &[&str], parents: &[u32]) -> Table {
        let columns = columns
            .iter()
            .zip(1..)
            .map(|(name, attribute)| TableColumn { attribute, name: (*name).into(), type_oid: 25 })
            .collect();
        Table {
            schema: schema.into(),
            name: name.into(),
            kind: 'r',
            columns,
            parents: parents.into(),
            ..Table::default()
        }
    }

    #[test]
    fn columns_match_by_qualified_name_and_through_parents() {
        let mut catalog = Catalog::default();
        catalog.relations.insert(1, table("hr", "person", &["id", "tax_id"], &[]));
        catalog.relations.insert(2, table("hr_2024", "p1", &["id", "tax_id"], &[1]));
        catalog.relations.insert(3, table("app", "person", &["tax_id"], &[]));
        let patterns = Patterns {
            columns: vec![
                (ColumnPattern::new("hr.person.tax_id").unwrap(), ClassId(0)),
                (ColumnPattern::new("*.*.*_id").unwrap(), ClassId(1)),
            ],
            json: vec![],
        };
        let at = |relation, attribute| Column { relation, attribute };
        assert_eq!(
            patterns.protected(&catalog).columns,
            [
                (at(1, 2), ClassId(0)),
                (at(1, 2), ClassId(1)),
                (at(2, 2), ClassId(0)),
                (at(2, 2), ClassId(1)),
                (at(3, 1), ClassId(1))
            ]
        );
        assert_eq!(patterns.named("tax_id").collect::<Vec<_>>(), [ClassId(0), ClassId(1)]);
    }

    #[test]
    fn json_paths_go_through_arrays_and_protect_what_is_below() {
        for (pattern, path, fits) in [
            ("$..ssn", &["ssn"][..], true),
            ("$..ssn", &["a", "b", "ssn"], true),
            ("$..ssn", &["a", "ssn", "raw"], true),
            ("$.a.b", &["a", "b"], true),
            ("$.a.b", &["x", "a", "b"], false),
            ("$.items[*].no", &["items", "no"], true),
            ("$.a..b", &["a", "x", "y", "b"], true),
            ("$.user.*", &["user", "name"], true),
            ("$.user.*", &["user"], false),
        ] {
            assert_eq!(JsonPath::new(pattern).unwrap().matches(path), fits, "{pattern} on {path:?}");
        }
        for wrong in ["ssn", "$", "$.", "$.a.", "$[0]", "$.a[0]", "$x"] {
            assert!(JsonPath::new(wrong).is_none(), "{wrong}");
        }
    }
}
