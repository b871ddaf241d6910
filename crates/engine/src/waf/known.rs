//! Requests in which a worker has found nothing before, known by a keyed hash of all that the rules see.
//!
//! Clients ask for the same again and again: polls, health checks, assets of a page. What was judged under
//! this plan, by rules whose verdict depends on the request alone, is not judged again (ADR 0026). Holds
//! no part of a request: the hash has 128 bits and a key that nobody knows, so that nobody can make two
//! requests that share one. Must not: know a request in which anything was found.

use std::net::IpAddr;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::judgement::Hears;

/// Sets of places; a power of two.
const SETS: usize = 1024;
/// Requests of a set, the last one met first.
const WAYS: usize = 4;

/// What tells a request without a body from every other one; never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Likeness(u128);

/// The requests, 4,096 of them at most, in 64 kB. One that is met again outlives those that are met once.
#[derive(Debug)]
pub struct Known {
    secret: [u8; 16],
    sets: Vec<[u128; WAYS]>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            secret: vedette_limit::random_key(),
            sets: Vec::new(),
        }
    }
}

impl Known {
    /// What a request is known by of which these parts were told.
    pub fn likeness(&self, parts: &Parts<'_>) -> Likeness {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        std::hash::Hasher::write(&mut hasher, parts.0);
        Likeness(hasher.finish128().as_u128().max(1))
    }

    /// Whether such a request was judged, and nothing was found.
    pub fn has(&mut self, request: Likeness) -> bool {
        let set = self.sets.get_mut(place(request));
        let Some(set) = set else { return false };
        let Some(at) = set.iter().position(|known| *known == request.0) else {
            return false;
        };
        if let Some(newer) = set.get_mut(..=at) {
            newer.rotate_right(1);
        }
        true
    }

    /// Remembers one, in place of the one of its set that was not met for longest.
    pub fn remember(&mut self, request: Likeness) {
        if self.has(request) {
            return;
        }
        self.sets.resize(SETS, [0; WAYS]);
        if let Some(set) = self.sets.get_mut(place(request)) {
            set.rotate_right(1);
            set[0] = request.0;
        }
    }
}

fn place(request: Likeness) -> usize {
    usize::try_from(request.0 % SETS as u128).unwrap_or_default()
}

/// All that a verdict depends on, one after the other, each with its length.
pub struct Parts<'b>(&'b mut Vec<u8>);

impl<'b> Parts<'b> {
    /// Begins a request from this address, judged by this policy, of whose exclusions so many have run out.
    pub fn begin(buffer: &'b mut Vec<u8>, policy: usize, expired: usize, client: IpAddr) -> Self {
        buffer.clear();
        let mut parts = Self(buffer);
        parts.put(&policy.to_le_bytes());
        parts.put(&expired.to_le_bytes());
        match client {
            IpAddr::V4(address) => parts.put(&address.octets()),
            IpAddr::V6(address) => parts.put(&address.octets()),
        }
        parts
    }

    fn put(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&part.len().to_le_bytes());
        self.0.extend_from_slice(part);
    }
}

impl Hears for Parts<'_> {
    fn line(&mut self, method: &[u8], target: &[u8], protocol: &[u8]) {
        self.put(method);
        self.put(target);
        self.put(protocol);
    }

    fn header(&mut self, name: &[u8], value: &[u8]) {
        self.put(name);
        self.put(value);
    }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
