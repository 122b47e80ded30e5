//! Hosts that lack something: the agent says what and ends, `weir check` says the same, and what an earlier agent pinned
//! stays closed. A network namespace that goes away under a held request takes nothing with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use weir_tests::agent::weir;
use weir_tests::process::until;
use weir_tests::{Agent, Lab, Setup, Web, policies};

/// A fence whose agent is dead, and what may be dialled behind it.
struct Closed {
    web: Web,
    config: PathBuf,
    // Last: it removes what the others use.
    lab: Lab,
}

impl Closed {
    fn new(name: &str) -> Closed {
        let lab = Lab::new(name).unwrap();
        let web = Web::start(&lab).unwrap();
        let setup = Setup::default()
            .policy("classes.yaml", policies::CLASSES)
            .policy("web.yaml", &policies::web(web.port));
        let mut agent = Agent::start(&lab, &setup).unwrap();
        let config = agent.config.clone();
        let open = agent.run(&["curl", "-s", "-o", "/dev/null", &url(&web)]).unwrap();
        assert_eq!(open.code, 0, "with its agent the way is open: {open:?}");
        agent.server().kill();
        Closed { web, config, lab }
    }

    /// What curl says (exit code) to a process in this cgroup below the attach point.
    fn curl_in(&self, cgroup: &str) -> Option<i32> {
        let folder = self.lab.cgroups().join(cgroup);
        fs::create_dir_all(&folder).unwrap();
        let join = "echo 0 > \"$0/cgroup.procs\" && exec curl -s -o /dev/null --max-time 20 \"$1\"";
        Command::new("sh").args(["-c", join]).arg(folder).arg(url(&self.web)).status().unwrap().code()
    }

    fn assert_closed(&self) {
        assert_eq!(self.curl_in("weir.run/app/later"), Some(COULD_NOT_CONNECT));
        assert_eq!(self.curl_in("plain"), Some(0), "unlabelled, nobody is kept");
    }

    /// The configuration with another `fence.bpffs`.
    fn with_bpffs(&self, folder: &Path) -> PathBuf {
        let text = fs::read_to_string(&self.config).unwrap();
        let own = format!("bpffs: {}/bpf", self.lab.dir().display());
        assert!(text.contains(&own), "{text}");
        let path = self.lab.dir().join("other.yaml");
        fs::write(&path, text.replace(&own, &format!("bpffs: {}", folder.display()))).unwrap();
        path
    }
}

fn url(web: &Web) -> String {
    format!("http://127.0.0.1:{}/text", web.port)
}

/// `weir WORDS` on a host as `set_up` (a line of shell, in a mount namespace of its own) and `setpriv` leave it.
fn on(set_up: &str, setpriv: &[&str], config: &Path, words: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        &format!("mount --make-rprivate / && {set_up} && exec \"$@\""),
        "sh",
    ]);
    if !setpriv.is_empty() {
        command.arg("setpriv").args(setpriv);
    }
    command.arg(weir().unwrap()).args(words).arg("--config").arg(config).output().unwrap()
}

/// The agent ends with 1 and names each of `names`; so does `weir check`, in the row `what`, with what to do.
fn lacks(host: &Closed, config: &Path, set_up: &str, setpriv: &[&str], what: &str, names: &[&str]) {
    let ended = on(set_up, setpriv, config, &["agent"]);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{what}: {said}");
    let messages: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert_eq!(messages.len(), 1, "{what}: one message, not {said}");
    for name in names {
        assert!(messages[0].contains(name), "{what}: {said} does not name {name}");
    }
    let checked = on(set_up, setpriv, config, &["check", "--json"]);
    assert_eq!(checked.status.code(), Some(1), "{what}: {checked:?}");
    let row = row(&checked, what);
    assert_eq!(row["state"], "MISSING", "{row}");
    assert!(row["lost"] != "" && row["do"] != "", "{row}");
    host.assert_closed();
}

fn row(checked: &Output, what: &str) -> Value {
    let text = String::from_utf8_lossy(&checked.stdout);
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.into_iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no row {what} in {text}"))
}

#[test]
fn a_host_that_lacks_something_is_told_what_and_stays_closed() {
    let host = Closed::new("lacking");
    let config = &host.config;
    let checked = on("true", &[], config, &["check", "--json"]);
    assert_eq!(checked.status.code(), Some(0), "with everything there nothing is missing: {checked:?}");

    let no_v2 = "grep ' cgroup2 ' /proc/mounts | cut -d' ' -f2 | xargs -n1 umount -l";
    lacks(&host, config, no_v2, &[], "cgroup v2", &["cgroup v2", "mount -t cgroup2"]);

    let no_btf = "mount -t tmpfs none /sys/kernel/btf";
    lacks(&host, config, no_btf, &[], "kernel: types (BTF)", &["no BTF", "CONFIG_DEBUG_INFO_BTF"]);

    let bare = ["--bounding-set=-bpf,-perfmon,-sys_admin"];
    lacks(&host, config, "true", &bare, "CAP_BPF", &["CAP_BPF", "run as root"]);
    lacks(
        &host,
        config,
        "true",
        &["--bounding-set=-net_admin"],
        "CAP_NET_ADMIN",
        &["CAP_NET_ADMIN", "run as root"],
    );

    let elsewhere = host.lab.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let other = host.with_bpffs(&elsewhere.join("bpf"));
    let read_only = format!("mount -t tmpfs -o ro none {}", elsewhere.display());
    lacks(&host, &other, &read_only, &[], "bpffs", &["no bpffs at", "Read-only", "mount -t bpf"]);
    lacks(&host, &other, "true", &["--bounding-set=-sys_admin"], "bpffs", &["no bpffs at", "mount -t bpf"]);

    let mut agent = Agent::restart(&host.lab, config.clone(), host.lab.dir().join("policies")).unwrap();
    let open = agent.run(&["curl", "-s", "-o", "/dev/null", &url(&host.web)]).unwrap();
    assert_eq!(open.code, 0, "on a host that has it all: {open:?}");
    agent.server().kill();
}

#[test]
fn a_label_for_a_path_that_is_not_there_is_named_and_waits_for_it() {
    let lab = Lab::new("no-path").unwrap();
    let web = Web::start(&lab).unwrap();
    let mut setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(web.port));
    setup.extra = "workloads: [{name: app, cgroup: \"no/such*.service\"}]\n".into();
    let agent = Agent::start(&lab, &setup).unwrap();
    let checked =
        Command::new(weir().unwrap()).args(["check", "--json", "--config"]).arg(&agent.config).output();
    let row = row(&checked.unwrap(), "workload");
    assert_eq!(row["state"], "less");
    assert!(row["found"].as_str().unwrap().contains("no cgroup matches \"no/such*.service\""), "{row}");
    let curl = |cgroup: &str| {
        let join = "mkdir -p \"$0\" && echo 0 > \"$0/cgroup.procs\" && exec curl -s -o /dev/null -w '%{http_code}' \"$1\"";
        let url = format!("http://127.0.0.1:{}/admin/x", web.port);
        let output =
            Command::new("sh").args(["-c", join]).arg(lab.cgroups().join(cgroup)).arg(url).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(curl("no/such-1.service"), "403", "judged from its first connection on");
    assert_eq!(curl("no/other.service"), "200", "nobody judges the one beside it");
}

/// Two ends of a wire: one in a namespace of its own, which has a web server. Gone with its owner.
struct Inside {
    name: String,
    wire: String,
    server: Child,
}

impl Inside {
    fn start(lab: &Lab) -> Inside {
        let (name, wire) = (format!("weir-gone-{}", std::process::id()), format!("wg{}", std::process::id()));
        let script = format!(
            "ip netns add {name} && ip link add {wire} type veth peer name in netns {name} && ip -n {name} link set lo up \
             && ip -n {name} address add 192.0.2.7/32 dev lo"
        );
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        let log = fs::File::create(lab.dir().join("inside.log")).unwrap();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{name}"));
        command.args(["python3", "-m", "http.server", "--bind", "192.0.2.7", "8080"]);
        let server = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let inside = Inside { name, wire, server };
        until("the server inside answers, unlabelled", || {
            let mut curl = Command::new("nsenter");
            curl.arg(format!("--net=/run/netns/{}", inside.name)).args([
                "curl",
                "-s",
                "-o",
                "/dev/null",
                INSIDE,
            ]);
            curl.status().unwrap().success()
        })
        .unwrap();
        inside
    }

    /// A labelled process inside that asks for this path.
    fn ask(&self, agent: &Agent, path: &str) -> Child {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(weir().unwrap());
        command.args(["run", "--config"]).arg(&agent.config).args(["--workload", "app", "--"]);
        command.args(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "150"]);
        command.arg(format!("{INSIDE}{path}")).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn delete(&self) {
        assert!(Command::new("ip").args(["netns", "delete", &self.name]).status().unwrap().success());
    }

    /// The kernel takes the wire away with the namespace, once nobody holds that.
    fn is_there(&self) -> bool {
        Path::new("/sys/class/net").join(&self.wire).exists()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let quiet = |words: &[&str]| {
            let _ = Command::new("ip").args(words).stderr(Stdio::null()).status();
        };
        quiet(&["netns", "delete", &self.name]);
        quiet(&["link", "delete", &self.wire]);
    }
}

#[test]
fn a_namespace_deleted_under_a_held_request_leaves_nothing_and_the_agent_goes_on() {
    let lab = Lab::new("gone-netns").unwrap();
    let web = Web::start(&lab).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(web.port))
        .policy("inside.yaml", HELD);
    let agent = Agent::start(&lab, &setup).unwrap();
    let status = || agent.status().unwrap();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    let (before, mut inside) = (descriptors(), Inside::start(&lab));
    let waits = || {
        let list = agent.weir(&["approvals", "list", "--json"]).unwrap().out;
        list.lines()
            .next()
            .and_then(|line| serde_json::from_str::<Value>(line).ok())
            .map(|asked| asked["id"].clone())
    };

    // Its name goes, with a request in flight: nothing changes for those inside.
    let named = inside.ask(&agent, "/first");
    until("the first request is held", || waits().is_some()).unwrap();
    let second = inside.ask(&agent, "/second");
    until("it is served from within", || status()["namespaces"] == 1).unwrap();
    inside.delete();
    agent.approve("/first").unwrap();
    let answered = named.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "404", "the server inside has no such page");
    until("the second request is held", || waits().is_some()).unwrap();
    let id = waits().unwrap();

    // Whoever lived there goes, with a request in flight.
    assert!(inside.is_there());
    inside.server.kill().unwrap();
    inside.server.wait().unwrap();
    // `weir run` passes the signal on.
    end(&second);
    second.wait_with_output().unwrap();
    until("the namespace is left", || status()["namespaces"] == 0).unwrap();
    until("the kernel has taken it away, so that nobody holds it", || !inside.is_there()).unwrap();
    // An answer that comes too late opens nothing.
    let _ = agent.weir(&["approvals", "approve", id.as_str().unwrap()]).unwrap();
    until("the agent's descriptors are back", || descriptors() <= before + 2).unwrap();
    let seen = agent.run(&["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url(&web)]).unwrap();
    assert_eq!(seen.out, "200", "others are served: {seen:?}");
    let coverage = &status()["coverage"];
    assert_eq!(
        (&coverage["in_handshake"], &coverage["published"]),
        (&0.into(), &coverage["handed"]),
        "{coverage}"
    );
    let rows = agent.audited("SELECT path FROM audit WHERE kind = 'verdict' AND path = '/second'").unwrap();
    assert!(!rows.is_empty());
    let log = fs::read_to_string(&agent.log).unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

fn end(child: &Child) {
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
}

const INSIDE: &str = "http://192.0.2.7:8080";

/// Whatever is asked inside waits for somebody.
const HELD: &str = r#"
policy: inside
target: {host: 192.0.2.7, port: 8080, protocol: http}
mode: enforce
default: deny
rules:
  - {name: held, match: {http: {path: ["/*"]}}, then: {approve: {by: ["group:dba"], within: 2m}}}
"#;

/// curl(1), EXIT CODES.
const COULD_NOT_CONNECT: i32 = 7;
