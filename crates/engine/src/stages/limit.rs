//! Limit: how much the principal, the route and the source may still ask for, and from which country.

use http::HeaderValue;
use vedette_limit::{Allowed, Kind, RequestKeys};

use crate::node::{Held, now};
use crate::plan::{Plan, Target};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::authenticate::Authenticated;

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

/// Asks every limit of the route; the places it takes are held until the answer has been sent.
pub fn limit(
    plan: &Plan,
    record: &mut Record,
    held: &mut Held,
    authenticated: Authenticated,
) -> Result<Limited, Refusal> {
    if !plan.limits.is_empty() {
        take(plan, record, held, &authenticated)?;
    }
    require_country(record, authenticated.routed().target())?;
    Ok(Limited { authenticated })
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
            let detail = format!("the limit {}", refused.limit);
            let mut refusal = Refusal::with(cause, detail);
            refusal.retry_after = Some(refused.retry_after_seconds());
            Err(refusal)
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
