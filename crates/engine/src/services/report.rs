//! What is known of the services, as control reads it.

use serde::Serialize;
use vedette_upstream::{Circuit, EndpointHealth, EndpointState, LastError, Upstream};

use super::Services;

/// One service: what was sent to it, and how its endpoints do. Counted since its settings last
/// changed, or the engine started.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    name: String,
    requests: u64,
    failures: u64,
    retries: u64,
    hedges: u64,
    hedges_won: u64,
    mirrors_dropped: u64,
    circuit: Option<CircuitRow>,
    endpoints: Vec<EndpointRow>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointRow {
    host: String,
    port: u16,
    weight: u32,
    state: &'static str,
    ready: bool,
    /// Milliseconds since 1970, as all times here.
    failing_since: Option<u64>,
    ejected_until: Option<u64>,
    last_error: Option<ErrorRow>,
    in_flight: usize,
    connections: usize,
    requests: u64,
    failures: u64,
    ejections: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CircuitRow {
    state: &'static str,
    open_until: Option<u64>,
    opened: u64,
    refused: u64,
    why: Option<String>,
}

#[derive(Serialize)]
struct ErrorRow {
    time: u64,
    message: String,
}

/// Every service, by name.
pub fn report(services: &Services) -> Vec<ServiceRow> {
    let mut rows: Vec<_> = services.values().map(|it| service(it)).collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

/// Names of services of which no endpoint can be expected to answer, sorted.
pub fn without_ready_endpoint(services: &Services) -> Vec<String> {
    let out = services.iter().filter(|(_, it)| !it.has_ready_endpoint());
    let mut names: Vec<_> = out.map(|(name, _)| name.clone()).collect();
    names.sort();
    names
}

fn service(upstream: &Upstream) -> ServiceRow {
    let counters = upstream.counters();
    ServiceRow {
        name: upstream.config().name.clone(),
        requests: counters.requests,
        failures: counters.failures,
        retries: counters.retries,
        hedges: counters.hedges,
        hedges_won: counters.hedges_won,
        mirrors_dropped: counters.mirrors_dropped,
        circuit: upstream.circuit().map(circuit),
        endpoints: upstream.health().into_iter().map(endpoint).collect(),
    }
}

fn circuit(circuit: Circuit) -> CircuitRow {
    CircuitRow {
        state: circuit.state.as_str(),
        open_until: circuit.open_until,
        opened: circuit.opened,
        refused: circuit.refused,
        why: circuit.why,
    }
}

fn endpoint(health: EndpointHealth) -> EndpointRow {
    EndpointRow {
        host: health.host,
        port: health.port,
        weight: health.weight,
        state: EndpointState::as_str(health.state),
        ready: health.state.is_ready(),
        failing_since: health.failing_since,
        ejected_until: health.ejected_until,
        last_error: health.last_error.map(error),
        in_flight: health.active_requests,
        connections: health.open_connections,
        requests: health.requests,
        failures: health.failures,
        ejections: health.ejections,
    }
}

fn error(last: LastError) -> ErrorRow {
    ErrorRow {
        time: last.unix_millis,
        message: last.message,
    }
}
