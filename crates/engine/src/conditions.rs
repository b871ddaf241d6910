//! What a route asks of a request beside host and path: method, header fields, query, cookies.
//!
//! Names and semantics of the Gateway API (`HTTPRouteMatch`): all must hold; of a query parameter
//! given several times the first counts; header fields of one name are one value, joined by commas.

use std::borrow::Cow;

use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};
use regex::bytes::{Regex, RegexBuilder};

use crate::load::LoadError;
use crate::snapshot::{self, ValueMatchType};

/// The most a compiled regular expression of one match may take, in bytes.
const REGEX_SIZE: usize = 1 << 20;

/// The conditions of one route.
#[derive(Debug)]
pub struct Conditions {
    method: Option<Method>,
    headers: Vec<(HeaderName, Rule)>,
    query: Vec<(String, Rule)>,
    cookies: Vec<(String, Rule)>,
}

#[derive(Debug)]
enum Rule {
    Exact(Box<[u8]>),
    /// Anchored at both ends.
    Regex(Regex),
}

impl Conditions {
    /// The conditions of `route`; none when it takes whatever comes.
    pub fn of(route: &snapshot::Route) -> Result<Option<Self>, LoadError> {
        let invalid =
            |what: String| LoadError::new("route_invalid", format!("{}: {what}", route.name));
        let method = route
            .method
            .as_deref()
            .map(|method| Method::from_bytes(method.as_bytes()))
            .transpose()
            .map_err(|error| invalid(error.to_string()))?;
        let headers = route
            .headers
            .iter()
            .map(|it| {
                let name = HeaderName::from_bytes(it.name.as_bytes())
                    .map_err(|_| invalid(format!("{:?} is no header field", it.name)))?;
                Ok((name, Rule::new(it).map_err(invalid)?))
            })
            .collect::<Result<Vec<_>, LoadError>>()?;
        let named = |matches: &[snapshot::ValueMatch]| {
            matches
                .iter()
                .map(|it| Ok((it.name.clone(), Rule::new(it).map_err(invalid)?)))
                .collect::<Result<Vec<_>, LoadError>>()
        };
        let conditions = Self {
            method,
            headers,
            query: named(&route.query)?,
            cookies: named(&route.cookies)?,
        };
        Ok(Some(conditions).filter(|it| !it.is_empty()))
    }

    fn is_empty(&self) -> bool {
        self.method.is_none()
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.cookies.is_empty()
    }

    /// Whether a request meets them all.
    pub fn hold(&self, parts: &Parts) -> bool {
        self.method.as_ref().is_none_or(|it| *it == parts.method)
            && self.headers.iter().all(|(name, rule)| {
                header(&parts.headers, name).is_some_and(|value| rule.holds(&value))
            })
            && self.query.iter().all(|(name, rule)| {
                parameter(parts.uri.query(), name).is_some_and(|value| rule.holds(&value))
            })
            && self.cookies.iter().all(|(name, rule)| {
                cookie(&parts.headers, name).is_some_and(|value| rule.holds(value))
            })
    }
}

impl Rule {
    fn new(value: &snapshot::ValueMatch) -> Result<Self, String> {
        match value.kind {
            ValueMatchType::Exact => Ok(Self::Exact(value.value.as_bytes().into())),
            ValueMatchType::RegularExpression => {
                RegexBuilder::new(&format!("^(?:{})$", value.value))
                    .size_limit(REGEX_SIZE)
                    .dfa_size_limit(REGEX_SIZE)
                    .build()
                    .map(Self::Regex)
                    .map_err(|error| format!("{}: {error}", value.name))
            }
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else {
        return Some(first.into());
    };
    let mut joined = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    Some(joined.into())
}

fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs
        .find(|(key, _)| key == name)
        .map(|(_, value)| match value {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
}

/// The value of the first cookie of that name (RFC 6265 §5.4 puts the most specific first).
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    for pair in pairs {
        let pair = pair.trim_ascii();
        let value = pair
            .strip_prefix(name.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"="));
        if value.is_some() {
            return value;
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rule(kind: ValueMatchType, name: &str, value: &str) -> snapshot::ValueMatch {
        snapshot::ValueMatch {
            kind,
            name: name.into(),
            value: value.into(),
        }
    }

    fn parts(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn conditions(
        headers: &[snapshot::ValueMatch],
        query: &[snapshot::ValueMatch],
        cookies: &[snapshot::ValueMatch],
    ) -> Conditions {
        let named = |matches: &[snapshot::ValueMatch]| {
            matches
                .iter()
                .map(|it| (it.name.clone(), Rule::new(it).unwrap()))
                .collect()
        };
        Conditions {
            method: None,
            headers: headers
                .iter()
                .map(|it| (it.name.parse().unwrap(), Rule::new(it).unwrap()))
                .collect(),
            query: named(query),
            cookies: named(cookies),
        }
    }

    #[test]
    fn a_regular_expression_matches_the_whole_value() {
        use ValueMatchType::RegularExpression;
        let it = conditions(&[rule(RegularExpression, "x-v", "a|b+")], &[], &[]);
        for (value, holds) in [("a", true), ("bbb", true), ("ab", false), ("xa", false)] {
            assert_eq!(it.hold(&parts("/", &[("x-v", value)])), holds, "{value}");
        }
        assert!(!it.hold(&parts("/", &[])));
    }

    #[test]
    fn fields_of_one_name_are_one_value() {
        let it = conditions(&[rule(ValueMatchType::Exact, "x-v", "a,b")], &[], &[]);
        assert!(it.hold(&parts("/", &[("x-v", "a"), ("x-v", "b")])));
        assert!(!it.hold(&parts("/", &[("x-v", "a")])));
    }

    #[test]
    fn a_parameter_is_decoded_and_the_first_counts() {
        let it = conditions(&[], &[rule(ValueMatchType::Exact, "q", "a b/c")], &[]);
        assert!(it.hold(&parts("/?x=1&q=a+b%2Fc&q=other", &[])));
        assert!(!it.hold(&parts("/?q=other&q=a+b%2Fc", &[])));
        assert!(!it.hold(&parts("/", &[])));
    }

    #[test]
    fn a_cookie_is_found_among_others_by_its_whole_name() {
        let it = conditions(&[], &[], &[rule(ValueMatchType::Exact, "ab", "1")]);
        assert!(it.hold(&parts("/", &[("cookie", "aab=2; ab=1;x=3")])));
        assert!(it.hold(&parts("/", &[("cookie", "x=3"), ("cookie", "ab=1")])));
        assert!(!it.hold(&parts("/", &[("cookie", "aab=1")])));
    }

    #[test]
    fn a_huge_regular_expression_is_refused() {
        let huge = rule(ValueMatchType::RegularExpression, "x", "(a{1000}){1000}");
        assert!(Rule::new(&huge).is_err());
    }
}
