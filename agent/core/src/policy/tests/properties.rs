//! Laws that hold for any bundle: a slow, obvious judge agrees; order means nothing; restrictions never loosen.

use proptest::prelude::*;

use super::*;

const GROUPS: [&str; 3] = ["a", "b", "c"];
const EFFECTS: [Effect; 5] = [Effect::Read, Effect::Insert, Effect::Delete, Effect::Session, Effect::Unknown];
const TABLES: [&str; 4] = ["s.t", "s.u", "r.t", "t"];
const PATTERNS: [&str; 4] = ["s.t", "s.*", "*.t", "u"];

#[derive(Debug, Clone)]
struct Spec {
    file: usize,
    who: Vec<usize>,
    not_who: bool,
    effects: Vec<usize>,
    tables: Vec<usize>,
    not_tables: bool,
    then: Outcome,
    monitor: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Allow,
    Deny,
    Approve,
    Mask,
}

#[derive(Debug, Clone)]
struct Act {
    groups: Vec<usize>,
    effects: Vec<usize>,
    relations: Vec<(usize, bool)>,
}

fn some(most: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::btree_set(0..most, 0..3).prop_map(|set| set.into_iter().collect())
}

fn spec() -> impl Strategy<Value = Spec> {
    let then = prop_oneof![
        4 => Just(Outcome::Allow),
        1 => Just(Outcome::Deny),
        1 => Just(Outcome::Approve),
        1 => Just(Outcome::Mask)
    ];
    (0..2_usize, some(3), any::<bool>(), some(5), some(4), any::<bool>(), then, prop::bool::weighted(0.2))
        .prop_map(|(file, who, not_who, effects, tables, not_tables, then, monitor)| Spec {
            file,
            who,
            not_who,
            effects,
            tables,
            not_tables,
            then,
            // A monitored allow is refused at load.
            monitor: monitor && then != Outcome::Allow,
        })
}

fn act() -> impl Strategy<Value = Act> {
    (some(3), some(5), proptest::collection::vec((0..TABLES.len(), any::<bool>()), 0..3))
        .prop_map(|(groups, effects, relations)| Act { groups, effects, relations })
}

fn documents(specs: &[Spec]) -> Vec<Json> {
    let mut documents = vec![json!({"classes": {"c": {"columns": ["*.*.c"]}}})];
    for file in 0..2 {
        let rules = specs.iter().enumerate().filter(|(_, spec)| spec.file == file);
        let rules: Vec<Json> = rules.map(|(place, spec)| rule(place, spec)).collect();
        let mut document = json!({"policy": format!("p{file}"), "rules": rules,
            "target": {"protocol": "postgres", "host": "10.0.0.1"}});
        if document["rules"] == json!([]) {
            // A file without rules says what it does.
            document["rules"] = json!([{"name": "x", "match": {"who": ["group:z"]}, "then": "deny"}]);
        }
        documents.push(document);
    }
    documents
}

fn rule(place: usize, spec: &Spec) -> Json {
    let mut all = Vec::new();
    if !spec.who.is_empty() {
        let who = json!({"who": spec.who.iter().map(|group| format!("group:{}", GROUPS[*group])).collect::<Vec<_>>()});
        all.push(if spec.not_who { json!({"not": who}) } else { who });
    }
    if !spec.effects.is_empty() {
        let names: Vec<&str> = spec.effects.iter().map(|effect| EFFECTS[*effect].name()).collect();
        all.push(json!({"sql": {"effects": names}}));
    }
    if !spec.tables.is_empty() {
        let names: Vec<&str> = spec.tables.iter().map(|table| PATTERNS[*table]).collect();
        let tables = json!({"sql": {"tables": names}});
        all.push(if spec.not_tables { json!({"not": tables}) } else { tables });
    }
    // `any` of one is that one; nested so that several conditions can stand side by side.
    let matching = all.into_iter().fold(json!({}), |inner, each| {
        if inner == json!({}) { each } else { json!({"not": {"any": [{"not": inner}, {"not": each}]}}) }
    });
    let then = match spec.then {
        Outcome::Allow => json!("allow"),
        Outcome::Deny => json!({"deny": "no"}),
        Outcome::Approve => json!({"approve": {"by": ["group:x"]}}),
        Outcome::Mask => json!({"mask": [{"class": "c", "with": "redact"}]}),
    };
    let mode = if spec.monitor { "monitor" } else { "enforce" };
    json!({"name": format!("r{place}"), "mode": mode, "match": matching, "then": then})
}

fn judged(policy: &Policy, act: &Act) -> (u8, bool) {
    let groups: Vec<&str> = act.groups.iter().map(|group| GROUPS[*group]).collect();
    let world = World::new(Protocol::Postgres, &groups);
    strictness(&world.sql(policy, &of(act)))
}

/// (0 allow, 1 approve, 2 deny; masked).
fn strictness(judgement: &Judgement) -> (u8, bool) {
    match judgement.verdict {
        Verdict::Allow(_) => (0, !judgement.masks.response.is_empty()),
        Verdict::Approve(_) => (1, !judgement.masks.response.is_empty()),
        Verdict::Deny { .. } => (2, true),
    }
}

fn of(act: &Act) -> Statement {
    let effects: Vec<Effect> = act.effects.iter().map(|effect| EFFECTS[*effect]).collect();
    let access = |write: &bool| if *write { Access::Write } else { Access::Read };
    let relations: Vec<(&str, Access)> =
        act.relations.iter().map(|(table, write)| (TABLES[*table], access(write))).collect();
    statement(&effects, &relations)
}

/// The slow and obvious judge: three-valued logic over every pair, no index, no early end.
mod reference {
    use super::*;

    type Pair = (Effect, Option<(&'static str, bool)>);

    pub(super) fn judge(specs: &[Spec], act: &Act) -> (u8, bool) {
        let mut effects: Vec<Effect> = act.effects.iter().map(|effect| EFFECTS[*effect]).collect();
        if effects.is_empty() {
            effects.push(Effect::Unknown);
        }
        let relations: Vec<(&'static str, bool)> =
            act.relations.iter().map(|(table, write)| (TABLES[*table], *write)).collect();
        let mut every: Vec<Pair> = Vec::new();
        let mut needed: Vec<Pair> = Vec::new();
        for effect in &effects {
            if relations.is_empty() {
                every.push((*effect, None));
                needed.push((*effect, None));
            }
            for relation in &relations {
                every.push((*effect, Some(*relation)));
                let fits = |effect: Effect, write: bool| match effect {
                    Effect::Read => !write,
                    Effect::Insert | Effect::Delete => write,
                    _ => true,
                };
                let no_effect = !effects.iter().any(|effect| fits(*effect, relation.1));
                let no_relation = !relations.iter().any(|relation| fits(*effect, relation.1));
                if fits(*effect, relation.1) || no_effect || no_relation {
                    needed.push((*effect, Some(*relation)));
                }
            }
        }
        let live: Vec<&Spec> = specs.iter().filter(|spec| !spec.monitor).collect();
        let restricts = |spec: &Spec| every.iter().any(|pair| value(spec, act, *pair, true) != Some(false));
        let admits = |spec: &Spec, pair: Pair| {
            value(spec, act, pair, false) == Some(true)
                && (pair.0 != Effect::Unknown
                    || spec.effects.iter().any(|effect| EFFECTS[*effect] == Effect::Unknown))
        };
        let denied = live.iter().any(|spec| spec.then == Outcome::Deny && restricts(spec));
        let asked = live.iter().any(|spec| spec.then == Outcome::Approve && restricts(spec));
        let masked = live.iter().any(|spec| spec.then == Outcome::Mask && restricts(spec));
        let covered = needed.iter().all(|pair| {
            live.iter().any(|spec| match spec.then {
                Outcome::Allow => admits(spec, *pair),
                Outcome::Approve => restricts(spec) && admits(spec, *pair),
                Outcome::Deny | Outcome::Mask => false,
            })
        });
        match (denied || !covered, asked) {
            (true, _) => (2, true),
            (false, true) => (1, masked),
            (false, false) => (0, masked),
        }
    }

    /// `None` is "cannot be told".
    fn value(spec: &Spec, act: &Act, (effect, relation): Pair, restricting: bool) -> Option<bool> {
        let mut values = Vec::new();
        if !spec.who.is_empty() {
            values.push(Some(spec.who.iter().any(|group| act.groups.contains(group)) != spec.not_who));
        }
        if !spec.effects.is_empty() {
            values.push(Some(spec.effects.iter().any(|own| EFFECTS[*own] == effect)));
        }
        if !spec.tables.is_empty() {
            let found = match relation {
                // Nothing is named: no help for a restriction, no obstacle for reading.
                None if effect == Effect::Read => Some(restricting == spec.not_tables),
                None => Some(false),
                Some((name, _)) => any(spec.tables.iter().map(|pattern| fits(PATTERNS[*pattern], name))),
            };
            values.push(found.map(|found| found != spec.not_tables));
        }
        match (values.contains(&Some(false)), values.contains(&None)) {
            (true, _) => Some(false),
            (false, true) => None,
            (false, false) => Some(true),
        }
    }

    fn any(values: impl Iterator<Item = Option<bool>>) -> Option<bool> {
        let values: Vec<_> = values.collect();
        if values.contains(&Some(true)) {
            Some(true)
        } else if values.contains(&None) {
            None
        } else {
            Some(false)
        }
    }

    fn fits(pattern: &str, name: &str) -> Option<bool> {
        let (schema, table) = pattern.split_once('.').unwrap_or(("*", pattern));
        let (own_schema, own_table) = match name.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, name),
        };
        if table != "*" && table != own_table {
            return Some(false);
        }
        match own_schema {
            _ if schema == "*" => Some(true),
            Some(own) => Some(own == schema),
            None => None,
        }
    }
}

proptest! {
    #[test]
    fn the_slow_judge_agrees(specs in proptest::collection::vec(spec(), 0..8), act in act()) {
        let policy = policy(&documents(&specs));
        prop_assert_eq!(judged(&policy, &act), reference::judge(&specs, &act));
    }

    #[test]
    fn order_means_nothing(
        specs in proptest::collection::vec(spec(), 1..8).prop_flat_map(|specs| (Just(specs.clone()), Just(specs).prop_shuffle())),
        act in act(),
    ) {
        let (one, other) = specs;
        // Names follow the rule, not its place, so only the order in the files differs.
        let rename = |specs: &[Spec]| {
            let mut found = documents(specs);
            found.reverse();
            found
        };
        prop_assert_eq!(judged(&policy(&documents(&one)), &act), judged(&policy(&rename(&other)), &act));
    }

    #[test]
    fn one_more_restriction_never_loosens(
        specs in proptest::collection::vec(spec(), 0..8),
        more in spec(),
        act in act(),
    ) {
        let before = judged(&policy(&documents(&specs)), &act);
        let mut longer = specs.clone();
        longer.push(more.clone());
        let after = judged(&policy(&documents(&longer)), &act);
        match more.then {
            Outcome::Allow => {}
            Outcome::Deny | Outcome::Mask => prop_assert!(after >= before, "{before:?} {after:?}"),
            // A granted approval admits, so it may open what nothing allowed; it never opens what was allowed.
            Outcome::Approve => prop_assert!(after >= before || before.0 == 2, "{before:?} {after:?}"),
        }
        if more.monitor {
            prop_assert_eq!(after, before);
        }
    }

    #[test]
    fn a_monitored_bundle_lets_everything_pass(specs in proptest::collection::vec(spec(), 0..6), act in act()) {
        let mut documents = documents(&specs);
        documents.push(json!({"mode": "monitor"}));
        for document in &mut documents {
            if let Some(rules) = document.get_mut("rules").and_then(Json::as_array_mut) {
                for rule in rules {
                    rule.as_object_mut().unwrap().remove("mode");
                }
            }
        }
        prop_assert_eq!(judged(&policy(&documents), &act), (0, false));
    }

    #[test]
    fn nodes_of_any_shape_are_read_without_panic(json in arbitrary_json()) {
        let _ = compile(&[json.clone(), database(json)], &Surroundings::default());
    }
}

fn arbitrary_json() -> impl Strategy<Value = Json> {
    let words = prop::sample::select(vec![
        "policy",
        "target",
        "rules",
        "match",
        "then",
        "who",
        "sql",
        "http",
        "text",
        "when",
        "not",
        "any",
        "mask",
        "class",
        "with",
        "classes",
        "columns",
        "json",
        "in",
        "effects",
        "tables",
        "days",
        "from",
        "tz",
        "mon-fri",
        "08:00",
        "UTC",
        "inject",
        "header",
        "value",
        "kv#x",
        "a.example:1",
        "",
        "*",
        "approve",
        "by",
        "group:a",
        "name",
        "mode",
        "*.*.a",
    ]);
    let leaf = prop_oneof![
        Just(Json::Null),
        words.clone().prop_map(|word| json!(word)),
        any::<u8>().prop_map(|n| json!(n))
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            proptest::collection::btree_map(words.clone().prop_map(str::to_string), inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}
