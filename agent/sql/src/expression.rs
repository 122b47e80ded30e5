//! Expressions as values: every column and call below an expression counts, unless only its presence is told.
//! It refuses to skip a node it does not know: that makes the statement unknown.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AExpr, AIndirection, FuncCall, JsonAggConstructor, JsonValueExpr, Node, SubLink, SubLinkType, TypeCast,
    WindowDef,
};
use weir_core::action::{Effect, OutputKind, ProbeKind};

use crate::builtins;
use crate::names;
use crate::resolver::Resolver;
use crate::scope::Scope;
use crate::value::{TEXT, Value, is_text};

impl<'a> Resolver<'a> {
    pub fn expression(&mut self, node: &'a Node, scope: &Scope<'a, '_>) -> Value {
        let known = match node.node.as_ref() {
            // The leaves first: most of a statement is leaves.
            Some(NodeEnum::AConst(_) | NodeEnum::ParamRef(_)) => return Value::constant(),
            Some(known) => known,
            None => return self.unknown(),
        };
        let value = if self.enter() { self.known(known, scope) } else { Value::opaque() };
        self.leave();
        value
    }

    pub fn optional(&mut self, node: Option<&'a Node>, scope: &Scope<'a, '_>) -> Value {
        node.map_or_else(Value::constant, |node| self.expression(node, scope))
    }

    pub fn values(&mut self, nodes: &'a [Node], scope: &Scope<'a, '_>) -> Vec<Value> {
        nodes.iter().map(|node| self.expression(node, scope)).collect()
    }

    pub fn expressions(&mut self, nodes: &'a [Node], scope: &Scope<'a, '_>) {
        for node in nodes {
            self.expression(node, scope);
        }
    }

    fn all(&mut self, nodes: &'a [Node], scope: &Scope<'a, '_>) -> Value {
        let values = self.values(nodes, scope);
        Value::derived(values)
    }

    /// Values of ResTargets (XML attributes and the like).
    pub fn targets(&mut self, nodes: &'a [Node], scope: &Scope<'a, '_>) -> Vec<Value> {
        nodes.iter().map(|node| self.expression(node, scope)).collect()
    }

    fn known(&mut self, node: &'a NodeEnum, scope: &Scope<'a, '_>) -> Value {
        match node {
            NodeEnum::AConst(_)
            | NodeEnum::ParamRef(_)
            | NodeEnum::SqlvalueFunction(_)
            | NodeEnum::SetToDefault(_)
            | NodeEnum::MergeSupportFunc(_)
            | NodeEnum::String(_)
            | NodeEnum::Integer(_)
            | NodeEnum::Float(_)
            | NodeEnum::Boolean(_)
            | NodeEnum::BitString(_)
            | NodeEnum::AStar(_) => Value::constant(),
            NodeEnum::CurrentOfExpr(_) => {
                self.mentions += 1;
                Value::constant()
            }
            NodeEnum::ColumnRef(column) => self.column(&column.fields, scope),
            NodeEnum::AExpr(operation) => self.operation(operation, scope),
            NodeEnum::BoolExpr(expr) => self.all(&expr.args, scope),
            NodeEnum::NullTest(test) => presence(self.optional(test.arg.as_deref(), scope)),
            NodeEnum::BooleanTest(test) => derived(self.optional(test.arg.as_deref(), scope)),
            NodeEnum::TypeCast(cast) => self.cast(cast, scope),
            NodeEnum::CollateClause(clause) => self.optional(clause.arg.as_deref(), scope),
            NodeEnum::FuncCall(call) => self.function(call, scope),
            NodeEnum::AIndirection(part) => self.part(part, scope),
            NodeEnum::AIndices(indices) => {
                let bounds = [&indices.lidx, &indices.uidx].map(|bound| bound.as_deref());
                Value::derived(bounds.map(|bound| self.optional(bound, scope)))
            }
            NodeEnum::SubLink(link) => self.sublink(link, scope),
            NodeEnum::CaseExpr(case) => {
                let arg = self.optional(case.arg.as_deref(), scope);
                let arms = self.all(&case.args, scope);
                let rest = self.optional(case.defresult.as_deref(), scope);
                Value::derived([arg, arms, rest])
            }
            NodeEnum::CaseWhen(arm) => {
                let when = self.optional(arm.expr.as_deref(), scope);
                let then = self.optional(arm.result.as_deref(), scope);
                Value::derived([when, then])
            }
            NodeEnum::CoalesceExpr(expr) => self.all(&expr.args, scope),
            NodeEnum::MinMaxExpr(expr) => self.all(&expr.args, scope),
            NodeEnum::AArrayExpr(array) => self.all(&array.elements, scope),
            NodeEnum::RowExpr(row) => self.all(&row.args, scope),
            NodeEnum::List(list) => self.all(&list.items, scope),
            NodeEnum::GroupingFunc(grouping) => self.all(&grouping.args, scope).neutral(),
            NodeEnum::GroupingSet(set) => self.all(&set.content, scope),
            NodeEnum::NamedArgExpr(arg) => derived(self.optional(arg.arg.as_deref(), scope)),
            NodeEnum::MultiAssignRef(source) => derived(self.optional(source.source.as_deref(), scope)),
            NodeEnum::ResTarget(target) => derived(self.optional(target.val.as_deref(), scope)),
            NodeEnum::SortBy(sort) => derived(self.optional(sort.node.as_deref(), scope)),
            NodeEnum::IndexElem(element) => derived(self.optional(element.expr.as_deref(), scope)),
            NodeEnum::WindowDef(window) => self.window(window, scope),
            NodeEnum::XmlExpr(xml) => {
                let named = self.all(&xml.named_args, scope);
                let args = self.all(&xml.args, scope);
                Value::derived([named, args])
            }
            NodeEnum::XmlSerialize(xml) => derived(self.optional(xml.expr.as_deref(), scope)),
            other => self.json(other, scope),
        }
    }

    fn operation(&mut self, operation: &'a AExpr, scope: &Scope<'a, '_>) -> Value {
        let left = self.optional(operation.lexpr.as_deref(), scope);
        let right = self.optional(operation.rexpr.as_deref(), scope);
        let value = Value::derived([left, right]);
        if is_builtin_operator(&operation.name) {
            return value;
        }
        self.effect(Effect::Call);
        self.unresolved();
        Value::opaque().with_sources(&value.sources)
    }

    fn json(&mut self, node: &'a NodeEnum, scope: &Scope<'a, '_>) -> Value {
        match node {
            NodeEnum::JsonValueExpr(value) => self.json_value(Some(value), scope),
            NodeEnum::JsonIsPredicate(test) => derived(self.optional(test.expr.as_deref(), scope)),
            NodeEnum::JsonFuncExpr(function) => {
                let mut values = vec![self.json_value(function.context_item.as_deref(), scope)];
                values.push(self.optional(function.pathspec.as_deref(), scope));
                values.extend(self.values(&function.passing, scope));
                for behavior in [&function.on_empty, &function.on_error].into_iter().flatten() {
                    values.push(self.optional(behavior.expr.as_deref(), scope));
                }
                Value::derived(values)
            }
            NodeEnum::JsonArgument(argument) => self.json_value(argument.val.as_deref(), scope),
            NodeEnum::JsonKeyValue(pair) => {
                let key = self.optional(pair.key.as_deref(), scope);
                let value = self.json_value(pair.value.as_deref(), scope);
                Value::derived([key, value])
            }
            NodeEnum::JsonParseExpr(parse) => self.json_value(parse.expr.as_deref(), scope),
            NodeEnum::JsonScalarExpr(scalar) => derived(self.optional(scalar.expr.as_deref(), scope)),
            NodeEnum::JsonSerializeExpr(text) => self.json_value(text.expr.as_deref(), scope),
            NodeEnum::JsonObjectConstructor(object) => self.all(&object.exprs, scope),
            NodeEnum::JsonArrayConstructor(array) => self.all(&array.exprs, scope),
            NodeEnum::JsonArrayQueryConstructor(array) => match array.query.as_deref() {
                Some(query) => self.query(query, Some(scope)).whole(),
                None => self.unknown(),
            },
            NodeEnum::JsonObjectAgg(aggregate) => {
                let pair = aggregate.arg.as_deref();
                let key = self.optional(pair.and_then(|pair| pair.key.as_deref()), scope);
                let value = self.json_value(pair.and_then(|pair| pair.value.as_deref()), scope);
                let order = self.json_aggregate(aggregate.constructor.as_deref(), scope);
                Value::derived([key, value, order])
            }
            NodeEnum::JsonArrayAgg(aggregate) => {
                let value = self.json_value(aggregate.arg.as_deref(), scope);
                let order = self.json_aggregate(aggregate.constructor.as_deref(), scope);
                Value::derived([value, order])
            }
            // Everything else cannot stand in an expression, or is newer than this list.
            _ => self.unknown(),
        }
    }

    pub fn json_value(&mut self, value: Option<&'a JsonValueExpr>, scope: &Scope<'a, '_>) -> Value {
        let Some(value) = value else { return Value::constant() };
        let raw = self.optional(value.raw_expr.as_deref(), scope);
        let formatted = self.optional(value.formatted_expr.as_deref(), scope);
        Value::derived([raw, formatted])
    }

    fn json_aggregate(&mut self, aggregate: Option<&'a JsonAggConstructor>, scope: &Scope<'a, '_>) -> Value {
        let Some(aggregate) = aggregate else { return Value::constant() };
        self.condition(aggregate.agg_filter.as_deref(), scope);
        self.expressions(&aggregate.agg_order, scope);
        match aggregate.over.as_deref() {
            Some(window) => self.window(window, scope),
            None => Value::constant(),
        }
    }

    /// `column`, `range.column`, `schema.range.column`, or a whole row.
    fn column(&mut self, fields: &'a [Node], scope: &Scope<'a, '_>) -> Value {
        let value = self.named_column(fields, scope);
        self.defined_with(&value);
        value
    }

    fn named_column(&mut self, fields: &'a [Node], scope: &Scope<'a, '_>) -> Value {
        self.mentions += 1;
        let Some((last, qualifier)) = fields.split_last() else { return self.unknown() };
        let Some(name) = names::text(last) else {
            let row = if qualifier.is_empty() {
                self.visible_row(&scope.visible, scope)
            } else {
                self.range_row(qualifier, scope)
            };
            return row.whole();
        };
        if qualifier.is_empty() {
            return self.unqualified(name, scope);
        }
        let Some((schema, alias)) = names::qualified(qualifier) else { return self.unresolved() };
        let Some(columns) = scope.range(schema, alias).map(|range| range.columns.clone()) else {
            return self.unresolved();
        };
        match columns.find(name, self) {
            Some(value) => value,
            // `range.function` is `function(range)`.
            None => {
                let row = columns.row(self).whole();
                self.call(None, name, true);
                self.unresolved().with_sources(&row.sources)
            }
        }
    }

    /// `(row).field` of a row we know is that column; any other part is computed from the whole.
    fn part(&mut self, part: &'a AIndirection, scope: &Scope<'a, '_>) -> Value {
        if let Some((first, rest)) = part.indirection.split_first()
            && let Some(field) = names::text(first)
            && let Some(NodeEnum::ColumnRef(column)) = part.arg.as_deref().and_then(|arg| arg.node.as_ref())
            && let [name] = column.fields.as_slice()
            && let Some(columns) = names::text(name)
                .filter(|name| !self.is_column(name, scope))
                .and_then(|name| scope.range(None, name))
                .map(|range| range.columns.clone())
            && let Some(value) = columns.find(field, self)
        {
            self.mentions += 1;
            let subscripts = self.all(rest, scope);
            return if rest.is_empty() { value } else { Value::derived([value, subscripts]) };
        }
        let whole = self.optional(part.arg.as_deref(), scope);
        let subscripts = self.all(&part.indirection, scope);
        let value = Value::derived([whole, subscripts]);
        let fields = part.indirection.iter().filter_map(names::text);
        // Every name is looked at: each may be a call of its own.
        if fields.filter(|field| !self.is_field(field)).count() == 0 {
            return value;
        }
        Value::opaque().with_sources(&value.sources)
    }

    /// `(value).name` is a field, or else `name(value)`: what may be a function with effects counts as its call.
    fn is_field(&mut self, name: &str) -> bool {
        let may_be_ours = self.schema.is_none_or(|known| known.shadows(None, name));
        match builtins::classify(name) {
            builtins::Class::Safe if !may_be_ours || self.schema.is_none() => true,
            builtins::Class::Unknown if !may_be_ours => true,
            _ => self.call(None, name, true),
        }
    }

    /// Whether an unqualified name may be a column of this level: then it hides the range of that name.
    fn is_column(&mut self, name: &str, scope: &Scope<'a, '_>) -> bool {
        scope
            .visible
            .iter()
            .any(|visible| !matches!(visible.find(name, &scope.ranges, self), crate::scope::Found::Nothing))
    }

    fn cast(&mut self, cast: &'a TypeCast, scope: &Scope<'a, '_>) -> Value {
        let value = self.optional(cast.arg.as_deref(), scope);
        let Some(of) = cast.type_name.as_ref() else { return self.unknown() };
        let builtin = names::qualified(&of.names).filter(|(schema, name)| {
            matches!(schema, None | Some("pg_catalog")) && builtins::is_builtin_type(name)
                || *schema == Some("information_schema") && builtins::is_standard_domain(name)
        });
        let Some((_, name)) = builtin else {
            // A type of the user's may bring its own cast function. For a constant there is nothing it could hide.
            return if value.sources.is_empty() && value.kind == OutputKind::Derived {
                value
            } else {
                Value::opaque().with_sources(&value.sources)
            };
        };
        let same_text = value.kind == OutputKind::Direct
            && is_text(value.type_oid)
            && matches!(name, "text" | "varchar")
            && of.typmods.is_empty()
            && of.array_bounds.is_empty();
        if same_text { Value { type_oid: TEXT, ..value } } else { Value::derived([value]) }
    }

    fn function(&mut self, call: &'a FuncCall, scope: &Scope<'a, '_>) -> Value {
        let mut values = self.values(&call.args, scope);
        // Counting computed values tells which of them are null: that is a computation, too.
        let mut counts = values.iter().all(is_stored);
        values.extend(self.values(&call.agg_order, scope));
        if call.agg_filter.is_some() {
            values.push(self.optional(call.agg_filter.as_deref(), scope));
            self.condition(call.agg_filter.as_deref(), scope);
        }
        if let Some(window) = call.over.as_deref() {
            let window = self.window(window, scope);
            // A running count tells the order.
            counts &= window.sources.is_empty();
            values.push(window);
        }
        if call.agg_distinct {
            values.iter().for_each(|value| self.compared(value, ProbeKind::Equality));
        }
        let all = Value::derived(values);
        if builtins::shows_by_volume(call.funcname.last().and_then(names::text).unwrap_or_default()) {
            self.probe(ProbeKind::Volume, &all);
        }
        let carries = !all.sources.is_empty() || all.kind == OutputKind::Opaque;
        let Some((schema, name)) = names::qualified(&call.funcname) else { return self.unknown() };
        if !self.call(schema, name, carries) {
            return Value::opaque().with_sources(&all.sources);
        }
        if name == "count" && counts { all.neutral() } else { all }
    }

    fn window(&mut self, window: &'a WindowDef, scope: &Scope<'a, '_>) -> Value {
        self.arranged(&window.partition_clause, ProbeKind::Equality, scope);
        self.arranged(&window.order_clause, ProbeKind::Order, scope);
        let partition = self.all(&window.partition_clause, scope);
        let order = self.all(&window.order_clause, scope);
        // How many rows a frame spans shows in every count over it.
        let [start, end] = [&window.start_offset, &window.end_offset].map(|bound| {
            let value = self.optional(bound.as_deref(), scope);
            self.probe(ProbeKind::Volume, &value);
            value
        });
        Value::derived([partition, order, start, end])
    }

    fn sublink(&mut self, link: &'a SubLink, scope: &Scope<'a, '_>) -> Value {
        self.mentions += 1;
        let test = self.optional(link.testexpr.as_deref(), scope);
        let builtin = is_builtin_operator(&link.oper_name);
        if !builtin {
            self.effect(Effect::Call);
            self.unresolved();
        }
        let row = match link.subselect.as_deref() {
            Some(query) => self.query(query, Some(scope)).whole(),
            None => return self.unknown(),
        };
        match SubLinkType::try_from(link.sub_link_type) {
            Ok(SubLinkType::ExistsSublink) => row.neutral(),
            Ok(
                SubLinkType::AllSublink
                | SubLinkType::AnySublink
                | SubLinkType::RowcompareSublink
                | SubLinkType::ExprSublink
                | SubLinkType::MultiexprSublink
                | SubLinkType::ArraySublink,
            ) if builtin => Value::derived([test, row]),
            Ok(
                SubLinkType::AllSublink
                | SubLinkType::AnySublink
                | SubLinkType::RowcompareSublink
                | SubLinkType::ExprSublink
                | SubLinkType::MultiexprSublink
                | SubLinkType::ArraySublink,
            ) => Value::opaque().with_sources(&Value::derived([test, row]).sources),
            Ok(SubLinkType::Undefined | SubLinkType::CteSublink) | Err(_) => self.unknown(),
        }
    }
}

/// Stored as it is, or no stored value at all.
fn is_stored(value: &Value) -> bool {
    value.sources.is_empty() || matches!(value.kind, OutputKind::Direct | OutputKind::Neutral)
}

/// `x IS NULL` tells of a stored value only that it is there; of a computed one it tells what was computed.
fn presence(value: Value) -> Value {
    if is_stored(&value) { value.neutral() } else { derived(value) }
}

/// Computed from one value: never direct.
fn derived(value: Value) -> Value {
    Value::derived([value])
}

/// `OPERATOR(schema.+)` outside pg_catalog is a function of the user's; an empty name is the plain `=` of `IN`.
fn is_builtin_operator(name: &[Node]) -> bool {
    match names::qualified(name) {
        Some((schema, _)) => matches!(schema, None | Some("pg_catalog")),
        None => name.is_empty(),
    }
}
