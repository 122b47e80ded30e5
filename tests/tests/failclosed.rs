//! States of a broken agent: a labelled process tries to get out the whole time, and the far host sees nothing of it.
//! An unlabelled process tries the same in the same state, and gets through.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir_tests::agent::weir;
use weir_tests::{Agent, Far, Lab, Setup, maps, policies};

const HAMMER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/hammer.py");
/// How long each state is tried, and the control beside it.
const SECONDS: &str = "2.5";
const CONTROL_SECONDS: &str = "0.3";

struct Stage {
    // Dropped in this order: what the lab removes is used by none of the others any more.
    agent: Option<Agent>,
    far: Far,
    lab: Lab,
}

/// A process in a cgroup of the lab that tries to reach the far host.
struct Hammer(Child);

impl Hammer {
    fn start(stage: &Stage, cgroup: &str, seconds: &str) -> Hammer {
        let folder = stage.lab.cgroups().join(cgroup);
        std::fs::create_dir_all(&folder).unwrap();
        let join = "echo 0 > \"$0/cgroup.procs\" && exec python3 \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", join]).arg(folder).args([HAMMER, &stage.far.v4, &stage.far.v6, seconds]);
        Hammer(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    fn tally(self) -> (u64, u64) {
        let output = self.0.wait_with_output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        (told["tried"].as_u64().unwrap(), told["through"].as_u64().unwrap())
    }
}

impl Stage {
    fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().unwrap()
    }

    fn restart(&mut self) {
        let (config, policies) = (self.lab.dir().join("weir.yaml"), self.lab.dir().join("policies"));
        self.agent = None;
        self.agent = Some(Agent::restart(&self.lab, config, policies).unwrap());
    }

    /// The labelled one alone, so that the far host's count is its; `during` runs meanwhile.
    fn closed(&mut self, state: &str, during: impl FnOnce(&mut Stage)) {
        self.closed_in("weir.run/app/hammer", state, during);
    }

    fn closed_in(&mut self, cgroup: &str, state: &str, during: impl FnOnce(&mut Stage)) {
        self.far.settle().unwrap();
        let before = self.far.packets().unwrap();
        let hammer = Hammer::start(self, cgroup, SECONDS);
        during(self);
        let (tried, through) = hammer.tally();
        let packets = self.far.packets().unwrap() - before;
        let control = Hammer::start(self, "plain", CONTROL_SECONDS);
        let (_, open) = control.tally();
        self.far.settle().unwrap();
        let seen = self.far.packets().unwrap() - before - packets;
        println!(
            "{state:<18} labelled: {tried:>5} tries, {through} through, {packets} packets   unlabelled: {open} through, {seen} packets"
        );
        assert!(tried > 20, "{state}: the labelled process hardly tried");
        assert_eq!((through, packets), (0, 0), "{state}: it leaks");
        assert!(open > 0 && seen > 0, "{state}: the control does not get through, so this proves nothing");
    }
}

#[test]
fn nothing_leaves_a_labelled_workload_in_seven_states_of_a_broken_agent() {
    let lab = Lab::new("failclosed").unwrap();
    let mut setup =
        Setup::default().policy("classes.yaml", policies::CLASSES).policy("web.yaml", &policies::web(9));
    setup.extra = "workloads: [{name: app}, {name: units, cgroup: \"units/pay*.service\"}]\n".into();
    // The agent's files are written by its first start; it is ended at once, and its fence lifted.
    let agent = Agent::start(&lab, &setup).unwrap();
    assert_eq!(agent.weir(&["detach"]).unwrap().code, 0);
    let mut stage = Stage { agent: Some(agent), far: Far::start().unwrap(), lab };
    stage.agent = None;
    let config = stage.lab.dir().join("weir.yaml");
    println!();

    let raised = Command::new(weir().unwrap()).arg("fence").arg("--config").arg(&config).output().unwrap();
    assert!(raised.status.success(), "{raised:?}");
    stage.closed("never started", |_| {});

    stage.restart();
    stage.closed("killed", |stage| stage.agent().server().kill());

    // A service that starts anew while nobody lives to label it: its cgroup is another one, made this moment.
    stage.closed_in("units/pay-2.service", "killed, new unit", |_| {});

    stage.restart();
    stage.closed("stopped", |stage| stage.agent().server().signal(libc::SIGSTOP));
    stage.agent().server().signal(libc::SIGCONT);

    stage.closed("crash-looping", |stage| {
        for life in 0..8 {
            stage.agent = None;
            let mut command = Command::new(weir().unwrap());
            command.arg("agent").arg("--config").arg(&config).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            // Each life ends at another point of the start.
            std::thread::sleep(Duration::from_millis(40 * life));
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });

    stage.restart();
    stage.closed("mid-upgrade", |stage| {
        for _ in 0..5 {
            let done = stage.agent().weir(&["upgrade"]).unwrap();
            assert_eq!(done.code, 0, "{done:?}");
        }
    });

    let layout = stage.lab.pins().unwrap();
    for map in ["HANDSHAKES", "LISTENERS", "LABELS"] {
        let count = maps::fill(&layout.join(map)).unwrap();
        stage.closed(&format!("full {map}"), |_| assert!(count > 1000, "{map} took {count}"));
        if map == "LABELS" {
            // Its cgroup is made now, and finds no room.
            stage.closed_in("units/pay-3.service", "full LABELS, unit", |_| {});
        }
        stage.agent = None;
        assert!(
            Command::new(weir().unwrap())
                .args(["detach", "--config"])
                .arg(&config)
                .status()
                .unwrap()
                .success()
        );
        stage.restart();
    }

    let policies = stage.lab.dir().join("policies");
    stage.closed("policy unreadable", |stage| {
        std::fs::rename(&policies, stage.lab.dir().join("elsewhere")).unwrap();
        stage.agent().server().kill();
        let (config, policies) = (config.clone(), policies.clone());
        assert!(Agent::restart(&stage.lab, config, policies).is_err(), "it started without a policy");
    });
}
