//! Fuzz targets of the limits: see `vedette_engine::fuzz`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc
)]

use crate::image::{Image, seal};
use crate::{Limit, LimitSet, Memory, Now, Per, Period, Quota, RequestKeys};

/// Takes whatever comes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its folder of seeds.
pub const TARGETS: &[(&str, Target)] = &[("quotas", quotas)];

const NOW: Now = Now {
    nanos: 0,
    unix_seconds: 1_700_000_000,
};
const QUOTA: u64 = 5;

fn limits() -> Vec<Limit> {
    vec![Limit {
        name: "month".into(),
        per: Per {
            source: true,
            ..Per::default()
        },
        routes: vec![],
        rate: None,
        concurrency: None,
        quota: Some(Quota {
            requests: QUOTA,
            period: Period::Month,
        }),
    }]
}

/// The image of an engine before, as it is and with a checksum that fits. What is read from it gives
/// nobody more than the quota, and can be written and read again.
fn quotas(data: &[u8]) {
    let sealed = seal(data.to_vec());
    for bytes in [data, &sealed] {
        let Ok(image) = Image::parse(bytes) else {
            continue;
        };
        let memory = Memory {
            table_bytes: 64 << 10,
            total_bytes: 64 << 10,
        };
        let set = LimitSet::restore(limits(), memory, &image, NOW).unwrap();
        let keys = RequestKeys {
            principal: None,
            route: "r",
            source: [192, 0, 2, 1].into(),
        };
        let allowed = (0..=QUOTA).filter(|_| set.check(&keys, NOW).is_ok());
        assert!(allowed.count() as u64 <= QUOTA, "more than the quota");
        let written = set.export(NOW);
        Image::parse(&written).expect("what is written can be read");
    }
}

#[cfg(test)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn every_seed_of_the_limits_passes_its_target() {
    replay::all(TARGETS);
}
