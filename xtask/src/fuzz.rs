//! `cargo xtask fuzz [--seconds N] [--plain] [TARGET…]`: every target for N seconds (10), one table, status 1 on a crash.
//! libFuzzer drives where a C++ compiler can build it (stable Rust is enough); else, or with `--plain`, mutations do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

pub fn run(arguments: &[String]) -> Result<()> {
    let wish = Wish::parse(arguments)?;
    let names = names(&wish.targets)?;
    let driver = if wish.plain { None } else { libfuzzer() };
    println!("{:<20} {:>12} {:>12}   result ({})", "target", "inputs", "inputs/s", title(driver.is_some()));
    let mut crashed = Vec::new();
    for name in names {
        let outcome = match &driver {
            Some(binary) => guided(binary, &name, wish.seconds)?,
            None => plain(&name, wish.seconds)?,
        };
        let rate = outcome.inputs / wish.seconds.max(1);
        println!(
            "{name:<20} {:>12} {rate:>12}   {}",
            outcome.inputs,
            outcome.crash.as_deref().unwrap_or("ok")
        );
        crashed.extend(outcome.crash.map(|_| name));
    }
    if crashed.is_empty() { Ok(()) } else { bail!("crashed: {}", crashed.join(", ")) }
}

fn title(guided: bool) -> &'static str {
    if guided { "libFuzzer" } else { "plain mutations" }
}

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    seconds: u64,
    plain: bool,
    targets: Vec<String>,
}

impl Wish {
    fn parse(arguments: &[String]) -> Result<Wish> {
        let mut wish = Wish { seconds: 10, plain: false, targets: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--seconds" => {
                    let seconds = rest.next().context("--seconds needs a number")?;
                    wish.seconds =
                        seconds.parse().with_context(|| format!("{seconds} is no number of seconds"))?;
                }
                "--plain" => wish.plain = true,
                unknown if unknown.starts_with('-') => bail!("fuzz knows no {unknown}"),
                target => wish.targets.push(target.to_owned()),
            }
        }
        Ok(wish)
    }
}

struct Outcome {
    inputs: u64,
    /// Where the input that broke a promise is.
    crash: Option<String>,
}

/// The wanted targets, or all of them.
fn names(wanted: &[String]) -> Result<Vec<String>> {
    let output = fuzz(&["--list"]).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the fuzz targets do not build");
    }
    let all: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("no fuzz target is named {unknown}; there are: {}", all.join(", "));
    }
    Ok(if wanted.is_empty() { all } else { wanted.to_vec() })
}

/// The plain driver; optimised, with the checks of a debug build.
fn fuzz(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args([
        "run",
        "--quiet",
        "--release",
        "--package",
        "weir-fuzz",
        "--bin",
        "weir-fuzz",
        "--",
    ]);
    command
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_TARGET_DIR", root().join("target/fuzz"));
    command.args(arguments);
    command
}

fn plain(name: &str, seconds: u64) -> Result<Outcome> {
    let output =
        fuzz(&[&seconds.to_string(), name]).stderr(Stdio::null()).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words[..] {
        [_, "ok", inputs, ..] => Outcome { inputs: inputs.parse().unwrap_or(0), crash: None },
        [_, "crash", path, ..] => Outcome { inputs: 0, crash: Some(path.to_owned()) },
        _ => Outcome { inputs: 0, crash: Some(format!("the driver ended with {}", output.status)) },
    })
}

/// Coverage for libFuzzer: counters inline, comparisons traced. LLVM's own pass, so no nightly compiler is needed.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing";

/// Builds the guided driver; `None`, with the reason on screen, where that cannot be done.
fn libfuzzer() -> Option<PathBuf> {
    let folder = root().join("target/fuzz");
    // A target named explicitly keeps the flags away from build scripts, which have no driver to count for.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()).env("RUSTFLAGS", COVERAGE).env("CARGO_TARGET_DIR", &folder);
    // Optimising across crates would run after the coverage pass, and take minutes.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
    cargo.args(["build", "--quiet", "--release", "--package", "weir-fuzz", "--bin", "weir-libfuzzer"]);
    cargo.args(["--features", "libfuzzer", "--target", &triple]);
    let built = cargo.status().is_ok_and(|status| status.success());
    if !built {
        println!("libFuzzer cannot be built here (it needs a C++ compiler); using plain mutations");
    }
    built.then(|| folder.join(&triple).join("release/weir-libfuzzer"))
}

fn guided(binary: &Path, name: &str, seconds: u64) -> Result<Outcome> {
    let found = root().join("target/fuzz/corpus").join(name);
    let crashes = root().join("target/fuzz/crashes");
    let seeds = root().join("tests/corpus").join(name);
    std::fs::create_dir_all(&found)?;
    std::fs::create_dir_all(&crashes)?;
    let mut command = Command::new(binary);
    command.env("WEIR_FUZZ_TARGET", name).arg(&found);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    let prefix = format!("{}/{name}-", crashes.display());
    command.args([format!("-max_total_time={seconds}"), format!("-artifact_prefix={prefix}")]);
    command.args([
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=65536",
        "-print_final_stats=1",
        "-verbosity=0",
    ]);
    let output = command.output().context("cannot start the driver")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let inputs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let artifact = text
        .lines()
        .find_map(|line| line.split("Test unit written to ").nth(1))
        .unwrap_or("no input was kept");
    Ok(Outcome {
        inputs: inputs.and_then(|count| count.trim().parse().ok()).unwrap_or(0),
        crash: (!output.status.success()).then(|| artifact.to_owned()),
    })
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::Wish;

    fn parse(line: &str) -> Option<Wish> {
        Wish::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).ok()
    }

    #[test]
    fn arguments() {
        assert_eq!(parse(""), Some(Wish { seconds: 10, plain: false, targets: vec![] }));
        let wish = Wish { seconds: 3, plain: true, targets: vec!["detect".into()] };
        assert_eq!(parse("--seconds 3 --plain detect"), Some(wish));
        assert_eq!(parse("--seconds"), None);
        assert_eq!(parse("--second 3"), None);
    }
}
