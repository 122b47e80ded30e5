//! Workloads in network namespaces of their own: served there, judged like all others, dialled from there; refused until
//! the agent listens, and left when the last of them has gone.

use std::fs;
use std::process::Command;

use weir_tests::process::until;
use weir_tests::{Agent, Lab, Netns, Setup, policies};

/// A web server and a client inside one namespace: the address exists in that namespace only.
const INSIDE: &str = r"
ip link set lo up
ip address add 192.0.2.7/32 dev lo
python3 -m http.server --bind 192.0.2.7 8080 >/dev/null 2>&1 &
server=$!
for _ in $(seq 200); do
    curl -sf -o /dev/null --max-time 5 http://192.0.2.7:8080/ && break
    sleep 0.05
done
curl -s -o /dev/null -w '%{http_code}' http://192.0.2.7:8080/
kill $server
";

fn policy() -> String {
    "policy: inside\ntarget: {host: 192.0.2.7, port: 8080, protocol: http}\nmode: enforce\ndefault: deny\nrules:\n  \
     - {name: root-page, match: {http: {path: [/]}}, then: allow}\n"
        .into()
}

fn start(lab: &Lab) -> Agent {
    let setup = Setup::default().policy("classes.yaml", policies::CLASSES).policy("inside.yaml", &policy());
    Agent::start(lab, &setup).unwrap()
}

fn namespaces(agent: &Agent) -> u64 {
    agent.status().unwrap()["namespaces"].as_u64().unwrap()
}

#[test]
fn a_namespace_that_the_workload_makes_is_served_from_within() {
    let lab = Lab::new("own-netns").unwrap();
    let agent = start(&lab);
    let seen = agent.run(&["unshare", "--net", "sh", "-c", INSIDE]).unwrap();
    assert_eq!(seen.out, "200", "{seen:?}");
    let rows = agent.audited("SELECT workload, dst_ip, decision FROM audit WHERE kind = 'verdict'").unwrap();
    assert_eq!((&rows[0]["workload"], &rows[0]["dst_ip"]), (&"app".into(), &"192.0.2.7".into()));
    until("the namespace is left with its last process", || namespaces(&agent) == 0).unwrap();
}

#[test]
fn a_command_run_inside_a_namespace_is_served_from_its_first_connection() {
    let lab = Lab::new("named-netns").unwrap();
    let agent = start(&lab);
    let netns = Netns::add("named").unwrap();
    let inside = |command: &[&str]| netns.command(command);
    let script = "ip link set lo up; ip address add 192.0.2.7/32 dev lo; exec python3 -m http.server --bind 192.0.2.7 8080";
    let log = fs::File::create(lab.dir().join("inside.log")).unwrap();
    let mut server =
        inside(&["sh", "-c", script]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"];
    let ask = |path: &str, words: &[&str]| {
        let url = format!("http://192.0.2.7:8080{path}");
        let words: Vec<&str> = words.iter().chain(&curl).copied().chain([url.as_str()]).collect();
        let output = inside(&words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    until("the server inside answers, unlabelled", || ask("/", &[]) == "200").unwrap();
    let weir = weir_tests::agent::weir().unwrap();
    let config = agent.config.to_str().unwrap();
    let run = [weir.to_str().unwrap(), "run", "--config", config, "--workload", "app", "--"];
    assert_eq!(ask("/", &run), "200");
    assert_eq!(ask("/elsewhere", &run), "403");
    assert_eq!(ask("/elsewhere", &[]), "404", "unlabelled, nobody judges");
    let upgraded = agent.weir(&["upgrade"]).unwrap();
    assert_eq!(upgraded.code, 0, "{upgraded:?}");
    assert_eq!(ask("/", &run), "200", "also after an upgrade");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_namespace_whose_loopback_is_down_stays_shut_and_is_named() {
    let lab = Lab::new("lo-down").unwrap();
    let agent = start(&lab);
    // A server at the other end of a wire, in a namespace of its own.
    let script = "
ip link add v0 type veth peer name v1
unshare --net sleep 60 & far=$!
until ip link set v1 netns $far 2>/dev/null && ! ip link show v1 >/dev/null 2>&1; do sleep 0.05; done
nsenter -t $far -n sh -c 'ip address add 192.0.2.7/24 dev v1; ip link set v1 up; exec python3 -m http.server 8080 --bind 192.0.2.7' >/dev/null 2>&1 & server=$!
ip address add 192.0.2.1/24 dev v0
ip link set v0 up
until nsenter -t $far -n ss -Hltn | grep -q :8080; do sleep 0.05; done
for _ in 1 2 3; do curl -s -o /dev/null -w '%{http_code} ' --max-time 2 http://192.0.2.7:8080/; sleep 0.3; done
kill $server $far
";
    let words = ["unshare", "--net", "sh", "-c", script];
    let direct = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&direct.stdout), "200 200 200 ", "unlabelled: {direct:?}");
    let seen = agent.run(&words).unwrap();
    assert_eq!(seen.out, "000 000 000 ", "{seen:?}");
    until("the log names it", || fs::read_to_string(&agent.log).unwrap().contains("`lo` is down")).unwrap();
    until("the namespace is left", || namespaces(&agent) == 0).unwrap();
}

#[test]
fn namespaces_that_come_and_go_leave_nothing_behind() {
    let lab = Lab::new("many-netns").unwrap();
    let agent = start(&lab);
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    let once = |count: &str| {
        let script = format!(
            "for _ in $(seq {count}); do unshare --net sh -c 'ip link set lo up; curl -s --max-time 2 http://192.0.2.7:8080/'; done"
        );
        agent.run(&["sh", "-c", &script]).unwrap();
        until("all namespaces are left", || namespaces(&agent) == 0).unwrap();
    };
    once("1");
    let before = descriptors();
    once("40");
    until("the descriptors are back", || descriptors() <= before + 2).unwrap();
}

#[test]
fn v6_that_leads_nowhere_is_refused_at_once() {
    let lab = Lab::new("v6").unwrap();
    let agent = start(&lab);
    let dial = "python3 -c \"import socket,errno
s=socket.socket(socket.AF_INET6)
s.settimeout(3)
try: s.connect(('2001:db8::7', 80)); print('turned', end=' ')
except OSError as f: print(errno.errorcode.get(f.errno, f), end=' ')\"";
    // A command that is run in a namespace has it served beforehand.
    let without = format!("ip link set lo up; {dial}");
    let route = "ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up; ip -6 route add default dev v0";
    let with = format!("{route}; for _ in $(seq 40); do {dial}; sleep 0.1; done");
    let seen = agent
        .run(&["unshare", "--net", "sh", "-c", &format!("{without}; sleep 1; {without}; {with}")])
        .unwrap();
    let words: Vec<&str> = seen.out.split_whitespace().collect();
    assert_eq!(words.get(1), Some(&"ENETUNREACH"), "once it is served: {seen:?}");
    assert_eq!(words.last(), Some(&"turned"), "once there is a route: {seen:?}");
}
