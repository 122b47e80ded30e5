//! Probes: stored values that decide which rows there are, how many, or in which order, without being shown themselves.
//! It refuses to take a computation for a comparison: what is not a bare column beside `=` counts as a condition.

use pg_query::NodeEnum;
use pg_query::protobuf::{AExpr, AExprKind, BoolExpr, Node, SubLink, SubLinkType};
use weir_core::action::{OutputKind, Probe, ProbeKind};

use crate::names;
use crate::resolver::Resolver;
use crate::scope::{Row, Scope};
use crate::value::Value;

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
                for side in [left, right] {
                    let bare = side.is_some_and(|node| self.is_folded_column(node, scope));
                    let value = self.optional(side, scope);
                    if bare {
                        self.probe(ProbeKind::Equality, &value);
                    } else {
                        self.compared(&value, ProbeKind::Equality);
                    }
                }
            }
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
            && self.expression(argument, scope).kind == OutputKind::Direct
            && self.expression(node, scope).kind != OutputKind::Opaque
    }

    /// `a IN (SELECT b …)`.
    fn membership(&mut self, link: &'a SubLink, scope: &Scope<'a, '_>) {
        self.mentions += 1;
        match link.testexpr.as_deref().and_then(|test| test.node.as_ref()) {
            Some(NodeEnum::RowExpr(row)) => {
                for part in &row.args {
                    self.comparison(Some(part), None, scope);
                }
            }
            Some(_) | None => self.comparison(link.testexpr.as_deref(), None, scope),
        }
        let row = match link.subselect.as_deref() {
            Some(query) => self.query(query, Some(scope)),
            None => Row::open(self.unknown()),
        };
        self.distinct(&row);
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
            // A number is the position of an output column.
            match ordinal(node).and_then(|at| scope.targets.get(at)).map(|field| field.value.clone()) {
                Some(target) => self.compared(&target, kind),
                None => self.compared(&value, kind),
            }
        }
    }

    /// Rows that are compared whole: DISTINCT, UNION, INTERSECT, EXCEPT, the result of `IN (SELECT …)`.
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
        if value.kind == OutputKind::Neutral || value.sources.is_empty() || self.loose {
            return;
        }
        self.burn(value.sources.len());
        if !self.probes.iter().any(|probe| probe.kind == kind) {
            self.probes.push(Probe { kind, sources: Vec::new() });
        }
        let Some(probe) = self.probes.iter_mut().find(|probe| probe.kind == kind) else { return };
        for source in &value.sources {
            if let Err(at) = probe.sources.binary_search(source) {
                probe.sources.insert(at, *source);
            }
        }
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
