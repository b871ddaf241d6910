//! One request before the rules: its parts told in order, what they say, and the end of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, Response};
use vedette_waf::{Ends, Interruption, Transaction, Verdict};

use super::known::{Likeness, Parts};
use super::{Policy, event};
use crate::clock;
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::Admitted;
use crate::worker;

/// What the rules say so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// Nothing against it.
    GoOn,
    /// It is refused, for this cause.
    Refuse(Cause),
}

/// Whether a request without a body needs a judgement.
#[derive(Debug, Clone, Copy)]
pub enum Acquaintance {
    /// It was judged before, and nothing was found.
    Known,
    /// It is to be judged, and known from then on if nothing is found.
    New(u64, Likeness),
    /// The rules may say something else each time.
    Never,
}

/// Who is told of a request's parts.
pub trait Hears {
    /// The request line.
    fn line(&mut self, method: &[u8], target: &[u8], protocol: &[u8]);
    /// One header field.
    fn header(&mut self, name: &[u8], value: &[u8]);
}

impl Hears for Transaction<'_> {
    fn line(&mut self, method: &[u8], target: &[u8], protocol: &[u8]) {
        self.request_line(method, target, protocol);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        Self::header(self, name, value);
    }
}

/// A request that is being judged. Ended by `conclude`; dropped without, its buffers are lost and
/// nothing is told.
pub struct Judgement<'p> {
    policy: &'p Policy,
    transaction: Transaction<'p>,
    /// Under which plan, and by what, it is known if nothing is found.
    known_by: Option<(u64, Likeness)>,
}

impl<'p> Judgement<'p> {
    /// Tells the rules who asks for what, and asks for their first opinion.
    pub fn begin(
        policy: &'p Policy,
        record: &Record,
        admitted: &Admitted,
    ) -> Result<(Self, Ruling), Refusal> {
        on_worker(policy, |bench| {
            let mut transaction = Transaction::begin_tailored(
                &policy.rules,
                bench,
                clock::unix_micros(),
                record.ids.request(),
            );
            let client = &record.connection;
            transaction.connection(&ends((client.client_address, port_of(&client.client))));
            tell(&mut transaction, record.protocol, admitted);
            let ruling = ruling(transaction.end_of_request_headers(bench));
            let judgement = Self {
                policy,
                transaction,
                known_by: None,
            };
            (judgement, ruling)
        })
    }

    /// Has this worker know the request by this, if nothing is found in it.
    pub fn known_by(&mut self, plan: u64, likeness: Likeness) {
        self.known_by = Some((plan, likeness));
    }

    /// Tells the whole body, or what was kept back of it.
    pub fn body<'b>(&mut self, chunks: impl Iterator<Item = &'b [u8]>) -> Result<Ruling, Refusal> {
        let it = &mut self.transaction;
        on_worker(self.policy, |bench| {
            for chunk in chunks {
                it.body(chunk);
            }
            ruling(it.end_of_request_body(bench))
        })
    }

    /// Tells that the body goes on beyond what is kept back.
    pub fn cut_off(&mut self) {
        self.transaction.body_is_cut_off();
    }

    /// Tells the head of the answer.
    pub fn answer<B>(&mut self, response: &Response<B>) -> Result<Ruling, Refusal> {
        let it = &mut self.transaction;
        on_worker(self.policy, |bench| {
            it.response_line(b"HTTP/1.1", response.status().as_u16());
            for (name, value) in response.headers() {
                it.response_header(name.as_str().as_bytes(), value.as_bytes());
            }
            of_answer(ruling(it.end_of_response_headers(bench)))
        })
    }

    /// Tells what was kept back of the answer's body.
    pub fn answer_body(&mut self, bytes: &[u8]) -> Result<Ruling, Refusal> {
        let it = &mut self.transaction;
        on_worker(self.policy, |bench| {
            it.response_body(bytes);
            of_answer(ruling(it.end_of_response_body(bench)))
        })
    }

    /// Ends it: writes a security event if a rule found something.
    pub fn conclude(self, record: &Record, user_agent: Option<&[u8]>, query: Option<&str>) {
        let (policy, it) = (self.policy, self.transaction);
        let scores = scores(&it);
        let verdict = on_worker(policy, |bench| it.end(bench));
        let Ok(verdict) = verdict else { return };
        if let Some((plan, likeness)) = self.known_by
            && is_clean(&verdict, scores)
        {
            worker::with(|worker| worker.memory(plan).known.remember(likeness));
            return;
        }
        let Some(event) = event::Event::of(policy, record, &verdict, scores) else {
            return;
        };
        let event = event.asked_with(user_agent, query);
        worker::with(|worker| worker.keep(|line| event.write(line)));
    }

    /// How the route is inspected.
    pub fn policy(&self) -> &'p Policy {
        self.policy
    }
}

/// Whether the worker knows a request of which the rules see no body.
pub fn acquaintance(
    plan: u64,
    policy: &Policy,
    record: &Record,
    admitted: &Admitted,
) -> Acquaintance {
    if !policy.is_repeatable {
        return Acquaintance::Never;
    }
    let looked = worker::with(|worker| {
        let memory = worker.memory(plan);
        let expired = policy.rules.expired_at(clock::unix_micros());
        let client = record.connection.client_address;
        let address = std::ptr::from_ref(policy).addr();
        let mut parts = Parts::begin(&mut memory.key, address, expired, client);
        tell(&mut parts, record.protocol, admitted);
        let likeness = memory.known.likeness(&parts);
        match memory.known.has(likeness) {
            true => Acquaintance::Known,
            false => Acquaintance::New(plan, likeness),
        }
    });
    looked.unwrap_or(Acquaintance::Never)
}

/// Whether no rule found anything, and all of it was looked at.
fn is_clean(verdict: &Verdict, scores: (i64, i64)) -> bool {
    scores == (0, 0)
        && verdict.interruption.is_none()
        && verdict.matched.is_empty()
        && !verdict.is_recorded
        && !verdict.is_exhausted
}

/// A worker without a workbench cannot judge, and what cannot be judged is refused.
fn on_worker<T>(
    policy: &Policy,
    work: impl FnOnce(&mut vedette_waf::Workbench) -> T,
) -> Result<T, Refusal> {
    let set = Arc::as_ptr(policy.rules.set()) as usize;
    let done = worker::with(|worker| worker.judge(set, work));
    done.ok_or_else(|| Cause::InspectionUnavailable.into())
}

/// Who asks. On which of the node's addresses is not for rules to know.
pub fn ends(client: (IpAddr, u16)) -> Ends {
    Ends {
        client,
        server: (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    }
}

/// Tells what is asked: all but the body.
pub fn tell(it: &mut impl Hears, protocol: &str, admitted: &Admitted) {
    let parts = admitted.parts();
    it.line(
        parts.method.as_str().as_bytes(),
        target_of(admitted).as_bytes(),
        protocol.as_bytes(),
    );
    tell_headers(it, &parts.headers, admitted);
}

/// The anomaly scores so far, of the request and of the answer.
pub fn scores(it: &Transaction<'_>) -> (i64, i64) {
    let score = |name: &str| {
        let text = it.tx(name)?;
        std::str::from_utf8(&text).ok()?.trim().parse::<i64>().ok()
    };
    (
        score("blocking_inbound_anomaly_score").unwrap_or_default(),
        score("blocking_outbound_anomaly_score").unwrap_or_default(),
    )
}

/// What an interruption means for the request.
pub fn ruling(interruption: Option<&Interruption>) -> Ruling {
    match interruption {
        None => Ruling::GoOn,
        // Rules 200002 and 200003: the body is not what it says.
        Some(it) if it.status == 400 => Ruling::Refuse(Cause::BodyMalformed),
        Some(_) => Ruling::Refuse(Cause::WafBlocked),
    }
}

fn of_answer(ruling: Ruling) -> Ruling {
    match ruling {
        Ruling::GoOn => Ruling::GoOn,
        Ruling::Refuse(_) => Ruling::Refuse(Cause::WafAnswerBlocked),
    }
}

/// The target as whoever answers gets it: path in normal form, query as it came.
fn target_of(admitted: &Admitted) -> String {
    let path = admitted.wire_path();
    match admitted.parts().uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// Field by field as they go on. HTTP/2 has `:authority` for `host`.
fn tell_headers(it: &mut impl Hears, headers: &HeaderMap, admitted: &Admitted) {
    it.header(b"Host", admitted.authority().as_str().as_bytes());
    for (name, value) in headers {
        if name != http::header::HOST {
            it.header(name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

fn port_of(client: &str) -> u16 {
    let port = client.rsplit(':').next().unwrap_or_default();
    port.parse().unwrap_or_default()
}
