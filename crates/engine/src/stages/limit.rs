//! Limit: how much the principal, the route and the source may still ask for, and from which country.

use http::HeaderValue;
use vedette_admit::pressure::{Asked, Level};
use vedette_limit::{Allowed, Kind, RequestKeys};

use crate::node::{Held, Node, now};
use crate::plan::{Backend, Plan, Target};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::authenticate::Authenticated;

/// Seconds after which a request that was shed may be asked again: a level is left after fifteen at least.
const RETRY_AFTER: u64 = 15;

/// A request that is within its limits.
pub struct Limited {
    authenticated: Authenticated,
}

impl Limited {
    /// The request, and who makes it.
    pub fn into_inner(self) -> Authenticated {
        self.authenticated
    }
}

/// Asks every limit of the route; the places it takes are held until the answer has been sent. What is shed
/// comes first, so that it costs nobody's limit; who is let in at all may still be asked for a little work.
pub fn limit(
    node: &Node,
    plan: &Plan,
    record: &mut Record,
    held: &mut Held,
    authenticated: Authenticated,
) -> Result<Limited, Refusal> {
    let level = node.pressure.level(plan);
    require_calm(plan, level, record, &authenticated)?;
    if !plan.limits.is_empty() {
        take(plan, record, held, &authenticated)?;
    }
    require_country(record, authenticated.routed().target())?;
    if let Some(challenge) = &plan.challenge {
        challenge.require(level, record, &authenticated)?;
    }
    Ok(Limited { authenticated })
}

/// Under pressure, those who have shown who they are go before the others, and what others answer before
/// what is run here.
fn require_calm(
    plan: &Plan,
    level: Level,
    record: &Record,
    authenticated: &Authenticated,
) -> Result<(), Refusal> {
    if level <= Level::Challenge {
        return Ok(());
    }
    let routed = authenticated.routed();
    let has_pass = || {
        let challenge = plan.challenge.as_ref();
        challenge.is_some_and(|it| it.has_pass(record, routed.admitted()))
    };
    let asked = Asked {
        is_known: authenticated.caller().is_some() || has_pass(),
        is_expensive: matches!(
            routed.target().backend,
            Backend::Function(_) | Backend::Model(..)
        ),
    };
    if !level.sheds(asked) {
        return Ok(());
    }
    Err(Refusal::with(Cause::UnderPressure, level.name()).after(RETRY_AFTER))
}

fn take(
    plan: &Plan,
    record: &Record,
    held: &mut Held,
    authenticated: &Authenticated,
) -> Result<(), Refusal> {
    let keys = RequestKeys {
        principal: authenticated
            .caller()
            .map(|caller| caller.principal.as_ref()),
        route: &authenticated.routed().target().route,
        source: record.connection.client_address,
    };
    match plan.limits.check(&keys, now()) {
        Ok(allowed) => {
            held.standing = standing(&allowed);
            held.places = Some(allowed.places);
            Ok(())
        }
        Err(refused) => {
            let cause = match refused.kind {
                Kind::Rate => Cause::RateLimited,
                Kind::Quota => Cause::QuotaExceeded,
                Kind::Concurrency => Cause::TooManyAtOnce,
            };
            let whose = if refused.is_of_site {
                ", of its /48"
            } else {
                ""
            };
            let detail = format!("the limit {}{whose}", refused.limit);
            Err(Refusal::with(cause, detail).after(refused.retry_after_seconds()))
        }
    }
}

/// After the rate: who asks too often is told that, from wherever they ask.
fn require_country(record: &Record, target: &Target) -> Result<(), Refusal> {
    let Some(rule) = &target.countries else {
        return Ok(());
    };
    if rule.permits(record.country) {
        return Ok(());
    }
    let detail = record
        .country
        .map_or("the address has no country".into(), |it| {
            format!("the country {it}").into()
        });
    Err(Refusal {
        detail: Some(detail),
        ..Cause::CountryNotAllowed.into()
    })
}

/// The values of `RateLimit` and `RateLimit-Policy`; names of limits are plain, so they are values.
fn standing(allowed: &Allowed) -> Option<(HeaderValue, HeaderValue)> {
    let standing = allowed.standing.as_ref()?;
    let rest = HeaderValue::from_str(&standing.to_string()).ok()?;
    Some((rest, HeaderValue::from_str(&standing.policy()).ok()?))
}
