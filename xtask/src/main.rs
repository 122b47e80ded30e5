//! `cargo xtask …`: everything about the project that is not the product. It refuses shell scripts.

use std::process::ExitCode;

mod setup;

const USAGE: &str = "\
cargo xtask setup    install what building and testing needs, and say what and why
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let done = match arguments.next().as_deref() {
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
