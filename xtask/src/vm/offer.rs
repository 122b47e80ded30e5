//! Which package stands for which series of kernels. It refuses debug packages, meta packages and release candidates.

use std::fmt;

/// A series as the user writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Series {
    /// `6.12`
    Of(u32, u32),
    /// `newest`
    Newest,
}

impl Series {
    pub(super) fn parse(text: &str) -> Option<Series> {
        if text == "newest" {
            return Some(Series::Newest);
        }
        let (major, minor) = text.split_once('.')?;
        Some(Series::Of(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Series::Of(major, minor) => write!(f, "{major}.{minor}"),
            Series::Newest => f.write_str("newest"),
        }
    }
}

/// The newest package of a series.
pub(super) fn choose(packages: &[String], wanted: Series) -> Option<&str> {
    let fits = |numbers: &[u32]| match wanted {
        Series::Of(major, minor) => numbers[0] == major && numbers[1] == minor,
        Series::Newest => true,
    };
    let kernels = packages.iter().filter_map(|package| Some((release(package)?, package)));
    let fitting = kernels.map(|(release, package)| (numbers(release), package));
    // Of two builds of one version the signed one, whose name is shorter.
    let best = fitting
        .filter(|(numbers, _)| numbers.len() > 2 && fits(numbers))
        .max_by(|(a, name_a), (b, name_b)| a.cmp(b).then(name_b.len().cmp(&name_a.len())));
    best.map(|(_, package)| package.as_str())
}

/// The oldest package of a newer series.
pub(super) fn nearest(packages: &[String], wanted: Series) -> Option<&str> {
    let Series::Of(major, minor) = wanted else { return None };
    let series = packages.iter().filter_map(|package| {
        let numbers = numbers(release(package)?);
        Some((*numbers.first()?, *numbers.get(1)?)).filter(|_| numbers.len() > 2)
    });
    let (major, minor) = series.filter(|found| *found > (major, minor)).min()?;
    choose(packages, Series::Of(major, minor))
}

/// `6.1.0-56-cloud-amd64` of a package's name, when it is a cloud kernel.
fn release(package: &str) -> Option<&str> {
    let rest = package.strip_prefix("linux-image-")?;
    let rest = rest.strip_suffix("-unsigned").unwrap_or(rest);
    rest.strip_suffix("-cloud-amd64").filter(|release| !release.contains("rc"))
}

/// The numbers of a release in their order: what decides which one is newer.
pub(super) fn numbers(release: &str) -> Vec<u32> {
    release.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERS: [&str; 13] = [
        "linux-image-5.10.0-46-cloud-amd64",
        "linux-image-5.10.0-9-cloud-amd64",
        "linux-image-6.1-cloud-amd64",
        "linux-image-6.1.0-0.deb11.52-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64-unsigned",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64-dbg",
        "linux-image-6.12.99+deb12-cloud-amd64",
        "linux-image-6.12.117+deb13-cloud-amd64",
        "linux-image-7.2.12+deb13-cloud-amd64",
        "linux-image-7.3-cloud-amd64",
        "linux-image-7.3~rc7-cloud-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64-dbg",
    ];

    fn offers() -> Vec<String> {
        OFFERS.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_newest_of_a_series_is_chosen_by_number() {
        let offers = offers();
        let chosen = |series: &str| choose(&offers, Series::parse(series).unwrap());
        assert_eq!(chosen("5.10"), Some("linux-image-5.10.0-46-cloud-amd64"));
        assert_eq!(chosen("6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(chosen("6.12"), Some("linux-image-6.12.117+deb13-cloud-amd64"));
        assert_eq!(chosen("newest"), Some("linux-image-7.2.12+deb13-cloud-amd64"));
        assert_eq!(chosen("5.15"), None);
    }

    #[test]
    fn the_nearest_newer_one_is_named() {
        let offers = offers();
        let nearest = |series: &str| nearest(&offers, Series::parse(series).unwrap());
        assert_eq!(nearest("5.15"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(nearest("6.18"), Some("linux-image-7.2.12+deb13-cloud-amd64"));
        assert_eq!(nearest("8.0"), None);
    }
}
