//! A try under way at an endpoint: what is counted while it lasts, and who is told what came of it.
//!
//! Owns: the clock of a try, where a bound for slow answers is set. A request's body comes as fast as its caller
//! likes, so the clock begins with the end of it: no caller can make an endpoint look slow.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use crate::balance::Endpoint;
use crate::body::Progress;
use crate::breaker::Pass;
use crate::egress::Permit;
use crate::error::SendError;
use crate::tally::Outcome;

/// A try under way at an endpoint, until the last byte of its answer.
pub(crate) struct Active {
    endpoint: Arc<Endpoint>,
    /// A place among a function's calls.
    permit: Option<Permit>,
    // Boxed: few tries have it, and it moves with the answer.
    watch: Option<Box<Watch>>,
}

/// What is wanted of a try beyond whether it failed.
pub(crate) struct Watch {
    pass: Option<Pass>,
    clock: Option<Clock>,
    is_judged: bool,
}

/// When a try began, and the body that is to end first.
pub(crate) struct Clock {
    started: Instant,
    body: Option<Arc<Progress>>,
}

impl Clock {
    /// Begins now, or with the end of the body.
    pub(crate) fn start(body: Option<Arc<Progress>>) -> Self {
        let started = Instant::now();
        Self { started, body }
    }

    /// `None`: the request is not all sent yet.
    fn took(&self) -> Option<Duration> {
        let since = match &self.body {
            None => self.started,
            Some(body) => body.ended()?.max(self.started),
        };
        Some(since.elapsed())
    }
}

impl Watch {
    /// `None`: there is nothing to watch.
    pub(crate) fn of(pass: Option<Pass>, clock: Option<Clock>) -> Option<Box<Self>> {
        (pass.is_some() || clock.is_some()).then(|| {
            Box::new(Self {
                pass,
                clock,
                is_judged: false,
            })
        })
    }

    fn took(&self) -> Option<Duration> {
        self.clock.as_ref()?.took()
    }
}

impl Active {
    pub(crate) fn new(endpoint: &Arc<Endpoint>, watch: Option<Box<Watch>>) -> Self {
        endpoint.begin();
        Self {
            endpoint: Arc::clone(endpoint),
            permit: None,
            watch,
        }
    }

    /// With a place among a function's calls.
    pub(crate) fn with_permit(mut self, permit: Permit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// Says what came of it.
    pub(crate) fn judge(&mut self, answered: Result<StatusCode, &SendError>) {
        let Some(outcome) = Outcome::of(answered) else {
            return;
        };
        let took = self.watch.as_ref().and_then(|watch| watch.took());
        self.endpoint.note(&outcome, took);
        if let Some(watch) = &mut self.watch {
            watch.is_judged = true;
            if let Some(pass) = &mut watch.pass {
                pass.judge(matches!(outcome, Outcome::Bad(_)), took);
            }
        }
    }

    /// Its answer broke off.
    pub(crate) fn failed_late(&self, why: &str) {
        self.endpoint.failed_late(why);
        if let Some(pass) = self.watch.as_ref().and_then(|watch| watch.pass.as_ref()) {
            pass.failed_late();
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.endpoint.end();
        let Some(watch) = self.watch.as_mut().filter(|watch| !watch.is_judged) else {
            return;
        };
        let took = watch.took();
        self.endpoint.given_up(took);
        if let Some(pass) = &mut watch.pass {
            pass.given_up(took);
        }
    }
}
