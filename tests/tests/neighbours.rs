//! The fence's hooks while an agent lives: programs of others are noticed, and what is taken off is put back.

use std::process::Command;

use weir_tests::process::until;
use weir_tests::{Agent, Lab, Setup, Web, policies};

fn foreign(agent: &Agent) -> String {
    agent.status().unwrap()["foreign_programs"].to_string()
}

#[test]
fn somebody_elses_program_beside_the_fence_is_told() {
    let lab = Lab::new("neighbours").unwrap();
    let setup =
        Setup::default().policy("classes.yaml", policies::CLASSES).policy("web.yaml", &policies::web(9));
    let agent = Agent::start(&lab, &setup).unwrap();
    assert_eq!(foreign(&agent), "[]", "nobody but weir is there");

    // Another fence, closed, on the very cgroup of the workload: to the first one it is somebody else's.
    let dir = lab.dir().display();
    let attach = format!("{}/weir.run/app", lab.attach());
    let text = format!(
        "node: other\npolicies: {dir}/policies\naudit: {{dir: {dir}/other}}\ncontrol: {dir}/other.sock\n\
         fence: {{attach: {attach}, bpffs: {dir}/bpf/other}}\nworkloads: [{{name: none}}]\n"
    );
    let config = lab.write("other.yaml", &text).unwrap();
    let other = |word: &str| {
        let done =
            Command::new(weir_tests::agent::weir().unwrap()).args([word, "--config"]).arg(&config).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    other("fence");
    until("the status names them", || {
        ["connect4", "sendmsg6"].iter().all(|hook| foreign(&agent).contains(hook))
    })
    .unwrap();
    let rows = agent.audited("SELECT reason FROM audit WHERE method = 'neighbour'").unwrap();
    assert!(rows[0]["reason"].as_str().unwrap().contains("of somebody else's runs at"), "{rows:?}");
    other("detach");
    until("they are gone", || foreign(&agent) == "[]").unwrap();
}

/// Takes the program of a pinned link off its hook (bpf(2): `BPF_OBJ_GET`, `BPF_LINK_DETACH`).
const DETACH: &str = r#"
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, *words):
    attr = ctypes.create_string_buffer(struct.pack(*words), 128)
    done = libc.syscall(321, command, attr, 128)
    assert done >= 0, ctypes.get_errno()
    return done
path = ctypes.create_string_buffer(sys.argv[1].encode())
bpf(34, "I", bpf(7, "QII", ctypes.addressof(path), 0, 0))
"#;

#[test]
fn what_is_taken_from_the_fence_is_put_back() {
    let lab = Lab::new("taken").unwrap();
    let web = Web::start(&lab).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(web.port));
    let mut agent = Agent::start(&lab, &setup).unwrap();
    let url = format!("http://127.0.0.1:{}/text", web.port);
    let curl = ["curl", "-s", "-m", "5", &url];
    let weir_says = "write to [EMAIL]";
    let told = |count: usize| {
        let rows = agent.audited("SELECT reason, decision FROM audit WHERE method = 'fence'").unwrap();
        (rows.len() == count).then(|| rows[count - 1]["reason"].as_str().unwrap().to_owned())
    };
    let pins = lab.pins().unwrap();

    // A program that is off its hook: for a moment the workload goes direct.
    let pin = pins.join("connect4");
    let taken = Command::new("python3").args(["-c", DETACH]).arg(&pin).status().unwrap();
    assert!(taken.success());
    until("the program is back", || told(1).is_some_and(|words| words.ends_with("are back: connect4")))
        .unwrap();
    assert_eq!(agent.run(&curl).unwrap().out.trim(), weir_says);

    // Every pin: nothing opens, not even when the agent dies.
    let count = std::fs::read_dir(&pins).unwrap().count();
    let aside = pins.with_file_name("aside");
    std::fs::rename(&pins, &aside).unwrap();
    std::fs::remove_dir_all(&aside).unwrap();
    until("the pins are back", || told(2).is_some_and(|words| words.contains("egress"))).unwrap();
    assert_eq!(std::fs::read_dir(&pins).unwrap().count(), count);
    assert_eq!(agent.run(&curl).unwrap().out.trim(), weir_says);
    let status = agent.weir(&["status", "--json"]).unwrap();
    assert_eq!(status.code, 0, "all is well again: {status:?}");
    agent.server().kill();
    let direct = Command::new(curl[0]).args(&curl[1..]).output().unwrap();
    assert!(direct.status.success(), "unlabelled: {direct:?}");
    let refused = agent.run(&curl).unwrap();
    assert_ne!(refused.code, 0, "{refused:?}");
}
