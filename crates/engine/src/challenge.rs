//! The challenge of a plan: who is asked for a little work before an answer, and what a right answer is
//! worth.
//!
//! Owns whom it is for, the page, and the reserved path that takes answers. The token and the pass are
//! `vedette_admit`'s. Must not: ask a program that says it is one, somebody who has proved who they are, or
//! anything but a page that a browser opens.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, COOKIE, LOCATION, SET_COOKIE, UPGRADE,
    USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use vedette_admit::challenge::{
    Agent, Answer, Binding, Challenges, No, Page, Terms, is_local, part,
};
use vedette_admit::crawlers::{Client, Crawler, Crawlers, Crawling, KnownClients, Shown, score};
use vedette_admit::pressure::Level;
use vedette_admit::ranges::{AddressSet, Network};

use crate::body::Content;
use crate::clients::fingerprint;
use crate::clock;
use crate::load::{EngineDir, LoadError};
use crate::plan::{Backend, Plan, Target};
use crate::record::Record;
use crate::refusal::{self, Cause, Refusal};
use crate::snapshot::{self, ChallengeMode, RouteChallenge};
use crate::stages::admit::Admitted;
use crate::stages::authenticate::Authenticated;
use crate::trace::next_random;
use crate::worker;

/// Where answers go. No route has it while the plan has a challenge.
const ANSWER_PATH: &str = "/.vedette/challenge";
/// Bytes of the table of answered tokens.
const SPENT_BYTES: usize = 1 << 20;

/// Cookies that have the name of a pass, as a field has them.
pub struct Passes(Vec<u8>);

/// The challenge of a plan.
pub struct Challenge {
    declared: snapshot::Challenge,
    made: Arc<Challenges>,
    crawlers: Crawlers,
    known: KnownClients,
}

impl Challenge {
    /// That of a plan. One with the terms of `previous` goes on with what was answered.
    pub fn compile(
        declared: &snapshot::Challenge,
        dir: &EngineDir,
        previous: Option<&Self>,
    ) -> Result<Self, LoadError> {
        let same = previous.filter(|it| terms(&it.declared) == terms(declared));
        let made = match same {
            Some(it) => Arc::clone(&it.made),
            None => Arc::new(Challenges::new(
                &dir.challenge_key()?,
                terms(declared),
                SPENT_BYTES,
            )),
        };
        let crawlers = declared.crawlers.iter().map(crawler);
        Ok(Self {
            made,
            crawlers: Crawlers::new(crawlers.collect::<Result<_, _>>()?),
            known: known(declared)?,
            declared: declared.clone(),
        })
    }

    /// Asks whoever opens a page here for the work, unless they have a pass or a reason to have none.
    /// Says why.
    pub fn require(
        &self,
        level: Level,
        record: &Record,
        authenticated: &Authenticated,
    ) -> Result<(), Refusal> {
        let routed = authenticated.routed();
        let Some(mode) = self.mode(routed.target(), level) else {
            return Ok(());
        };
        let admitted = routed.admitted();
        if authenticated.caller().is_some() || !opens_a_page(admitted) {
            return Ok(());
        }
        let Some(reason) = self.reason(mode, level, record, &admitted.parts().headers) else {
            return Ok(());
        };
        if self.has_pass(record, admitted) {
            return Ok(());
        }
        Err(self.page(record, admitted, reason))
    }

    /// Whether the client has a pass for this site.
    pub fn has_pass(&self, record: &Record, admitted: &Admitted) -> bool {
        let is_good = |passes: &Passes| {
            let binding = binding(record, admitted);
            let now = clock::since_epoch();
            self.made.has_pass(&passes.0, &binding, now)
        };
        admitted.passes().is_some_and(is_good)
    }

    /// What the plan says of a target, if anything can come of it at this level. Files and fixed answers
    /// cost nothing: they are left out unless their route says otherwise.
    fn mode(&self, target: &Target, level: Level) -> Option<ChallengeMode> {
        let is_cheap = !matches!(
            target.backend,
            Backend::Function(_) | Backend::Upstream(_) | Backend::Model(..)
        );
        let mode = match target.challenge {
            Some(own) => own,
            None if is_cheap => return None,
            None => self.declared.mode,
        };
        let can_be = match mode {
            ChallengeMode::Never => false,
            ChallengeMode::Pressure => level.challenges(),
            ChallengeMode::Suspicious | ChallengeMode::Always => true,
        };
        can_be.then_some(mode)
    }

    /// Why this client is asked; none for one that is not.
    fn reason(
        &self,
        mode: ChallengeMode,
        level: Level,
        record: &Record,
        headers: &HeaderMap,
    ) -> Option<Cow<'static, str>> {
        let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes);
        let address = record.connection.client_address;
        let crawling = self.crawlers.judge(agent.unwrap_or_default(), address);
        if matches!(crawling, Crawling::Verified(_)) {
            return None;
        }
        if mode == ChallengeMode::Always {
            return Some("always".into());
        }
        if level.challenges() {
            return Some("under pressure".into());
        }
        let shown = Shown {
            user_agent: agent,
            has_accept: headers.contains_key(ACCEPT),
            has_accept_language: headers.contains_key(ACCEPT_LANGUAGE),
            has_accept_encoding: headers.contains_key(ACCEPT_ENCODING),
            ja4: record.connection.ja4.as_ref(),
            crawling,
        };
        let score = score(&shown, &self.known);
        let is_suspicious = u64::from(score.points) >= self.declared.suspicion;
        is_suspicious.then(|| {
            let names: Vec<_> = score.reasons.iter().map(|it| it.name()).collect();
            format!("{} points: {}", score.points, names.join(", ")).into()
        })
    }

    fn page(&self, record: &Record, admitted: &Admitted, reason: Cow<'static, str>) -> Refusal {
        let binding = binding(record, admitted);
        let token = self
            .made
            .issue(&binding, next_random(), clock::since_epoch());
        let target = admitted.parts().uri.path_and_query();
        let terms = self.made.terms();
        let page = vedette_admit::challenge::page(&Page {
            token: &token,
            difficulty: terms.difficulty,
            wait: terms.wait.as_secs(),
            answer_path: ANSWER_PATH,
            target: target.map_or("/", |it| it.as_str()),
            request_id: record.ids.request(),
        });
        let mut refusal = Refusal::with(Cause::ChallengeRequired, reason);
        refusal.page = Some(Box::new(refusal::Page(page)));
        refusal
    }

    /// The answer to an answer: a pass, and the way back to where it came from.
    fn answer(&self, record: &Record, admitted: &Admitted) -> Result<Response<Content>, Refusal> {
        let no = |what: &'static str| Refusal::with(Cause::ChallengeFailed, what);
        if admitted.parts().method != Method::GET {
            return Err(no("it is no GET"));
        }
        let query = admitted.parts().uri.query().unwrap_or_default();
        let (mut token, mut number, mut target) = (Cow::default(), None, Cow::default());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "t" => token = value,
                "n" => number = Some(value),
                "to" => target = value,
                _ => {}
            }
        }
        if !is_local(&target) {
            return Err(no("it does not say where to go on"));
        }
        let answer = number.as_deref().map_or(Answer::Wait, Answer::Work);
        let binding = binding(record, admitted);
        let now = clock::since_epoch();
        let pass = match self.made.answer(&token, answer, &binding, now) {
            Ok(pass) => Some(pass),
            // Once more, with another page: a tab that slept, or was opened twice.
            Err(No::Expired | No::Spent | No::TooEarly) => None,
            Err(No::Forged) => return Err(no("the token is not of this node, site and client")),
            Err(No::Wrong) => return Err(no("the number is wrong")),
        };
        let mut response = Response::new(Content::Fixed(Some(Bytes::new())));
        *response.status_mut() = StatusCode::SEE_OTHER;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let location = HeaderValue::from_str(&target).map_err(|_| no("it is no place"))?;
        headers.insert(LOCATION, location);
        if let Some(pass) = pass {
            worker::with(|worker| worker.count_pass());
            let secure = if record.connection.scheme == "https" {
                "; Secure"
            } else {
                ""
            };
            let (name, value, age) = (pass.name, pass.value, pass.max_age.as_secs());
            let cookie =
                format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
            let cookie = HeaderValue::from_str(&cookie).map_err(|_| no("it is no cookie"))?;
            headers.insert(SET_COOKIE, cookie);
        }
        Ok(response)
    }
}

/// Answers an answer to the challenge; any other request goes on. By value: what an async function borrows it
/// keeps room for to its end.
pub fn take_answer(
    plan: &Plan,
    record: &Record,
    admitted: Admitted,
) -> ControlFlow<Result<Response<Content>, Refusal>, Admitted> {
    match &plan.challenge {
        Some(challenge) if admitted.path() == ANSWER_PATH => {
            ControlFlow::Break(challenge.answer(record, &admitted))
        }
        _ => ControlFlow::Continue(admitted),
    }
}

/// Takes the passes out of the one cookie field, for [`Challenge::has_pass`]: they are this node's, whatever the plan says
/// of the challenge, and no service, function or rule of the firewall has a use for them.
pub fn take_passes(headers: &mut HeaderMap) -> Option<Box<Passes>> {
    let (passes, others) = part(headers.get(COOKIE)?.as_bytes())?;
    headers.remove(COOKIE);
    if let Ok(others) = HeaderValue::from_bytes(&others)
        && !others.is_empty()
    {
        headers.insert(COOKIE, others);
    }
    Some(Box::new(Passes(passes)))
}

/// What a route says, in the words of the node.
pub fn mode_of(route: RouteChallenge) -> ChallengeMode {
    match route {
        RouteChallenge::Never => ChallengeMode::Never,
        RouteChallenge::Pressure => ChallengeMode::Pressure,
        RouteChallenge::Suspicious => ChallengeMode::Suspicious,
        RouteChallenge::Always => ChallengeMode::Always,
    }
}

/// A browser that goes to a page: what programs ask for is JSON, and a page's own parts come with its pass
/// or without.
fn opens_a_page(admitted: &Admitted) -> bool {
    let parts = admitted.parts();
    let headers = &parts.headers;
    let is_plain = matches!(parts.method, Method::GET | Method::HEAD)
        && !admitted.is_websocket()
        && !headers.contains_key(UPGRADE);
    let accepts = |value: &HeaderValue| {
        let value = value.as_bytes();
        value
            .windows(9)
            .any(|it| it.eq_ignore_ascii_case(b"text/html"))
    };
    let navigates = headers
        .get("sec-fetch-mode")
        .is_none_or(|mode| mode == "navigate");
    is_plain && navigates && headers.get_all(ACCEPT).iter().any(accepts)
}

fn binding<'a>(record: &Record, admitted: &'a Admitted) -> Binding<'a> {
    let agent = admitted.parts().headers.get(USER_AGENT);
    Binding {
        host: admitted.host(),
        source: Some(record.connection.client_address),
        agent: Agent::of(agent.map(HeaderValue::as_bytes).unwrap_or_default()),
    }
}

fn terms(declared: &snapshot::Challenge) -> Terms {
    Terms {
        difficulty: u8::try_from(declared.difficulty).unwrap_or(u8::MAX),
        wait: Duration::from_secs(declared.wait_seconds),
        pass: Duration::from_secs(declared.pass_seconds),
    }
}

fn crawler(declared: &snapshot::Crawler) -> Result<Crawler, LoadError> {
    let network = |text: &String| {
        Network::parse(text)
            .map_err(|fault| invalid(&format!("{}: {text}: {fault}", declared.name)))
    };
    let networks = declared.networks.iter().map(network);
    Ok(Crawler {
        name: declared.name.as_str().into(),
        token: declared.token.as_str().into(),
        addresses: AddressSet::of(networks.collect::<Result<Vec<_>, _>>()?),
    })
}

fn known(declared: &snapshot::Challenge) -> Result<KnownClients, LoadError> {
    let tool = |text: &String| Ok((fingerprint("challenge", text)?, Client::Tool));
    let tools = declared.tool_clients.iter().map(tool);
    Ok(KnownClients::of(
        tools.collect::<Result<Vec<_>, LoadError>>()?,
    ))
}

fn invalid(what: &str) -> LoadError {
    LoadError::new("admit_invalid", format!("challenge: {what}"))
}
