//! `cargo xtask test [NAME…]`: sets up what is missing and passes everything, stage by stage, with the time each took.
//! It refuses to skip: a stage that cannot run fails and says what to install.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{build, fuzz, setup, tidy};

/// Name, what it proves, how it runs.
type Stage = (&'static str, &'static str, fn() -> Result<()>);

const STAGES: [Stage; 9] = [
    ("tidy", "house rules and the architecture's arrows", || tidy::run(&[])),
    ("build", "the product and the kernel programs", build::weir),
    ("unit", "every crate's own tests, properties and real-server tests", unit),
    ("policies", "the shipped packs and their tests", policies),
    ("fuzz", "ten seconds of mutations a parser", || fuzz::run(&["--plain".into()])),
    ("fence", "the kernel programs with real sockets", || {
        build::cargo(&["test", "--package", "weir", "--test", "fence"])
    }),
    ("bypass", "every known way round, labelled and unlabelled, with a far host as witness", bypass),
    ("closed", "nothing leaves in seven states of a broken agent", closed),
    ("blackbox", "the built binary, real servers, unmodified clients", blackbox),
];

/// Runs the named stages, all without a name.
pub fn run(arguments: &[String]) -> Result<()> {
    if let Some(unknown) = arguments.iter().find(|name| !STAGES.iter().any(|(stage, ..)| stage == name)) {
        let names: Vec<&str> = STAGES.iter().map(|(stage, ..)| *stage).collect();
        bail!("no stage {unknown}; there are {}", names.join(", "));
    }
    setup::run()?;
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for (name, what, stage) in STAGES {
        if !arguments.is_empty() && !arguments.iter().any(|wanted| wanted == name) {
            continue;
        }
        eprintln!("\n── {name}: {what}");
        let began = Instant::now();
        match stage() {
            Ok(()) => passed.push((name, began.elapsed())),
            Err(fault) => {
                eprintln!("{name}: {fault:#}");
                failed.push(name);
            }
        }
    }
    println!();
    for (name, took) in &passed {
        println!("{name:<10} passed in {:>4} s", took.as_secs());
    }
    println!("{} passed, {} failed", passed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Everything but the black box and the fence, which want the built binary and the kernel to themselves.
fn unit() -> Result<()> {
    build::cargo(&["test", "--workspace", "--exclude", "weir-tests", "--exclude", "weir", "--no-fail-fast"])?;
    let own = [
        "--lib",
        "--test",
        "ledger",
        "--test",
        "ship",
        "--test",
        "audit_cli",
        "--test",
        "ca",
        "--test",
        "tls",
    ];
    let others = ["--test", "upstream", "--test", "postgres_login", "--no-fail-fast"];
    build::cargo(&[&["test", "--package", "weir"], &own[..], &others[..]].concat())
}

fn policies() -> Result<()> {
    let weir = weir_tests::agent::weir()?;
    for command in ["check", "test"] {
        let mut packs = std::process::Command::new(&weir);
        packs.args(["policy", command]).arg(build::root().join("policies"));
        let status = packs.status().context("cannot start weir")?;
        if !status.success() {
            bail!("`weir policy {command} policies` failed");
        }
    }
    Ok(())
}

fn bypass() -> Result<()> {
    build::cargo(&["test", "--package", "weir-tests", "--test", "bypass", "--", "--nocapture"])
}

fn closed() -> Result<()> {
    build::cargo(&["test", "--package", "weir-tests", "--test", "failclosed", "--", "--nocapture"])
}

/// The ways round and the broken states are stages of their own. Two at a time: the tests measure nothing, but each starts servers of its own.
fn blackbox() -> Result<()> {
    let others =
        ["--", "--test-threads=2", "--skip", "every_known_way_round", "--skip", "nothing_leaves_a_labelled"];
    build::cargo(&[&["test", "--package", "weir-tests", "--no-fail-fast"], &others[..]].concat())
}
