//! What names mean at one point of a query: the relations of its FROM clause, and those of the queries around it.
//! It refuses to say "no sources" about a name it cannot find: that is `None`, and the resolver makes it opaque.

use std::rc::Rc;

use weir_core::action::Column;
use weir_core::sql::Table;

use crate::resolver::Resolver;
use crate::value::{Field, Value};

/// One query level.
#[derive(Default)]
pub(crate) struct Scope<'a, 's> {
    pub outer: Option<&'s Scope<'a, 's>>,
    pub ranges: Vec<Range<'a>>,
    /// What an unqualified name and `*` reach, in order.
    pub visible: Vec<Visible>,
    /// Output names of the level's target list: ORDER BY and GROUP BY may use them.
    pub targets: Vec<Field>,
}

/// One entry of a FROM clause.
pub(crate) struct Range<'a> {
    /// Alias or relation name; empty when it has none.
    pub alias: &'a str,
    /// Schema the relation was named with or resolved to, for `schema.relation.column`; only without an alias.
    pub schema: Option<&'a str>,
    pub columns: Columns<'a>,
    /// Behind the alias of a join: its name is out of reach.
    pub hidden: bool,
}

#[derive(Clone)]
pub(crate) enum Columns<'a> {
    Table {
        oid: u32,
        table: &'a Table,
        descend: bool,
    },
    Listed(Rc<Vec<Field>>),
    /// Some fields may be known, the others are `rest`.
    Open {
        known: Rc<Vec<Field>>,
        rest: Value,
    },
}

/// What `*` expands to at one place.
#[derive(Clone)]
pub(crate) enum Visible {
    /// A range without the columns that a USING above it has merged.
    Range {
        at: usize,
        merged: Vec<String>,
    },
    Merged(Field),
}

/// Columns of a row. With `rest` there are others of unknown number, so positions mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Row {
    pub fields: Vec<Field>,
    pub rest: Option<Value>,
}

impl Row {
    pub fn open(rest: Value) -> Self {
        Self { fields: Vec::new(), rest: Some(rest) }
    }

    /// The whole row as one value.
    pub fn whole(self) -> Value {
        Value::derived(self.fields.into_iter().map(|field| field.value).chain(self.rest))
    }

    pub fn append(&mut self, other: Row) {
        self.fields.extend(other.fields);
        self.rest = match (self.rest.take(), other.rest) {
            (Some(a), Some(b)) => Some(Value::derived([a, b])),
            (a, b) => a.or(b),
        };
    }

    pub fn into_columns<'a>(self) -> Columns<'a> {
        match self.rest {
            Some(rest) => Columns::Open { known: Rc::new(self.fields), rest },
            None => Columns::Listed(Rc::new(self.fields)),
        }
    }

    /// Gives the first columns the names of an alias list.
    pub fn rename<'n>(&mut self, names: impl IntoIterator<Item = &'n str>) {
        for (at, name) in names.into_iter().enumerate() {
            match self.fields.get_mut(at) {
                Some(field) => field.name = name.into(),
                None => {
                    let Some(rest) = self.rest.clone() else { return };
                    self.fields.push(Field { name: name.into(), value: rest });
                }
            }
        }
    }
}

impl<'a, 's> Scope<'a, 's> {
    pub fn within(outer: Option<&'s Scope<'a, 's>>) -> Self {
        Self { outer, ..Self::default() }
    }

    /// Adds a range that unqualified names reach.
    pub fn show(&mut self, range: Range<'a>) {
        self.visible.push(Visible::Range { at: self.ranges.len(), merged: Vec::new() });
        self.ranges.push(range);
    }

    /// The range that goes by `alias` here or around here.
    pub fn range(&self, schema: Option<&str>, alias: &str) -> Option<&Range<'a>> {
        let mut scope = Some(self);
        while let Some(level) = scope {
            let named = |range: &&Range<'a>| {
                !range.hidden && range.alias == alias && (schema.is_none() || range.schema == schema)
            };
            if let Some(range) = level.ranges.iter().find(named) {
                return Some(range);
            }
            scope = level.outer;
        }
        None
    }
}

impl<'a> Columns<'a> {
    pub fn find(&self, name: &str, resolver: &mut Resolver<'a>) -> Option<Value> {
        match self {
            Columns::Table { oid, table, descend } => match table.columns.iter().find(|c| c.name == name) {
                Some(column) => Some(resolver.stored(*oid, table, column, *descend)),
                None => is_system_column(name).then(Value::constant),
            },
            Columns::Listed(fields) => fields.iter().find(|f| f.name == name).map(|f| f.value.clone()),
            Columns::Open { known, rest } => {
                Some(known.iter().find(|f| f.name == name).map_or_else(|| rest.clone(), |f| f.value.clone()))
            }
        }
    }

    /// Every column in order.
    pub fn row(&self, resolver: &mut Resolver<'a>) -> Row {
        match self {
            Columns::Table { oid, table, descend } => {
                resolver.burn(table.columns.len());
                let stored = |column| resolver.stored(*oid, table, column, *descend);
                let values: Vec<Value> = table.columns.iter().map(stored).collect();
                let fields = table.columns.iter().zip(values);
                Row {
                    fields: fields.map(|(c, value)| Field { name: c.name.clone(), value }).collect(),
                    rest: None,
                }
            }
            Columns::Listed(fields) => {
                resolver.burn(fields.len());
                Row { fields: fields.to_vec(), rest: None }
            }
            Columns::Open { known, rest } => {
                resolver.burn(known.len());
                Row { fields: known.to_vec(), rest: Some(rest.clone()) }
            }
        }
    }
}

impl Visible {
    pub fn row<'a>(&self, ranges: &[Range<'a>], resolver: &mut Resolver<'a>) -> Row {
        match self {
            Visible::Merged(field) => Row { fields: vec![field.clone()], rest: None },
            Visible::Range { at, merged } => {
                let Some(range) = ranges.get(*at) else { return Row::open(Value::opaque()) };
                let mut row = range.columns.row(resolver);
                row.fields.retain(|field| !merged.contains(&field.name));
                row
            }
        }
    }

    /// The column `name` as an unqualified name reaches it, and whether it may be an unknown one.
    pub fn find<'a>(&self, name: &str, ranges: &[Range<'a>], resolver: &mut Resolver<'a>) -> Found {
        match self {
            Visible::Merged(field) if field.name == name => Found::Column(field.value.clone()),
            Visible::Merged(_) => Found::Nothing,
            Visible::Range { merged, .. } if merged.iter().any(|m| m == name) => Found::Nothing,
            Visible::Range { at, .. } => {
                let Some(range) = ranges.get(*at) else { return Found::Nothing };
                let certain = match &range.columns {
                    Columns::Open { known, .. } => known.iter().any(|field| field.name == name),
                    Columns::Table { table, .. } if is_system_column(name) => {
                        table.columns.iter().any(|column| column.name == name)
                    }
                    Columns::Table { .. } | Columns::Listed(_) => true,
                };
                match range.columns.find(name, resolver) {
                    Some(value) if certain => Found::Column(value),
                    Some(value) => Found::Maybe(value),
                    None => Found::Nothing,
                }
            }
        }
    }
}

pub(crate) enum Found {
    Nothing,
    Column(Value),
    /// From a relation whose columns are not known, or a system column that several relations have.
    Maybe(Value),
}

/// Columns every table has besides its own (PostgreSQL documentation, "System Columns"); no stored value flows into them.
fn is_system_column(name: &str) -> bool {
    matches!(name, "tableoid" | "xmin" | "cmin" | "xmax" | "cmax" | "ctid")
}

/// The column of a base relation.
pub(crate) fn column(relation: u32, attribute: i16) -> Column {
    Column { relation, attribute }
}
