//! A relation named in a statement: recorded, resolved, and turned into columns; views are seen through.
//! It refuses to invent columns: a relation the catalog does not hold has unknown ones.

use std::rc::Rc;

use pg_query::protobuf::RangeVar;
use weir_core::action::{Access, Effect, Effects};

use crate::names;
use crate::resolver::Resolver;
use crate::scope::{Columns, Range, Row};
use crate::value::{Field, Value};
use crate::view;

impl<'a> Resolver<'a> {
    /// A relation in FROM: a WITH query, or one of the catalog.
    pub fn read(&mut self, var: &'a RangeVar) -> Range<'a> {
        if var.schemaname.is_empty() {
            let named = self.ctes.iter().rev().find(|cte| cte.name == var.relname);
            if let Some(row) = named.map(|cte| Rc::clone(&cte.row)) {
                self.burn(row.fields.len());
                let columns = match &row.rest {
                    Some(rest) => Columns::Open { known: Rc::new(row.fields.clone()), rest: rest.clone() },
                    None => Columns::Listed(Rc::new(row.fields.clone())),
                };
                return self.aliased(var, None, columns);
            }
        }
        let (schema, columns) = self.relation(var, Access::Read);
        self.aliased(var, schema, columns)
    }

    /// The target of a writing statement; WITH queries are never meant.
    pub fn written(&mut self, var: &'a RangeVar) -> Range<'a> {
        let (schema, columns) = self.relation(var, Access::Write);
        self.aliased(var, schema, columns)
    }

    /// Records the relation and what it reads, and says what columns it has.
    fn relation(&mut self, var: &'a RangeVar, access: Access) -> (Option<&'a str>, Columns<'a>) {
        let named = Some(var.schemaname.as_str()).filter(|schema| !schema.is_empty());
        let Some(schema) = self.schema else {
            self.touch(named, &var.relname, 0, access);
            return (named, self.nameless());
        };
        let Some((oid, table)) = schema.catalog.find(named, &var.relname) else {
            self.touch(named, &var.relname, 0, access);
            self.unresolved();
            return (named, self.nameless());
        };
        self.touch(Some(&table.schema), &table.name, oid, access);
        let columns = if matches!(table.kind, 'v' | 'm') {
            let view = view::lineage(schema, oid, &self.views);
            self.through(&view, access, table.kind == 'v');
            self.burn(table.columns.len());
            let values = (0..table.columns.len()).map(|at| view.value(oid, table, at));
            let fields = table.columns.iter().zip(values);
            Columns::Listed(Rc::new(fields.map(|(c, value)| Field { name: c.name.clone(), value }).collect()))
        } else {
            Columns::Table { oid, table, descend: var.inh }
        };
        (Some(table.schema.as_str()), columns)
    }

    /// What using a view does: its query runs (a materialised one was run before), and writes go through to what it reads.
    fn through(&mut self, view: &view::View, access: Access, runs: bool) {
        for relation in view.touched(Access::Read) {
            self.touch(relation.schema.as_deref(), &relation.name, relation.oid, relation.access);
        }
        if access == Access::Write {
            for relation in view.touched(Access::Write) {
                self.touch(relation.schema.as_deref(), &relation.name, relation.oid, relation.access);
            }
        }
        if !runs {
            return;
        }
        self.effects = self.effects.union(without_read(view.effects));
        for function in &view.functions {
            if !self.functions.contains(function) {
                self.functions.push(function.clone());
            }
        }
        self.opaque |= view.opaque;
    }

    /// A relation that a statement names without reading rows (DDL, GRANT, LOCK …).
    pub fn names(&mut self, var: Option<&'a RangeVar>, access: Access) {
        if let Some(var) = var {
            let opaque = self.opaque;
            self.relation(var, access);
            // What is created now cannot be in the catalog yet, and no row comes out.
            self.opaque = opaque;
        }
    }

    fn aliased(&mut self, var: &'a RangeVar, schema: Option<&'a str>, columns: Columns<'a>) -> Range<'a> {
        match &var.alias {
            None => Range { alias: &var.relname, schema, columns, hidden: false },
            Some(alias) if alias.colnames.is_empty() => {
                Range { alias: &alias.aliasname, schema: None, columns, hidden: false }
            }
            Some(alias) => {
                let mut row: Row = columns.row(self);
                row.rename(alias.colnames.iter().filter_map(names::text));
                Range { alias: &alias.aliasname, schema: None, columns: row.into_columns(), hidden: false }
            }
        }
    }

    /// A row whose columns are not known.
    pub fn unknown_row(&mut self) -> Row {
        Row::open(Value::opaque())
    }
}

/// Reading is what the reader's own statement says; the rest of a view's effects come from what it calls.
fn without_read(effects: Effects) -> Effects {
    effects.iter().filter(|effect| *effect != Effect::Read).fold(Effects::NONE, Effects::with)
}
