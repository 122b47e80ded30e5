//! `cargo xtask demo [--check]`: the main job on real parts: PostgreSQL, nginx, ClickHouse's engine, unmodified psql and curl.
//! `--check` runs it unattended, asserts each step, prints one JSON object of figures. It refuses to simulate anything.

use std::io::IsTerminal;
use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::{Map, Value};

mod scene;
mod steps;

use scene::Scene;

/// Runs the demo.
pub fn run(arguments: &[String]) -> Result<()> {
    let check = match arguments {
        [] => false,
        [only] if only == "--check" => true,
        other => bail!("demo knows no {other:?}; only --check"),
    };
    crate::setup::run()?;
    crate::build::weir()?;
    let began = Instant::now();
    let mut telling = Telling { check, figures: Map::new(), number: 0 };
    let scene = Scene::set(&mut telling)?;
    steps::all(&scene, &mut telling)?;
    telling.figure("seconds", began.elapsed().as_secs_f64());
    if check {
        println!("{}", Value::Object(telling.figures));
    } else {
        eprintln!("{EPILOGUE}");
    }
    Ok(())
}

/// What the demo says on the way (standard error) and in the end (figures, standard output).
pub(crate) struct Telling {
    check: bool,
    figures: Map<String, Value>,
    number: u32,
}

impl Telling {
    fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.into(), value.into());
    }

    fn step(&mut self, title: &str) {
        self.number += 1;
        eprintln!("\n── {}. {title}", self.number);
    }

    /// Where somebody watches: leaves an act to them until they press Enter.
    fn let_somebody_else(&self, hint: &str) -> Result<()> {
        if !self.check && std::io::stdin().is_terminal() {
            eprintln!("   ({hint})");
            std::io::stdin().read_line(&mut String::new())?;
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        for line in text.trim_end().lines() {
            eprintln!("   {line}");
        }
    }
}

const EPILOGUE: &str = "
Where to look next
  README.md             the same, step by step, on a host of your own
  policies/             packs to start from, with their tests
  ARCHITECTURE.md       the life of a connection through the files
  THREATS.md            every way round that we know, and what stops it
  cargo xtask test      everything that is claimed, on real servers";
