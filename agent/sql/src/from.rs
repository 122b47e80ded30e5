//! The FROM clause: what each entry adds to the names in reach, and how joins merge columns.
//! It refuses to number the columns of what it does not know (functions of unknown result): the row stays open.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{Alias, JoinExpr, Node, RangeFunction, RangeSubselect, TypeCast};

use weir_core::action::ProbeKind;

use crate::builtins::{self, Shape};
use crate::names;
use crate::resolver::Resolver;
use crate::scope::{Columns, Found, Range, Row, Scope, Visible};
use crate::value::{Field, Value};

impl<'a> Resolver<'a> {
    pub fn entries(&mut self, items: &'a [Node], scope: &mut Scope<'a, '_>) {
        for item in items {
            self.entry(item, scope);
        }
    }

    pub fn entry(&mut self, item: &'a Node, scope: &mut Scope<'a, '_>) {
        if self.enter() {
            self.known_entry(item, scope);
        }
        self.leave();
    }

    fn known_entry(&mut self, item: &'a Node, scope: &mut Scope<'a, '_>) {
        match item.node.as_ref() {
            Some(NodeEnum::RangeVar(var)) => {
                let range = self.read(var);
                scope.show(range);
            }
            Some(NodeEnum::RangeSubselect(sub)) => self.subselect(sub, scope),
            Some(NodeEnum::JoinExpr(join)) => self.join(join, scope),
            Some(NodeEnum::RangeFunction(function)) => self.range_function(function, scope),
            Some(NodeEnum::RangeTableSample(sample)) => {
                let builtin = names::qualified(&sample.method).is_some_and(|(schema, name)| {
                    matches!(schema, None | Some("pg_catalog")) && matches!(name, "bernoulli" | "system")
                });
                if !builtin {
                    self.unknown();
                }
                let mut values = self.values(&sample.args, scope);
                values.push(self.optional(sample.repeatable.as_deref(), scope));
                self.probe(ProbeKind::Volume, &Value::derived(values));
                match sample.relation.as_deref() {
                    Some(relation) => self.entry(relation, scope),
                    None => drop(self.unknown()),
                }
            }
            Some(NodeEnum::RangeTableFunc(table)) => {
                let mut values = vec![self.optional(table.docexpr.as_deref(), scope)];
                values.push(self.optional(table.rowexpr.as_deref(), scope));
                values.extend(self.targets(&table.namespaces, scope));
                let mut columns = Vec::new();
                for node in &table.columns {
                    let Some(NodeEnum::RangeTableFuncCol(column)) = node.node.as_ref() else {
                        self.unknown();
                        continue;
                    };
                    values.push(self.optional(column.colexpr.as_deref(), scope));
                    values.push(self.optional(column.coldefexpr.as_deref(), scope));
                    columns.push(column.colname.clone());
                }
                let value = Value::derived(values);
                self.probe(ProbeKind::Volume, &value);
                self.listed(columns, &value, table.alias.as_ref(), "xmltable", scope);
            }
            Some(NodeEnum::JsonTable(table)) => self.json_table(table, scope),
            Some(_) | None => {
                self.unknown();
                let columns = self.nameless();
                scope.show(Range { alias: "", schema: None, columns, hidden: false });
            }
        }
    }

    fn subselect(&mut self, sub: &'a RangeSubselect, scope: &mut Scope<'a, '_>) {
        let outer = if sub.lateral { Some(&*scope) } else { scope.outer };
        let mut row = match sub.subquery.as_deref() {
            Some(query) => self.query(query, outer),
            None => self.unknown_row(),
        };
        let alias = sub.alias.as_ref().map_or("", |alias| {
            row.rename(alias.colnames.iter().filter_map(names::text));
            alias.aliasname.as_str()
        });
        scope.show(Range { alias, schema: None, columns: row.into_columns(), hidden: false });
    }

    fn json_table(&mut self, table: &'a pg_query::protobuf::JsonTable, scope: &mut Scope<'a, '_>) {
        let mut values = vec![self.json_value(table.context_item.as_deref(), scope)];
        values.extend(self.values(&table.passing, scope));
        let mut columns = Vec::new();
        let mut pending: Vec<&Node> = table.columns.iter().rev().collect();
        while let Some(node) = pending.pop() {
            self.burn(1);
            let Some(NodeEnum::JsonTableColumn(column)) = node.node.as_ref() else {
                self.unknown();
                continue;
            };
            for behavior in [&column.on_empty, &column.on_error].into_iter().flatten() {
                values.push(self.optional(behavior.expr.as_deref(), scope));
            }
            if column.columns.is_empty() {
                columns.push(column.name.clone());
            }
            pending.extend(column.columns.iter().rev());
        }
        let value = Value::derived(values);
        self.probe(ProbeKind::Volume, &value);
        self.listed(columns, &value, table.alias.as_ref(), "json_table", scope);
    }

    /// Shows a range whose columns all have one value.
    fn listed(
        &mut self,
        columns: Vec<String>,
        value: &Value,
        alias: Option<&'a Alias>,
        name: &'a str,
        scope: &mut Scope<'a, '_>,
    ) {
        let field = |name| Field { name, value: value.clone() };
        let row = Row { fields: columns.into_iter().map(field).collect(), rest: None };
        self.show_row(row, alias, name, scope);
    }

    fn show_row(&mut self, mut row: Row, alias: Option<&'a Alias>, name: &'a str, scope: &mut Scope<'a, '_>) {
        if let Some(alias) = alias {
            row.rename(alias.colnames.iter().filter_map(names::text));
        }
        let alias = alias.map_or(name, |alias| alias.aliasname.as_str());
        scope.show(Range { alias, schema: None, columns: row.into_columns(), hidden: false });
    }

    fn range_function(&mut self, function: &'a RangeFunction, scope: &mut Scope<'a, '_>) {
        let alone = function.functions.len() == 1;
        let alias = function.alias.as_ref();
        let mut row = Row::default();
        let mut name = "";
        for entry in &function.functions {
            let Some(NodeEnum::List(pair)) = entry.node.as_ref() else {
                self.unknown();
                row.append(Row::open(Value::opaque()));
                continue;
            };
            let Some(call) = pair.items.first() else { continue };
            let listed = match pair.items.get(1).and_then(|node| node.node.as_ref()) {
                Some(NodeEnum::List(list)) => list.items.as_slice(),
                Some(_) | None => &[],
            };
            let definitions = if listed.is_empty() { function.coldeflist.as_slice() } else { listed };
            let value = self.expression(call, scope);
            self.computed(call, &value);
            if let Some(NodeEnum::FuncCall(call)) = call.node.as_ref() {
                name = call.funcname.last().and_then(names::text).unwrap_or_default();
            }
            let scalar = if alone { alias.map(|alias| alias.aliasname.as_str()) } else { None };
            row.append(function_row(call, value, definitions, scalar));
        }
        if function.ordinality {
            row.append(Row {
                fields: vec![Field { name: "ordinality".into(), value: Value::constant() }],
                rest: None,
            });
        }
        self.show_row(row, alias, name, scope);
    }

    fn join(&mut self, join: &'a JoinExpr, scope: &mut Scope<'a, '_>) {
        let (first_range, first) = (scope.ranges.len(), scope.visible.len());
        self.join_side(join.larg.as_deref(), scope);
        let middle = scope.visible.len();
        self.join_side(join.rarg.as_deref(), scope);
        let right = scope.visible.split_off(middle);
        let left = scope.visible.split_off(first);
        let merged = self.merge(join, left, right, scope);
        if let Some(alias) = &join.join_using_alias {
            let used = |name: &String| join.using_clause.iter().any(|part| names::text(part) == Some(name));
            let columns = merged.iter().filter_map(|visible| match visible {
                Visible::Merged(field) if used(&field.name) => Some(field.clone()),
                Visible::Merged(_) | Visible::Range { .. } => None,
            });
            let columns = Columns::Listed(Rc::new(columns.collect()));
            scope.ranges.push(Range { alias: &alias.aliasname, schema: None, columns, hidden: false });
        }
        scope.visible.extend(merged);
        self.condition(join.quals.as_deref(), scope);
        if let Some(alias) = &join.alias {
            let visible = scope.visible.split_off(first);
            let mut row = Row::default();
            for item in &visible {
                row.append(item.row(&scope.ranges, self));
            }
            for range in scope.ranges.iter_mut().skip(first_range) {
                range.hidden = true;
            }
            self.show_row(row, Some(alias), "", scope);
        }
    }

    fn join_side(&mut self, side: Option<&'a Node>, scope: &mut Scope<'a, '_>) {
        match side {
            Some(node) => self.entry(node, scope),
            None => drop(self.unknown()),
        }
    }

    /// USING and NATURAL: common columns first, then what is left of both sides.
    fn merge(
        &mut self,
        join: &'a JoinExpr,
        left: Vec<Visible>,
        right: Vec<Visible>,
        scope: &Scope<'a, '_>,
    ) -> Vec<Visible> {
        let mut common: Vec<String> =
            join.using_clause.iter().filter_map(names::text).map(Into::into).collect();
        let mut merged = Vec::new();
        if join.is_natural {
            let (ours, theirs) = (self.visible_row(&left, scope), self.visible_row(&right, scope));
            let shared = |field: &&Field| theirs.fields.iter().any(|other| other.name == field.name);
            common = ours.fields.iter().filter(shared).map(|field| field.name.clone()).collect();
            self.burn(ours.fields.len().saturating_mul(theirs.fields.len()));
            if ours.rest.is_some() || theirs.rest.is_some() {
                // Which columns are common is not known: a name found on one side may be the other's as well.
                return left.into_iter().chain(right).collect();
            }
        }
        for name in &common {
            let ours = self.side(&left, name, scope);
            let theirs = self.side(&right, name, scope);
            self.matched(&ours, &theirs);
            merged.push(Visible::Merged(Field { name: name.clone(), value: ours.either(theirs) }));
        }
        let without = |mut visible: Visible| match &mut visible {
            Visible::Merged(field) if common.contains(&field.name) => None,
            Visible::Merged(_) => Some(visible),
            Visible::Range { merged, .. } => {
                merged.extend(common.iter().cloned());
                Some(visible)
            }
        };
        merged.extend(left.into_iter().chain(right).filter_map(without));
        merged
    }

    fn side(&mut self, side: &[Visible], name: &str, scope: &Scope<'a, '_>) -> Value {
        let mut found = Vec::new();
        for visible in side {
            match visible.find(name, &scope.ranges, self) {
                Found::Nothing => {}
                Found::Column(value) => return value,
                Found::Maybe(value) => found.push(value),
            }
        }
        if found.is_empty() { self.unresolved() } else { Value::derived(found) }
    }

    pub fn visible_row(&mut self, visible: &[Visible], scope: &Scope<'a, '_>) -> Row {
        let mut row = Row::default();
        for item in visible {
            row.append(item.row(&scope.ranges, self));
        }
        row
    }
}

/// The columns of one function in FROM.
fn function_row(call: &Node, value: Value, definitions: &[Node], scalar: Option<&str>) -> Row {
    let field = |name: &str| Field { name: name.into(), value: value.clone() };
    let defined = definitions.iter().filter_map(|node| match node.node.as_ref() {
        Some(NodeEnum::ColumnDef(column)) => Some(field(&column.colname)),
        Some(_) | None => None,
    });
    let fields: Vec<Field> = defined.collect();
    if !definitions.is_empty() {
        let rest = (fields.len() != definitions.len()).then(Value::opaque);
        return Row { fields, rest };
    }
    let name = match call.node.as_ref() {
        Some(NodeEnum::FuncCall(call)) => match names::qualified(&call.funcname) {
            Some((_, "unnest")) if call.args.iter().all(is_scalar_array) => {
                return Row {
                    fields: call.args.iter().map(|_| field(scalar.unwrap_or("unnest"))).collect(),
                    rest: None,
                };
            }
            Some((_, name)) => match builtins::shape(name) {
                Shape::Scalar => name,
                Shape::Columns(columns) => {
                    return Row { fields: columns.split(',').map(field).collect(), rest: None };
                }
                Shape::Varies => return Row::open(value),
            },
            None => return Row::open(value),
        },
        Some(NodeEnum::SqlvalueFunction(_) | NodeEnum::CoalesceExpr(_) | NodeEnum::MinMaxExpr(_)) => "",
        Some(_) | None => return Row::open(value),
    };
    if value.kind == weir_core::action::OutputKind::Opaque {
        return Row { fields: vec![field(scalar.unwrap_or(name))], rest: Some(value) };
    }
    Row { fields: vec![field(scalar.unwrap_or(name))], rest: None }
}

/// An array whose elements are certainly no rows: a cast to an array of a built-in type, or a constructor of constants
/// and casts to built-in types.
fn is_scalar_array(argument: &Node) -> bool {
    match argument.node.as_ref() {
        Some(NodeEnum::TypeCast(cast)) => {
            let of = cast.type_name.as_ref();
            of.is_some_and(|of| !of.array_bounds.is_empty()) && is_scalar_cast(cast)
        }
        Some(NodeEnum::AArrayExpr(array)) => {
            array.elements.iter().all(|element| match element.node.as_ref() {
                Some(NodeEnum::AConst(_)) => true,
                Some(NodeEnum::TypeCast(cast)) => is_scalar_cast(cast),
                Some(_) | None => false,
            })
        }
        Some(_) | None => false,
    }
}

fn is_scalar_cast(cast: &TypeCast) -> bool {
    let name = cast.type_name.as_ref().and_then(|of| names::qualified(&of.names));
    name.is_some_and(|(_, name)| builtins::is_builtin_type(name) && name != "record")
}
