//! Unix sockets: a workload that lists paths reaches those and no others; PostgreSQL's are refused to all.

use weir_tests::{Agent, Lab, Setup, policies};

/// Serves the paths and an abstract name, and beside each (`NAME.d`) one for datagrams, says so, and ends with its input.
const SERVER: &str = r"
import socket, sys
served = []
for name in sys.argv[1:]:
    name = name.replace('@', '\\0')
    s, d = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(name)
    s.listen()
    d.bind(name + '.d')
    served += [s, d]
print('ready', flush=True)
sys.stdin.read()
";

/// Connects to each, or sends it a datagram, and prints `ok` or the error.
const CALLER: &str = r"
import errno, socket, sys
def connect(name):
    socket.socket(socket.AF_UNIX).connect(name)
def send(name):
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'out', name + '.d')
act = connect if sys.argv[1] == 'connect' else send
for name in sys.argv[2:]:
    try:
        act(name.replace('@', '\\0'))
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
        "workloads: [{{name: app}}, {{name: boxed, unix: [{0}, {0}.d]}}, {{name: sealed, unix: []}}]\n",
        names[0]
    );
    let agent = Agent::start(&lab, &setup).unwrap();
    let heard = |workload: &str, act: &str| {
        let words = [&["python3", "-c", CALLER, act][..], &names].concat();
        let output = agent.workload(workload, &words).unwrap().output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    for act in ["connect", "send"] {
        assert_eq!(heard("app", act), "ok ok ok", "one without a list may {act}");
        assert_eq!(heard("boxed", act), "ok EPERM EPERM", "{act}");
        assert_eq!(heard("sealed", act), "EPERM EPERM EPERM", "an empty list is a list: {act}");
    }
    drop(server.stdin.take());
    server.wait().unwrap();

    let config = std::fs::read_to_string(&agent.config).unwrap();
    let (path, policies) = (agent.config.clone(), agent.policies.clone());
    drop(agent);
    std::fs::write(&path, config.replace(names[0], &format!("/{}", "x".repeat(120)))).unwrap();
    let fault = format!("{:#}", Agent::restart(&lab, path, policies).unwrap_err());
    assert!(fault.contains("workload boxed") && fault.contains("1 to 107 bytes"), "{fault}");
}
