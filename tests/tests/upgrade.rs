//! An agent that becomes another program while connections come: none fails, none goes round it, none is without origin.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use weir_tests::process::until;
use weir_tests::{Agent, Lab, Setup, Web, policies};

const DIALLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/dialler.py");
/// Connections a second: what the promise says.
const RATE: &str = "500";
const UPGRADES: usize = 20;

fn start(lab: &Lab) -> (Web, Agent) {
    let web = Web::start(lab).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(web.port));
    let agent = Agent::start(lab, &setup).unwrap();
    (web, agent)
}

fn dialler(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Ends the dialler and reads what it saw.
fn tally(mut child: Child) -> Value {
    drop(child.stdin.take());
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    serde_json::from_str(&said).unwrap()
}

#[test]
fn twenty_upgrades_under_load_fail_no_connection() {
    let lab = Lab::new("upgrades").unwrap();
    let (web, agent) = start(&lab);
    let port = web.port.to_string();
    let child = dialler(agent.app(&["python3", DIALLER, &port, RATE]).unwrap());
    until("the first connection is answered", || web.seen().is_ok_and(|seen| seen.contains("/kilobyte")))
        .unwrap();
    let pid = agent.pid();
    for number in 0..UPGRADES {
        let done = agent.weir(&["upgrade", "--json"]).unwrap();
        assert_eq!(done.code, 0, "upgrade {number}: {done:?}\n{}", fs::read_to_string(&agent.log).unwrap());
        let told: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!(told["pid"], pid, "the process stays the same");
    }
    let tally = tally(child);
    println!("{UPGRADES} upgrades: {tally}");
    assert_eq!(tally["failed"], serde_json::json!({}), "{tally}");
    agent.settle().unwrap();
    let count = |sql: &str| agent.audit(sql).unwrap()[0]["n"].as_u64().unwrap();
    assert_eq!(count("SELECT count(*) AS n FROM audit WHERE rule = 'origin'"), 0, "unattributed");
    let judged = count("SELECT count(*) AS n FROM audit WHERE kind = 'verdict' AND path = '/kilobyte'");
    let served = web.seen().unwrap().lines().filter(|line| line.contains("/kilobyte")).count() as u64;
    assert_eq!(Some(judged), tally["answered"].as_u64(), "each answered request has its verdict");
    assert_eq!(judged, served, "the server saw no request that was not judged");
    let verified = agent.weir(&["audit", "verify"]).unwrap();
    assert_eq!(verified.code, 0, "{verified:?}");
    // The kernel's account and the agents' agree to the last connection, over twenty-one agents.
    let status = agent.status().unwrap();
    let coverage = &status["coverage"];
    for field in ["turned", "published", "handed", "accepted"] {
        assert_eq!(coverage[field], tally["answered"], "{field}: {coverage}");
    }
    assert_eq!((&coverage["aborted"], &coverage["in_handshake"]), (&0.into(), &0.into()), "{coverage}");
    assert_eq!(count("SELECT count(*) AS n FROM coverage WHERE decision = 'failed'"), 0);
}

#[test]
fn an_upgrade_that_could_not_start_is_refused_and_the_agent_goes_on() {
    let lab = Lab::new("bad-upgrade").unwrap();
    let (web, agent) = start(&lab);
    let sound = fs::read_to_string(&agent.config).unwrap();
    fs::write(&agent.config, format!("{sound}\nno_such_key: 1\n")).unwrap();
    let refused = Command::new(weir_tests::agent::weir().unwrap())
        .args(["agent", "--rehearse", "--config"])
        .arg(&agent.config)
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("no_such_key"), "{said}");
    fs::write(&agent.config, &sound).unwrap();

    let policy = agent.policies.join("web.yaml");
    let text = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, text.replace("mode: enforce", "mode: perhaps")).unwrap();
    let refused = agent.weir(&["upgrade"]).unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("web.yaml:4") && refused.err.contains("goes on"), "{refused:?}");
    let url = format!("http://127.0.0.1:{}/kilobyte", web.port);
    let served = agent.run(&["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", &url]).unwrap();
    assert_eq!(served.out, "200", "{served:?}");
}
