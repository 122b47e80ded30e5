//! Names in a parse tree: lists of strings, and the name the server gives an output column (FigureColname in parse_target.c).

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, SubLinkType};

/// The text of a string node.
pub(crate) fn text(node: &Node) -> Option<&str> {
    match node.node.as_ref()? {
        NodeEnum::String(string) => Some(&string.sval),
        _ => None,
    }
}

/// `(schema, name)` of a qualified name; `None` when a part is no string or there are more than catalog, schema and name.
pub(crate) fn qualified(parts: &[Node]) -> Option<(Option<&str>, &str)> {
    match parts {
        [name] => Some((None, text(name)?)),
        [schema, name] | [_, schema, name] => Some((Some(text(schema)?), text(name)?)),
        _ => None,
    }
}

/// The server's name for an output column without `AS`.
pub(crate) fn figure(node: &Node) -> String {
    guess(node, 0).map_or_else(|| "?column?".into(), |(name, _)| name)
}

/// The name and whether it is a strong one (a cast's type name is weak).
fn guess(node: &Node, depth: usize) -> Option<(String, bool)> {
    if depth > FIGURE_DEPTH {
        return None;
    }
    let strong = |name: &str| Some((name.to_string(), true));
    match node.node.as_ref()? {
        NodeEnum::ColumnRef(column) => column.fields.iter().rev().find_map(text).and_then(strong),
        NodeEnum::AIndirection(part) => part
            .indirection
            .iter()
            .rev()
            .find_map(text)
            .and_then(strong)
            .or_else(|| guess(part.arg.as_deref()?, depth + 1)),
        NodeEnum::FuncCall(call) => call.funcname.last().and_then(text).and_then(strong),
        NodeEnum::AExpr(expr) if expr.kind == pg_query::protobuf::AExprKind::AexprNullif as i32 => {
            strong("nullif")
        }
        NodeEnum::TypeCast(cast) => {
            let inner = cast.arg.as_deref().and_then(|arg| guess(arg, depth + 1));
            match inner {
                Some((name, true)) => Some((name, true)),
                weak => cast
                    .type_name
                    .as_ref()
                    .and_then(|of| of.names.last())
                    .and_then(text)
                    .map(|name| (name.to_string(), false))
                    .or(weak),
            }
        }
        NodeEnum::CollateClause(clause) => guess(clause.arg.as_deref()?, depth + 1),
        NodeEnum::GroupingFunc(_) => strong("grouping"),
        NodeEnum::MergeSupportFunc(_) => strong("merge_action"),
        NodeEnum::SubLink(link) => sublink(link, depth),
        NodeEnum::CaseExpr(case) => match case.defresult.as_deref().and_then(|arm| guess(arm, depth + 1)) {
            Some((name, true)) => Some((name, true)),
            Some((_, false)) | None => Some(("case".into(), false)),
        },
        NodeEnum::AArrayExpr(_) => strong("array"),
        NodeEnum::RowExpr(_) => strong("row"),
        NodeEnum::CoalesceExpr(_) => strong("coalesce"),
        NodeEnum::MinMaxExpr(expr) => strong(if expr.op == 1 { "greatest" } else { "least" }),
        NodeEnum::SqlvalueFunction(function) => strong(sql_value_function(function.op)),
        NodeEnum::XmlExpr(xml) => strong(xml_function(xml.op)),
        NodeEnum::JsonFuncExpr(json) => strong(json_function(json.op)),
        NodeEnum::JsonParseExpr(_) => strong("json"),
        NodeEnum::JsonScalarExpr(_) => strong("json_scalar"),
        NodeEnum::JsonSerializeExpr(_) => strong("json_serialize"),
        NodeEnum::XmlSerialize(_) => strong("xmlserialize"),
        NodeEnum::JsonArrayAgg(_) => strong("json_arrayagg"),
        NodeEnum::JsonObjectAgg(_) => strong("json_objectagg"),
        NodeEnum::JsonObjectConstructor(_) => strong("json_object"),
        NodeEnum::JsonArrayConstructor(_) | NodeEnum::JsonArrayQueryConstructor(_) => strong("json_array"),
        _ => None,
    }
}

fn sublink(link: &pg_query::protobuf::SubLink, depth: usize) -> Option<(String, bool)> {
    match SubLinkType::try_from(link.sub_link_type).ok()? {
        SubLinkType::ExistsSublink => Some(("exists".into(), true)),
        SubLinkType::ArraySublink => Some(("array".into(), true)),
        SubLinkType::ExprSublink => {
            let NodeEnum::SelectStmt(select) = link.subselect.as_ref()?.node.as_ref()? else { return None };
            let NodeEnum::ResTarget(target) = select.target_list.first()?.node.as_ref()? else { return None };
            if !target.name.is_empty() {
                return Some((target.name.clone(), true));
            }
            guess(target.val.as_deref()?, depth + 1)
        }
        SubLinkType::Undefined
        | SubLinkType::AllSublink
        | SubLinkType::AnySublink
        | SubLinkType::RowcompareSublink
        | SubLinkType::MultiexprSublink
        | SubLinkType::CteSublink => None,
    }
}

/// Names of the parameterless SQL functions in the order of the server's enum (primnodes.h).
fn sql_value_function(op: i32) -> &'static str {
    const NAMES: [&str; 15] = [
        "current_date",
        "current_time",
        "current_time",
        "current_timestamp",
        "current_timestamp",
        "localtime",
        "localtime",
        "localtimestamp",
        "localtimestamp",
        "current_role",
        "current_user",
        "user",
        "session_user",
        "current_catalog",
        "current_schema",
    ];
    usize::try_from(op - 1).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("?column?")
}

/// Names of the XML functions in the order of the server's enum (primnodes.h).
fn xml_function(op: i32) -> &'static str {
    const NAMES: [&str; 6] = ["xmlconcat", "xmlelement", "xmlforest", "xmlparse", "xmlpi", "xmlroot"];
    usize::try_from(op - 1).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("?column?")
}

/// Names of the SQL/JSON query functions in the order of the server's enum.
fn json_function(op: i32) -> &'static str {
    const NAMES: [&str; 3] = ["json_exists", "json_query", "json_value"];
    usize::try_from(op - 1).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("?column?")
}

/// Names are found near the surface; deeper the server's name is not worth the walk.
const FIGURE_DEPTH: usize = 100;
