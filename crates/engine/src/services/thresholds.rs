//! When a service, an endpoint or a destination is left alone, as the client wants it said.

use std::time::Duration;

use vedette_upstream::{BreakerConfig, OutlierConfig, Shares, SlowShare};

use crate::snapshot;

fn number(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// When an endpoint is left out.
pub fn outlier(declared: &snapshot::PassiveHealth) -> OutlierConfig {
    let default = OutlierConfig::default();
    let longest = declared.max_eject_millis.map(Duration::from_millis);
    OutlierConfig {
        failures: number(declared.failures),
        shares: declared.shares.as_ref().map(shares),
        eject: Duration::from_millis(declared.eject_millis),
        max_eject: longest.unwrap_or(default.max_eject),
    }
}

/// When nothing is sent.
pub fn breaker(declared: &snapshot::Breaker) -> BreakerConfig {
    let default = BreakerConfig::default();
    BreakerConfig {
        failures: number(declared.failures),
        shares: declared.shares.as_ref().map(shares),
        pause: Duration::from_millis(declared.pause_millis),
        trials: declared.trials.map_or(default.trials, number),
    }
}

fn shares(declared: &snapshot::Shares) -> Shares {
    Shares {
        interval: Duration::from_millis(declared.interval_millis),
        volume: number(declared.request_volume),
        failure_percent: declared.failure_percent.map(number),
        slow: declared.slow_millis.map(|after| SlowShare {
            after: Duration::from_millis(after),
            percent: number(declared.slow_percent),
        }),
    }
}
