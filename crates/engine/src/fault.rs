//! Faults that a route injects on purpose: waits and errors for a share of its requests.
//!
//! Owns: drawing which requests. Must not: be asked before `authorize` has passed: who may not call learns nothing of
//! it. A wait ends with its request: when the client leaves, or the lease ends.

use std::time::Duration;

use http::StatusCode;

use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::snapshot;
use crate::trace::next_random;

/// What shares are of.
const MILLION: u64 = 1_000_000;

/// What goes wrong on a route. Each is drawn by itself.
#[derive(Debug)]
pub struct Fault {
    /// Of how many in a million requests, and how long.
    delay: Option<(u64, Duration)>,
    /// Of how many in a million requests, and with what.
    abort: Option<(u64, StatusCode)>,
}

impl Fault {
    /// As the snapshot says it. `None`: no status of an error.
    pub fn compile(declared: &snapshot::Fault) -> Option<Self> {
        let status = |it: &snapshot::FaultAbort| {
            let status = StatusCode::from_u16(u16::try_from(it.status).ok()?).ok()?;
            let is_error = status.is_client_error() || status.is_server_error();
            is_error.then_some((it.per_million, status))
        };
        let delay = declared.delay.as_ref();
        Some(Self {
            delay: delay.map(|it| (it.per_million, Duration::from_millis(it.fixed_millis))),
            abort: match &declared.abort {
                None => None,
                Some(abort) => Some(status(abort)?),
            },
        })
    }

    /// Holds a request back, refuses it, both or neither.
    pub async fn inject(&self, record: &mut Record) -> Result<(), Refusal> {
        if let Some((_, time)) = self.delay.filter(|(share, _)| is_drawn(*share)) {
            // Before it waits: the record of a client that leaves says so too.
            record.fault_delay_millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            tokio::time::sleep(time).await;
        }
        match self.abort.filter(|(share, _)| is_drawn(*share)) {
            Some((_, status)) => Err(Refusal::from(Cause::FaultInjected).with_status(status)),
            None => Ok(()),
        }
    }
}

fn is_drawn(per_million: u64) -> bool {
    next_random() % MILLION < per_million
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_of_a_million_is_never_and_all_of_them_is_always() {
        for _ in 0..100_000 {
            assert!(!is_drawn(0));
            assert!(is_drawn(MILLION));
        }
    }

    #[test]
    fn a_share_is_drawn_as_often_as_it_says() {
        let drawn = (0..1_000_000).filter(|_| is_drawn(500)).count();
        // 500 expected; six standard deviations are 134.
        assert!((366..=634).contains(&drawn), "{drawn}");
    }

    #[test]
    fn a_status_that_is_no_error_is_refused() {
        for (status, is_one) in [
            (399, false),
            (400, true),
            (599, true),
            (600, false),
            (99, false),
        ] {
            let fault = snapshot::Fault {
                delay: None,
                abort: Some(snapshot::FaultAbort {
                    per_million: 1,
                    status,
                }),
            };
            assert_eq!(Fault::compile(&fault).is_some(), is_one, "{status}");
        }
    }
}
