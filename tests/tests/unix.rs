//! Unix sockets: a workload that lists paths reaches those and no others; PostgreSQL's are refused to all.

use weir_tests::{Agent, Lab, Setup, policies};

/// Serves the two paths and an abstract name, says so, and ends with its input.
const SERVER: &str = r"
import socket, sys
served = []
for name in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX)
    s.bind(name.replace('@', '\\0'))
    s.listen()
    served.append(s)
print('ready', flush=True)
sys.stdin.read()
";

/// Connects to each, and prints `ok` or the error.
const CALLER: &str = r"
import errno, socket, sys
for name in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(name.replace('@', '\\0'))
        print('ok', end=' ')
    except OSError as fault:
        print(errno.errorcode[fault.errno], end=' ')
";

#[test]
fn a_workload_reaches_the_unix_sockets_it_lists_and_no_others() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let lab = Lab::new("unix").unwrap();
    let (listed, other) = (lab.dir().join("listed.sock"), lab.dir().join("other.sock"));
    let abstract_name = format!("@weir-test-{}", std::process::id());
    let names = [listed.to_str().unwrap(), other.to_str().unwrap(), &abstract_name];
    let mut server = Command::new("python3");
    server.args(["-c", SERVER]).args(names).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = server.spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let mut setup =
        Setup::default().policy("classes.yaml", policies::CLASSES).policy("web.yaml", &policies::web(9));
    setup.extra = format!(
        "workloads: [{{name: app}}, {{name: boxed, unix: [{}]}}, {{name: sealed, unix: []}}]\n",
        names[0]
    );
    let agent = Agent::start(&lab, &setup).unwrap();
    let heard = |workload: &str| {
        let words = [&["python3", "-c", CALLER][..], &names].concat();
        let output = agent.workload(workload, &words).unwrap().output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(heard("app"), "ok ok ok", "one without a list");
    assert_eq!(heard("boxed"), "ok EPERM EPERM");
    assert_eq!(heard("sealed"), "EPERM EPERM EPERM", "an empty list is a list");
    drop(server.stdin.take());
    server.wait().unwrap();

    let config = std::fs::read_to_string(&agent.config).unwrap();
    let (path, policies) = (agent.config.clone(), agent.policies.clone());
    drop(agent);
    std::fs::write(&path, config.replace(names[0], &format!("/{}", "x".repeat(120)))).unwrap();
    let fault = format!("{:#}", Agent::restart(&lab, path, policies).unwrap_err());
    assert!(fault.contains("workload boxed") && fault.contains("1 to 107 bytes"), "{fault}");
}
