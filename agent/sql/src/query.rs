//! Queries as rows: SELECT, VALUES, set operations, WITH; data-modifying queries are passed on to `dml`.
//! It refuses to number output columns past the server's own bound: the row is open then.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{CommonTableExpr, Node, ResTarget, SelectStmt, SetOperation, WithClause};
use weir_core::action::{Access, Effect, Object, ProbeKind};
use weir_core::limits;

use crate::names;
use crate::resolver::{Cte, Resolver};
use crate::scope::{Row, Scope};
use crate::value::{Field, Value};

impl<'a> Resolver<'a> {
    /// A statement that returns rows, wherever it stands: on its own, in parentheses, in WITH.
    pub fn query(&mut self, node: &'a Node, outer: Option<&Scope<'a, '_>>) -> Row {
        let row = if self.enter() {
            match node.node.as_ref() {
                Some(NodeEnum::SelectStmt(select)) => self.select(select, outer),
                Some(NodeEnum::InsertStmt(insert)) => self.insert(insert, outer),
                Some(NodeEnum::UpdateStmt(update)) => self.update(update, outer),
                Some(NodeEnum::DeleteStmt(delete)) => self.delete(delete, outer),
                Some(NodeEnum::MergeStmt(merge)) => self.merge_into(merge, outer),
                Some(_) | None => Row::open(self.unknown()),
            }
        } else {
            self.unknown_row()
        };
        self.leave();
        row
    }

    pub fn select(&mut self, select: &'a SelectStmt, outer: Option<&Scope<'a, '_>>) -> Row {
        let depth = self.ctes.len();
        self.with(select.with_clause.as_ref(), outer);
        let mut scope = Scope::within(outer);
        let mut row = match SetOperation::try_from(select.op) {
            Ok(SetOperation::SetopNone) if !select.values_lists.is_empty() => {
                self.values_lists(&select.values_lists, &scope)
            }
            Ok(SetOperation::SetopNone) => self.plain(select, &mut scope),
            Ok(SetOperation::SetopUnion | SetOperation::SetopIntersect | SetOperation::SetopExcept) => {
                self.set_operation(select, outer)
            }
            Ok(SetOperation::Undefined) | Err(_) => Row::open(self.unknown()),
        };
        if row.fields.len() > limits::PG_COLUMNS {
            row = Row::open(row.whole());
        }
        if !select.sort_clause.is_empty() || !select.group_clause.is_empty() {
            scope.targets.clone_from(&row.fields);
            self.burn(row.fields.len());
        }
        self.arranged(&select.sort_clause, ProbeKind::Order, &scope);
        self.arranged(&select.group_clause, ProbeKind::Equality, &scope);
        for bound in [&select.limit_count, &select.limit_offset] {
            let value = self.optional(bound.as_deref(), &scope);
            self.probe(ProbeKind::Volume, &value);
        }
        if !select.locking_clause.is_empty() {
            self.effect(Effect::Lock);
        }
        if let Some(into) = &select.into_clause {
            self.effect(Effect::Create);
            self.effect(Effect::Insert);
            self.object(Object::Table);
            self.names(into.rel.as_ref(), Access::Write);
            self.store_anew(&row);
        }
        self.ctes.truncate(depth);
        row
    }

    fn plain(&mut self, select: &'a SelectStmt, scope: &mut Scope<'a, '_>) -> Row {
        self.effect(Effect::Read);
        self.entries(&select.from_clause, scope);
        self.condition(select.where_clause.as_deref(), scope);
        let row = self.targets_row(&select.target_list, scope);
        match select.distinct_clause.as_slice() {
            [] => {}
            // An empty node stands for plain DISTINCT.
            [all] if all.node.is_none() => self.distinct(&row),
            on => {
                scope.targets.clone_from(&row.fields);
                self.arranged(on, ProbeKind::Equality, scope);
            }
        }
        self.condition(select.having_clause.as_deref(), scope);
        self.expressions(&select.window_clause, scope);
        row
    }

    fn values_lists(&mut self, lists: &'a [Node], scope: &Scope<'a, '_>) -> Row {
        let mut row = Row::default();
        for (at, list) in lists.iter().enumerate() {
            let Some(NodeEnum::List(list)) = list.node.as_ref() else {
                return Row::open(self.unknown());
            };
            let fields = list.items.iter().enumerate().map(|(column, item)| {
                let value = self.expression(item, scope);
                self.computed(item, &value);
                Field { name: format!("column{}", column + 1), value }
            });
            let fields = fields.collect();
            row = if at == 0 { Row { fields, rest: None } } else { either(row, Row { fields, rest: None }) };
        }
        row
    }

    fn set_operation(&mut self, select: &'a SelectStmt, outer: Option<&Scope<'a, '_>>) -> Row {
        let mut rows = Vec::with_capacity(2);
        for side in [&select.larg, &select.rarg] {
            let row = match side.as_deref() {
                Some(side) if self.enter() => self.select(side, outer),
                Some(_) | None => Row::open(self.unknown()),
            };
            if side.is_some() {
                self.leave();
            }
            rows.push(row);
        }
        let keeps_all = select.all && select.op == SetOperation::SetopUnion as i32;
        if let ([ours, theirs], false) = (rows.as_slice(), keeps_all) {
            for (ours, theirs) in ours.fields.iter().zip(&theirs.fields) {
                self.matched(&ours.value, &theirs.value);
            }
            for rest in [&ours.rest, &theirs.rest].into_iter().flatten() {
                self.compared(rest, ProbeKind::Condition);
            }
        }
        // EXCEPT returns rows of the left side only, but which ones tells about the right: its sources stay.
        rows.into_iter().reduce(either).unwrap_or_default()
    }

    /// The target list or RETURNING list as a row.
    pub fn targets_row(&mut self, targets: &'a [Node], scope: &Scope<'a, '_>) -> Row {
        let mut row = Row { fields: Vec::with_capacity(targets.len()), rest: None };
        for node in targets {
            let Some(NodeEnum::ResTarget(target)) = node.node.as_ref() else {
                row.append(Row::open(self.unknown()));
                continue;
            };
            let Some(value) = target.val.as_deref() else {
                row.append(Row::open(self.unknown()));
                continue;
            };
            match self.star(value, scope) {
                Some(many) => row.append(many),
                None => row.fields.push(self.field(target, value, scope)),
            }
            if row.fields.len() > limits::PG_COLUMNS {
                return Row::open(row.whole());
            }
        }
        row
    }

    fn field(&mut self, target: &ResTarget, value: &'a Node, scope: &Scope<'a, '_>) -> Field {
        let name = if target.name.is_empty() { names::figure(value) } else { target.name.clone() };
        let computed = self.expression(value, scope);
        self.computed(value, &computed);
        Field { name, value: computed }
    }

    /// `*`, `t.*`, `(t).*`, `(expression).*`: several columns from one target.
    fn star(&mut self, value: &'a Node, scope: &Scope<'a, '_>) -> Option<Row> {
        match value.node.as_ref()? {
            NodeEnum::ColumnRef(column) => {
                let (last, qualifier) = column.fields.split_last()?;
                if !matches!(last.node, Some(NodeEnum::AStar(_))) {
                    return None;
                }
                self.mentions += 1;
                if qualifier.is_empty() {
                    return Some(self.visible_row(&scope.visible, scope));
                }
                Some(self.range_row(qualifier, scope))
            }
            NodeEnum::AIndirection(part) => {
                if !matches!(part.indirection.last()?.node, Some(NodeEnum::AStar(_))) {
                    return None;
                }
                if let [_] = part.indirection.as_slice()
                    && let Some(NodeEnum::ColumnRef(column)) = part.arg.as_deref()?.node.as_ref()
                    && let [name] = column.fields.as_slice()
                    && names::text(name).is_some_and(|name| scope.range(None, name).is_some())
                {
                    return Some(self.range_row(&column.fields, scope));
                }
                let whole = self.optional(part.arg.as_deref(), scope);
                Some(Row::open(whole))
            }
            _ => None,
        }
    }

    /// All columns of the range that `alias`, `schema.alias` or `catalog.schema.alias` names.
    pub fn range_row(&mut self, qualifier: &[Node], scope: &Scope<'a, '_>) -> Row {
        let Some((schema, alias)) = names::qualified(qualifier) else { return Row::open(self.unresolved()) };
        match scope.range(schema, alias).map(|range| range.columns.clone()) {
            Some(columns) => columns.row(self),
            // `(column).*` of a composite column, or nothing we know.
            None => Row::open(self.unresolved()),
        }
    }

    /// Puts the WITH queries in force; the caller takes them out again.
    pub fn with(&mut self, with: Option<&'a WithClause>, outer: Option<&Scope<'a, '_>>) {
        let Some(with) = with else { return };
        let ctes = with.ctes.iter().filter_map(|node| match node.node.as_ref() {
            Some(NodeEnum::CommonTableExpr(cte)) => Some(&**cte),
            Some(_) | None => None,
        });
        let ctes: Vec<&'a CommonTableExpr> = ctes.collect();
        if ctes.len() != with.ctes.len() {
            self.unknown();
        }
        if with.recursive {
            return self.recursive(&ctes, outer);
        }
        for cte in ctes {
            let row = Rc::new(self.cte(cte, outer));
            self.ctes.push(Cte { name: cte.ctename.clone(), row });
        }
    }

    /// WITH RECURSIVE: every query may name every other, so all start empty and are walked until nothing is added.
    fn recursive(&mut self, ctes: &[&'a CommonTableExpr], outer: Option<&Scope<'a, '_>>) {
        let base = self.ctes.len();
        let opaque = self.opaque;
        for cte in ctes {
            self.ctes.push(Cte { name: cte.ctename.clone(), row: Rc::new(Row::open(Value::nothing())) });
        }
        for _ in 0..ctes.len().saturating_add(FIXPOINT_ROUNDS) {
            // Names that are not known yet are no sign of opacity; the last round decides.
            self.opaque = opaque;
            let mut changed = false;
            for (at, cte) in ctes.iter().enumerate() {
                let row = self.cte(cte, outer);
                if let Some(known) = self.ctes.get_mut(base + at)
                    && *known.row != row
                {
                    known.row = Rc::new(row);
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
        self.opaque = true;
        for cte in self.ctes.iter_mut().skip(base) {
            cte.row = Rc::new(Row::open(Value::opaque()));
        }
    }

    fn cte(&mut self, cte: &'a CommonTableExpr, outer: Option<&Scope<'a, '_>>) -> Row {
        let mut row = match cte.ctequery.as_deref() {
            Some(query) => self.query(query, outer),
            None => Row::open(self.unknown()),
        };
        row.rename(cte.aliascolnames.iter().filter_map(names::text));
        let whole = || Value::derived(row.fields.iter().map(|field| field.value.clone()));
        let mut extra = Vec::new();
        if let Some(search) = &cte.search_clause {
            extra.push(Field { name: search.search_seq_column.clone(), value: whole() });
        }
        if let Some(cycle) = &cte.cycle_clause {
            extra.push(Field { name: cycle.cycle_mark_column.clone(), value: whole() });
            extra.push(Field { name: cycle.cycle_path_column.clone(), value: whole() });
        }
        row.fields.extend(extra);
        row
    }
}

/// Rows of either side, column by column; the left side names them.
fn either(left: Row, right: Row) -> Row {
    if left.rest.is_none() && right.rest.is_none() && left.fields.len() == right.fields.len() {
        let pairs = left.fields.into_iter().zip(right.fields);
        let fields = pairs.map(|(a, b)| Field { name: a.name, value: a.value.either(b.value) });
        return Row { fields: fields.collect(), rest: None };
    }
    // Both sides have the same width, or the server refuses. What is in an unknown column may stand anywhere.
    let (mut known, other) = if left.rest.is_none() { (left, right) } else { (right, left) };
    let all = other.whole();
    if !all.is_nothing() {
        for field in &mut known.fields {
            field.value = Value::derived([field.value.clone(), all.clone()]);
        }
    }
    known.rest = known.rest.map(|rest| Value::derived([rest, all]));
    known
}

/// Rounds beyond one for each query; values pass from query to query in one round, so more means a fault of ours.
const FIXPOINT_ROUNDS: usize = 4;
