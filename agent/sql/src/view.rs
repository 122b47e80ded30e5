//! What is derived from a catalog once: which function names are shadowed, who inherits from whom, where views read.
//! It refuses to trust a view it cannot read: all its columns are opaque.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use weir_core::action::{Access, Effects, Function, Output, OutputKind, Relation};
use weir_core::sql::{Catalog, Dialect, Table};

use pg_query::NodeEnum;

use crate::parse::{self, Refused};
use crate::resolver::Resolver;
use crate::scope::column;
use crate::value::Value;

/// A catalog and what was derived from it.
pub(crate) struct Schema {
    pub catalog: Arc<Catalog>,
    functions: HashSet<String>,
    children: HashMap<u32, Vec<u32>>,
    views: Mutex<HashMap<u32, Arc<View>>>,
}

/// What reading a view amounts to.
#[derive(Default)]
pub(crate) struct View {
    /// In attribute order; empty when it cannot be told.
    pub outputs: Arc<Vec<Output>>,
    pub relations: Vec<Relation>,
    pub functions: Vec<Function>,
    pub effects: Effects,
    pub opaque: bool,
}

impl Schema {
    pub fn new(catalog: &Arc<Catalog>) -> Self {
        let reachable = |schema: &String| catalog.search_path.contains(schema) || schema == "pg_catalog";
        let functions = catalog.functions.iter().filter(|(schema, _)| reachable(schema));
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (oid, table) in &catalog.relations {
            for parent in &table.parents {
                children.entry(*parent).or_default().push(*oid);
            }
        }
        Self {
            catalog: Arc::clone(catalog),
            functions: functions.map(|(_, name)| name.clone()).collect(),
            children,
            views: Mutex::default(),
        }
    }

    /// Whether a call of this name may reach a user-defined function.
    pub fn shadows(&self, schema: Option<&str>, name: &str) -> bool {
        match schema {
            None => self.functions.contains(name),
            Some(schema) => {
                self.functions.contains(name)
                    && self.catalog.functions.iter().any(|(s, n)| s == schema && n == name)
            }
        }
    }

    /// Adds the same column of the relations this one inherits from and, when rows of children are read too, of those.
    /// Partitions are not added: they have no columns of their own. Returns the steps it took.
    pub fn relatives(&self, oid: u32, table: &Table, name: &str, descend: bool, value: &mut Value) -> usize {
        let children = if descend && table.kind == ORDINARY { self.children.get(&oid) } else { None };
        if table.parents.is_empty() && children.is_none() {
            return 0;
        }
        let mut seen = HashSet::from([oid]);
        let mut upwards = table.parents.clone();
        let mut downwards = children.cloned().unwrap_or_default();
        loop {
            let (next, down) = match (upwards.pop(), downwards.last()) {
                (Some(parent), _) => (parent, false),
                (None, Some(_)) => (downwards.pop().unwrap_or_default(), true),
                (None, None) => return seen.len(),
            };
            let Some(relative) = self.catalog.relations.get(&next).filter(|_| seen.insert(next)) else {
                continue;
            };
            if let Some(same) = relative.columns.iter().find(|column| column.name == name) {
                value.add(&[column(next, same.attribute)]);
            }
            if down {
                downwards.extend(self.children.get(&next).into_iter().flatten());
            } else {
                upwards.extend(&relative.parents);
            }
        }
    }
}

/// What reading view `oid` amounts to; computed once a catalog. `within` are the views whose definitions led here: one
/// that reads itself, or too long a chain, is opaque rather than endless.
pub(crate) fn lineage(schema: &Arc<Schema>, oid: u32, within: &[u32]) -> Arc<View> {
    let known = || schema.views.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known().get(&oid) {
        return Arc::clone(found);
    }
    if within.contains(&oid) || within.len() >= CHAIN {
        return Arc::new(View::refused());
    }
    let definition = schema.catalog.relations.get(&oid).map_or("", |table| table.definition.as_str());
    let read = || read(schema, oid, within).unwrap_or_else(View::refused);
    let view = Arc::new(parse::with_stack(parse::Stack::Unknown, definition, read));
    known().insert(oid, Arc::clone(&view));
    view
}

fn read(schema: &Arc<Schema>, oid: u32, within: &[u32]) -> Option<View> {
    let table = schema.catalog.relations.get(&oid)?;
    let tree = parse::parse(&table.definition, Dialect::default())?;
    let [statement] = tree.stmts.as_slice() else { return None };
    let NodeEnum::SelectStmt(select) = statement.stmt.as_ref()?.node.as_ref()? else { return None };
    let mut resolver = Resolver::new(Some(schema));
    resolver.views = within.iter().copied().chain([oid]).collect();
    let row = resolver.select(select, None);
    if resolver.refused() {
        return None;
    }
    let complete = row.rest.is_none() && row.fields.len() == table.columns.len();
    let outputs = if complete {
        let named = row.fields.into_iter().zip(&table.columns);
        named.map(|(field, column)| field.value.output(column.name.clone())).collect()
    } else {
        Vec::new()
    };
    Some(View {
        opaque: resolver.opaque || !complete,
        outputs: Arc::new(outputs),
        relations: resolver.relations,
        functions: resolver.functions,
        effects: resolver.effects,
    })
}

impl View {
    /// Column `at` of the view as a value of whoever reads the view: its own column, and where that comes from.
    pub fn value(&self, oid: u32, table: &Table, at: usize) -> Value {
        let Some(stored) = table.columns.get(at) else { return Value::opaque() };
        let own = [column(oid, stored.attribute)];
        match self.outputs.get(at) {
            None => Value::opaque().with_sources(&own),
            Some(output) => {
                let type_oid = if output.kind == OutputKind::Direct { stored.type_oid } else { 0 };
                Value { kind: output.kind, sources: output.sources.clone(), type_oid }.with_sources(&own)
            }
        }
    }

    /// What the view reads, as accesses of its reader (or, through an updatable view, of its writer).
    pub fn touched(&self, access: Access) -> impl Iterator<Item = Relation> + '_ {
        self.relations.iter().map(move |relation| Relation { access, ..relation.clone() })
    }
}

impl parse::Refused for View {
    fn refused() -> Self {
        View { opaque: true, ..View::default() }
    }
}

/// Views on views on views …: each level is a definition parsed within another.
const CHAIN: usize = 32;
/// `pg_class.relkind` of an ordinary table.
const ORDINARY: char = 'r';
