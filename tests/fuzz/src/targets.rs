//! THE list of fuzz targets. A new parser gets a file here and a line in the list.

use crate::Target;

mod detect;
mod mask;
mod sniff;

pub const TARGETS: &[Target] = &[
    Target { name: "detect", run: detect::run, seeds: detect::SEEDS },
    Target { name: "mask", run: mask::run, seeds: detect::SEEDS },
    Target { name: "sniff", run: sniff::run, seeds: sniff::SEEDS },
];
