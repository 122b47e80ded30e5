//! What is refused at load, and how it is said.

use super::*;

/// Every problem of a bundle, which must have some.
fn problems(documents: &[Json]) -> String {
    match compile(documents, &Surroundings::default()) {
        Ok(_) => panic!("loaded"),
        Err(problems) => problems.join("\n"),
    }
}

fn of_rule(rule: Json) -> String {
    problems(&[database(json!([rule]))])
}

fn of_api_rule(rule: Json) -> String {
    problems(&[api(json!([rule]))])
}

#[test]
fn misspelt_words_are_named_with_the_nearest() {
    for (condition, part) in [
        (json!({"sql": {"efects": ["read"]}}), "did you mean \"effects\""),
        (json!({"sql": {"effects": ["raed"]}}), "did you mean \"read\""),
        (json!({"slq": {}}), "did you mean \"sql\""),
        (json!({"who": ["grup:x"]}), "did you mean \"group\""),
        (json!({"sql": {"objects": ["tabel"]}}), "did you mean \"table\""),
        (json!({"when": {"days": "mon-fry", "tz": "UTC"}}), "mon-fry"),
        (json!({"sql": {"tables": "@lost"}}), "no shared list"),
    ] {
        let message = of_rule(json!({"name": "r", "match": condition, "then": "allow"}));
        assert!(message.contains(part), "{condition}: {message}");
        assert!(message.starts_with("p.yaml:1: "), "{message}");
    }
}

#[test]
fn a_filter_is_for_masks_of_columns() {
    let mask = |more: &str, value: &str| {
        let mut mask = json!({"class": "secret", "with": "redact"});
        mask[more] = json!(value);
        json!({"name": "r", "match": {}, "then": {"mask": [mask]}})
    };
    let message = of_rule(mask("filter", "equalty"));
    assert!(message.contains("did you mean \"equality\""), "{message}");
    assert!(of_api_rule(mask("filter", "deny")).contains("filter is about columns"));
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    for (rule, part) in [
        (json!({"name": "r", "match": {"llm": {}}, "then": "allow"}), "`llm` in match is not built yet"),
        (json!({"name": "r", "match": {"sql": {"rows_over": 3}}, "then": "deny"}), "`rows_over`"),
        (json!({"name": "r", "match": {"sql": {"columns": ["a.b.c"]}}, "then": "deny"}), "`columns`"),
        (json!({"name": "r", "match": {"who": ["claim.team:x"]}, "then": "deny"}), "not built yet"),
        (json!({"name": "r", "match": {}, "then": {"limit": {}}}), "`limit`"),
        (json!({"name": "r", "match": {}, "then": "deny", "alert": []}), "`alert`"),
        (json!({"name": "r", "match": {}, "then": {"approve": {"by": ["group:a"], "quorum": 2}}}), "quorum"),
        (
            json!({"name": "r", "match": {}, "then": {"approve": {"by": ["group:a"], "scope": "session"}}}),
            "scope",
        ),
    ] {
        let message = of_rule(rule);
        assert!(message.contains(part), "{message}");
    }
    let soft = json!({"policy": "db", "target": {"host": "a"}, "default": "allow", "fallback": {"unknown_statement": "allow"}});
    assert!(problems(&[soft]).contains("only deny is"));
}

#[test]
fn rules_that_can_never_fire_are_refused() {
    for (rule, part) in [
        (
            json!({"name": "r", "match": {"http": {"method": ["GET"]}}, "then": "deny"}),
            "the target speaks postgres",
        ),
        (json!({"name": "r", "match": {"sql": {"effects": []}}, "then": "deny"}), "never match"),
        (json!({"name": "r", "match": {"not": {}}, "then": "deny"}), "never be true"),
        (json!({"name": "r", "mode": "monitor", "match": {}, "then": "allow"}), "does nothing"),
        (json!({"name": "r", "match": {}, "then": {"opaque": "allow"}}), "nothing there is opaque"),
        (json!({"name": "r", "match": {"sql": {}}, "then": "deny"}), "says nothing"),
        (
            json!({"name": "r", "match": {}, "then": {"mask": [{"class": "nope", "with": "redact"}]}}),
            "no class",
        ),
        (
            json!({"name": "r", "match": {"when": {"from": "08:00", "to": "08:00", "tz": "UTC"}}, "then": "deny"}),
            "never opens",
        ),
        (json!({"name": "r", "match": {"when": {"from": "08:00"}}, "then": "deny"}), "needs tz"),
        (json!({"name": "r", "then": "deny"}), "no match"),
        (json!({"name": "r", "match": {}}), "no then"),
        (json!({"name": "default", "match": {}, "then": "deny"}), "`default` is taken"),
        (json!({"name": "r", "match": {}, "then": "deny", "durability": "fast"}), "only ask for strict"),
    ] {
        let message = of_rule(rule.clone());
        assert!(message.contains(part), "{rule}: {message}");
    }
    for (rule, part) in [
        (json!({"name": "r", "match": {"http": {"status": [200]}}, "then": "allow"}), "only be denied"),
        (json!({"name": "r", "match": {"text": {"in": "request"}}, "then": "deny"}), "needs keywords"),
        (
            json!({"name": "r", "match": {"text": {"in": "request", "patterns": ["a*"]}}, "then": "deny"}),
            "empty text",
        ),
        (json!({"name": "r", "match": {"http": {"method": ["get"]}}, "then": "deny"}), "upper case"),
        (json!({"name": "r", "match": {"http": {"path": ["v1"]}}, "then": "deny"}), "begin with `/`"),
        (
            json!({"name": "r", "match": {"sql": {"effects": ["read"]}}, "then": "deny"}),
            "the target speaks http",
        ),
    ] {
        let message = of_api_rule(rule.clone());
        assert!(message.contains(part), "{rule}: {message}");
    }
}

#[test]
fn masks_must_be_able_to_reach_something() {
    let classes = json!({"classes": {"col": {"columns": ["*.*.a"]}, "doc": {"json": ["$..a"]}}});
    let mask = |class: &str| json!([{"name": "m", "match": {}, "then": {"mask": [{"class": class, "with": "redact"}]}}]);
    assert!(problems(&[classes.clone(), database(mask("doc"))]).contains("neither columns"));
    assert!(problems(&[classes.clone(), api(mask("col"))]).contains("neither json"));
    policy(&[classes.clone(), database(mask("col"))]);
    policy(&[classes.clone(), api(mask("doc"))]);
    let text =
        json!([{"name": "t", "match": {"text": {"in": "request", "classes": ["col"]}}, "then": "deny"}]);
    assert!(problems(&[classes, api(text)]).contains("no text can hold it"));
}

#[test]
fn names_are_checked_against_what_the_host_knows() {
    let surroundings = Surroundings {
        workloads: Some(vec!["app".into()]),
        users: Some(vec!["ana".into()]),
        groups: Some(vec!["engineering".into()]),
        providers: Some(vec!["kv".into()]),
        ..Surroundings::default()
    };
    let file = |who: &str, by: &str, secret: &str| {
        json!({"policy": "p", "target": {"protocol": "http", "host": "a.example"},
            "inject": {"header": "X-Key", "value": secret},
            "rules": [{"name": "r", "match": {"who": [who]}, "then": {"approve": {"by": [by]}}}]})
    };
    assert!(compile(&[file("group:engineering", "user:ana", "kv#x")], &surroundings).is_ok());
    let wrong =
        compile(&[file("group:enginering", "user:bo", "kw#x")], &surroundings).unwrap_err().join("\n");
    assert!(
        wrong.contains("group \"enginering\"") && wrong.contains("did you mean \"engineering\""),
        "{wrong}"
    );
    assert!(wrong.contains("user \"bo\"") && wrong.contains("no provider \"kw\""), "{wrong}");
}

#[test]
fn a_policy_may_demand_layers_of_the_fence() {
    let layers = [("wall".into(), true), ("unix".into(), false)].into();
    let host = Surroundings { layers: Some(layers), ..Surroundings::default() };
    let file = |require: &[&str]| json!({"policy": "p", "target": {"host": "a.example"}, "default": "allow", "require": require});
    assert!(compile(&[file(&["wall"])], &host).is_ok());
    let wrong = compile(&[file(&["wall", "unix", "wal"])], &host).unwrap_err().join("\n");
    assert!(wrong.contains("lacks the layer \"unix\""), "{wrong}");
    assert!(wrong.contains("named \"wal\"") && wrong.contains("did you mean \"wall\""), "{wrong}");
    assert!(compile(&[file(&["unix"])], &Surroundings::default()).is_ok(), "elsewhere nobody knows");
}

#[test]
fn a_credential_in_clear_is_refused_and_not_repeated() {
    let file = |value: &str, host: &str| {
        json!({"policy": "p", "target": {"protocol": "http", "host": host},
            "inject": {"header": "Authorization", "value": value}, "default": "allow"})
    };
    let message = problems(&[file("Bearer hunter2", "a.example")]);
    assert!(message.contains("provider#name") && !message.contains("hunter2"), "{message}");
    assert!(problems(&[file("kv#x", "*")]).contains("not \"*\" or a network"));
    assert!(problems(&[file("kv#x", "10.0.0.1")]).contains("needs a port"));
    policy(&[file("Bearer kv#x", "10.0.0.1:80")]);
    let login = json!({"policy": "p", "target": {"protocol": "postgres", "host": "db.example"},
        "inject": {"user": "u", "password": "kv#x"}, "default": "allow"});
    assert!(problems(&[login]).contains("mode: verify"));
}

#[test]
fn everything_is_told_at_once() {
    let message = problems(&[
        json!({"classes": {"empty": {"columns": ["a"]}}}),
        json!({"policy": "a", "target": {"host": "a b"}, "rules": [
            {"name": "r", "match": {"x": 1}, "then": "allow"},
            {"name": "s", "match": {}, "then": "alow"},
        ]}),
        json!({"rules": []}),
    ]);
    for part in
        ["names a column in no table", "no host", "unknown key \"x\"", "\"alow\"", "without `policy: NAME`"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_broken_target_hides_no_other_mistake_and_makes_up_none() {
    let file = json!({"policy": "a", "target": {"protocol": "postgrs", "host": "h"},
        "rules": [{"name": "r", "match": {"sql": {"efects": ["read"]}}, "then": "allow"}]});
    let message = problems(&[file]);
    assert!(
        message.contains("did you mean \"postgres\"") && message.contains("did you mean \"effects\""),
        "{message}"
    );
    assert!(!message.contains("needs `protocol"), "{message}");
}

#[test]
fn twins_are_refused() {
    let rule = json!({"name": "r", "match": {}, "then": "allow"});
    assert!(problems(&[database(json!([rule, rule]))]).contains("already declared"));
    assert!(problems(&[database(json!([rule])), database(json!([rule]))]).contains("already declared"));
    let class = json!({"classes": {"a": {"columns": ["*.*.a"]}}});
    assert!(problems(&[class.clone(), class, database(json!([rule]))]).contains("declared twice"));
    assert!(problems(&[json!({"classes": {}})]).contains("no policy"));
}
