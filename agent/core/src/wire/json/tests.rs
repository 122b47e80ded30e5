//! Spans against hand-written texts, and against serde_json as the oracle.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn seen(text: &str) -> Result<Vec<String>, JsonError> {
    let mut seen = Vec::new();
    scan(text.as_bytes(), Documents::One, |path, span, kind| {
        seen.push(format!("{}={}:{kind:?}", path.join("."), &text[span]));
    })?;
    Ok(seen)
}

#[test]
fn values_are_found_with_their_keys() {
    let text = r#" {"a":"x", "b" : [1, {"c\u0064": -2.5e+1}, true, null], "a":"y", "e":{}, "f":[]} "#;
    let expected = [
        r#"a="a":Key"#,
        r#"a="x":String"#,
        r#"b="b":Key"#,
        "b=1:Number",
        r#"b.cd="c\u0064":Key"#,
        "b.cd=-2.5e+1:Number",
        "b=true:Boolean",
        "b=null:Null",
        r#"a="a":Key"#,
        r#"a="y":String"#,
        r#"e="e":Key"#,
        r#"f="f":Key"#,
    ];
    assert_eq!(seen(text).unwrap(), expected);
}

#[test]
fn what_readers_disagree_about_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "[,1]",
        "{\"a\":1,}",
        "{\"a\" 1}",
        "{a:1}",
        "[1 2]",
        "01",
        "+1",
        ".5",
        "1.",
        "1e",
        "-",
        "nul",
        "NaN",
        "1 2",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"a\nb\"",
        "\"\u{1}\"",
        "'a'",
        "[1]]",
        "\u{feff}{}",
        "{\"a\":}",
        "[\"\\",
        "\"\\u+123\"",
        "/**/1",
    ] {
        assert_eq!(seen(text), Err(JsonError::Syntax), "{text:?}");
    }
    for text in [r#""\ud800""#, r#""\udc00""#, r#""\ud800\u0041""#, r#"{"\ud800":1}"#] {
        assert_eq!(seen(text), Err(JsonError::Surrogate), "{text}");
    }
    assert_eq!(scan(b"\"\xff\"", Documents::One, |_, _, _| ()), Err(JsonError::Encoding));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(seen(&nested(JSON_DEPTH)).is_ok());
    assert_eq!(seen(&nested(JSON_DEPTH + 1)), Err(JsonError::Depth));
    assert_eq!(seen(&nested(1_000_000)), Err(JsonError::Depth));
}

#[test]
fn several_documents_only_where_the_type_says_so() {
    let text = b"{\"a\":1}\n{\"a\":2}\n";
    let mut count = 0;
    scan(text, Documents::Many, |_, _, _| count += 1).unwrap();
    assert_eq!(count, 4);
    assert_eq!(scan(text, Documents::One, |_, _, _| ()), Err(JsonError::Syntax));
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn leaves(value: &serde_json::Value, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Array(items) => items.iter().for_each(|item| leaves(item, out)),
        serde_json::Value::Object(map) => map.iter().for_each(|(key, item)| {
            out.push(key.clone());
            leaves(item, out);
        }),
        serde_json::Value::String(text) => out.push(text.clone()),
        other => out.push(other.to_string()),
    }
}

proptest! {
    #[test]
    fn agrees_with_serde_json(value in value()) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        let mut found = Vec::new();
        scan(text.as_bytes(), Documents::One, |_, span, kind| {
            let token = &text[span];
            found.push(match kind {
                Kind::Key | Kind::String => unescape(token).unwrap().into_owned(),
                Kind::Number | Kind::Boolean | Kind::Null => token.to_owned(),
            });
        }).unwrap();
        let mut expected = Vec::new();
        leaves(&value, &mut expected);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn quoting_is_undone_by_reading(text in any::<String>()) {
        let mut token = Vec::new();
        quote(&text, &mut token);
        let token = String::from_utf8(token).unwrap();
        prop_assert_eq!(unescape(&token).unwrap().into_owned(), text.clone());
        prop_assert_eq!(serde_json::from_str::<String>(&token).unwrap(), text);
    }

    /// Whatever the oracle refuses is refused; nothing panics.
    #[test]
    fn is_at_least_as_strict_as_serde_json(text in "[\\[\\]{}:,\"\\\\u0-9a-e.truefalsn +-]{0,24}") {
        if seen(&text).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
