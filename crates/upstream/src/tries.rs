//! The tries of one request: again after a failure, and to another endpoint while one waits.
//!
//! Owns: which try follows which, and whether there may be one: the method, the budget and the breaker say so. Must not:
//! judge who was asked; what came of a try is told to [`Active`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::{Instant, Sleep, sleep, timeout_at};

use crate::active::{Active, Clock, Watch};
use crate::balance::{self, Endpoint, choose_beside};
use crate::body::UpstreamBody;
use crate::breaker::Pass;
use crate::config::{Hedge, Retry, SendOptions};
use crate::connect::Need;
use crate::error::SendError;
use crate::exchange::{self, Limits, exchange, plain_answer};
use crate::fields::Outgoing;
use crate::tally::is_failure;
use crate::upstream::Upstream;

/// Longest wait between two tries.
const BACKOFF: Duration = Duration::from_secs(10);

/// How a request was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    /// How often, hedges included.
    pub number: u32,
    /// Whether the answer is that of a hedge.
    pub has_hedge_won: bool,
}

/// What all tries of a request have in common.
#[derive(Clone, Copy)]
struct Sending<'a> {
    limits: Limits,
    time: Option<Duration>,
    retry: Option<&'a Retry>,
}

/// A try that is over, but for the body of its answer.
struct Ended {
    index: usize,
    answered: Result<Response<UpstreamBody>, SendError>,
    /// The request, where nothing of it was sent.
    unsent: Option<Outgoing>,
    active: Active,
    /// When its time is over.
    until: Option<Instant>,
}

/// How far the tries of a request are.
#[derive(Default)]
struct Course {
    /// The endpoint that was asked last.
    tried: Option<usize>,
    tries: u32,
    /// Whether what never left has gone to another endpoint.
    moved: bool,
}

/// The next try, and the wait before it.
struct Next {
    outgoing: Outgoing,
    pass: Option<Pass>,
    wait: Option<Duration>,
}

impl Upstream {
    /// Tries until there is an answer to give out, or none to hope for.
    pub(crate) async fn tries(
        &self,
        outgoing: Outgoing,
        options: &SendOptions,
        deadline: Option<Instant>,
        told: &mut Tries,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let is_safe = exchange::is_safe(outgoing.method());
        let sending = Sending {
            limits: self.limits(options, Need::Any),
            time: options.try_timeout,
            retry: options
                .retry
                .as_ref()
                .filter(|it| it.attempts > 0 && is_safe),
        };
        let hedge = options.hedge.as_ref().filter(|_| is_safe);
        let (mut outgoing, mut pass) = (outgoing, self.pass()?);
        let mut course = Course::default();
        loop {
            let spare = sending.retry.and_then(|_| outgoing.copy());
            let chosen = self.chosen(course.tried)?;
            told.number += 1;
            let mut ended = match hedge {
                None => self.attempt(chosen, pass, outgoing, sending).await,
                Some(hedge) => {
                    Box::pin(self.hedged((chosen, pass, outgoing), sending, hedge, told)).await
                }
            };
            let Some(next) = self.next_try(&mut course, &mut ended, spare, sending.retry) else {
                let until = [deadline, ended.until].into_iter().flatten().min();
                return ended.answered.map(|mut response| {
                    let body = response.body_mut();
                    body.attend(Some(ended.active), until, options.body_idle);
                    response
                });
            };
            self.retries.fetch_add(1, Ordering::Relaxed);
            drop((ended.answered, ended.active));
            (outgoing, pass) = (next.outgoing, next.pass);
            if let Some(wait) = next.wait {
                sleep(wait).await;
            }
        }
    }

    /// What is sent next, if anything is: what is hoped for another try, as the budget and the breaker allow.
    fn next_try(
        &self,
        course: &mut Course,
        ended: &mut Ended,
        spare: Option<Outgoing>,
        retry: Option<&Retry>,
    ) -> Option<Next> {
        course.tries += 1;
        course.tried = Some(ended.index);
        let answered = &ended.answered;
        let hoped = retry.filter(|it| is_hoped(it, course.tries, answered));
        let again = hoped.and_then(|it| Some((spare?, Some(pause(it.backoff, course.tries)))));
        // What never left may go to another endpoint, whatever its method; once.
        let elsewhere = ended.unsent.take().filter(|_| {
            let is_first = !std::mem::replace(&mut course.moved, true);
            is_first && self.endpoints.len() > 1 && is_a_failed_connection(answered)
        });
        let (outgoing, wait) = again.or(elsewhere.map(|it| (it, None)))?;
        if !self.budget.take(balance::now()) {
            return None;
        }
        let pass = self.pass().ok()?;
        Some(Next {
            outgoing,
            pass,
            wait,
        })
    }

    /// One try.
    async fn attempt(
        &self,
        (index, endpoint): Chosen<'_>,
        pass: Option<Pass>,
        outgoing: Outgoing,
        sending: Sending<'_>,
    ) -> Ended {
        let mut outgoing = outgoing;
        let is_timed = self.is_timed || sending.time.is_some();
        let body = is_timed.then(|| outgoing.time_body());
        let upload = body.clone().flatten();
        let clock = body.filter(|_| self.is_timed).map(Clock::start);
        let mut active = Active::new(endpoint, Watch::of(pass, clock));
        let until = sending.time.map(|time| Instant::now() + time);
        let exchanged = exchange(&endpoint.target, outgoing, sending.limits);
        let exchanged = match until {
            None => Ok(exchanged.await),
            Some(until) => timeout_at(until, exchanged).await,
        };
        let (answered, unsent) = match exchanged {
            Ok(Ok(answer)) => (plain_answer(answer), None),
            Ok(Err(none)) => (Err(none.error), none.unsent),
            // Who sends slowly has used up its own time, not the endpoint's.
            Err(_) if upload.is_some_and(|it| it.ended().is_none()) => {
                (Err(SendError::TimeoutWhole), None)
            }
            Err(_) => (Err(SendError::TimeoutResponse), None),
        };
        active.judge(answered.as_ref().map(Response::status));
        Ended {
            index,
            answered,
            unsent,
            active,
            until,
        }
    }

    /// One try, and others beside it at other endpoints while it waits. The first good answer counts, and what is still
    /// under way then is cut off; without one, the first answer there is.
    async fn hedged(
        &self,
        (chosen, pass, outgoing): (Chosen<'_>, Option<Pass>, Outgoing),
        sending: Sending<'_>,
        hedge: &Hedge,
        told: &mut Tries,
    ) -> Ended {
        let spare = outgoing.copy();
        let first: Leg<'_> = Box::pin(self.attempt(chosen, pass, outgoing, sending));
        let mut legs = Legs {
            running: vec![(false, first)],
            wait: spare.as_ref().map(|_| Box::pin(sleep(hedge.after))),
        };
        let (mut used, mut best) = (vec![chosen.0], None::<Ended>);
        loop {
            let Some((is_hedge, ended)) = legs.next().await else {
                let other = spare.as_ref().and_then(|it| self.other(&used, it.copy()?));
                let is_last = used.len() >= hedge.attempts as usize || other.is_none();
                legs.wait = (!is_last).then(|| Box::pin(sleep(hedge.after)));
                if let Some((chosen, pass, outgoing)) = other {
                    used.push(chosen.0);
                    told.number += 1;
                    self.hedges.fetch_add(1, Ordering::Relaxed);
                    let leg = self.attempt(chosen, pass, outgoing, sending);
                    legs.running.push((true, Box::pin(leg)));
                }
                continue;
            };
            let is_good = is_good(sending.retry, &ended.answered);
            if is_good || best.as_ref().is_none_or(|it| it.answered.is_err()) {
                best = Some(ended);
                told.has_hedge_won = is_hedge && is_good;
            }
            if (is_good || legs.running.is_empty())
                && let Some(best) = best.take()
            {
                let won = u64::from(told.has_hedge_won);
                self.hedges_won.fetch_add(won, Ordering::Relaxed);
                return best;
            }
        }
    }

    /// An endpoint that has not been asked, the right to ask it, and what to ask.
    fn other(
        &self,
        used: &[usize],
        outgoing: Outgoing,
    ) -> Option<(Chosen<'_>, Option<Pass>, Outgoing)> {
        let index = choose_beside(&self.endpoints, used)?;
        let chosen = (index, self.endpoints.get(index)?);
        if !self.budget.take(balance::now()) {
            return None;
        }
        Some((chosen, self.pass().ok()?, outgoing))
    }
}

/// An endpoint, and its place among them.
type Chosen<'a> = (usize, &'a Arc<Endpoint>);
type Leg<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

/// Tries beside each other, and the wait for one more.
struct Legs<'a> {
    /// Each with whether it is a hedge.
    running: Vec<(bool, Leg<'a>)>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Legs<'_> {
    /// The next that ends; `None`: it has been waited long enough.
    async fn next(&mut self) -> Option<(bool, Ended)> {
        poll_fn(|cx| {
            for at in 0..self.running.len() {
                let polled = self
                    .running
                    .get_mut(at)
                    .map(|(_, leg)| leg.as_mut().poll(cx));
                if let Some(Poll::Ready(ended)) = polled {
                    let (is_hedge, _) = self.running.swap_remove(at);
                    return Poll::Ready(Some((is_hedge, ended)));
                }
            }
            match &mut self.wait {
                Some(wait) => wait.as_mut().poll(cx).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }
}

fn is_good(retry: Option<&Retry>, answered: &Result<Response<UpstreamBody>, SendError>) -> bool {
    let is_bad = |status: StatusCode| {
        is_failure(status) || retry.is_some_and(|it| it.codes.contains(&status))
    };
    answered.as_ref().is_ok_and(|it| !is_bad(it.status()))
}

fn is_hoped(
    retry: &Retry,
    tries: u32,
    answered: &Result<Response<UpstreamBody>, SendError>,
) -> bool {
    tries <= retry.attempts
        && match answered {
            Ok(response) => retry.codes.contains(&response.status()),
            Err(error) => error.is_worth_another_try(),
        }
}

fn is_a_failed_connection<T>(answered: &Result<T, SendError>) -> bool {
    matches!(
        answered,
        Err(SendError::ConnectFailed(_)
            | SendError::DnsFailed(_)
            | SendError::TimeoutConnect
            | SendError::Overloaded)
    )
}

/// A random part of the wait, which doubles with each try.
fn pause(backoff: Duration, tries: u32) -> Duration {
    let factor = 2_u32.saturating_pow(tries.saturating_sub(1).min(16));
    backoff
        .saturating_mul(factor)
        .min(BACKOFF)
        .mul_f64(fastrand::f64())
}
