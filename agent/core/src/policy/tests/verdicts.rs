//! What is decided about acts.

use super::*;

const READ: &[Effect] = &[Effect::Read];

#[test]
fn strictness_decides_not_order() {
    let rules = json!([
        {"name": "all", "match": {}, "then": "allow"},
        {"name": "ask", "match": {"sql": {"effects": ["delete"]}}, "then": {"approve": {"by": ["group:dba"]}}},
        {"name": "never", "match": {"sql": {"tables": ["s.t"]}}, "then": {"deny": "no"}},
    ]);
    let policy = policy(&[database(rules)]);
    let world = World::new(Protocol::Postgres, &[]);
    let on = |effect, table| world.sql(&policy, &statement(&[effect], &[(table, Access::Write)]));
    assert_eq!(told(&on(Effect::Insert, "s.u")), ("allow", "all"));
    assert_eq!(told(&on(Effect::Delete, "s.u")), ("approve", "ask"));
    assert_eq!(told(&on(Effect::Delete, "s.t")), ("deny", "never"));
}

#[test]
fn every_effect_and_relation_must_be_covered() {
    let rules = json!([
        {"name": "reads", "match": {"sql": {"effects": ["read"], "tables": ["s.*"]}}, "then": "allow"},
        {"name": "writes", "match": {"sql": {"effects": ["insert"], "tables": ["s.log"]}}, "then": "allow"},
    ]);
    let policy = policy(&[database(rules)]);
    let world = World::new(Protocol::Postgres, &[]);
    let both = &[Effect::Read, Effect::Insert];
    let judge =
        |effects: &[Effect], relations: &[(&str, Access)]| world.sql(&policy, &statement(effects, relations));
    let copy = judge(both, &[("s.log", Access::Write), ("s.t", Access::Read)]);
    assert_eq!(told(&copy), ("allow", "reads, writes"));
    assert_eq!(told(&judge(both, &[("s.log", Access::Write), ("r.t", Access::Read)])), ("deny", "default"));
    assert_eq!(told(&judge(both, &[("s.t", Access::Write), ("s.t", Access::Read)])), ("deny", "default"));
    assert_eq!(told(&judge(&[Effect::Read, Effect::Call], &[("s.t", Access::Read)])), ("deny", "default"));
    // A relation that no effect explains is covered by all of them, or not at all.
    assert_eq!(told(&judge(&[Effect::Insert], &[("s.log", Access::Write), ("s.t", Access::Read)])).0, "deny");
    // Nothing is read from any table.
    assert_eq!(told(&judge(READ, &[])).0, "allow");
    assert_eq!(told(&judge(&[Effect::Drop], &[])).0, "deny");
}

#[test]
fn unresolved_names_restrict_and_do_not_admit() {
    let allow = json!([{"name": "a", "match": {"sql": {"tables": ["s.t"]}}, "then": "allow"}]);
    let deny = json!([
        {"name": "a", "match": {}, "then": "allow"},
        {"name": "d", "match": {"sql": {"tables": ["s.t"]}}, "then": "deny"},
    ]);
    let world = World::new(Protocol::Postgres, &[]);
    let unresolved = statement(READ, &[("t", Access::Read)]);
    assert_eq!(told(&world.sql(&policy(&[database(allow)]), &unresolved)).0, "deny");
    assert_eq!(told(&world.sql(&policy(&[database(deny)]), &unresolved)), ("deny", "d"));
}

#[test]
fn unknown_is_admitted_only_by_name() {
    let world = World::new(Protocol::Postgres, &[]);
    for (condition, expected) in [
        (json!({}), "deny"),
        (json!({"not": {"sql": {"effects": ["delete"]}}}), "deny"),
        (json!({"sql": {"effects": ["unknown"]}}), "allow"),
    ] {
        let policy = policy(&[database(json!([{"name": "a", "match": condition, "then": "allow"}]))]);
        assert_eq!(told(&world.sql(&policy, &statement(&[Effect::Unknown], &[]))).0, expected);
        // No effect at all is as unknown.
        assert_eq!(told(&world.sql(&policy, &statement(&[], &[]))).0, expected);
    }
    let open =
        json!({"policy": "db", "target": {"protocol": "postgres", "host": "10.0.0.1"}, "default": "allow"});
    let open = policy(&[open]);
    assert_eq!(told(&world.sql(&open, &statement(READ, &[]))), ("allow", "default"));
    assert_eq!(told(&world.sql(&open, &statement(&[Effect::Unknown], &[]))).0, "deny");
}

#[test]
fn not_inverts_what_is_known_and_keeps_doubt() {
    let rules = json!([
        {"name": "a", "match": {}, "then": "allow"},
        {"name": "d", "match": {"not": {"sql": {"tables": ["s.*"]}}}, "then": "deny"},
    ]);
    let policy = policy(&[database(rules)]);
    let world = World::new(Protocol::Postgres, &[]);
    let judge =
        |relations: &[(&str, Access)]| world.sql(&policy, &statement(READ, relations)).rule.to_string();
    assert_eq!(judge(&[("s.t", Access::Read)]), "a");
    // One relation outside is enough to restrict.
    assert_eq!(judge(&[("s.t", Access::Read), ("r.t", Access::Read)]), "d");
    assert_eq!(judge(&[("t", Access::Read)]), "d");
    assert_eq!(judge(&[]), "a");
}

#[test]
fn approvals_of_several_rules_need_someone_who_may_answer_all() {
    let ask = |name: &str, by: &[&str], within: &str| json!({"name": name, "match": {}, "then": {"approve": {"by": by, "within": within}}});
    let world = World::new(Protocol::Postgres, &[]);
    let judge = |rules: Json| world.sql(&policy(&[database(rules)]), &statement(READ, &[])).verdict;
    let joint = judge(json!([ask("a", &["group:x", "group:y"], "15m"), ask("b", &["group:y"], "5m")]));
    let Verdict::Approve(approval) = joint else { panic!("{joint:?}") };
    assert_eq!((approval.by.clone(), approval.within_ns), (vec!["group:y".to_string()], 300_000_000_000));
    let apart = judge(json!([ask("a", &["group:x"], "15m"), ask("b", &["group:y"], "5m")]));
    assert!(matches!(apart, Verdict::Deny { message } if message.contains("different approvers")));
}

#[test]
fn an_approval_admits_only_what_it_covers() {
    let rules = json!([
        {"name": "reads", "match": {"sql": {"effects": ["read"]}}, "then": "allow"},
        {"name": "ask", "match": {"sql": {"effects": ["delete"]}}, "then": {"approve": {"by": ["user:bo"]}}},
    ]);
    let policy = policy(&[database(rules)]);
    let world = World::new(Protocol::Postgres, &[]);
    let judge = |effects: &[Effect]| told(&world.sql(&policy, &statement(effects, &[]))).0;
    assert_eq!(judge(&[Effect::Delete, Effect::Read]), "approve");
    assert_eq!(judge(&[Effect::Delete, Effect::Insert]), "deny");
}

#[test]
fn of_two_masks_the_stricter_wins_and_classes_add_up() {
    let classes = json!({"classes": {"ssn": {"columns": ["*.*.ssn"]}, "mail": {"columns": ["*.*.mail"]}}});
    let rules = json!([
        {"name": "a", "match": {}, "then": "allow"},
        {"name": "m1", "match": {}, "then": {"mask": [{"class": "ssn", "with": {"partial": {"last": 4}}}]}},
        {"name": "m2", "match": {"not": {"who": ["group:dba"]}}, "then": {"mask": [
            {"class": "ssn", "with": "nullify"}, {"class": "mail", "with": "hash"}]}},
    ]);
    let policy = policy(&[classes, database(rules)]);
    let masks = |groups: &[&str]| {
        let world = World::new(Protocol::Postgres, groups);
        let judgement = world.sql(&policy, &statement(READ, &[]));
        let name = |mask: &MaskRule| {
            format!("{} {} {}", policy.class_name(mask.class), mask_name(mask.mask), mask.rule)
        };
        judgement.masks.response.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(masks(&["dba"]), ["ssn partial(first 0, last 4) m1"]);
    let mut both = masks(&[]);
    both.sort();
    assert_eq!(both, ["mail hash(16) m2", "ssn nullify m2"]);
}

#[test]
fn monitor_watches_and_changes_nothing() {
    let watched = json!([
        {"name": "a", "match": {}, "then": "allow"},
        {"name": "d", "mode": "monitor", "match": {}, "then": "deny"},
    ]);
    let world = World::new(Protocol::Postgres, &[]);
    let judgement = world.sql(&policy(&[database(watched)]), &statement(READ, &[]));
    assert_eq!(told(&judgement), ("allow", "a"));
    assert_eq!(judgement.would, Some(Would { decision: Decision::WouldDeny, rule: "d".into() }));
    // A whole bundle: everything passes, even what no file targets and what was not understood.
    let bundle = [json!({"mode": "monitor"}), database(json!([{"name": "d", "match": {}, "then": "deny"}]))];
    let bundle = policy(&bundle);
    for world in
        [World::new(Protocol::Postgres, &[]), World::new(Protocol::Postgres, &[]).to("9.9.9.9:1", &[])]
    {
        let judgement = world.sql(&bundle, &statement(&[Effect::Unknown], &[]));
        assert_eq!(told(&judgement).0, "allow");
        assert_eq!(judgement.would.unwrap().decision, Decision::WouldDeny);
        assert!(world.opens(&bundle).opaque);
    }
    // A rule that says enforce is in force all the same.
    let explicit = json!([{"name": "d", "mode": "enforce", "match": {}, "then": "deny"}]);
    let explicit = policy(&[json!({"mode": "monitor"}), database(explicit)]);
    assert_eq!(told(&world.sql(&explicit, &statement(READ, &[]))), ("deny", "d"));
}

impl World {
    fn opens(&self, policy: &Policy) -> ConnectionJudgement {
        policy.connection(&self.context())
    }
}

#[test]
fn a_window_of_time_opens_and_closes() {
    let rule = |from: &str, to: &str| {
        let when = json!({"days": "mon-fri", "from": from, "to": to, "tz": "+01:00"});
        policy(&[database(json!([{"name": "a", "match": {"when": when}, "then": "allow"}]))])
    };
    let world = World::new(Protocol::Postgres, &[]);
    assert_eq!(told(&world.sql(&rule("11:00", "12:00"), &statement(READ, &[]))).0, "allow");
    assert_eq!(told(&world.sql(&rule("10:00", "11:00"), &statement(READ, &[]))).0, "deny");
}

#[test]
fn requests_are_matched_by_method_path_and_text() {
    let rules = json!([
        {"name": "reads", "match": {"http": {"method": ["GET"], "path": ["/v1/**"]}}, "then": "allow"},
        {"name": "posts", "match": {"http": {"method": ["POST"]}}, "then": "allow"},
        {"name": "words", "match": {"text": {"in": "request", "keywords": ["bluebird"]}}, "then": {"deny": "blocked"}},
    ]);
    let policy = policy(&[api(rules)]);
    let world = World::new(Protocol::Http, &[]);
    let judge = |method, path, body| {
        let judgement = world.http(&policy, method, path, body);
        (told(&judgement).0, judgement.rule.to_string(), judgement.durability)
    };
    assert_eq!(judge("GET", "/v1/users", Some(b"")), ("allow", "reads".into(), Durability::Fast));
    assert_eq!(judge("GET", "/v2/users", Some(b"")).0, "deny");
    assert_eq!(judge("POST", "/x", Some(b"{}")), ("allow", "posts".into(), Durability::Strict));
    assert_eq!(judge("POST", "/x", Some(br#"{"t": "project \u0042luebird"}"#)).1, "words");
    assert_eq!(judge("POST", "/x", Some(b"q=blue%62ird")).1, "words");
    // The body was not read: the word may be in it.
    assert_eq!(judge("POST", "/x", None).1, "words");
    let needs = policy.needs(&world.context(), None);
    assert!(needs.request_body && !needs.response_body && !needs.catalog);
}

#[test]
fn responses_are_denied_only_by_response_rules() {
    let rules = json!([
        {"name": "a", "match": {}, "then": "allow"},
        {"name": "leak", "match": {"text": {"in": "response", "patterns": ["BEGIN SYSTEM"]}}, "then": "deny"},
        {"name": "errors", "match": {"http": {"status": ["5xx"]}}, "then": {"deny": "hidden"}},
    ]);
    let policy = policy(&[api(rules)]);
    let world = World::new(Protocol::Http, &[]);
    assert_eq!(told(&world.http(&policy, "GET", "/", Some(b""))).0, "allow");
    let request = Request {
        method: "GET",
        host: "",
        path: "/",
        other_paths: &[],
        sent_path: "/",
        query: "",
        body: Some(b""),
    };
    let judge = |status, body: &[u8]| {
        let response = Response { request, status, body: Some(body) };
        policy.judge(&world.context(), &Action::Response(&response)).rule.to_string()
    };
    assert_eq!(judge(200, b"fine"), "default");
    assert_eq!(judge(200, b"x BEGIN SYSTEM y"), "leak");
    assert_eq!(judge(503, b""), "errors");
    assert!(policy.needs(&world.context(), None).response_body);
}

#[test]
fn a_credential_goes_only_where_the_server_proved_its_name() {
    let file = json!({
        "policy": "api", "target": {"protocol": "http", "host": "api.example"},
        "inject": {"header": "Authorization", "value": "Bearer kv#api"},
        "rules": [{"name": "a", "match": {}, "then": "allow"}],
    });
    let policy = policy(&[file]);
    let judge = |evidence| {
        let world = World::new(Protocol::Http, &[]).to("10.0.0.9:443", &[("api.example", evidence)]);
        let judgement = world.http(&policy, "GET", "/", Some(b""));
        (told(&judgement).0, judgement.injects.len())
    };
    assert_eq!(judge(Evidence::Certificate), ("allow", 1));
    assert_eq!(judge(Evidence::LookedUp).0, "deny");
    assert_eq!(judge(Evidence::Claimed), ("deny", 0));
}

#[test]
fn an_address_that_another_policy_trusts_does_not_vouch_for_a_credential() {
    let literal =
        json!({"policy": "box", "target": {"protocol": "http", "host": "10.0.0.9:80"}, "default": "allow"});
    let api = json!({
        "policy": "api", "target": {"protocol": "http", "host": "api.example"},
        "inject": {"header": "Authorization", "value": "Bearer kv#api"}, "default": "allow",
    });
    let policy = policy(&[api, literal]);
    let world = |evidence| World::new(Protocol::Http, &[]).to("10.0.0.9:80", &[("api.example", evidence)]);
    let looked_up = world(Evidence::LookedUp).http(&policy, "GET", "/", Some(b""));
    assert_eq!(told(&looked_up).0, "deny");
    let proved = world(Evidence::Certificate).http(&policy, "GET", "/", Some(b""));
    assert_eq!((told(&proved).0, proved.injects.len()), ("allow", 1));
}

#[test]
fn names_that_are_only_claimed_restrict_and_never_admit() {
    let named = |rules: Json| json!({"policy": "n", "target": {"protocol": "http", "host": "a.example"}, "rules": rules});
    let wide =
        |rules: Json| json!({"policy": "w", "target": {"protocol": "http", "host": "*"}, "rules": rules});
    let allow = json!([{"name": "a", "match": {}, "then": "allow"}]);
    let deny = json!([{"name": "d", "match": {}, "then": "deny"}]);
    let claimed = World::new(Protocol::Http, &[]).to("10.0.0.9:80", &[("a.example", Evidence::Claimed)]);
    let proved = World::new(Protocol::Http, &[]).to("10.0.0.9:80", &[("a.example", Evidence::LookedUp)]);
    let admits = policy(&[named(allow.clone())]);
    assert_eq!(told(&claimed.http(&admits, "GET", "/", None)).0, "deny");
    assert_eq!(told(&proved.http(&admits, "GET", "/", None)).0, "allow");
    let restricts = policy(&[named(deny), wide(allow)]);
    assert_eq!(told(&claimed.http(&restricts, "GET", "/", None)), ("deny", "d"));
    // A Host field for another name of the same address is not this target.
    let request = Request {
        method: "GET",
        host: "b.example",
        path: "/",
        other_paths: &[],
        sent_path: "/",
        query: "",
        body: None,
    };
    assert_eq!(told(&admits.judge(&proved.context(), &Action::Http(&request))).0, "deny");
}

#[test]
fn durability_follows_effects_unless_a_rule_says_otherwise() {
    let world = World::new(Protocol::Postgres, &[]);
    let durability = |rules: Json, effects: &[Effect]| {
        world.sql(&policy(&[database(rules)]), &statement(effects, &[])).durability
    };
    let plain = json!([{"name": "a", "match": {}, "then": "allow"}]);
    assert_eq!(durability(plain.clone(), &[Effect::Read, Effect::Txn]), Durability::Fast);
    assert_eq!(durability(plain, &[Effect::Insert]), Durability::Strict);
    let fast = json!([{"name": "a", "match": {}, "then": "allow", "durability": "fast"}]);
    assert_eq!(durability(fast, &[Effect::Insert]), Durability::Fast);
    let both = json!([
        {"name": "a", "match": {}, "then": "allow", "durability": "fast"},
        {"name": "b", "match": {}, "then": "allow", "durability": "strict"},
    ]);
    assert_eq!(durability(both, READ), Durability::Strict);
}

#[test]
fn words_of_a_statement_are_not_its_constants() {
    let rules = json!([
        {"name": "a", "match": {}, "then": "allow"},
        {"name": "d", "match": {"sql": {"text": ["delete"]}}, "then": "deny"},
    ]);
    let policy = policy(&[database(rules)]);
    let world = World::new(Protocol::Postgres, &[]);
    let judge = |text: &str| {
        let statement = Statement { text: text.into(), ..statement(READ, &[]) };
        told(&world.sql(&policy, &statement)).0
    };
    assert_eq!(judge("SELECT 'delete'"), "allow");
    assert_eq!(judge("DELETE FROM t"), "deny");
}

#[test]
fn an_explanation_says_which_test_failed() {
    let rules = json!([
        {"name": "a", "match": {"who": ["group:dba"], "sql": {"effects": ["read"]}}, "then": "allow"},
        {"name": "b", "match": {"not": {"who": ["user:ana"]}}, "then": "deny"},
    ]);
    let policy = policy(&[database(rules)]);
    let world = World::new(Protocol::Postgres, &[]);
    let explanation = policy.explain(&world.context(), &Action::Sql(&statement(READ, &[])));
    let why: Vec<&str> = explanation.rules.iter().map(|rule| rule.why.as_str()).collect();
    assert_eq!(why, ["who does not match", "excluded by not: who"]);
    assert_eq!(
        (explanation.decision.as_str(), explanation.message.as_str()),
        ("deny", "no rule allows read")
    );
}

/// What servers read differently is judged in every reading, and the strictest outcome counts.
#[test]
fn a_doubtful_path_is_judged_in_all_its_readings() {
    let rules = json!([
        {"name": "scopes", "match": {"http": {"path": ["/@scope%2Fname", "/@scope/*"]}}, "then": "allow"},
        {"name": "projects", "match": {"http": {"path": ["/api/*"]}}, "then": "allow"},
        {"name": "all-but", "match": {"not": {"http": {"path": ["/secret/*", "/api/*", "/@*"]}}}, "then": "allow"},
        {"name": "no-admin", "match": {"http": {"path": ["/api/admin/*"]}}, "then": "deny"},
        {"name": "ask", "match": {"http": {"path": ["/api/orders/*"]}}, "then": {"approve": {"by": ["group:dba"]}}},
    ]);
    let policy = policy(&[api(rules)]);
    let world = World::new(Protocol::Http, &[]);
    for (first, other, verdict, rule) in [
        ("/@scope%2Fname", "/@scope/name", "allow", "scopes"),
        // Only one reading is allowed: nobody knows which one the server takes.
        ("/@scope%2Fother", "/@scope/other", "deny", "default"),
        ("/api/projects/a%2Fb", "/api/projects/a/b", "allow", "projects"),
        ("/api/x/..%2Fadmin/y", "/api/admin/y", "deny", "no-admin"),
        ("/api/admin/y", "/api/admin%2Fy", "deny", "no-admin"),
        ("/api/orders%2F7", "/api/orders/7", "approve", "ask"),
        ("/open/a%2Fb", "/open/a/b", "allow", "all-but"),
        // `not` turns round what is known, not what is not.
        ("/open/..%2Fsecret/x", "/secret/x", "deny", "default"),
    ] {
        let other = [String::from(other)];
        let request = Request {
            method: "GET",
            host: "",
            path: first,
            other_paths: &other,
            sent_path: first,
            query: "",
            body: Some(b""),
        };
        let judgement = policy.judge(&world.context(), &Action::Http(&request));
        assert_eq!(told(&judgement), (verdict, rule), "{first}");
    }
}

/// A word that dot segments take away from the path still leaves the host.
#[test]
fn words_are_looked_for_in_the_path_as_sent() {
    let rules = json!([
        {"name": "a", "match": {}, "then": "allow"},
        {"name": "words", "match": {"text": {"in": "request", "keywords": ["geheim"]}}, "then": "deny"},
    ]);
    let policy = policy(&[api(rules)]);
    let world = World::new(Protocol::Http, &[]);
    let request = Request {
        method: "GET",
        host: "",
        path: "/x",
        other_paths: &[],
        sent_path: "/gehe%69m/../x",
        query: "",
        body: Some(b""),
    };
    assert_eq!(told(&policy.judge(&world.context(), &Action::Http(&request))).1, "words");
}
