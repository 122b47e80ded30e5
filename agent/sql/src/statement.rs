//! One text → its statements. Row statements and the commands that wrap them are told here, the rest in `session` and `ddl`.
//! It refuses to name a statement it could not walk to the end: that one is `unknown`.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{CopyStmt, CreateTableAsStmt, DefElem, ExplainStmt, Node, ObjectType, RawStmt};
use weir_core::action::{Access, Effect, Effects, Named, Object, Output, OutputKind, Statement};
use weir_core::sql::Dialect;

use crate::names;
use crate::parse;
use crate::resolver::Resolver;
use crate::scope::{Columns, Row, Scope};
use crate::value::{Field, Value};
use crate::view::Schema;

pub(crate) fn analyse(sql: &str, dialect: Dialect, schema: Option<&Arc<Schema>>) -> Vec<Statement> {
    match parse::parse(sql, dialect) {
        Some(tree) => tree.stmts.iter().map(|raw| one(sql, raw, schema)).collect(),
        None => vec![unknown(sql)],
    }
}

/// What a text counts as that cannot be told.
fn unknown(text: &str) -> Statement {
    Statement {
        effects: Effects::of(&[Effect::Unknown]),
        opaque: true,
        text: text.into(),
        ..Statement::default()
    }
}

impl parse::Refused for Vec<Statement> {
    fn refused() -> Self {
        vec![unknown("")]
    }
}

fn one(sql: &str, raw: &RawStmt, schema: Option<&Arc<Schema>>) -> Statement {
    let text = parse::own_text(sql, raw);
    let Some(node) = raw.stmt.as_deref() else { return unknown(text) };
    let mut resolver = Resolver::new(schema);
    let result = resolver.statement(node);
    if resolver.refused() {
        return unknown(text);
    }
    let outputs = match (result, schema) {
        (Result::Rows(row), Some(_)) => outputs(row, &mut resolver.opaque),
        (Result::Rows(_), None) | (Result::Nothing, _) => None,
    };
    Statement {
        effects: resolver.effects,
        relations: resolver.relations,
        objects: resolver.objects,
        functions: resolver.functions,
        stores: resolver.stores,
        probes: resolver.probes,
        without_where: resolver.without_where,
        opaque: resolver.opaque,
        outputs,
        named: resolver.named,
        text: text.into(),
    }
}

fn outputs(row: Row, opaque: &mut bool) -> Option<Vec<Output>> {
    if row.rest.is_some() {
        *opaque = true;
        return None;
    }
    Some(row.fields.into_iter().map(|field| field.value.output(field.name)).collect())
}

/// What a statement answers with.
pub(crate) enum Result {
    Rows(Row),
    Nothing,
}

impl<'a> Resolver<'a> {
    pub fn statement(&mut self, node: &'a Node) -> Result {
        let result = if self.enter() { self.dispatch(node) } else { Result::Nothing };
        self.leave();
        result
    }

    fn dispatch(&mut self, node: &'a Node) -> Result {
        match node.node.as_ref() {
            Some(NodeEnum::SelectStmt(select)) => {
                self.effect(Effect::Read);
                let row = self.query(node, None);
                if select.into_clause.is_some() { Result::Nothing } else { Result::Rows(row) }
            }
            Some(NodeEnum::InsertStmt(insert)) => self.writing(node, insert.returning_clause.is_some()),
            Some(NodeEnum::UpdateStmt(update)) => self.writing(node, update.returning_clause.is_some()),
            Some(NodeEnum::DeleteStmt(delete)) => self.writing(node, delete.returning_clause.is_some()),
            Some(NodeEnum::MergeStmt(merge)) => self.writing(node, merge.returning_clause.is_some()),
            Some(NodeEnum::ExplainStmt(explain)) => self.explain(explain),
            Some(NodeEnum::CopyStmt(copy)) => self.copy(copy),
            Some(NodeEnum::CreateTableAsStmt(create)) => self.create_table_as(create),
            Some(NodeEnum::PrepareStmt(prepare)) => {
                let result = self.inner(prepare.query.as_deref());
                self.named = Some(Named::Prepare(prepare.name.clone()));
                result
            }
            Some(NodeEnum::ExecuteStmt(execute)) => {
                self.expressions(&execute.params, &Scope::default());
                self.unknown();
                self.named = Some(Named::Execute(execute.name.clone()));
                Result::Rows(Row::open(Value::opaque()))
            }
            Some(NodeEnum::DeclareCursorStmt(declare)) => {
                let result = self.inner(declare.query.as_deref());
                self.named = Some(Named::Declare(declare.portalname.clone()));
                result
            }
            Some(NodeEnum::FetchStmt(fetch)) => {
                self.unknown();
                self.named = Some(Named::Fetch(fetch.portalname.clone()));
                Result::Rows(Row::open(Value::opaque()))
            }
            Some(other) => self.session(other),
            None => {
                self.unknown();
                Result::Nothing
            }
        }
    }

    fn writing(&mut self, node: &'a Node, returns: bool) -> Result {
        let row = self.query(node, None);
        if returns { Result::Rows(row) } else { Result::Nothing }
    }

    fn inner(&mut self, node: Option<&'a Node>) -> Result {
        match node {
            Some(node) => self.statement(node),
            None => {
                self.unknown();
                Result::Nothing
            }
        }
    }

    /// EXPLAIN alone plans: it looks at relations and may fold calls, but runs nothing. With ANALYZE it runs all of it.
    fn explain(&mut self, explain: &'a ExplainStmt) -> Result {
        let analyse = explain.options.iter().any(|node| match node.node.as_ref() {
            Some(NodeEnum::DefElem(option)) => option.defname == "analyze" && !is_off(option),
            Some(_) | None => true,
        });
        if analyse {
            self.inner(explain.query.as_deref());
        } else {
            let before = (self.effects, self.without_where);
            self.inner(explain.query.as_deref());
            let folded = Effects::of(&[Effect::Call, Effect::Admin, Effect::Replication, Effect::Unknown]);
            let kept = self.effects.iter().filter(|effect| Effects::of(&[*effect]).within(folded));
            self.effects = kept.fold(before.0, Effects::with);
            self.without_where = before.1;
            self.objects.clear();
            self.stores.clear();
            for relation in &mut self.relations {
                relation.access = Access::Read;
            }
        }
        self.effect(Effect::Explain);
        let value = if self.opaque { Value::opaque() } else { Value::constant().neutral() };
        Result::Rows(Row { fields: vec![Field { name: "QUERY PLAN".into(), value }], rest: None })
    }

    /// COPY. The outputs of `COPY table TO` are the listed columns, else all of the catalog's: a table with generated
    /// columns sends fewer, so the count must be compared with the server's CopyOutResponse.
    fn copy(&mut self, copy: &'a CopyStmt) -> Result {
        let direction = match (copy.is_program || !copy.filename.is_empty(), copy.is_from) {
            (true, _) => Effect::CopyProgram,
            (false, true) => Effect::CopyIn,
            (false, false) => Effect::CopyOut,
        };
        self.effect(direction);
        let row = match (copy.relation.as_ref(), copy.query.as_deref()) {
            (Some(relation), None) if copy.is_from => {
                self.effect(Effect::Insert);
                let mut scope = Scope::within(None);
                let range = self.written(relation);
                scope.show(range);
                self.optional(copy.where_clause.as_deref(), &scope);
                return Result::Nothing;
            }
            (Some(relation), None) => {
                self.effect(Effect::Read);
                let columns = self.read(relation).columns;
                self.copied(&columns, &copy.attlist)
            }
            (None, Some(query)) => self.query(query, None),
            (Some(_), Some(_)) | (None, None) => Row::open(self.unknown()),
        };
        if direction == Effect::CopyOut { Result::Rows(row) } else { Result::Nothing }
    }

    fn copied(&mut self, columns: &Columns<'a>, listed: &[Node]) -> Row {
        if listed.is_empty() {
            return columns.row(self);
        }
        let mut row = Row::default();
        for name in listed.iter().filter_map(names::text) {
            let value = columns.find(name, self).unwrap_or_else(|| self.unresolved());
            row.fields.push(Field { name: name.into(), value });
        }
        row
    }

    /// CREATE TABLE AS and CREATE MATERIALIZED VIEW: rows are read and stored anew.
    fn create_table_as(&mut self, create: &'a CreateTableAsStmt) -> Result {
        match self.inner(create.query.as_deref()) {
            Result::Rows(row) => self.store_anew(&row),
            Result::Nothing => {}
        }
        self.effect(Effect::Create);
        self.effect(Effect::Insert);
        match ObjectType::try_from(create.objtype) {
            Ok(ObjectType::ObjectTable) => self.object(Object::Table),
            Ok(ObjectType::ObjectMatview) => self.object(Object::View),
            Ok(_) | Err(_) => drop(self.unknown()),
        }
        self.names(create.into.as_ref().and_then(|into| into.rel.as_ref()), Access::Write);
        Result::Nothing
    }

    /// A row of one constant column, as SHOW answers.
    pub fn setting(&self, name: &str) -> Result {
        let value = Value { kind: OutputKind::Derived, ..Value::constant() };
        Result::Rows(Row { fields: vec![Field { name: name.into(), value }], rest: None })
    }
}

/// A boolean option that is said to be off; anything else counts as on.
fn is_off(option: &DefElem) -> bool {
    match option.arg.as_deref().and_then(|arg| arg.node.as_ref()) {
        Some(NodeEnum::String(word)) => {
            ["off", "false"].iter().any(|off| word.sval.eq_ignore_ascii_case(off))
        }
        Some(NodeEnum::Boolean(boolean)) => !boolean.boolval,
        Some(NodeEnum::Integer(number)) => number.ival == 0,
        Some(_) | None => false,
    }
}
