//! The coverage-guided driver: runs the target that the variable `WEIR_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use weir_fuzz::Target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("WEIR_FUZZ_TARGET").unwrap_or_default();
        Target::named(&name).unwrap_or_else(|| panic!("WEIR_FUZZ_TARGET={name:?} names no target"))
    });
    (target.run)(bytes);
});
