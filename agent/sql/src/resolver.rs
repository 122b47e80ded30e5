//! One walk over one statement: what it does is collected here while names are resolved.
//! It refuses to walk without end: depth and work are bounded, and past the bound the statement is `unknown`.

use std::rc::Rc;
use std::sync::Arc;

use weir_core::action::{
    Access, Column, Effect, Effects, Function, Named, Object, OutputKind, Probe, Relation, Store,
};
use weir_core::limits;
use weir_core::sql::{Table, TableColumn};

use crate::builtins;
use crate::scope::{Columns, Found, Row, Scope, column};
use crate::value::Value;
use crate::view::Schema;

/// The statement's facts so far, and the names in force.
pub(crate) struct Resolver<'a> {
    pub schema: Option<&'a Arc<Schema>>,
    pub effects: Effects,
    pub relations: Vec<Relation>,
    pub objects: Vec<Object>,
    pub functions: Vec<Function>,
    pub stores: Vec<Store>,
    /// At most one of each kind.
    pub probes: Vec<Probe>,
    pub without_where: bool,
    pub opaque: bool,
    pub named: Option<Named>,
    /// The views whose definition is being walked, outermost first.
    pub views: Vec<u32>,
    /// WITH queries in force, innermost last.
    pub ctes: Vec<Cte>,
    /// Columns and subqueries seen so far: tells a WHERE that looks at rows from `WHERE true`.
    pub mentions: usize,
    /// Names cannot be resolved here and need not be (DDL expressions).
    pub loose: bool,
    depth: usize,
    fuel: usize,
    refused: bool,
}

pub(crate) struct Cte {
    pub name: String,
    pub row: Rc<Row>,
}

impl<'a> Resolver<'a> {
    pub fn new(schema: Option<&'a Arc<Schema>>) -> Self {
        Self {
            schema,
            effects: Effects::NONE,
            relations: Vec::new(),
            objects: Vec::new(),
            functions: Vec::new(),
            stores: Vec::new(),
            probes: Vec::new(),
            without_where: false,
            opaque: false,
            named: None,
            views: Vec::new(),
            ctes: Vec::new(),
            mentions: 0,
            loose: false,
            depth: 0,
            fuel: FUEL,
            refused: false,
        }
    }

    pub fn effect(&mut self, effect: Effect) {
        self.effects = self.effects.with(effect);
    }

    pub fn object(&mut self, object: Object) {
        if !self.objects.contains(&object) {
            self.objects.push(object);
        }
    }

    /// Something that cannot be told: the statement is unknown and may return anything.
    pub fn unknown(&mut self) -> Value {
        self.effect(Effect::Unknown);
        self.opaque = true;
        Value::opaque()
    }

    /// Whether a bound was passed: nothing collected counts then.
    pub fn refused(&self) -> bool {
        self.refused
    }

    /// Enters one level; `false` past the bound of depth or work.
    pub fn enter(&mut self) -> bool {
        self.depth += 1;
        self.burn(1);
        self.refused |= self.depth > limits::SQL_DEPTH;
        !self.refused
    }

    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Accounts for `work` steps.
    pub fn burn(&mut self, work: usize) {
        self.fuel = self.fuel.saturating_sub(work);
        self.refused |= self.fuel == 0;
    }

    /// The stored value of a column: the column itself, what it inherits from, what inherits from it (unless ONLY).
    pub fn stored(&mut self, oid: u32, table: &Table, stored: &TableColumn, descend: bool) -> Value {
        let mut value = Value {
            kind: if table.kind == FOREIGN { OutputKind::Opaque } else { OutputKind::Direct },
            sources: vec![column(oid, stored.attribute)],
            type_oid: stored.type_oid,
        };
        if let Some(schema) = self.schema {
            self.fuel =
                self.fuel.saturating_sub(schema.relatives(oid, table, &stored.name, descend, &mut value));
        }
        value
    }

    /// An unqualified name, from the innermost level outwards.
    pub fn unqualified(&mut self, name: &str, scope: &Scope<'a, '_>) -> Value {
        let mut level = Some(scope);
        let mut maybe: Vec<Value> = Vec::new();
        while let Some(scope) = level {
            let mut certain: Vec<Value> = Vec::new();
            let mut open = false;
            for visible in &scope.visible {
                self.burn(1);
                match visible.find(name, &scope.ranges, self) {
                    Found::Nothing => {}
                    Found::Column(value) => certain.push(value),
                    Found::Maybe(value) => {
                        open = true;
                        maybe.push(value);
                    }
                }
            }
            if maybe.is_empty() && certain.len() == 1 {
                return certain.remove(0);
            }
            if !certain.is_empty() {
                return Value::derived(certain.into_iter().chain(maybe));
            }
            if !open {
                if let Some(range) = scope.ranges.iter().find(|r| !r.hidden && r.alias == name) {
                    let columns = range.columns.clone();
                    return Value::derived(maybe.into_iter().chain([columns.row(self).whole()]));
                }
                if let Some(target) = scope.targets.iter().find(|field| field.name == name) {
                    return target.value.clone();
                }
            }
            level = scope.outer;
        }
        if maybe.is_empty() {
            return self.unresolved();
        }
        Value::derived(maybe)
    }

    /// A name that nothing in force explains.
    pub fn unresolved(&mut self) -> Value {
        if !self.loose {
            self.opaque = true;
        }
        Value::opaque()
    }

    /// Records a call and says whether its result depends on its arguments alone.
    pub fn call(&mut self, schema: Option<&str>, name: &str, carries: bool) -> bool {
        if builtins::is_standard_function(schema, name) {
            return true;
        }
        let shadowed = self.schema.is_some_and(|known| known.shadows(schema, name));
        let builtin = matches!(schema, None | Some("pg_catalog")) && !shadowed;
        // A shadowed name may still mean the built-in: both count.
        let class = builtins::classify(name);
        let class = if carries { class.carrying() } else { class };
        self.effects = self.effects.union(class.effects());
        if !builtin {
            self.effect(Effect::Call);
        }
        let safe = builtin && class.is_safe();
        if !safe {
            self.opaque = true;
        }
        let schema = match (schema, builtin && class.is_builtin()) {
            (None, true) => Some("pg_catalog"),
            (named, _) => named,
        };
        let same = |f: &Function| f.name == name && f.schema.as_deref() == schema;
        if !self.functions.iter().any(same) {
            self.functions.push(Function { schema: schema.map(Into::into), name: name.into(), safe });
        }
        safe
    }

    /// Records a value that is written to column `name` of `columns`. What tells nothing of a stored value is left out.
    pub fn store(&mut self, columns: &Columns<'a>, name: &str, value: Value) {
        let into = match columns.find(name, self) {
            Some(target) if target.kind == OutputKind::Direct => target.sources,
            Some(_) | None => Vec::new(),
        };
        self.store_into(into, value);
    }

    /// Records a row that is written to columns nobody knows yet (a new table, a view).
    pub fn store_anew(&mut self, row: &Row) {
        for value in row.fields.iter().map(|field| &field.value).chain(&row.rest) {
            self.store_into(Vec::new(), value.clone());
        }
    }

    /// Records a value that a definition keeps in a column of its own.
    pub fn store_computed(&mut self, value: Value) {
        if !value.sources.is_empty() {
            self.stores.push(Store { into: Vec::new(), kind: OutputKind::Derived, sources: value.sources });
        }
    }

    fn store_into(&mut self, into: Vec<Column>, value: Value) {
        let carries = match value.kind {
            OutputKind::Direct | OutputKind::Derived => !value.sources.is_empty(),
            OutputKind::Neutral => false,
            OutputKind::Opaque => true,
        };
        if carries && !self.loose {
            self.stores.push(Store { into, kind: value.kind, sources: value.sources });
        }
    }

    /// Records a relation once.
    pub fn touch(&mut self, schema: Option<&str>, name: &str, oid: u32, access: Access) {
        self.burn(self.relations.len() / 16);
        let same = |r: &Relation| {
            r.oid == oid && r.access == access && r.name == name && r.schema.as_deref() == schema
        };
        if !self.relations.iter().any(same) {
            self.relations.push(Relation { schema: schema.map(Into::into), name: name.into(), oid, access });
        }
    }

    /// The relation as a range of unknown columns.
    pub fn nameless(&self) -> Columns<'a> {
        Columns::Open { known: Rc::default(), rest: Value::opaque() }
    }
}

/// `pg_class.relkind` of a foreign table: what another server holds there is not known.
const FOREIGN: char = 'f';
/// Steps of one statement's walk. The largest generated statements stay far below; a text built to multiply
/// (nested recursive queries, `*` of `*`) does not.
const FUEL: usize = 2_000_000;
