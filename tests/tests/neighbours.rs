//! Programs of others on the fence's hooks are noticed, in the status and in the audit.

use std::process::Command;

use weir_tests::process::until;
use weir_tests::{Agent, Lab, Setup, policies};

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
