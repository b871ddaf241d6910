//! One request before the rules: its parts told in order, what they say, and the end of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, Response};
use vedette_waf::{Ends, Interruption, Transaction};

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

/// A request that is being judged. Ended by `conclude`; dropped without, its buffers are lost and
/// nothing is told.
pub struct Judgement<'p> {
    policy: &'p Policy,
    transaction: Transaction<'p>,
}

impl<'p> Judgement<'p> {
    /// Tells the rules who asks for what, and asks for their first opinion.
    pub fn begin(
        policy: &'p Policy,
        record: &Record,
        admitted: &Admitted,
    ) -> Result<(Self, Ruling), Refusal> {
        on_worker(policy, |bench| {
            let now = u64::try_from(clock::since_epoch().as_micros()).unwrap_or(u64::MAX);
            let mut transaction =
                Transaction::begin_tailored(&policy.rules, bench, now, record.ids.request());
            let client = &record.connection;
            let client = (client.client_address, port_of(&client.client));
            tell(&mut transaction, client, record.protocol, admitted);
            let ruling = ruling(transaction.end_of_request_headers(bench));
            (
                Self {
                    policy,
                    transaction,
                },
                ruling,
            )
        })
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

/// A worker without a workbench cannot judge, and what cannot be judged is refused.
fn on_worker<T>(
    policy: &Policy,
    work: impl FnOnce(&mut vedette_waf::Workbench) -> T,
) -> Result<T, Refusal> {
    let set = Arc::as_ptr(policy.rules.set()) as usize;
    let done = worker::with(|worker| worker.judge(set, work));
    done.ok_or_else(|| Cause::InspectionUnavailable.into())
}

/// Tells who asks for what: all but the body.
pub fn tell(it: &mut Transaction<'_>, client: (IpAddr, u16), protocol: &str, admitted: &Admitted) {
    it.connection(&Ends {
        client,
        server: (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    });
    let parts = admitted.parts();
    it.request_line(
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

/// Field by field as they go on. HTTP/2 has `:authority` for `host`, and may have cut one cookie field
/// into several (RFC 9113 §8.2.3), which go on as one.
fn tell_headers(it: &mut Transaction<'_>, headers: &HeaderMap, admitted: &Admitted) {
    it.header(b"Host", admitted.authority().as_str().as_bytes());
    let mut cookies = headers.get_all(http::header::COOKIE).iter();
    if let Some(first) = cookies.next() {
        let mut whole = first.as_bytes().to_vec();
        for more in cookies {
            whole.extend_from_slice(b"; ");
            whole.extend_from_slice(more.as_bytes());
        }
        it.header(b"cookie", &whole);
    }
    for (name, value) in headers {
        if name != http::header::HOST && name != http::header::COOKIE {
            it.header(name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

fn port_of(client: &str) -> u16 {
    let port = client.rsplit(':').next().unwrap_or_default();
    port.parse().unwrap_or_default()
}
