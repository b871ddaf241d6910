//! Host and path to a route, by the precedence of the Gateway API (`HTTPRouteRule`): an exact host
//! before a wildcard, an exact path before a prefix, the longest prefix first.
//!
//! A prefix matches by whole segments. Looking up costs one hash per segment of the path, however
//! many routes there are.

use std::collections::HashMap;

/// Index of a route in the plan.
pub type RouteIndex = u32;

/// The routes of one host.
#[derive(Debug, Default)]
struct PathTable {
    exact: HashMap<Box<str>, RouteIndex>,
    prefix: HashMap<Box<str>, RouteIndex>,
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
    /// Adds a route for `host` (`None`: every host). Returns false when that place is taken.
    pub fn insert(&mut self, host: Option<&str>, rule: PathRule<'_>, route: RouteIndex) -> bool {
        let table = match host {
            None => &mut self.any_host,
            Some(host) => match host.strip_prefix('*') {
                Some(suffix) => self.wildcard_hosts.entry(suffix.into()).or_default(),
                None => self.exact_hosts.entry(host.into()).or_default(),
            },
        };
        let taken = match rule {
            PathRule::Exact(path) => table.exact.insert(path.into(), route),
            PathRule::Prefix(path) => {
                let path = path.strip_suffix('/').unwrap_or(path);
                table.prefix.insert(path.into(), route)
            }
        };
        taken.is_none()
    }

    /// The route for `host` (lower case, no port) and `path` (decoded normal form).
    pub fn find(&self, host: &str, path: &str) -> Option<RouteIndex> {
        if let Some(found) = self.exact_hosts.get(host).and_then(|it| it.find(path)) {
            return Some(found);
        }
        if !self.wildcard_hosts.is_empty() {
            let suffixes = host.match_indices('.').filter_map(|(at, _)| host.get(at..));
            for suffix in suffixes {
                let found = self.wildcard_hosts.get(suffix);
                if let Some(found) = found.and_then(|table| table.find(path)) {
                    return Some(found);
                }
            }
        }
        self.any_host.find(path)
    }
}

impl PathTable {
    fn find(&self, path: &str) -> Option<RouteIndex> {
        if let Some(route) = self.exact.get(path) {
            return Some(*route);
        }
        if self.prefix.is_empty() {
            return None;
        }
        let mut rest = path.strip_suffix('/').unwrap_or(path);
        loop {
            if let Some(route) = self.prefix.get(rest) {
                return Some(*route);
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
            assert!(table.insert(*host, *rule, u32::try_from(index).unwrap()));
        }
        table
    }

    #[test]
    fn a_prefix_matches_whole_segments_only() {
        let table = table(&[(None, PathRule::Prefix("/hello"))]);
        assert_eq!(table.find("h", "/hello"), Some(0));
        assert_eq!(table.find("h", "/hello/"), Some(0));
        assert_eq!(table.find("h", "/hello/x/y"), Some(0));
        assert_eq!(table.find("h", "/hellox"), None);
        assert_eq!(table.find("h", "/"), None);
    }

    #[test]
    fn exact_beats_prefix_and_longer_beats_shorter() {
        let table = table(&[
            (None, PathRule::Prefix("/")),
            (None, PathRule::Prefix("/a")),
            (None, PathRule::Prefix("/a/b")),
            (None, PathRule::Exact("/a/b")),
        ]);
        assert_eq!(table.find("h", "/"), Some(0));
        assert_eq!(table.find("h", "/x"), Some(0));
        assert_eq!(table.find("h", "/a/x"), Some(1));
        assert_eq!(table.find("h", "/a/b/c"), Some(2));
        assert_eq!(table.find("h", "/a/b"), Some(3));
    }

    #[test]
    fn an_exact_host_beats_a_wildcard_and_a_wildcard_needs_a_label() {
        let table = table(&[
            (Some("*.example.com"), PathRule::Prefix("/")),
            (Some("a.example.com"), PathRule::Prefix("/")),
            (Some("*.b.example.com"), PathRule::Prefix("/")),
        ]);
        assert_eq!(table.find("a.example.com", "/"), Some(1));
        assert_eq!(table.find("c.example.com", "/"), Some(0));
        assert_eq!(table.find("x.b.example.com", "/"), Some(2));
        assert_eq!(table.find("example.com", "/"), None);
        assert_eq!(table.find("badexample.com", "/"), None);
    }

    #[test]
    fn a_place_is_taken_once() {
        let mut table = table(&[(None, PathRule::Prefix("/a"))]);
        assert!(!table.insert(None, PathRule::Prefix("/a/"), 1));
    }
}
