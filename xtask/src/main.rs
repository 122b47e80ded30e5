//! `cargo xtask …`: everything about the project that is not the product. It refuses shell scripts.

use std::process::ExitCode;

mod bench;
mod setup;

const USAGE: &str = "\
cargo xtask bench    weir beside no proxy and its peers [--rounds N] [--seconds S] [--only NAME] [--json]
cargo xtask setup    install what building and testing needs, and say what and why
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next().as_deref() {
        Some("bench") => bench::run(&arguments.collect::<Vec<_>>()),
        Some("setup") => setup::run(),
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
