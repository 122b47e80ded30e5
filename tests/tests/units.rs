//! The systemd units as they are shipped: sound to systemd, and with the powers that they leave the agent serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_tests::agent::weir;
use weir_tests::process::{Server, until};
use weir_tests::{Agent, Lab, Setup, Web, policies};

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent").join(name)
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let lab = Lab::new("units").unwrap();
    let names = ["weir.service", "weir-fence.service"];
    for name in names {
        // The program need not be installed for this.
        let text = fs::read_to_string(unit(name)).unwrap().replace("/usr/local/bin/weir", "/bin/true");
        lab.write(name, &text).unwrap();
    }
    let verify = || {
        let paths = names.map(|name| lab.dir().join(name));
        let output =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).args(paths).output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(verify(), "");
    // The control: it would tell.
    let broken =
        fs::read_to_string(lab.dir().join(names[0])).unwrap().replace("Restart=always", "Restart=maybe");
    lab.write(names[0], &broken).unwrap();
    assert!(verify().contains("maybe"), "{}", verify());
}

/// What follows `CapabilityBoundingSet=` in a unit, as `setpriv --bounding-set` takes it.
fn bounding_set(name: &str) -> String {
    let text = fs::read_to_string(unit(name)).unwrap();
    let names = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    let names = names.split(' ').map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    std::iter::once("-all".to_owned()).chain(names).collect()
}

#[test]
fn with_the_capabilities_of_the_units_the_fence_rises_and_the_agent_serves() {
    let lab = Lab::new("unit-powers").unwrap();
    let web = Web::start(&lab).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(web.port));
    let mut agent = Agent::start(&lab, &setup).unwrap();
    agent.server().kill();
    let limited = |name: &str, command: &str| {
        let mut limited = Command::new("setpriv");
        limited.arg(format!("--bounding-set={}", bounding_set(name))).arg("--no-new-privs");
        limited.arg(weir().unwrap()).args([command, "--config"]).arg(&agent.config);
        limited
    };
    let raised = limited("weir-fence.service", "fence").output().unwrap();
    assert!(raised.status.success(), "{raised:?}");
    let checked = limited("weir.service", "check").output().unwrap();
    assert!(checked.status.success(), "{checked:?}");

    let url = format!("http://127.0.0.1:{}/text", web.port);
    let curl = ["curl", "-s", "-m", "5", &url];
    assert_ne!(agent.run(&curl).unwrap().code, 0, "the fence is closed until the agent serves");
    let log = lab.dir().join("limited.log");
    let mut server = Server::start(&mut limited("weir.service", "agent"), &log).unwrap();
    until("the agent serves", || agent.run(&curl).is_ok_and(|done| done.out.trim() == "write to [EMAIL]"))
        .unwrap();
    server.signal(libc::SIGTERM);
    assert!(server.wait().unwrap().success(), "{}", fs::read_to_string(log).unwrap());
}
