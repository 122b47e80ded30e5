//! `weir revoke`: open connections of a workload, a person or a process tree end at once, and nobody else's.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use weir_tests::waiter::HOLD;
use weir_tests::{Agent, Lab, Setup, Waiter, Web, policies};

#[test]
fn open_connections_end_within_a_second_and_only_those_meant() {
    let lab = Lab::new("revoke").unwrap();
    let web = Web::start(&lab).unwrap();
    let mut setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(web.port));
    setup.extra = "workloads: [{name: app}, {name: other}]\n".into();
    let agent = Agent::start(&lab, &setup).unwrap();
    let port = web.port.to_string();
    let words = ["python3", "-c", HOLD, &port, "/kilobyte"];
    let mut meant = [(); 3].map(|()| Waiter::start(agent.app(&words).unwrap()).unwrap());
    let mut other = Waiter::start(agent.workload("other", &words).unwrap()).unwrap();

    let asked = Instant::now();
    let done = agent.weir(&["revoke", "--workload", "app", "--reason", "ticket 7", "--json"]).unwrap();
    assert_eq!(done.out.trim(), r#"{"connections":3}"#, "{done:?}");
    for waiter in &mut meant {
        assert_eq!(waiter.line().unwrap(), "Connection reset by peer");
    }
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    let rows = agent.audited("SELECT reason FROM audit WHERE rule = 'revoked' AND workload = 'app'").unwrap();
    assert_eq!(rows[0]["reason"], "revoked: ticket 7");
    let asked = agent.audited("SELECT reason FROM audit WHERE method = 'revoke'").unwrap();
    assert!(asked[0]["reason"].as_str().unwrap().contains("3 connections of workload app"), "{asked:?}");

    // The other workload's connection has not noticed; its process tree is meant next, by the `weir run` above it.
    let root = other.pid().to_string();
    let done = agent.weir(&["revoke", "--pid", &root]).unwrap();
    assert_eq!(done.out.trim(), "1 connections ended", "{done:?}");
    assert_eq!(other.line().unwrap(), "Connection reset by peer");

    let refused = agent.weir(&["revoke", "--workload", "nobody"]).unwrap();
    assert!(refused.code == 1 && refused.err.contains("no workload"), "{refused:?}");
    drop(Waiter::start(agent.app(&words).unwrap()).unwrap());
}

/// Connects, says so, waits for the word, and tells what became of the connection.
const OLDER: &str = r#"
import os, socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("open", flush=True)
open(sys.argv[2] + "/cgroup.procs", "w").write("0")
s.settimeout(20)
try:
    s.recv(1)
    print("closed", flush=True)
except TimeoutError:
    print("alive", flush=True)
except OSError as fault:
    print(fault.strerror, flush=True)
"#;

#[test]
fn a_connection_older_than_its_label_is_ended_and_recorded() {
    let lab = Lab::new("older").unwrap();
    // The server says nothing: the connection would live on.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(server.local_addr().unwrap().port()));
    let agent = Agent::start(&lab, &setup).unwrap();
    let home = lab.cgroups().join("weir.run/app/late");
    std::fs::create_dir(&home).unwrap();
    let dial = |folder: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", OLDER, &port, folder]);
        Waiter::start(command).unwrap()
    };
    let plain = lab.cgroups().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let mut control = dial(plain.to_str().unwrap());
    let mut older = dial(home.to_str().unwrap());
    assert_eq!(older.line().unwrap(), "Software caused connection abort");
    let rows = agent.audited("SELECT workload, dst_port, reason FROM audit WHERE rule = 'sweep'").unwrap();
    assert_eq!(
        (&rows[0]["workload"], &rows[0]["dst_port"]),
        (&"app".into(), &port.parse::<u16>().unwrap().into())
    );
    // Unlabelled, it lives: the server's bytes still arrive.
    for stream in server.incoming().take(2) {
        let _ = stream.unwrap().write_all(b"!");
    }
    assert_eq!(control.line().unwrap(), "closed");
}
