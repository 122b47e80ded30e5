//! `weir ca` and `weir check` as people run them. The trust store is a copy in a private mount namespace: the host keeps its own.

use std::path::Path;
use std::process::{Command, Output};

fn configure(dir: &Path) -> String {
    let at = dir.display();
    std::fs::create_dir_all(dir.join("policies")).unwrap();
    let text = format!(
        "node: test-node\npolicies: {at}/policies\naudit: {{dir: {at}/audit}}\ntls: {{dir: {at}/ca}}\n"
    );
    let path = dir.join("weir.yaml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().unwrap()
}

#[test]
fn there_is_no_ca_until_someone_makes_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = configure(dir.path());
    for action in [&["show"][..], &["export"]] {
        let output = weir(&[&["--config", &config, "ca"], action].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("weir ca install"));
    }
}

#[test]
fn installing_makes_the_host_trust_and_uninstalling_ends_it() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/sbin/update-ca-certificates").exists() {
        println!("not run: needs root and Debian's ca-certificates");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = configure(dir.path());
    // Prints: trusted after install; still trusted by OpenSSL itself; trusted after uninstall.
    let script = r#"
        set -eu
        weir=$1 config=$2 store=$3
        mkdir "$store" && cp -a /etc/ssl/certs "$store/certs"
        mount --bind "$store/certs" /etc/ssl/certs
        mkdir "$store/local" && mount --bind "$store/local" /usr/local/share/ca-certificates
        "$weir" --config "$config" ca install > /dev/null
        "$weir" --config "$config" --json ca show
        openssl verify -CApath /etc/ssl/certs "$(dirname "$config")/ca/ca.pem"
        "$weir" --config "$config" ca export --out "$store/out.pem"
        cmp "$store/out.pem" "$(dirname "$config")/ca/ca.pem"
        "$weir" --config "$config" ca install --uninstall > /dev/null
        "$weir" --config "$config" --json ca show
        ls /usr/local/share/ca-certificates
    "#;
    let store = dir.path().join("store").display().to_string();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_weir"), &config, &store])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().collect();
    let [installed, verified, uninstalled] = lines.as_slice() else { panic!("{text}") };
    assert!(installed.contains("\"trusted\":true") && installed.contains("weir CA test-node"), "{installed}");
    assert!(verified.ends_with(": OK"), "{verified}");
    assert!(uninstalled.contains("\"trusted\":false"), "{uninstalled}");
    assert!(
        !Path::new("/usr/local/share/ca-certificates/weir-test-node.crt").exists(),
        "the host's own store"
    );
}

#[test]
fn check_names_what_is_missing_and_fails_for_what_is_essential() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent.yaml").display().to_string();
    let output = weir(&["--config", &absent, "--json", "check"]);
    assert_eq!(output.status.code(), Some(1));
    let rows = rows(&output);
    let row = rows.iter().find(|row| row["what"] == "configuration").unwrap();
    assert_eq!(row["state"], "MISSING");

    let config = configure(dir.path());
    let output = weir(&["--config", &config, "--json", "check"]);
    let rows = self::rows(&output);
    for what in [
        "kernel",
        "cgroup v2",
        "bpffs",
        "CAP_BPF",
        "clock",
        "host CA",
        "policies",
        "audit.dir",
        "DNS servers",
    ] {
        let row = rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("no row {what}"));
        let is_good = row["state"] == "ok";
        assert_eq!(
            row["lost"] == "",
            is_good,
            "{row}: what is lost is told exactly when something is missing"
        );
        assert_eq!(row["do"] == "", is_good, "{row}");
    }
    let missing = rows.iter().any(|row| row["state"] == "MISSING");
    assert_eq!(output.status.code(), Some(i32::from(missing)));
    let table = String::from_utf8(weir(&["--config", &config, "check"]).stdout).unwrap();
    assert!(table.contains("lost without it") && table.contains("weir can"), "{table}");
}

fn rows(output: &Output) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
