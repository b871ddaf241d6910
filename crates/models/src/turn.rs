//! A turn with a session: what is next is run, alone or together, and answered.
//!
//! Owns: that what runs together is nobody's loss. When such a run fails, or gives what cannot be parted, each request runs
//! again alone: one bad row spoils nobody's answer. Until a model has proved that its rows know nothing of each other,
//! each runs alone as well, and both answers are compared; a model whose rows do (a sequence without a batch, a mean over
//! all rows) never runs two requests together again.
//!
//! Must not: choose who runs; [`crate::pool`] and [`crate::batch`] do.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batch::{self, Joined};
use crate::failure::refusal;
use crate::pace::Verdict;
use crate::pool::{Pool, still_wanted};
use crate::queue::{Order, Outcome, Ran, State, Turn, key};
use crate::runtime::{Data, RunError, Session};

type Done = Result<Vec<Data>, RunError>;

impl Pool {
    /// Runs what comes until there will be nothing.
    pub(crate) fn work(&self, place: usize) {
        while let Some(turn) = self.next(place) {
            self.run(place, turn);
        }
    }

    /// Runs what has begun in that place, and answers.
    pub(crate) fn run(&self, place: usize, turn: Turn) {
        if let Some(session) = self.sessions.get(place) {
            let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
            match turn.orders.as_slice() {
                [order] => {
                    self.run_alone(place, session.as_mut(), order, turn.since, None);
                }
                _ => self.run_together(place, session.as_mut(), turn),
            }
        }
        self.lock().take(place, false);
    }

    /// Runs one, which has begun, and answers. Whether it gave what is `expected`; none: it failed.
    fn run_alone(
        &self,
        place: usize,
        session: &mut dyn Session,
        order: &Order,
        since: Instant,
        expected: Option<&[Data]>,
    ) -> Option<bool> {
        let ask = &order.ask;
        let done = session.run(&ask.inputs, &ask.outputs);
        let ran = since.elapsed();
        let outcomes = {
            let mut state = self.lock();
            state.learn(order, ran, &done);
            if self.terms.batch > 1 && done.is_ok() {
                state.learn_pace(&ask.inputs, ran);
            }
            state.over(place)
        };
        let is_so = done
            .as_ref()
            .ok()
            .map(|found| expected.is_none_or(|it| batch::is_same(it, found)));
        let waited = since.saturating_duration_since(order.came);
        if let Some(outcome) = outcomes.into_iter().flatten().next() {
            let ran = |outputs| Ran {
                outputs,
                waited,
                ran,
                together: 1,
            };
            let _ = outcome.send(
                done.map(ran)
                    .map_err(|it| refusal(it, self.terms.leaves_open)),
            );
        }
        is_so
    }

    fn run_together(&self, place: usize, session: &mut dyn Session, turn: Turn) {
        let asks: Vec<_> = turn.orders.iter().map(|it| &it.ask).collect();
        let joined = batch::join(&asks, turn.is_trial);
        let Some((joined, first)) = joined.zip(turn.orders.first()) else {
            return self.run_each(place, session, &turn, None, Verdict::Unclear);
        };
        let done = session.run(&joined.inputs, &first.ask.outputs);
        let ran = turn.since.elapsed();
        let (parts, verdict) = match done {
            Err(_) => (None, Verdict::Unclear),
            Ok(outputs) => match batch::split(outputs, &joined.rows) {
                None => (None, Verdict::Refuted),
                parts => (parts, Verdict::Proved),
            },
        };
        match parts {
            Some(parts) if !turn.is_trial => {
                self.learn_together(&joined, ran);
                self.answer_all(place, turn, parts, ran);
            }
            parts => self.run_each(place, session, &turn, parts.as_deref(), verdict),
        }
    }

    fn learn_together(&self, joined: &Joined, ran: Duration) {
        let mut state = self.lock();
        state.estimates.learn(key(&joined.inputs, None), ran);
        state.learn_pace(&joined.inputs, ran);
    }

    fn answer_all(&self, place: usize, turn: Turn, parts: Vec<Vec<Data>>, ran: Duration) {
        let together = turn.orders.len();
        let outcomes = self.lock().over(place);
        let answers = turn.orders.into_iter().zip(outcomes).zip(parts);
        for ((order, outcome), outputs) in answers {
            if let Some(outcome) = outcome {
                let _ = outcome.send(Ok(Ran {
                    outputs,
                    waited: turn.since.saturating_duration_since(order.came),
                    ran,
                    together,
                }));
            }
        }
    }

    /// Runs each alone, and notes what that says of the run in which all were; `parts` came of it.
    fn run_each(
        &self,
        place: usize,
        session: &mut dyn Session,
        turn: &Turn,
        parts: Option<&[Vec<Data>]>,
        mut verdict: Verdict,
    ) {
        let outcomes = self.lock().over(place);
        let rest = turn.orders.first().map(|it| key(&it.ask.inputs, Some(0)));
        let mut left: Duration = {
            let state = self.lock();
            let predicted = turn.orders.iter().map(|it| state.estimates.of(it.key));
            predicted.sum()
        };
        for (at, (order, outcome)) in turn.orders.iter().zip(outcomes).enumerate() {
            let began = outcome.and_then(|it| self.begin_alone(place, order, it, &mut left));
            let expected = parts.and_then(|it| it.get(at)).map(Vec::as_slice);
            let is_so =
                began.and_then(|since| self.run_alone(place, session, order, since, expected));
            verdict = match is_so {
                Some(true) => verdict,
                Some(false) => Verdict::Refuted,
                None => verdict.or_unclear(),
            };
        }
        if let Some(rest) = rest {
            // A run that was proved before and failed now says nothing of other rows: one of them was bad.
            let is_news = turn.is_trial || verdict == Verdict::Refuted;
            if is_news {
                self.lock().paces.judge(rest, verdict);
            }
        }
    }

    /// Notes that the session runs this one; `left`: what it and those after it are predicted to take. `None`: nobody
    /// waits for it.
    fn begin_alone(
        &self,
        place: usize,
        order: &Order,
        outcome: oneshot::Sender<Outcome>,
        left: &mut Duration,
    ) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        let takes = state.estimates.of(order.key);
        let predicted = *left;
        *left = left.saturating_sub(takes);
        let outcome = still_wanted(&order.ask, outcome, now + takes, takes)?;
        self.begin(&mut state, place, predicted, now, vec![Some(outcome)]);
        Some(now)
    }
}

impl State {
    /// Ends what a session runs; who still waits for an answer.
    fn over(&mut self, place: usize) -> Vec<Option<oneshot::Sender<Outcome>>> {
        let running = self.running.get_mut(place).and_then(Option::take);
        running.map(|it| it.outcomes).unwrap_or_default()
    }

    /// Learns how long a run takes. One that was stopped would have taken longer still.
    fn learn(&mut self, order: &Order, ran: Duration, done: &Done) {
        let is_known = match done {
            Ok(_) => true,
            Err(RunError::Stopped) => ran > self.estimates.of(order.key),
            Err(_) => false,
        };
        if is_known {
            self.estimates.learn(order.key, ran);
        }
    }

    fn learn_pace(&mut self, inputs: &[Data], ran: Duration) {
        if let Some(rows) = batch::rows(inputs) {
            self.paces.learn(key(inputs, Some(0)), rows, ran);
        }
    }
}
