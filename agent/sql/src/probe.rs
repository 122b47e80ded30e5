//! Probes: stored values that decide which rows there are, how many, or in which order, without being shown themselves.
//! It refuses to take a computation for a comparison: what is not a bare column beside `=` counts as a condition.

use pg_query::NodeEnum;
use pg_query::protobuf::{AExpr, AExprKind, BoolExpr, Node, SubLink, SubLinkType};
use weir_core::action::{OutputKind, Probe, ProbeKind};

use crate::names;
use crate::resolver::Resolver;
use crate::scope::{Row, Scope};
use crate::value::{Field, Value};

impl<'a> Resolver<'a> {
    /// WHERE, ON, HAVING, FILTER, WHEN: an expression that admits rows.
    pub fn condition(&mut self, node: Option<&'a Node>, scope: &Scope<'a, '_>) {
        let Some(node) = node else { return };
        if self.enter() {
            match node.node.as_ref() {
                Some(NodeEnum::BoolExpr(expr)) => self.each_condition(expr, scope),
                Some(NodeEnum::AExpr(operation)) if is_comparison(operation) => {
                    self.comparison(operation.lexpr.as_deref(), operation.rexpr.as_deref(), scope);
                }
                Some(NodeEnum::SubLink(link)) if is_membership(link) => self.membership(link, scope),
                _ => {
                    let value = self.expression(node, scope);
                    self.probe(ProbeKind::Condition, &value);
                }
            }
        }
        self.leave();
    }

    fn each_condition(&mut self, expr: &'a BoolExpr, scope: &Scope<'a, '_>) {
        for node in &expr.args {
            self.condition(Some(node), scope);
        }
    }

    /// `a = b`, `(a, b) = (c, d)`, `a IN (b, c)`, `a = ANY (b)`.
    fn comparison(&mut self, left: Option<&'a Node>, right: Option<&'a Node>, scope: &Scope<'a, '_>) {
        let parts = |node: Option<&'a Node>| match node.and_then(|node| node.node.as_ref()) {
            Some(NodeEnum::RowExpr(row)) => Some(row.args.as_slice()),
            _ => None,
        };
        match (parts(left), right.and_then(|node| node.node.as_ref())) {
            (_, Some(NodeEnum::List(list))) => {
                for item in &list.items {
                    self.comparison(left, Some(item), scope);
                }
            }
            (Some(ours), Some(NodeEnum::RowExpr(row))) if ours.len() == row.args.len() => {
                for (ours, theirs) in ours.iter().zip(&row.args) {
                    self.comparison(Some(ours), Some(theirs), scope);
                }
            }
            (_, _) => {
                let sides =
                    [left, right].map(|side| (self.is_whole(side, scope), self.optional(side, scope)));
                // Beside something that runs through many values, one comparison is a search.
                let whole = sides.iter().all(|(whole, _)| *whole);
                let kind = if whole { ProbeKind::Equality } else { ProbeKind::Condition };
                sides.iter().for_each(|(_, value)| self.probe(kind, value));
            }
        }
    }

    /// One value that is not computed from rows: a column as it is stored, a constant, a parameter, a list of such.
    fn is_whole(&mut self, node: Option<&'a Node>, scope: &Scope<'a, '_>) -> bool {
        let Some(node) = node else { return true };
        match node.node.as_ref() {
            Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_) | NodeEnum::SqlvalueFunction(_)) => true,
            Some(NodeEnum::TypeCast(cast)) if is_fixed(node) => cast.arg.is_some(),
            Some(NodeEnum::ColumnRef(_) | NodeEnum::TypeCast(_) | NodeEnum::CollateClause(_)) => {
                let value = self.expression(node, scope);
                // Without a catalog a column is what it looks like.
                let unknown = value.kind == OutputKind::Opaque && value.sources.is_empty();
                value.kind == OutputKind::Direct
                    || unknown && matches!(node.node, Some(NodeEnum::ColumnRef(_)))
            }
            Some(NodeEnum::FuncCall(_)) => self.is_folded_column(node, scope) || is_fixed(node),
            _ => is_fixed(node),
        }
    }

    /// `lower(column)`: a comparison without regard to case is still one with the whole value.
    fn is_folded_column(&mut self, node: &'a Node, scope: &Scope<'a, '_>) -> bool {
        let Some(NodeEnum::FuncCall(call)) = node.node.as_ref() else { return false };
        let [argument] = call.args.as_slice() else { return false };
        matches!(argument.node, Some(NodeEnum::ColumnRef(_)))
            && matches!(
                names::qualified(&call.funcname),
                Some((None | Some("pg_catalog"), "lower" | "upper"))
            )
            && self.is_whole(Some(argument), scope)
            && (self.schema.is_none() || self.expression(node, scope).kind != OutputKind::Opaque)
    }

    /// `a IN (SELECT b …)`.
    fn membership(&mut self, link: &'a SubLink, scope: &Scope<'a, '_>) {
        self.mentions += 1;
        let row = match link.subselect.as_deref() {
            Some(query) => self.query(query, Some(scope)),
            None => Row::open(self.unknown()),
        };
        let stored =
            row.rest.is_none() && row.fields.iter().all(|field| field.value.kind == OutputKind::Direct);
        let tests = match link.testexpr.as_deref().map(|test| (test, test.node.as_ref())) {
            Some((_, Some(NodeEnum::RowExpr(row)))) => row.args.as_slice(),
            Some((test, _)) => std::slice::from_ref(test),
            None => &[],
        };
        let whole = tests.iter().fold(stored, |whole, test| self.is_whole(Some(test), scope) && whole);
        let kind = if whole { ProbeKind::Equality } else { ProbeKind::Condition };
        for test in tests {
            let value = self.expression(test, scope);
            self.probe(kind, &value);
        }
        self.probe(kind, &row.whole());
    }

    /// ORDER BY, GROUP BY, PARTITION BY, DISTINCT ON: expressions by which rows are told apart or put in order.
    pub fn arranged(&mut self, nodes: &'a [Node], kind: ProbeKind, scope: &Scope<'a, '_>) {
        for node in nodes {
            let node = match node.node.as_ref() {
                Some(NodeEnum::SortBy(sort)) => sort.node.as_deref().unwrap_or(node),
                _ => node,
            };
            if let Some(NodeEnum::GroupingSet(set)) = node.node.as_ref() {
                if self.enter() {
                    self.arranged(&set.content, kind, scope);
                }
                self.leave();
                continue;
            }
            let value = self.expression(node, scope);
            self.compared(&value, kind);
            // A number is the position of an output column, and a name may be one's, also where a column has it, too.
            let named = |field: &&Field| only_name(node) == Some(field.name.as_str());
            let target = match ordinal(node) {
                Some(at) => scope.targets.get(at),
                None => scope.targets.iter().find(named),
            };
            if let Some(target) = target.map(|field| field.value.clone()) {
                self.compared(&target, kind);
            }
        }
    }

    /// Two columns that are compared row by row: USING, UNION, INTERSECT, EXCEPT.
    pub fn matched(&mut self, ours: &Value, theirs: &Value) {
        let stored = [ours, theirs].iter().all(|value| value.kind == OutputKind::Direct);
        let kind = if stored { ProbeKind::Equality } else { ProbeKind::Condition };
        self.probe(kind, ours);
        self.probe(kind, theirs);
    }

    /// A value computed where nobody may ever look at it: that it can be computed, or fails, tells something.
    pub fn computed(&mut self, node: &Node, value: &Value) {
        if value.kind != OutputKind::Direct && !matches!(node.node, Some(NodeEnum::ColumnRef(_))) {
            self.probe(ProbeKind::Condition, value);
        }
    }

    /// A column that a definition is made with: what is stored, checked or indexed by it tells about it.
    pub fn defined_with(&mut self, value: &Value) {
        if self.loose && !value.sources.is_empty() {
            self.note(ProbeKind::Condition, value);
        }
    }

    /// Rows that are compared whole: DISTINCT.
    pub fn distinct(&mut self, row: &Row) {
        for value in row.fields.iter().map(|field| &field.value).chain(&row.rest) {
            self.compared(value, ProbeKind::Equality);
        }
    }

    /// A value that is compared: as it is stored it is a probe of this kind, computed it is a condition.
    pub fn compared(&mut self, value: &Value, kind: ProbeKind) {
        self.probe(if value.kind == OutputKind::Direct { kind } else { ProbeKind::Condition }, value);
    }

    pub fn probe(&mut self, kind: ProbeKind, value: &Value) {
        let unknown = value.kind == OutputKind::Opaque;
        if value.kind == OutputKind::Neutral || (value.sources.is_empty() && !unknown) || self.loose {
            return;
        }
        self.note(kind, value);
    }

    fn note(&mut self, kind: ProbeKind, value: &Value) {
        self.burn(value.sources.len());
        if !self.probes.iter().any(|probe| probe.kind == kind) {
            self.probes.push(Probe { kind, sources: Vec::new(), opaque: false });
        }
        let Some(probe) = self.probes.iter_mut().find(|probe| probe.kind == kind) else { return };
        probe.opaque |= value.kind == OutputKind::Opaque;
        for source in &value.sources {
            if let Err(at) = probe.sources.binary_search(source) {
                probe.sources.insert(at, *source);
            }
        }
    }
}

/// The same for every row: constants, parameters, and what is made of them without looking at anything else.
fn is_fixed(node: &Node) -> bool {
    let all = |nodes: &[Node]| nodes.iter().all(is_fixed);
    match node.node.as_ref() {
        Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_) | NodeEnum::SqlvalueFunction(_)) => true,
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_deref().is_some_and(is_fixed),
        Some(NodeEnum::CollateClause(clause)) => clause.arg.as_deref().is_some_and(is_fixed),
        Some(NodeEnum::AArrayExpr(array)) => all(&array.elements),
        Some(NodeEnum::AExpr(operation)) => {
            [&operation.lexpr, &operation.rexpr].into_iter().flatten().all(|side| is_fixed(side))
        }
        Some(NodeEnum::FuncCall(call)) => {
            let name = call.funcname.last().and_then(names::text).unwrap_or_default();
            matches!(name, "lower" | "upper" | "trim" | "btrim" | "now" | "concat") && all(&call.args)
        }
        _ => false,
    }
}

/// The name, where the expression is nothing but one.
fn only_name(node: &Node) -> Option<&str> {
    let Some(NodeEnum::ColumnRef(column)) = node.node.as_ref() else { return None };
    match column.fields.as_slice() {
        [name] => names::text(name),
        _ => None,
    }
}

/// Position of an output column, from 0.
fn ordinal(node: &Node) -> Option<usize> {
    let Some(NodeEnum::AConst(constant)) = node.node.as_ref() else { return None };
    match constant.val.as_ref()? {
        pg_query::protobuf::a_const::Val::Ival(number) => usize::try_from(number.ival).ok()?.checked_sub(1),
        _ => None,
    }
}

/// `=`, `<>`, `IN`, `= ANY`, `IS [NOT] DISTINCT FROM`, of PostgreSQL's own.
fn is_comparison(operation: &AExpr) -> bool {
    let equals = matches!(names::qualified(&operation.name), Some((None | Some("pg_catalog"), "=" | "<>")));
    match AExprKind::try_from(operation.kind) {
        Ok(
            AExprKind::AexprOp
            | AExprKind::AexprOpAny
            | AExprKind::AexprOpAll
            | AExprKind::AexprDistinct
            | AExprKind::AexprNotDistinct
            | AExprKind::AexprIn,
        ) => equals,
        Ok(_) | Err(_) => false,
    }
}

fn is_membership(link: &SubLink) -> bool {
    let equals = link.oper_name.is_empty()
        || matches!(names::qualified(&link.oper_name), Some((None | Some("pg_catalog"), "=" | "<>")));
    matches!(SubLinkType::try_from(link.sub_link_type), Ok(SubLinkType::AnySublink | SubLinkType::AllSublink))
        && equals
}
