//! Being called: a workload with `inbound: deny` answers nobody, one without serves as ever.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use weir_tests::{Agent, Far, Lab, Setup, policies};

/// Listens on the address and answers everybody; says its port first.
const SERVER: &str = r"
import socket, sys
s = socket.create_server((sys.argv[1], 0))
print(s.getsockname()[1], flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b'answer')
    c.close()
";

/// Calls, and says what it heard.
const CALLER: &str = r"
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2).recv(16).decode())
except OSError as fault:
    print(type(fault).__name__)
";

struct Server {
    child: Child,
    port: String,
}

impl Server {
    fn start(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Server { child, port: port.trim().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `weir run` passes it on.
        // SAFETY: a plain system call on a child that is not reaped yet.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let _ = self.child.wait();
    }
}

#[test]
fn a_workload_that_may_not_be_called_answers_nobody() {
    let lab = Lab::new("inbound").unwrap();
    let mut setup =
        Setup::default().policy("classes.yaml", policies::CLASSES).policy("web.yaml", &policies::web(9));
    setup.extra = "workloads: [{name: app}, {name: shut, inbound: deny}]\n".into();
    let agent = Agent::start(&lab, &setup).unwrap();
    let mut far = Far::start().unwrap();
    let words = ["python3", "-c", SERVER, &far.near];
    let open = Server::start(agent.workload("app", &words).unwrap());
    let shut = Server::start(agent.workload("shut", &words).unwrap());
    let call = |far: &Far, port: &str| {
        let output = far.command(&["python3", "-c", CALLER, &far.near, port]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(call(&far, &open.port), "answer", "the control is served");
    let before = far.packets().unwrap();
    assert_eq!(call(&far, &shut.port), "TimeoutError");
    assert_eq!(far.packets().unwrap(), before, "nothing came back");
    let status = agent.status().unwrap();
    assert!(status["fence"]["called"].as_u64().unwrap() > 0, "{status}");
}
