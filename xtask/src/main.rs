//! `cargo xtask …`: everything about the project that is not the product. It refuses shell scripts.

use std::process::ExitCode;

mod bench;
mod build;
mod demo;
mod fuzz;
mod setup;
mod test;
mod tidy;
mod vm;

const USAGE: &str = "\
cargo xtask setup              install what building and testing needs, and say what and why
cargo xtask demo [--check]     the main job on real parts; --check asserts every step and prints figures as JSON
cargo xtask test [NAME…]       set up and pass everything: house rules, units, fuzz, fence, black box
cargo xtask tidy               the house rules that a machine can hold
cargo xtask fuzz [--seconds N] [TARGET…]
cargo xtask bench [NAME] [--json] [--rounds N] [--seconds S]   beside direct, pgbouncer and haproxy
cargo xtask vm [--json] [--deb FILE[,FILE]] [SERIES…]   the fence on real kernels under qemu: what works where, what is lost
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match arguments.first().map(String::as_str) {
        Some("setup") => setup::run(),
        Some("demo") => demo::run(rest),
        Some("test") => test::run(rest),
        Some("tidy") => tidy::run(rest),
        Some("bench") => bench::run(rest),
        Some("fuzz") => fuzz::run(rest),
        Some("vm") => vm::run(rest),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        other => {
            eprint!("xtask: no command {:?}\n{USAGE}", other.unwrap_or(""));
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("xtask: {fault:#}");
            ExitCode::from(1)
        }
    }
}
