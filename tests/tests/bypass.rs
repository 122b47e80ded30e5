//! Every known way round the fence, tried by a labelled process and by an unlabelled one. The witness is the far host:
//! it must see nothing of the first, and something of the second, or the trial proves nothing.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use weir_tests::{Agent, Far, Lab, Setup, policies};

const WAYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/ways.py");
const FRIEND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/friend.py");
/// The distribution's: others may lie where a user without privileges cannot read.
const PYTHON: &str = "/usr/bin/python3";
const NOBODY: &str = "65534";

/// How the trial is started, and what its argument is.
#[derive(Debug, Clone, Copy)]
enum Start {
    /// By `weir run`, as root.
    Run,
    /// By itself; it joins the labelled cgroup on its way, without the guard of `weir run`.
    Join,
    /// By `weir run` as a user without privileges, who tries to join an unlabelled cgroup.
    Leave,
    /// By `weir run`, with a friend that hands it a socket of this kind.
    Pass(&'static str),
    /// By a friend that lets it inherit a connection.
    Inherit,
    /// By `weir run` as a user who has an unlabelled process with a connection.
    Beside,
    /// By `weir run`, with a friend that forwards a loopback port.
    Forward,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Packets at the far host.
    Wire,
    /// What the trial itself says: nothing would leave here either way.
    Word,
}

/// Row of THREATS.md, name, start, proof.
const TRIALS: &[(&str, &str, Start, Proof)] = &[
    ("1", "raw-icmp", Start::Run, Proof::Wire),
    ("1", "raw-header", Start::Run, Proof::Wire),
    ("1", "ping", Start::Run, Proof::Wire),
    ("2", "packet", Start::Run, Proof::Wire),
    ("3", "udp", Start::Run, Proof::Wire),
    ("3", "udp-v6", Start::Run, Proof::Wire),
    ("3", "udp-mapped", Start::Run, Proof::Wire),
    ("3", "udp-connected", Start::Run, Proof::Wire),
    ("3", "udp-sendmmsg", Start::Run, Proof::Wire),
    ("3", "udp-quic", Start::Run, Proof::Wire),
    ("4", "udp-dns", Start::Run, Proof::Wire),
    ("4", "udp-spoofed", Start::Run, Proof::Wire),
    ("6", "mptcp", Start::Run, Proof::Wire),
    ("7", "sctp", Start::Run, Proof::Wire),
    ("7", "udplite", Start::Run, Proof::Wire),
    ("7", "every-protocol", Start::Run, Proof::Word),
    ("8", "vsock", Start::Run, Proof::Word),
    ("9", "passed-socket", Start::Pass("new"), Proof::Wire),
    ("9a", "passed-connection", Start::Pass("connected"), Proof::Word),
    ("9a", "passed-datagrams", Start::Pass("datagrams"), Proof::Word),
    ("9a", "inherited-connection", Start::Inherit, Proof::Word),
    ("9", "late-socket", Start::Join, Proof::Wire),
    ("10", "older-connection", Start::Join, Proof::Word),
    ("10", "older-datagrams", Start::Join, Proof::Word),
    ("11", "leave-cgroup", Start::Leave, Proof::Wire),
    ("11", "born-elsewhere", Start::Leave, Proof::Wire),
    ("14", "tcp-uring", Start::Run, Proof::Wire),
    ("14", "tcp-uring-unguarded", Start::Join, Proof::Wire),
    ("15", "pidfd-getfd", Start::Beside, Proof::Wire),
    ("15", "ptrace", Start::Beside, Proof::Word),
    ("15", "write-memory", Start::Beside, Proof::Word),
    ("17", "tcp-mapped", Start::Run, Proof::Wire),
    ("18", "neighbour", Start::Forward, Proof::Wire),
    ("19", "own-namespace", Start::Run, Proof::Word),
    ("20", "tcp", Start::Run, Proof::Wire),
    ("20", "tcp-v6", Start::Run, Proof::Wire),
    ("20", "tcp-fastopen", Start::Run, Proof::Wire),
    ("20", "tcp-fastopen-connect", Start::Run, Proof::Wire),
    ("20", "tcp-reconnect", Start::Run, Proof::Wire),
    ("20", "tcp-repair", Start::Run, Proof::Wire),
    ("20", "tcp-transparent", Start::Run, Proof::Wire),
    ("20", "tcp-bound", Start::Run, Proof::Wire),
    ("21", "tcp-mark", Start::Run, Proof::Wire),
    ("21", "tcp-device", Start::Run, Proof::Wire),
    ("23", "key", Start::Run, Proof::Word),
];

#[test]
fn every_known_way_round_is_closed_to_the_labelled_and_open_to_others() {
    let lab = Lab::new("bypass").unwrap();
    // One policy, for somewhere else: the far host is denied.
    let setup =
        Setup::default().policy("classes.yaml", policies::CLASSES).policy("web.yaml", &policies::web(9));
    let agent = Agent::start(&lab, &setup).unwrap();
    let stage = Stage { agent, far: Far::start().unwrap(), lab };
    let mut stage = stage;
    let threats = include_str!("../../THREATS.md");
    let mut faults = Vec::new();
    println!("\n{:<4} {:<22} {:<24} {:<24}", "row", "way", "unlabelled", "labelled");
    for (row, name, start, proof) in TRIALS {
        let plain = stage.attempt(name, *start, false);
        let guarded = stage.attempt(name, *start, true);
        println!("{row:<4} {name:<22} {:<24} {:<24}", plain.show(), guarded.show());
        let leaks = match proof {
            Proof::Wire => guarded.packets > 0,
            Proof::Word => guarded.word.starts_with("ok"),
        };
        let open = match proof {
            Proof::Wire => plain.packets > 0,
            Proof::Word => plain.word.starts_with("ok"),
        };
        // A protocol that this kernel lacks, or keeps from everybody, proves nothing, and leads nowhere.
        let absent =
            ["EACCES", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EAFNOSUPPORT"].contains(&plain.word.as_str());
        if leaks {
            faults.push(format!("{name}: a labelled process got through: {guarded:?}"));
        }
        if !open && !absent {
            faults.push(format!("{name}: the trial proves nothing, unlabelled it fails too: {plain:?}"));
        }
        let line = threats.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap_or_default();
        let told = line.split_once(&format!("`{name}` ")).map_or("", |(_, told)| told);
        let told = told.split(['`', ';', '|', '(']).next().unwrap_or_default().trim_end_matches([',', ' ']);
        if !told.split(" or ").any(|word| word == guarded.met()) {
            faults.push(format!("row {row} of THREATS.md does not say: `{name}` {}", guarded.met()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

struct Stage {
    agent: Agent,
    far: Far,
    lab: Lab,
}

/// What one trial said, and how many packets the far host saw of it.
#[derive(Debug)]
struct Seen {
    word: String,
    packets: u64,
}

impl Seen {
    fn show(&self) -> String {
        format!("{}, {} packets", self.word, self.packets)
    }

    /// As THREATS.md has it.
    fn met(&self) -> &str {
        // Sent, and led elsewhere.
        if self.word == "ok" && self.packets == 0 { "no packet" } else { &self.word }
    }
}

impl Stage {
    fn attempt(&mut self, name: &str, start: Start, labelled: bool) -> Seen {
        let plain = self.cgroup("plain");
        self.far.settle().unwrap();
        let friend = self.friend(start, &plain);
        let argument = self.argument(start, labelled, friend.as_ref());
        let mut words = vec![PYTHON, WAYS, name, &self.far.v4, &self.far.v6, &self.far.device];
        words.extend(argument.as_deref());
        let as_nobody = ["setpriv", "--reuid", NOBODY, "--clear-groups"];
        let mut command = match (start, labelled) {
            (Start::Join, _) | (Start::Run | Start::Pass(_) | Start::Forward | Start::Leave, false) => {
                own(&plain, &words)
            }
            (Start::Beside, false) => own(&plain, &[&as_nobody[..], &words].concat()),
            (Start::Leave | Start::Beside, true) => {
                let weir = self.run_as_nobody();
                own(&plain, &weir.iter().map(String::as_str).chain(words).collect::<Vec<_>>())
            }
            (Start::Run | Start::Pass(_) | Start::Forward, true) => self.agent.app(&words).unwrap(),
            (Start::Inherit, _) => {
                let run = self.agent.app(&words).unwrap();
                let run: Vec<&str> = std::iter::once(run.get_program())
                    .chain(run.get_args())
                    .filter_map(|word| word.to_str())
                    .collect();
                let start = [PYTHON, FRIEND, &self.far.v4, "start"];
                own(&plain, &[&start[..], if labelled { &run } else { &words }].concat())
            }
        };
        if labelled {
            command.env("LABELLED", "1");
        }
        let before = self.far.packets().unwrap();
        let output = command.output().unwrap();
        let mut word = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if word.is_empty() {
            word = format!("failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let packets = self.far.packets().unwrap() - before;
        // Connections that the friend had before do not count, and end with it.
        drop(friend);
        Seen { word, packets }
    }

    fn friend(&self, start: Start, plain: &str) -> Option<Friend> {
        let path = self.lab.dir().join("friend.sock");
        let _ = std::fs::remove_file(&path);
        let path = path.to_str().unwrap().to_owned();
        let words: &[&str] = match start {
            Start::Pass(kind) => &["pass", &path, kind],
            Start::Beside => &["hold", NOBODY],
            Start::Forward => &["forward"],
            Start::Run | Start::Join | Start::Leave | Start::Inherit => return None,
        };
        Some(Friend::start(plain, &self.far.v4, words))
    }

    fn argument(&self, start: Start, labelled: bool, friend: Option<&Friend>) -> Option<String> {
        let said = friend.map(|friend| friend.said.clone());
        match start {
            Start::Run | Start::Inherit => None,
            Start::Join => Some(self.cgroup(if labelled { "weir.run/app/late" } else { "plain" })),
            Start::Leave => Some(self.cgroup("plain")),
            Start::Pass(_) => Some(self.lab.dir().join("friend.sock").to_str().unwrap().to_owned()),
            Start::Beside | Start::Forward => said,
        }
    }

    fn cgroup(&self, name: &str) -> String {
        let folder: PathBuf = self.lab.cgroups().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder.to_str().unwrap().to_owned()
    }

    fn run_as_nobody(&self) -> Vec<String> {
        let weir = weir_tests::agent::weir().unwrap();
        let config = self.agent.config.to_str().unwrap();
        let words =
            [weir.to_str().unwrap(), "run", "--config", config, "--workload", "app", "--user", NOBODY, "--"];
        words.map(str::to_owned).into()
    }
}

/// A command in an unlabelled cgroup below the attach point: sockets born outside it are not the fence's.
fn own(plain: &str, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\"", plain]).args(words);
    command
}

/// An unlabelled process that ends with its owner.
struct Friend {
    child: Child,
    said: String,
}

impl Friend {
    fn start(plain: &str, far: &str, words: &[&str]) -> Friend {
        let mut command = own(plain, &[&[PYTHON, FRIEND, far], words].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        Friend { child, said: said.trim().to_owned() }
    }
}

impl Drop for Friend {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
