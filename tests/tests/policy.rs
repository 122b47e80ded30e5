//! Policies while the agent runs: a change is in force at once, a broken change is not, and both are visible.

use std::process::Command;

use weir_tests::postgres::{Options, PASSWORD};
use weir_tests::process::until;
use weir_tests::{Agent, Done, Lab, Postgres, Setup, policies};

fn count(agent: &Agent, postgres: &Postgres) -> Done {
    let port = postgres.port.to_string();
    let mut psql = agent
        .app(&["psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "shop"])
        .unwrap();
    psql.env("PGPASSWORD", PASSWORD).args(["-c", "SELECT count(*) FROM orders"]);
    weir_tests::agent::done(psql.output().unwrap()).unwrap()
}

#[test]
fn a_change_is_in_force_at_once_and_a_broken_one_never() {
    let lab = Lab::new("reload").unwrap();
    let postgres = Postgres::start(&lab, Options::default()).unwrap();
    let shop = policies::shop(postgres.port);
    let setup = Setup::default().policy("classes.yaml", policies::CLASSES).policy("shop.yaml", &shop);
    let agent = Agent::start(&lab, &setup).unwrap();
    assert_eq!(count(&agent, &postgres).out.trim(), "30");

    let stricter = shop.replace("name: app-works", "name: nobody-works").replace("workload:app", "uid:4242");
    std::fs::write(agent.policies.join("shop.yaml"), &stricter).unwrap();
    until("the stricter policy is in force", || count(&agent, &postgres).err.contains("ERROR")).unwrap();

    std::fs::write(agent.policies.join("shop.yaml"), shop.replace("then: allow", "then: alow")).unwrap();
    let status = || agent.weir(&["status"]).unwrap();
    until("the broken file is reported", || status().out.contains("NOT IN FORCE")).unwrap();
    assert_eq!(status().code, 1);
    assert!(status().out.contains("shop.yaml:"), "{:?}", status());
    assert!(count(&agent, &postgres).err.contains("ERROR"), "the last good policy stays in force");

    // A zone that no policy named before: what judges cannot read the host's database of zones any more.
    let hours = "when: {days: [mon, tue, wed, thu, fri, sat, sun], tz: Asia/Kathmandu}, ";
    let always = shop
        .replace("match: {who: [\"workload:app\"], ", &format!("match: {{{hours}who: [\"workload:app\"], "));
    assert_ne!(always, shop);
    std::fs::write(agent.policies.join("shop.yaml"), &always).unwrap();
    until("the policy with hours is in force", || count(&agent, &postgres).out.trim() == "30").unwrap();
    let relay = || agent.audit("SELECT reason FROM audit WHERE method = 'relay'").unwrap();
    assert!(relay().is_empty(), "{:?}", relay());
    let rows = agent.audit("SELECT reason FROM audit WHERE method = 'policy' ORDER BY seq").unwrap();
    let words: Vec<&str> = rows.iter().filter_map(|row| row["reason"].as_str()).collect();
    assert_eq!(words.iter().filter(|words| words.contains("is in force")).count(), 2, "{words:?}");

    std::fs::write(agent.policies.join("shop.yaml"), &shop).unwrap();
    until("the first policy is back", || count(&agent, &postgres).out.trim() == "30").unwrap();
    assert_eq!(status().code, 0);
}

#[test]
fn a_monitored_policy_lets_pass_and_tells() {
    let lab = Lab::new("monitor").unwrap();
    let postgres = Postgres::start(&lab, Options::default()).unwrap();
    let shop = policies::shop(postgres.port).replace("mode: enforce", "mode: monitor");
    let setup = Setup::default().policy("classes.yaml", policies::CLASSES).policy("shop.yaml", &shop);
    let agent = Agent::start(&lab, &setup).unwrap();
    let port = postgres.port.to_string();
    let mut psql = agent
        .app(&["psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "shop"])
        .unwrap();
    psql.env("PGPASSWORD", PASSWORD)
        .args(["-c", "SELECT ssn FROM customers WHERE id = 1"])
        .args(["-c", "DROP TABLE orders"]);
    let seen = weir_tests::agent::done(psql.output().unwrap()).unwrap();
    assert!(seen.out.contains("219-45-6789") && seen.out.contains("DROP TABLE"), "{seen:?}");
    let rows = agent.audit("SELECT decision, rule FROM audit WHERE kind = 'verdict' ORDER BY seq").unwrap();
    let decisions: Vec<&str> = rows.iter().filter_map(|row| row["decision"].as_str()).collect();
    assert!(decisions.contains(&"would_mask") && decisions.contains(&"would_deny"), "{rows:?}");
}

/// The YAML blocks of README.md, by the file that their first line names.
fn examples() -> Vec<(String, String)> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let named = blocks.map(|block| {
        let first = block.lines().next().unwrap_or_default().trim_start_matches("# ");
        let path = first.split([' ', ':']).next().unwrap_or_default();
        (path.rsplit('/').next().unwrap_or_default().to_owned(), block.to_owned())
    });
    named.collect()
}

#[test]
fn what_the_readme_shows_loads() {
    let lab = Lab::new("readme").unwrap();
    let dir = lab.dir().to_str().unwrap().to_owned();
    let names: Vec<String> = examples().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["weir.yaml", "classes.yaml", "appdb.yaml"]);
    for (name, text) in examples() {
        let folder = if name == "weir.yaml" { "" } else { "policies/" };
        lab.write(
            &format!("{folder}{name}"),
            &text.replace("/etc/weir", &dir).replace("/var/lib/weir", &dir),
        )
        .unwrap();
    }
    let weir = |words: &[&str]| {
        let output = Command::new(weir_tests::agent::weir().unwrap()).args(words).output().unwrap();
        weir_tests::agent::done(output).unwrap()
    };
    let config = format!("{dir}/weir.yaml");
    let checked = weir(&["policy", "check", &format!("{dir}/policies"), "--config", &config]);
    assert_eq!(checked.code, 0, "{checked:?}");
    let host = weir(&["check", "--json", "--config", &config]);
    let configuration = host.out.lines().find(|line| line.contains("\"configuration\"")).unwrap();
    assert!(configuration.contains("\"ok\""), "{configuration}");
}
