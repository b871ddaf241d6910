//! One program for every fuzz target: `VEDETTE_FUZZ_TARGET` names it, libFuzzer's flags follow.
//!
//! Built by `make fuzz` only (see `run.py` beside it). Must not: say what must hold; the targets do.

#![no_main]
#![allow(missing_docs, clippy::panic)]

use std::sync::LazyLock;

type Target = fn(&[u8]);

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("VEDETTE_FUZZ_TARGET").unwrap_or_default();
    let rooms = [
        vedette_admit::fuzz::TARGETS,
        vedette_engine::fuzz::TARGETS,
        vedette_limit::fuzz::TARGETS,
        vedette_models::fuzz::TARGETS,
        vedette_upstream::fuzz::TARGETS,
        vedette_waf::fuzz::TARGETS,
    ];
    let known: Vec<_> = rooms.into_iter().flatten().collect();
    let named = known.iter().find(|(name, _)| *name == wanted);
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    named.map_or_else(
        || panic!("VEDETTE_FUZZ_TARGET is one of {}", names.join(" ")),
        |(_, target)| *target,
    )
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
