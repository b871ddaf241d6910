//! The door: who gets a seat, and what is told of those who do not.
//!
//! Asked before the costly part of a handshake. Must not: wait, or answer anything.

use std::net::IpAddr;
use std::sync::Arc;

use vedette_admit::ranges::Listing;

use super::{CONNECTIONS, no_request};
use crate::node::{Connection, Node};
use crate::plan::Plan;
use crate::record::{Outcome, Record};
use crate::refusal::{Cause, Refusal};
use crate::sources::Seat;
use crate::stages::admit::refusal_of_address;
use crate::worker;

/// Lets a connection in, as far as can be said before its first byte. A program of this machine is no source of a flood.
pub fn seat(
    node: &Node,
    plan: Option<&Plan>,
    address: IpAddr,
    is_of_a_program: bool,
) -> Result<Seat, Refusal> {
    let full = || Refusal::with(Cause::Overloaded, "there are too many connections");
    let Some(plan) = plan else {
        let place = node.connections.enter(CONNECTIONS).ok_or_else(full)?;
        return Ok(Seat::uncounted(place));
    };
    if is_of_a_program {
        let limit = plan.admit.limits.max_connections;
        return Ok(Seat::uncounted(
            node.connections.enter(limit).ok_or_else(full)?,
        ));
    }
    if let Some(refusal) = refusal_of_address(node, plan, address) {
        return Err(refusal);
    }
    let of_source = match plan.addresses.judge(address) {
        Listing::Allowed => None,
        _ => Some(node.sources.enter(address)?),
    };
    let limit = plan.admit.limits.max_connections;
    let place = node.connections.enter(limit).ok_or_else(full)?;
    Ok(match of_source {
        Some(of_source) => Seat::new(place, of_source),
        None => Seat::uncounted(place),
    })
}

/// Counts a connection that is not let in. Of a flood of them, some are recorded.
pub fn turn_away(
    plan: Option<&Plan>,
    protocol: &'static str,
    refusal: Refusal,
    connection: impl FnOnce() -> Arc<Connection>,
) {
    let is_told = worker::with(|worker| worker.turned_away(refusal.cause));
    if !is_told.unwrap_or(false) {
        return;
    }
    let mut record = Record::open(&connection(), &no_request());
    record.protocol = protocol;
    record.snapshot = plan.map(|plan| Arc::clone(&plan.digest));
    record.country = plan.and_then(|plan| plan.addresses.country(record.connection.client_address));
    record.outcome = Outcome::Refused;
    record.refusal = Some(refusal);
}
