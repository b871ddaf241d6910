//! The security event: what the rules found in a request, for whoever answers for the node.
//!
//! Holds no credential. What matched is told by its size alone unless the route's policy says
//! otherwise, and of a query only the names.

use serde::Serialize;
use vedette_admit::country::Country;
use vedette_admit::hello::Ja4;
use vedette_waf::{Matched, Verdict};

use super::Policy;
use crate::clock;
use crate::record::Record;

/// Violations told of one request, at most.
const MOST_VIOLATIONS: usize = 32;
/// Bytes of a text of the client's that are told, at most.
const MOST_TOLD: usize = 256;

/// What is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event<'a> {
    kind: &'static str,
    time: String,
    request_id: &'a str,
    action: &'static str,
    client: &'a str,
    country: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ja4: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    url: String,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    score: i64,
    threshold: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_score: Option<i64>,
    violations: Vec<Violation<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    more_violations: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<&'a str>,
}

/// What one rule found.
#[derive(Serialize)]
pub struct Violation<'a> {
    rule: u64,
    message: &'a str,
    location: String,
    /// Bytes that matched.
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<u8>,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl<'a> Event<'a> {
    /// The event of a request with these scores, of which rules found something.
    pub fn of(
        policy: &Policy,
        record: &'a Record,
        verdict: &'a Verdict,
        (score, answer_score): (i64, i64),
    ) -> Option<Self> {
        let action = action(policy, verdict, (score, answer_score))?;
        let target = record.target.as_deref();
        Some(Self {
            kind: "security",
            time: clock::rfc3339(clock::since_epoch()),
            request_id: record.ids.request(),
            action,
            client: &record.connection.client,
            country: record
                .country
                .as_ref()
                .unwrap_or(&Country::UNKNOWN)
                .as_str(),
            ja4: record.connection.ja4.as_ref().map(Ja4::as_str),
            user_agent: None,
            url: format!(
                "{}://{}{}",
                record.connection.scheme, record.host, record.path
            ),
            method: record.method.as_str(),
            route: target.map(|it| it.route.as_str()),
            principal: record.principal.as_deref(),
            score,
            threshold: policy.inbound_threshold,
            answer_score: policy.response.is_some().then_some(answer_score),
            violations: violations(verdict, policy.keeps_data).collect(),
            more_violations: of_note(verdict).count().saturating_sub(MOST_VIOLATIONS),
            snapshot: record.snapshot.as_deref(),
        })
    }

    /// The same, with what of the request is not in its record.
    pub fn asked_with(mut self, user_agent: Option<&[u8]>, query: Option<&str>) -> Self {
        self.user_agent = user_agent.map(told);
        if let Some(query) = query {
            self.url.push('?');
            self.url.push_str(&names_of(query));
        }
        self
    }

    /// Writes the event as one line.
    pub fn write(&self, into: &mut Vec<u8>) {
        // Writing to memory and plain types: it cannot fail.
        let _ = serde_json::to_writer(&mut *into, self);
        into.push(b'\n');
    }
}

/// What became of a request with these scores; `None`: nothing is to be told of it.
pub fn action(
    policy: &Policy,
    verdict: &Verdict,
    (score, answer_score): (i64, i64),
) -> Option<&'static str> {
    let is_over = score >= policy.inbound_threshold || answer_score >= policy.outbound_threshold;
    match (verdict.interruption.is_some(), is_over) {
        (true, _) => Some("blocked"),
        (false, true) if !policy.blocks => Some("detected"),
        _ => of_note(verdict).next().map(|_| "noted"),
    }
}

/// What rules found, the first of them.
pub fn violations(verdict: &Verdict, keeps_data: bool) -> impl Iterator<Item = Violation<'_>> {
    let found = of_note(verdict).take(MOST_VIOLATIONS);
    found.map(move |it| violation(it, keeps_data))
}

fn of_note(verdict: &Verdict) -> impl Iterator<Item = &Matched> {
    verdict.matched.iter().filter(|it| is_of_note(it))
}

/// Rules that only sum up what others found say nothing of the request.
fn is_of_note(matched: &Matched) -> bool {
    !matches!(matched.rule, 949_000..=949_999 | 959_000..=959_999 | 980_000..=980_999)
}

fn violation(matched: &Matched, keeps_data: bool) -> Violation<'_> {
    let found = matched.found.first();
    let bytes = found.map_or(&[][..], |found| &found.bytes);
    Violation {
        rule: matched.rule,
        message: &matched.message,
        location: found.map_or_else(String::new, |found| told(found.variable.as_bytes())),
        size: bytes.len(),
        matched: keeps_data.then(|| told(bytes)),
        severity: matched.severity,
    }
}

fn told(bytes: &[u8]) -> String {
    let bytes = bytes.get(..MOST_TOLD).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// `a=1&b=2` as `a=…&b=…`: values are the caller's own affair.
fn names_of(query: &str) -> String {
    let name = |part: &str| {
        let (name, value) = part
            .split_once('=')
            .map_or((part, ""), |(name, value)| (name, value));
        let name: String = name.chars().take(64).collect();
        if value.is_empty() {
            name
        } else {
            format!("{name}=…")
        }
    };
    let names: Vec<String> = query.split('&').take(32).map(name).collect();
    names.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_query_only_the_names_are_told() {
        assert_eq!(names_of("q=secret&page=2&flag"), "q=…&page=…&flag");
        assert_eq!(names_of(&"x".repeat(1000)).len(), 64);
    }
}
