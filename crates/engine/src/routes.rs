//! Host and path to a route, by the precedence of the Gateway API (`HTTPRouteRule`): an exact host
//! before a wildcard, an exact path before a prefix, the longest prefix first. Where several routes
//! have one place, the first that was put there and whose conditions hold.
//!
//! A prefix matches by whole segments. Looking up costs one hash per segment of the path, however
//! many routes there are.

use std::collections::HashMap;

use crate::mesh::is_mesh;

/// Index of a route in the plan.
pub type RouteIndex = u32;

/// The routes of one host.
#[derive(Debug, Default)]
struct PathTable {
    exact: HashMap<Box<str>, Vec<RouteIndex>>,
    prefix: HashMap<Box<str>, Vec<RouteIndex>>,
}

/// All routes of a plan.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact_hosts: HashMap<Box<str>, PathTable>,
    /// By the suffix with its dot: `.example.com`.
    wildcard_hosts: HashMap<Box<str>, PathTable>,
    any_host: PathTable,
}

/// How a route matches paths.
#[derive(Debug, Clone, Copy)]
pub enum PathRule<'a> {
    /// This path only.
    Exact(&'a str),
    /// This path and what is below it.
    Prefix(&'a str),
}

impl RouteTable {
    /// Adds a route for `host` (`None`: every host), after those that have that place already.
    pub fn insert(&mut self, host: Option<&str>, rule: PathRule<'_>, route: RouteIndex) {
        let table = match host {
            None => &mut self.any_host,
            Some(host) => match host.strip_prefix('*') {
                Some(suffix) => self.wildcard_hosts.entry(suffix.into()).or_default(),
                None => self.exact_hosts.entry(host.into()).or_default(),
            },
        };
        let place = match rule {
            PathRule::Exact(path) => table.exact.entry(path.into()),
            PathRule::Prefix(path) => {
                let path = path.strip_suffix('/').unwrap_or(path);
                table.prefix.entry(path.into())
            }
        };
        place.or_default().push(route);
    }

    /// The route for `host` (lower case, no port) and `path` (decoded normal form) that `accepts`.
    pub fn find(
        &self,
        host: &str,
        path: &str,
        accepts: impl Fn(RouteIndex) -> bool,
    ) -> Option<RouteIndex> {
        let accepts = &accepts;
        let exact = self.exact_hosts.get(host);
        if let Some(found) = exact.and_then(|it| it.find(path, accepts)) {
            return Some(found);
        }
        if !self.wildcard_hosts.is_empty() {
            let suffixes = host.match_indices('.').filter_map(|(at, _)| host.get(at..));
            for suffix in suffixes {
                let found = self.wildcard_hosts.get(suffix);
                if let Some(found) = found.and_then(|table| table.find(path, accepts)) {
                    return Some(found);
                }
            }
        }
        // A route for every host is for every host of the public.
        match is_mesh(host) {
            true => None,
            false => self.any_host.find(path, accepts),
        }
    }
}

impl PathTable {
    fn find(&self, path: &str, accepts: &impl Fn(RouteIndex) -> bool) -> Option<RouteIndex> {
        let first = |routes: &Vec<RouteIndex>| routes.iter().copied().find(|it| accepts(*it));
        if let Some(route) = self.exact.get(path).and_then(first) {
            return Some(route);
        }
        if self.prefix.is_empty() {
            return None;
        }
        let mut rest = path.strip_suffix('/').unwrap_or(path);
        loop {
            if let Some(route) = self.prefix.get(rest).and_then(first) {
                return Some(route);
            }
            rest = rest.get(..rest.rfind('/')?)?;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(rules: &[(Option<&str>, PathRule<'_>)]) -> RouteTable {
        let mut table = RouteTable::default();
        for (index, (host, rule)) in rules.iter().enumerate() {
            table.insert(*host, *rule, u32::try_from(index).unwrap());
        }
        table
    }

    #[test]
    fn a_route_for_every_host_is_for_none_of_the_mesh() {
        let table = table(&[(None, PathRule::Prefix("/"))]);
        assert_eq!(table.find("shop.example.com", "/x", |_| true), Some(0));
        assert_eq!(table.find("shop.mesh", "/x", |_| true), None);
    }

    #[test]
    fn a_prefix_matches_whole_segments_only() {
        let table = table(&[(None, PathRule::Prefix("/hello"))]);
        assert_eq!(table.find("h", "/hello", |_| true), Some(0));
        assert_eq!(table.find("h", "/hello/", |_| true), Some(0));
        assert_eq!(table.find("h", "/hello/x/y", |_| true), Some(0));
        assert_eq!(table.find("h", "/hellox", |_| true), None);
        assert_eq!(table.find("h", "/", |_| true), None);
    }

    #[test]
    fn exact_beats_prefix_and_longer_beats_shorter() {
        let table = table(&[
            (None, PathRule::Prefix("/")),
            (None, PathRule::Prefix("/a")),
            (None, PathRule::Prefix("/a/b")),
            (None, PathRule::Exact("/a/b")),
        ]);
        assert_eq!(table.find("h", "/", |_| true), Some(0));
        assert_eq!(table.find("h", "/x", |_| true), Some(0));
        assert_eq!(table.find("h", "/a/x", |_| true), Some(1));
        assert_eq!(table.find("h", "/a/b/c", |_| true), Some(2));
        assert_eq!(table.find("h", "/a/b", |_| true), Some(3));
    }

    #[test]
    fn an_exact_host_beats_a_wildcard_and_a_wildcard_needs_a_label() {
        let table = table(&[
            (Some("*.example.com"), PathRule::Prefix("/")),
            (Some("a.example.com"), PathRule::Prefix("/")),
            (Some("*.b.example.com"), PathRule::Prefix("/")),
        ]);
        assert_eq!(table.find("a.example.com", "/", |_| true), Some(1));
        assert_eq!(table.find("c.example.com", "/", |_| true), Some(0));
        assert_eq!(table.find("x.b.example.com", "/", |_| true), Some(2));
        assert_eq!(table.find("example.com", "/", |_| true), None);
        assert_eq!(table.find("badexample.com", "/", |_| true), None);
    }

    #[test]
    fn routes_share_a_place_and_the_first_that_accepts_answers() {
        let mut table = table(&[
            (None, PathRule::Prefix("/a")),
            (None, PathRule::Prefix("/")),
        ]);
        table.insert(None, PathRule::Prefix("/a/"), 2);
        assert_eq!(table.find("h", "/a/b", |_| true), Some(0));
        assert_eq!(table.find("h", "/a/b", |route| route != 0), Some(2));
        assert_eq!(table.find("h", "/a/b", |route| route == 1), Some(1));
        assert_eq!(table.find("h", "/a/b", |_| false), None);
    }
}
