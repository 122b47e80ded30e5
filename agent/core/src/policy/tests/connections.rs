//! What is decided about connections.

use super::*;

fn open(policy: &Policy, world: &World) -> ConnectionJudgement {
    policy.connection(&world.context())
}

fn admitted(judgement: &ConnectionJudgement) -> bool {
    matches!(judgement.verdict, Verdict::Allow(_))
}

#[test]
fn a_destination_without_policy_is_refused() {
    let policy = policy(&[database(json!([{"name": "a", "match": {}, "then": "allow"}]))]);
    let here = open(&policy, &World::new(Protocol::Opaque, &[]));
    assert!(admitted(&here) && !here.opaque && here.terminate_tls && !here.needs_name);
    let there = open(&policy, &World::new(Protocol::Opaque, &[]).to("10.0.0.2:5432", &[]));
    assert!(!admitted(&there) && !there.needs_name);
    // Another protocol than the target's is another act.
    assert!(!admitted(&open(&policy, &World::new(Protocol::Http, &[]))));
}

#[test]
fn a_name_must_be_proved_before_it_admits() {
    let file = json!({"policy": "n", "target": {"protocol": "http", "host": "a.example", "port": 443},
        "rules": [{"name": "a", "match": {}, "then": "allow"}]});
    let policy = policy(&[file]);
    let judge = |address: &str, names: &[(&str, Evidence)]| {
        let judgement = open(&policy, &World::new(Protocol::Tls, &[]).to(address, names));
        (admitted(&judgement), judgement.needs_name)
    };
    assert_eq!(judge("10.0.0.9:443", &[]), (false, true));
    assert_eq!(judge("10.0.0.9:80", &[]), (false, false));
    assert_eq!(judge("10.0.0.9:443", &[("a.example", Evidence::Claimed)]), (false, true));
    assert_eq!(judge("10.0.0.9:443", &[("b.example", Evidence::Claimed)]), (false, false));
    assert_eq!(judge("10.0.0.9:443", &[("a.example", Evidence::Certificate)]), (true, false));
    assert_eq!(judge("10.0.0.9:443", &[("b.example", Evidence::Certificate)]), (false, false));
    assert_eq!(policy.names(), ["a.example"]);
}

#[test]
fn what_is_not_read_passes_only_where_a_rule_says_so() {
    let file = json!({"policy": "redis", "target": {"host": "10.0.0.0/24", "port": 6379}, "rules": [
        {"name": "pass", "match": {"who": ["workload:app"], "dst": {"host": "10.0.0.1"}}, "then": {"opaque": "allow"}},
        {"name": "ssh", "match": {"dst": {"protocol": "ssh"}}, "then": {"deny": "no shells"}},
    ]});
    let policy = policy(&[file]);
    let to = |address: &str| World::new(Protocol::Opaque, &[]).to(address, &[]);
    let here = open(&policy, &to("10.0.0.1:6379"));
    assert!(admitted(&here) && here.opaque && !here.terminate_tls);
    assert_eq!((&*here.rule, here.durability), ("pass", Durability::Strict));
    assert!(!open(&policy, &to("10.0.0.2:6379")).opaque);
    let mut stranger = to("10.0.0.1:6379");
    stranger.identity.workload = "other".into();
    assert!(!open(&policy, &stranger).opaque);
    // A rule about a protocol waits until it is known.
    let mut shell = to("10.0.0.1:6379");
    shell.protocol = Protocol::Ssh;
    let shell = open(&policy, &shell);
    assert!(!admitted(&shell) && !shell.opaque);
}

/// The server may be dialled before the client speaks only where nothing hangs on what it says.
#[test]
fn what_hangs_on_the_clients_words_waits_for_them() {
    let pass = json!({"name": "pass", "match": {"dst": {"host": "a.example"}}, "then": {"opaque": "allow"}});
    let passes = |more: &[Json], names: &[(&str, Evidence)]| {
        let rules = [core::slice::from_ref(&pass), more].concat();
        let file = json!({"policy": "mail", "target": {"host": "*", "port": 25}, "rules": rules});
        let world = World::new(Protocol::Opaque, &[]).to("10.0.0.9:25", names);
        let policy = policy(&[file]);
        assert_eq!(open(&policy, &world).opaque, !names.is_empty(), "{more:?}");
        policy.passes_whatever_is_said(&world.context())
    };
    let known = [("a.example", Evidence::LookedUp)];
    assert!(passes(&[], &known));
    assert!(!passes(&[], &[]));
    let rule = |matched: Json, then: Json| json!({"name": "other", "match": matched, "then": then});
    let deny = || json!({"deny": "no"});
    // Another destination's rules, and an address that is not this one.
    let elsewhere = json!({"dst": {"host": ["b.example", "10.0.0.8"]}});
    assert!(passes(&[rule(elsewhere, json!({"opaque": "allow"}))], &known));
    assert!(passes(&[rule(json!({"dst": {"host": "10.0.0.8"}}), deny())], &known));
    // A protocol that is refused, or read.
    for protocol in ["ssh", "tls", "http", "postgres"] {
        assert!(!passes(&[rule(json!({"dst": {"protocol": protocol}}), deny())], &known), "{protocol}");
    }
    // A name that it may still claim.
    assert!(!passes(&[rule(json!({"dst": {"host": "b.example"}}), deny())], &known));
    assert!(!passes(&[rule(json!({"dst": {"host": "*.b.example"}}), json!("allow"))], &known));
    // Another file reads HTTP there, or at a name that may be claimed.
    let mail = json!({"policy": "mail", "target": {"host": "*", "port": 25}, "rules": [pass.clone()]});
    let world = World::new(Protocol::Opaque, &[]).to("10.0.0.9:25", &known);
    for (host, expected) in [("10.0.0.9", false), ("b.example", false), ("10.0.0.8", true)] {
        let site = json!({"policy": "site", "target": {"protocol": "http", "host": host},
            "rules": [{"name": "reads", "match": {"http": {"method": ["GET"]}}, "then": "allow"}]});
        let judged = policy(&[mail.clone(), site]).passes_whatever_is_said(&world.context());
        assert_eq!(judged, expected, "{host}");
    }
}

#[test]
fn a_rule_on_the_connection_refuses_it() {
    let rules = json!([
        {"name": "a", "match": {}, "then": "allow"},
        {"name": "d", "match": {"who": ["exe:/usr/bin/psql"]}, "then": {"deny": "not with psql"}},
    ]);
    let judgement = open(&policy(&[database(rules)]), &World::new(Protocol::Opaque, &[]));
    assert!(!admitted(&judgement));
    assert_eq!(&*judgement.rule, "d");
}

#[test]
fn a_login_and_tls_come_with_the_target() {
    let file = json!({"policy": "db", "target": {"protocol": "postgres", "host": "db.example", "database": "app"},
        "tls": {"mode": "verify", "ca": "/etc/ca.pem"},
        "inject": {"user": "app_rw", "password": "kv#db"},
        "rules": [{"name": "a", "match": {}, "then": "allow"}]});
    let policy = policy(&[file]);
    let world =
        World::new(Protocol::Postgres, &[]).to("10.0.0.9:5432", &[("db.example", Evidence::LookedUp)]);
    let judgement = open(&policy, &world);
    assert_eq!(judgement.tls.mode, TlsMode::Verify);
    assert!(matches!(judgement.login.as_deref(), Some(Inject::Login { user, .. }) if user == "app_rw"));
    let other = Context { database: "other", ..world.context() };
    assert!(!admitted(&policy.connection(&other)));
}

#[test]
fn policies_that_contradict_each_other_refuse() {
    let file = |name: &str, user: &str| {
        json!({"policy": name, "target": {"protocol": "postgres", "host": "10.0.0.1:5432"},
            "inject": {"user": user, "password": "kv#db"},
            "rules": [{"name": "a", "match": {}, "then": "allow"}]})
    };
    let judgement = open(&policy(&[file("x", "u1"), file("y", "u2")]), &World::new(Protocol::Postgres, &[]));
    assert!(matches!(judgement.verdict, Verdict::Deny { message } if message.contains("different logins")));
    let same = open(&policy(&[file("x", "u1"), file("y", "u1")]), &World::new(Protocol::Postgres, &[]));
    assert!(admitted(&same));
}

/// `tls.name` proves the names that its own target declares, and no others.
#[test]
fn a_certificate_by_another_name_stands_for_the_names_of_its_target() {
    let file = |host: Json| {
        json!({"policy": "api", "target": {"protocol": "http", "host": host},
            "tls": {"name": "lb.example"}, "rules": [{"name": "a", "match": {}, "then": "allow"}]})
    };
    let world = |names: &[(&str, Evidence)]| World::new(Protocol::Tls, &[]).to("10.0.0.9:443", names);
    let looked_up = world(&[("api.example", Evidence::LookedUp), ("elsewhere.example", Evidence::Claimed)]);
    for (host, expected) in [
        (json!(["api.example:443"]), vec!["api.example"]),
        (json!(["*.example"]), vec!["api.example", "elsewhere.example"]),
        (json!(["api.example", "other.example"]), vec!["api.example"]),
        (json!(["api.example:444", "10.0.0.9"]), vec![]),
        (json!(["10.0.0.9"]), vec![]),
        (json!(["*"]), vec![]),
    ] {
        let judgement = open(&policy(&[file(host.clone())]), &looked_up);
        assert!(admitted(&judgement), "{host}");
        assert_eq!(judgement.stands_for, expected, "{host}");
    }
    // The workload's word alone brings in no target.
    let claimed = world(&[("api.example", Evidence::Claimed)]);
    assert!(open(&policy(&[file(json!(["api.example"]))]), &claimed).stands_for.is_empty());
    // Nor does another target vouch.
    let plain = json!({"policy": "plain", "target": {"protocol": "http", "host": "*.example"},
        "rules": [{"name": "b", "match": {}, "then": "allow"}]});
    let judgement = open(&policy(&[file(json!(["10.0.0.9"])), plain]), &looked_up);
    assert!(admitted(&judgement) && judgement.stands_for.is_empty());
}
