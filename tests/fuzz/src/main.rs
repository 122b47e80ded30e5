//! `weir-fuzz SECONDS [TARGET…]`: the plain driver; one line a target, status 1 when one breaks.
//! `weir-fuzz --list` prints the names.

use std::process::ExitCode;
use std::time::Duration;

use weir_fuzz::{TARGETS, Target, plain};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    let Some(seconds) = arguments.first().and_then(|seconds| seconds.parse().ok()) else {
        eprintln!("usage: weir-fuzz SECONDS [TARGET…] | --list");
        return ExitCode::from(2);
    };
    let names = arguments.get(1..).unwrap_or_default();
    if let Some(unknown) = names.iter().find(|name| Target::named(name).is_none()) {
        eprintln!("no fuzz target is named {unknown}");
        return ExitCode::from(2);
    }
    let chosen =
        TARGETS.iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target.name));
    let mut code = ExitCode::SUCCESS;
    for target in chosen {
        match plain::run(target, Duration::from_secs(seconds), 1) {
            Ok(report) => println!("{} ok {} {}", target.name, report.runs, report.slowest.as_micros()),
            Err(crash) => {
                println!("{} crash {}", target.name, crash.input.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
