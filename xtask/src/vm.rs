//! `cargo xtask vm [--json] [--deb FILE[,FILE]]… [SERIES…]`: boots real kernels under qemu and in each runs `weir check`, the
//! fence's tests and `weir agent`; prints what works where, and what is lost. It refuses to touch the host's apt lists, to
//! give the guests a network, and to call a kernel refused unless `weir check` names what it lacks.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{build, setup};

mod guest;
mod image;
mod kernel;
mod matrix;
mod mirror;
mod offer;

use kernel::Kernel;
use matrix::{Row, Verdict};
use offer::Series;

/// What is run, and what stands in for a series that nobody offers any more.
const SERIES: [&str; 6] = ["5.10", "5.15", "6.1", "6.12", "6.18", "newest"];

const PACKAGES: [(&str, &str); 6] = [
    ("qemu-system-x86", "vm: the machine the kernels run on"),
    ("busybox-static", "vm: the guests' init and shell"),
    ("cpio", "vm: the guests' root"),
    ("kmod", "vm: which kernel modules need which"),
    ("binutils", "vm: the guests' binaries without debug sections"),
    ("xz-utils", "vm: kernel modules come compressed"),
];

/// A kernel and the series it stands for.
type Named = (String, Kernel);

/// Boots every wanted kernel.
pub fn run(arguments: &[String]) -> Result<()> {
    let wish = Wish::parse(arguments)?;
    setup::need(&PACKAGES)?;
    let folder = build::root().canonicalize()?.join("target/vm");
    let (kernels, mut rows) = kernels(&wish, &folder)?;
    let base = image::Base::build(&folder)?;
    for (name, kernel) in kernels {
        let began = Instant::now();
        eprintln!("vm: {name}: {} …", kernel.release);
        let report = guest::boot(&base, &kernel, &folder)?;
        let row = Row::of(&name, &kernel.release, &report, began.elapsed());
        eprintln!("vm: {name}: {} ({} s)", row.verdict.text(), row.took.as_secs());
        rows.push(row);
    }
    rows.sort_by_key(|row| offer::numbers(&row.kernel));
    print!("{}", if wish.json { matrix::json(&rows) } else { matrix::table(&rows) });
    println!("logs: {}", folder.join("logs").display());
    let failed: Vec<&str> =
        rows.iter().filter(|row| matches!(row.verdict, Verdict::Failed(_))).map(|row| &*row.kernel).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    if !rows.iter().any(|row| matches!(row.verdict, Verdict::Works { .. })) {
        bail!("no kernel was tested");
    }
    Ok(())
}

/// The kernels to boot, oldest first, each with the series it stands for; and a row for each series not to be had.
fn kernels(wish: &Wish, folder: &Path) -> Result<(Vec<Named>, Vec<Row>)> {
    let (mut kernels, mut rows) = (Vec::new(), Vec::new());
    for debs in &wish.debs {
        let kernel = Kernel::unpack(debs, folder)?;
        kernels.push((kernel.release.clone(), kernel));
    }
    if wish.series.is_empty() {
        return Ok((kernels, rows));
    }
    let mirror = mirror::Mirror::open(folder)?;
    let offers = mirror.kernels()?;
    let mut taken = Vec::new();
    for wanted in &wish.series {
        let found = offer::choose(&offers, *wanted);
        match found {
            Some(package) if taken.contains(&package) => {}
            Some(package) => {
                eprintln!("vm: {wanted}: {package}");
                kernels.push((wanted.to_string(), Kernel::fetch(&mirror, package, folder)?));
                taken.push(package);
            }
            None => {
                let nearest = offer::nearest(&offers, *wanted);
                eprintln!(
                    "vm: {wanted}: not on offer; the nearest newer one is {}",
                    nearest.unwrap_or("none")
                );
                rows.push(Row::absent(*wanted, nearest));
            }
        }
    }
    Ok((kernels, rows))
}

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    json: bool,
    /// A kernel each: its packages.
    debs: Vec<Vec<PathBuf>>,
    series: Vec<Series>,
}

impl Wish {
    fn parse(arguments: &[String]) -> Result<Wish> {
        let mut wish = Wish { json: false, debs: Vec::new(), series: Vec::new() };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--json" => wish.json = true,
                "--deb" => {
                    let files = rest.next().context("--deb needs a kernel's packages")?;
                    wish.debs.push(files.split(',').map(PathBuf::from).collect());
                }
                series => {
                    let parsed = Series::parse(series);
                    wish.series.push(parsed.with_context(|| format!("vm knows no {series}"))?);
                }
            }
        }
        if wish.series.is_empty() && wish.debs.is_empty() {
            wish.series = SERIES.iter().filter_map(|series| Series::parse(series)).collect();
        }
        Ok(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_is_understood_or_refused() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let all = Wish::parse(&[]).unwrap();
        assert_eq!((all.series.len(), all.json), (SERIES.len(), false));
        let some = Wish::parse(&words("--json 6.1 newest")).unwrap();
        assert_eq!(some.series, [Series::Of(6, 1), Series::Newest]);
        let own = Wish::parse(&words("--deb k.deb,m.deb")).unwrap();
        assert!(own.series.is_empty() && own.debs == [["k.deb", "m.deb"].map(PathBuf::from).to_vec()]);
        assert!(Wish::parse(&words("6.x")).is_err());
        assert!(Wish::parse(&words("--deb")).is_err());
        assert!(Wish::parse(&words("--fast")).is_err());
    }
}
