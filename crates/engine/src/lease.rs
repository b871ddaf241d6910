//! The right of an exchange to go on, asked for again while it goes on.
//!
//! Owns: which exchanges of a worker are long ones, and ending those whose caller may not go on: what proved them has
//! expired or was revoked, their address is not let in any more, or policy says otherwise now. One that is answered at
//! once is never asked about.
//! Must not: permit what `authorize` refused, or end an exchange because its route has gone: that one ends by itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Method;
use tokio::sync::Notify;

use crate::caller::{Caller, Proof};
use crate::clock;
use crate::node::{Connection, Node};
use crate::plan::{Backend, Plan, Target};
use crate::policy::Attributes;
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::revoked::Known;
use crate::stages::admit::refusal_of_address;
use crate::stages::authenticate::certificate_of;
use crate::stages::authorize::{Permitted, facts_of, lets_in, refusal_of};

/// Frames of an answer after which its exchange is a long one, though it never had to wait for any.
const MANY_FRAMES: u32 = 8;
/// How often expiry is looked for.
const TICK: Duration = Duration::from_secs(1);
/// Leases asked about before other tasks of the worker have their turn.
const IN_A_ROW: usize = 256;
/// The same when they are only looked up among what is revoked, which takes a twentieth of that.
const LOOKED_UP_IN_A_ROW: usize = 4_096;

/// The right of one exchange. It is known to its worker from when the exchange first waits.
#[derive(Default)]
pub struct Lease {
    facts: Option<Box<Facts>>,
    entry: Option<(usize, Arc<Entry>)>,
    frames: u32,
}

/// What the right was granted for.
struct Facts {
    connection: Arc<Connection>,
    caller: Option<Arc<Caller>>,
    /// Whose certificate the connection came with.
    certificate: Option<Arc<Caller>>,
    target: Arc<Target>,
    method: Method,
    host: Box<str>,
    path: Box<str>,
    /// The serial number of the plan that granted it.
    plan: u64,
    /// The state of what is revoked ahead that it was granted under.
    ahead: u64,
    /// When a policy or fact ended that it was permitted by, if one did.
    until: Option<u64>,
    /// The table of facts that it was permitted under.
    posture: u64,
    /// The state of what is believed of SVIDs that it was granted under; nothing where none is asked for.
    believed: Option<u64>,
}

/// A lease that its worker knows.
struct Entry {
    facts: Box<Facts>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: Option<Cause>,
    waker: Option<Waker>,
    /// The plan that was asked last.
    asked: u64,
    /// When a policy or fact ends that it is permitted by, in seconds since the epoch, if one does.
    until: Option<u64>,
    /// The table of facts that was looked at last.
    posture: u64,
    /// What was believed of SVIDs when it was asked last; nothing where none is asked for.
    believed: Option<u64>,
}

/// The leases of a worker; a place that is free is used again.
#[derive(Default)]
struct Leases {
    entries: Vec<Option<Arc<Entry>>>,
    free: Vec<usize>,
    /// The plan that is asked, and the table of facts.
    plan: u64,
    posture: u64,
    /// Told of a lease that another plan has granted.
    late: Arc<Notify>,
    /// The state of what is revoked ahead that was looked up last.
    ahead: u64,
    /// Told of a lease that was granted under another.
    late_ahead: Arc<Notify>,
}

thread_local! {
    static LEASES: RefCell<Leases> = RefCell::default();
}

/// The targets of a plan that stand for those of earlier plans, by the address of the earlier one, which its leases
/// hold: found once for all of them.
type Successors = HashMap<usize, Option<Arc<Target>>>;

impl Lease {
    /// The lease of a request that policy permits.
    ///
    /// `believed` is the state of what was believed of SVIDs before they were looked at.
    pub fn granted(
        plan: &Plan,
        ahead: &Known,
        believed: u64,
        record: &Record,
        permitted: &Permitted,
    ) -> Self {
        let target = permitted.target();
        if matches!(target.backend, Backend::Static(_) | Backend::Redirect(_)) {
            return Self::default();
        }
        let admitted = permitted.admitted();
        Self {
            facts: Some(Box::new(Facts {
                connection: Arc::clone(&record.connection),
                caller: permitted.caller().cloned(),
                certificate: record.certificate.clone(),
                target: Arc::clone(target),
                method: admitted.parts().method.clone(),
                host: admitted.host().into(),
                path: admitted.path().into(),
                plan: plan.serial,
                ahead: ahead.number,
                until: permitted.until(),
                posture: permitted.posture(),
                believed: record.connection.sidecar.as_ref().map(|_| believed),
            })),
            entry: None,
            frames: 0,
        }
    }

    /// Takes note of a frame of the answer.
    pub fn count_frame(&mut self) {
        self.frames = self.frames.saturating_add(1);
        if self.frames == MANY_FRAMES {
            self.register();
        }
    }

    /// Why it has ended, if it has.
    pub fn ended(&self) -> Option<Cause> {
        self.entry.as_ref()?.1.state().ended
    }

    /// Ready once it has ended. What waits beside this is woken then.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        self.register();
        let Some((_, entry)) = &self.entry else {
            return Poll::Pending;
        };
        let mut state = entry.state();
        if let Some(cause) = state.ended {
            return Poll::Ready(cause);
        }
        let waker = state.waker.get_or_insert_with(|| cx.waker().clone());
        waker.clone_from(cx.waker());
        Poll::Pending
    }

    /// Does the work for as long as the lease lasts.
    pub fn within<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = Result<T, Refusal>>>,
    ) -> impl Future<Output = Result<T, Refusal>> {
        poll_fn(move |cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => self.poll_ended(cx).map(|cause| Err(cause.into())),
        })
    }

    fn register(&mut self) {
        let Some(facts) = self.facts.take() else {
            return;
        };
        let state = State {
            asked: facts.plan,
            until: facts.until,
            posture: facts.posture,
            believed: facts.believed,
            ..State::default()
        };
        let entry = Arc::new(Entry {
            facts,
            state: Mutex::new(state),
        });
        self.entry = LEASES
            .try_with(|leases| Some((leases.try_borrow_mut().ok()?.put(&entry), entry)))
            .ok()
            .flatten();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((place, _)) = self.entry.take() {
            let _ = LEASES.try_with(|leases| leases.borrow_mut().remove(place));
        }
    }
}

impl Leases {
    fn put(&mut self, entry: &Arc<Entry>) -> usize {
        if (entry.facts.plan, entry.facts.posture) != (self.plan, self.posture) {
            // One of them has changed between the decision and now.
            self.late.notify_one();
        }
        if entry.facts.ahead != self.ahead {
            self.late_ahead.notify_one();
        }
        let entry = Some(Arc::clone(entry));
        let place = self.free.pop().unwrap_or(self.entries.len());
        match self.entries.get_mut(place) {
            Some(slot) => *slot = entry,
            None => self.entries.push(entry),
        }
        place
    }

    fn remove(&mut self, place: usize) {
        if let Some(slot) = self.entries.get_mut(place) {
            *slot = None;
            self.free.push(place);
        }
        if self.free.len() == self.entries.len() {
            // A rush of them does not take its room for good.
            (self.entries, self.free) = (Vec::new(), Vec::new());
        }
    }

    fn some(&self, from: usize, most: usize) -> Vec<Arc<Entry>> {
        let entries = self.entries.iter().skip(from).take(most);
        entries.flatten().cloned().collect()
    }
}

impl Entry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it if it does not hold: whether it has expired, and all else under a plan or facts that were not asked yet, or
    /// when one has ended that permitted it.
    fn ask(&self, node: &Node, plan: &Plan, successors: &mut Successors) {
        let now = clock::onward_seconds();
        let mut state = self.state();
        let before = std::mem::replace(&mut state.asked, plan.serial);
        let number = node.posture.number();
        let is_learnt = std::mem::replace(&mut state.posture, number) != number;
        let believed = state.believed.map(|_| node.dir.svids().number());
        let is_over = std::mem::replace(&mut state.believed, believed) != believed
            || state.until.is_some_and(|until| until <= now)
            || (is_learnt && self.facts.target.slice.reads_posture());
        drop(state);
        let mut holds = match node.presence.is_away() {
            true => Err(Cause::ControlAway.into()),
            false => self.facts.require_unexpired(now),
        };
        if (before != plan.serial || is_over) && holds.is_ok() {
            let until = self.facts.require(node, plan, successors);
            holds = until.map(|until| self.state().until = until);
        }
        if let Err(refusal) = holds {
            self.end(refusal.cause);
        }
    }

    fn end(&self, cause: Cause) {
        let mut state = self.state();
        state.ended.get_or_insert(cause);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Facts {
    fn require_unexpired(&self, now: u64) -> Result<(), Refusal> {
        let sidecar = self.connection.sidecar.as_ref();
        if sidecar.is_some_and(|it| it.is_over()) {
            return Err(Cause::SidecarEnded.into());
        }
        let ends = self.caller.as_ref().map(|caller| caller.expires_at);
        match ends {
            Some(at) if at <= now => Err(Cause::ProofExpired.into()),
            _ => Ok(()),
        }
    }

    /// What the stages would say now of the same request; until when, if a policy ends that permits it.
    fn require(
        &self,
        node: &Node,
        plan: &Plan,
        successors: &mut Successors,
    ) -> Result<Option<u64>, Refusal> {
        let connection = &self.connection;
        if !connection.is_of_a_program()
            && let Some(refusal) = refusal_of_address(node, plan, connection.client_address)
        {
            return Err(refusal);
        }
        let (certificate, _) = certificate_of(plan, node.dir.svids(), connection)?;
        let workload = certificate.as_ref().and_then(|caller| caller.workload());
        if let Some(Proof::Token(token)) = self.caller.as_ref().map(|caller| &caller.proof) {
            plan.issuers.require_believed(token)?;
            if let Some(cause) = plan.revoked.of_token(token) {
                return Err(cause.into());
            }
        }
        let successor = successors
            .entry(Arc::as_ptr(&self.target).addr())
            .or_insert_with(|| plan.successor(&self.target).cloned());
        let Some(target) = successor else {
            return Ok(None);
        };
        let caller = self.caller.as_deref();
        let known = facts_of(node, &target.slice, caller, self.certificate.as_deref());
        let decision = target.slice.decide(
            caller,
            &Attributes {
                method: self.method.as_str(),
                path: &self.path,
                host: &self.host,
                scheme: connection.scheme,
                source_ip: &connection.client_ip,
                listener: &connection.listener,
                certificate: workload,
                // That which answers; its successor may be another one.
                version: self.target.version(),
                posture: known.as_ref(),
            },
        );
        match refusal_of(&decision, caller) {
            Some(refusal) if !lets_in(plan, connection, target, &decision) => Err(refusal),
            _ => Ok(decision.until),
        }
    }
}

/// Ends the leases of this worker that do not hold any more: all are asked about when the plan is another, and each
/// second whether they have expired.
pub async fn keep(node: Arc<Node>) {
    let mut plans = node.plans();
    let mut facts = node.posture.changes();
    let mut believed = node.dir.svids().changes();
    let late = LEASES.with(|leases| Arc::clone(&leases.borrow().late));
    loop {
        if let Some(plan) = node.plan() {
            ask_all(&node, &plan).await;
        }
        tokio::select! {
            changed = plans.changed() => if changed.is_err() { return },
            changed = facts.changed() => if changed.is_err() { return },
            changed = believed.changed() => if changed.is_err() { return },
            () = late.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn ask_all(node: &Node, plan: &Plan) {
    LEASES.with(|leases| {
        let mut leases = leases.borrow_mut();
        (leases.plan, leases.posture) = (plan.serial, node.posture.number());
    });
    let mut successors = Successors::new();
    let mut from = 0;
    while from < LEASES.with(|leases| leases.borrow().entries.len()) {
        for entry in LEASES.with(|leases| leases.borrow().some(from, IN_A_ROW)) {
            entry.ask(node, plan, &mut successors);
        }
        from += IN_A_ROW;
        tokio::task::yield_now().await;
    }
}

/// Ends the leases of this worker whose caller is revoked ahead of a snapshot. Beside [`keep`], not in it: it must not
/// wait until all have been asked about a plan.
pub async fn end_revoked(node: Arc<Node>) {
    let mut changes = node.ahead.changes();
    let late = LEASES.with(|leases| Arc::clone(&leases.borrow().late_ahead));
    loop {
        look_up_all(&node).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = late.notified() => {}
        }
    }
}

async fn look_up_all(node: &Node) {
    let known = node.ahead.known();
    LEASES.with(|leases| leases.borrow_mut().ahead = known.number);
    let Some(revoked) = known.revoked else {
        return;
    };
    let mut from = 0;
    while from < LEASES.with(|leases| leases.borrow().entries.len()) {
        for entry in LEASES.with(|leases| leases.borrow().some(from, LOOKED_UP_IN_A_ROW)) {
            let (caller, certificate) = (&entry.facts.caller, &entry.facts.certificate);
            if let Some(cause) = revoked.cause(caller.as_deref(), certificate.as_deref()) {
                entry.end(cause);
            }
        }
        from += LOOKED_UP_IN_A_ROW;
        tokio::task::yield_now().await;
    }
}
