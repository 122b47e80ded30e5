//! INSERT, UPDATE, DELETE and MERGE: what they write, and what their RETURNING lists hand out.

use std::rc::Rc;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    CmdType, DeleteStmt, InsertStmt, MergeStmt, MergeWhenClause, Node, OnConflictAction, RangeVar,
    ReturningClause, UpdateStmt,
};
use weir_core::action::{Access, Effect};

use crate::resolver::Resolver;
use crate::scope::{Columns, Range, Row, Scope};
use crate::value::{Field, Value};

impl<'a> Resolver<'a> {
    pub fn insert(&mut self, insert: &'a InsertStmt, outer: Option<&Scope<'a, '_>>) -> Row {
        self.effect(Effect::Insert);
        let depth = self.ctes.len();
        self.with(insert.with_clause.as_ref(), outer);
        let mut scope = Scope::within(outer);
        let row = insert.select_stmt.as_deref().map(|query| self.query(query, outer));
        let columns = self.target(insert.relation.as_ref(), &mut scope);
        for node in &insert.cols {
            self.assigned(node, &columns, &scope);
        }
        if let Some(row) = row {
            self.inserted(&insert.cols, &columns, row);
        }
        if let Some(conflict) = insert.on_conflict_clause.as_deref() {
            scope.ranges.push(Range {
                alias: "excluded",
                schema: None,
                columns: columns.clone(),
                hidden: false,
            });
            if conflict.action != OnConflictAction::OnconflictNothing as i32 {
                self.effect(Effect::Update);
            }
            if let Some(infer) = conflict.infer.as_deref() {
                self.expressions(&infer.index_elems, &scope);
                self.condition(infer.where_clause.as_deref(), &scope);
            }
            self.assignments(&conflict.target_list, &columns, &scope);
            self.condition(conflict.where_clause.as_deref(), &scope);
        }
        let row =
            self.returning(insert.returning_clause.as_ref(), insert.relation.as_ref(), columns, &mut scope);
        self.ctes.truncate(depth);
        row
    }

    pub fn update(&mut self, update: &'a UpdateStmt, outer: Option<&Scope<'a, '_>>) -> Row {
        self.effect(Effect::Update);
        let depth = self.ctes.len();
        self.with(update.with_clause.as_ref(), outer);
        let mut scope = Scope::within(outer);
        let columns = self.target(update.relation.as_ref(), &mut scope);
        self.other_rows(&update.from_clause, &mut scope);
        self.assignments(&update.target_list, &columns, &scope);
        self.chosen(update.where_clause.as_deref(), &scope);
        let row =
            self.returning(update.returning_clause.as_ref(), update.relation.as_ref(), columns, &mut scope);
        self.ctes.truncate(depth);
        row
    }

    pub fn delete(&mut self, delete: &'a DeleteStmt, outer: Option<&Scope<'a, '_>>) -> Row {
        self.effect(Effect::Delete);
        let depth = self.ctes.len();
        self.with(delete.with_clause.as_ref(), outer);
        let mut scope = Scope::within(outer);
        let columns = self.target(delete.relation.as_ref(), &mut scope);
        self.other_rows(&delete.using_clause, &mut scope);
        self.chosen(delete.where_clause.as_deref(), &scope);
        let row =
            self.returning(delete.returning_clause.as_ref(), delete.relation.as_ref(), columns, &mut scope);
        self.ctes.truncate(depth);
        row
    }

    pub fn merge_into(&mut self, merge: &'a MergeStmt, outer: Option<&Scope<'a, '_>>) -> Row {
        self.effect(Effect::Read);
        let depth = self.ctes.len();
        self.with(merge.with_clause.as_ref(), outer);
        let mut scope = Scope::within(outer);
        match merge.source_relation.as_deref() {
            Some(source) => self.entry(source, &mut scope),
            None => drop(self.unknown()),
        }
        let columns = self.target(merge.relation.as_ref(), &mut scope);
        self.condition(merge.join_condition.as_deref(), &scope);
        for node in &merge.merge_when_clauses {
            match node.node.as_ref() {
                Some(NodeEnum::MergeWhenClause(clause)) => self.merge_branch(clause, &columns, &scope),
                Some(_) | None => drop(self.unknown()),
            }
        }
        let row =
            self.returning(merge.returning_clause.as_ref(), merge.relation.as_ref(), columns, &mut scope);
        self.ctes.truncate(depth);
        row
    }

    fn merge_branch(&mut self, clause: &'a MergeWhenClause, columns: &Columns<'a>, scope: &Scope<'a, '_>) {
        match CmdType::try_from(clause.command_type) {
            Ok(CmdType::CmdInsert) => self.effect(Effect::Insert),
            Ok(CmdType::CmdUpdate) => self.effect(Effect::Update),
            Ok(CmdType::CmdDelete) => self.effect(Effect::Delete),
            Ok(CmdType::CmdNothing) => {}
            Ok(
                CmdType::Undefined
                | CmdType::CmdUnknown
                | CmdType::CmdSelect
                | CmdType::CmdMerge
                | CmdType::CmdUtility,
            )
            | Err(_) => drop(self.unknown()),
        }
        self.condition(clause.condition.as_deref(), scope);
        self.assignments(&clause.target_list, columns, scope);
        if !clause.values.is_empty() {
            let values = self.values(&clause.values, scope);
            let fields = values.into_iter().map(|value| Field { name: String::new(), value });
            self.inserted(&clause.target_list, columns, Row { fields: fields.collect(), rest: None });
        }
    }

    /// The written relation, also in reach of names.
    fn target(&mut self, var: Option<&'a RangeVar>, scope: &mut Scope<'a, '_>) -> Columns<'a> {
        let Some(var) = var else {
            self.unknown();
            return self.nameless();
        };
        let range = self.written(var);
        let columns = range.columns.clone();
        scope.show(range);
        columns
    }

    /// FROM of an UPDATE, USING of a DELETE: other rows are read.
    fn other_rows(&mut self, items: &'a [Node], scope: &mut Scope<'a, '_>) {
        if !items.is_empty() {
            self.effect(Effect::Read);
        }
        self.entries(items, scope);
    }

    /// A WHERE that looks at no column and asks no subquery chooses nothing (`WHERE true`).
    fn chosen(&mut self, condition: Option<&'a Node>, scope: &Scope<'a, '_>) {
        let before = self.mentions;
        self.condition(condition, scope);
        self.without_where |= self.mentions == before;
    }

    fn assignments(&mut self, targets: &'a [Node], columns: &Columns<'a>, scope: &Scope<'a, '_>) {
        for node in targets {
            self.assigned(node, columns, scope);
        }
    }

    /// A row that is inserted into the named columns, or into the first ones.
    fn inserted(&mut self, named: &'a [Node], columns: &Columns<'a>, row: Row) {
        let names: Vec<String> = if named.is_empty() {
            columns.row(self).fields.into_iter().map(|field| field.name).collect()
        } else {
            let name = |node: &Node| match node.node.as_ref() {
                Some(NodeEnum::ResTarget(target)) => target.name.clone(),
                Some(_) | None => String::new(),
            };
            named.iter().map(name).collect()
        };
        let Row { fields, rest } = row;
        if rest.is_some() {
            // Any of its columns may go anywhere.
            return self.store_anew(&Row { fields, rest });
        }
        for (at, field) in fields.into_iter().enumerate() {
            self.store(columns, names.get(at).map_or("", String::as_str), field.value);
        }
    }

    /// One assigned column: its value and the subscripts of its target.
    fn assigned(&mut self, node: &'a Node, columns: &Columns<'a>, scope: &Scope<'a, '_>) {
        let Some(NodeEnum::ResTarget(target)) = node.node.as_ref() else {
            self.unknown();
            return;
        };
        let value = self.optional(target.val.as_deref(), scope);
        self.store(columns, &target.name, value);
        self.expressions(&target.indirection, scope);
    }

    /// RETURNING hands rows of the target out, so it reads the target. `old` and `new` are PostgreSQL 18's.
    fn returning(
        &mut self,
        clause: Option<&'a ReturningClause>,
        var: Option<&'a RangeVar>,
        columns: Columns<'a>,
        scope: &mut Scope<'a, '_>,
    ) -> Row {
        let Some(clause) = clause else { return Row::default() };
        self.effect(Effect::Read);
        if let Some(var) = var {
            self.names(Some(var), Access::Read);
        }
        let mut aliases = vec!["old", "new"];
        for node in &clause.options {
            match node.node.as_ref() {
                Some(NodeEnum::ReturningOption(option)) => aliases.push(&option.value),
                Some(_) | None => drop(self.unknown()),
            }
        }
        for alias in aliases {
            scope.ranges.push(Range { alias, schema: None, columns: columns.clone(), hidden: false });
        }
        self.targets_row(&clause.exprs, scope)
    }

    /// Any column of the row a rule, trigger or definition sees: nothing is returned, so nothing needs to be resolved. The
    /// columns of the relation it hangs on, where that is known, are recognised all the same.
    pub fn loosely(&mut self, on: Option<&'a RangeVar>, work: impl FnOnce(&mut Self, &Scope<'a, '_>)) {
        let loose = std::mem::replace(&mut self.loose, true);
        let mut scope = Scope::default();
        if let Some(range) = on.map(|var| self.written(var)) {
            for alias in ["old", "new"] {
                let columns = range.columns.clone();
                scope.ranges.push(Range { alias, schema: None, columns, hidden: false });
            }
            scope.show(range);
        }
        let columns = Columns::Open { known: Rc::default(), rest: Value::constant() };
        scope.show(Range { alias: "", schema: None, columns, hidden: false });
        work(self, &scope);
        self.loose = loose;
    }
}
