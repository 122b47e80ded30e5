//! Runs a target on seeds and mutations for a fixed time, and catches panics and hangs.
//! It refuses to explore by coverage: that is libFuzzer's work. It needs nothing but the stable compiler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Target;
use crate::mutate::{Dice, mutate};

/// One input may take this long; parsers take microseconds.
const HANG: Duration = Duration::from_secs(10);
/// Inputs kept to mutate from.
const POOL: usize = 512;

/// What a run did.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub runs: u64,
    pub slowest: Duration,
}

/// An input that broke a promise, and where it was written.
#[derive(Debug)]
pub struct Crash {
    pub input: PathBuf,
}

/// Runs the target until the time is over.
///
/// # Errors
/// The input that made the target panic. A hang ends the process with status 1, for nothing can stop the thread.
pub fn run(target: &Target, time: Duration, seed: u64) -> Result<Report, Crash> {
    let watch = Watch::start(target.name);
    let result = explore(target, time, seed, &watch);
    watch.stop();
    result
}

fn explore(target: &Target, time: Duration, seed: u64, watch: &Watch) -> Result<Report, Crash> {
    let mut pool = seeds(target);
    let (begin, mut dice) = (Instant::now(), Dice::new(seed));
    let mut report = Report { runs: 0, slowest: Duration::ZERO };
    let first = pool.clone();
    for input in first {
        once(target, &input, watch, &mut report)?;
    }
    while begin.elapsed() < time {
        let mut input = pool[dice.below(pool.len())].clone();
        mutate(&mut input, &pool, &mut dice);
        once(target, &input, watch, &mut report)?;
        // A random walk: some mutants become ancestors, in place of older mutants.
        if dice.below(16) == 0 {
            if pool.len() < POOL {
                pool.push(input);
            } else {
                let slot = dice.below(POOL);
                pool[slot] = input;
            }
        }
    }
    Ok(report)
}

fn once(target: &Target, input: &[u8], watch: &Watch, report: &mut Report) -> Result<(), Crash> {
    watch.begin(input);
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    watch.end();
    report.runs += 1;
    report.slowest = report.slowest.max(start.elapsed());
    outcome.map_err(|_| Crash { input: keep(target.name, input) })
}

/// Files of `tests/corpus/<target>/`, then the target's own seeds, then the empty input.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target.name);
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = files.map(|entry| entry.path()).collect();
    paths.sort();
    let mut seeds: Vec<_> = paths.iter().filter_map(|path| std::fs::read(path).ok()).collect();
    seeds.extend(target.seeds.iter().map(|seed| seed.to_vec()));
    seeds.push(Vec::new());
    seeds
}

/// Writes the input to `target/fuzz/crashes`, from where it should move to the corpus once it is mended.
fn keep(name: &str, input: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz/crashes");
    let sum = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let path = folder.join(format!("{name}-{sum:016x}"));
    if let Err(error) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input)) {
        eprintln!("{name}: the input could not be kept: {error}");
    }
    path
}

/// Ends the process when one input takes too long.
struct Watch {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Number of the current input: odd while one is running, `u64::MAX` when the run is over.
    turn: AtomicU64,
    input: Mutex<Vec<u8>>,
}

impl Watch {
    fn start(name: &'static str) -> Watch {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || {
            let (mut last, mut since) = (0, Instant::now());
            loop {
                std::thread::sleep(Duration::from_millis(100));
                let turn = seen.turn.load(Ordering::Acquire);
                if turn == u64::MAX {
                    return;
                }
                if turn != last {
                    (last, since) = (turn, Instant::now());
                } else if turn % 2 == 1 && since.elapsed() > HANG {
                    let input = seen.input.lock().unwrap_or_else(PoisonError::into_inner);
                    eprintln!("{name}: one input takes more than {HANG:?}: {}", keep(name, &input).display());
                    std::process::exit(1);
                }
            }
        });
        Watch { shared }
    }

    fn begin(&self, input: &[u8]) {
        let mut kept = self.shared.input.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clear();
        kept.extend_from_slice(input);
        self.shared.turn.fetch_add(1, Ordering::Release);
    }

    fn end(&self) {
        self.shared.turn.fetch_add(1, Ordering::Release);
    }

    fn stop(self) {
        self.shared.turn.store(u64::MAX, Ordering::Release);
    }
}
