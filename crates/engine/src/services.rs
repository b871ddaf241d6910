//! Services behind the node: from their shape in the snapshot to the client that speaks to them.

mod report;
mod thresholds;

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use vedette_upstream::{
    AddressRule, ClientCertificate, EndpointConfig, HealthConfig, Machine, Protocol, SpiffeConfig,
    TlsConfig, Upstream, UpstreamConfig,
};

use crate::load::{EngineDir, LoadError};
use crate::snapshot::{self, UpstreamProtocol};

pub use report::{ServiceRow, report, without_ready_endpoint};
pub use thresholds::breaker;

/// The services of a plan, by name.
pub type Services = HashMap<String, Arc<Upstream>>;

/// What of the machine services need; read once, by the engine before it confines itself.
///
/// # Errors
/// When the machine's name servers cannot be used.
pub fn machine() -> Result<&'static Machine, LoadError> {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    if let Some(machine) = MACHINE.get() {
        return Ok(machine);
    }
    let read = Machine::read().map_err(|error| LoadError::new("resolver_invalid", error.0))?;
    Ok(MACHINE.get_or_init(|| read))
}

/// The clients for `declared`. One whose settings are those of `previous` stays, with its
/// connections and what it has learnt of its endpoints.
pub fn compile(
    declared: &[snapshot::Upstream],
    dir: &EngineDir,
    previous: Option<&Services>,
) -> Result<Services, LoadError> {
    let compile = |upstream: &snapshot::Upstream| {
        let config = config(upstream, dir)?;
        let known = previous.and_then(|services| services.get(&upstream.name));
        if let Some(same) = known.filter(|known| *known.config() == config) {
            return Ok((upstream.name.clone(), Arc::clone(same)));
        }
        let made = Upstream::new(config, machine()?)
            .map_err(|error| LoadError::new("upstream_invalid", error.0))?;
        Ok((upstream.name.clone(), made))
    };
    declared.iter().map(compile).collect()
}

fn config(declared: &snapshot::Upstream, dir: &EngineDir) -> Result<UpstreamConfig, LoadError> {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let endpoints = declared.endpoints.iter().map(|it| EndpointConfig {
        host: it.host.clone(),
        port: u16::try_from(it.port).unwrap_or_default(),
        weight: number(it.weight),
    });
    Ok(UpstreamConfig {
        name: declared.name.clone(),
        endpoints: endpoints.collect(),
        protocol: match declared.protocol {
            UpstreamProtocol::Auto => Protocol::Auto,
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
        },
        tls: declared.tls.as_ref().map(|it| tls(it, dir)).transpose()?,
        connect_timeout: Duration::from_millis(declared.connect_millis),
        response_timeout: Duration::from_millis(declared.response_millis),
        idle_timeout: Duration::from_millis(declared.idle_millis),
        max_connections: usize::try_from(declared.max_connections).unwrap_or(usize::MAX),
        retry_percent: number(declared.retry_percent),
        health: declared.health.as_ref().map(|it| HealthConfig {
            path: it.path.clone(),
            interval: Duration::from_millis(it.interval_millis),
            timeout: Duration::from_millis(it.timeout_millis),
            healthy_after: number(it.healthy_after),
            unhealthy_after: number(it.unhealthy_after),
        }),
        outlier: thresholds::outlier(&declared.outlier),
        breaker: declared.breaker.as_ref().map(breaker),
        // The operator named the endpoints.
        addresses: AddressRule::Any,
    })
}

fn tls(declared: &snapshot::UpstreamTls, dir: &EngineDir) -> Result<TlsConfig, LoadError> {
    let read = |name: &String| {
        fs::read_to_string(dir.client_certificate(name))
            .map(ClientCertificate)
            .map_err(|error| {
                let message = format!("the client certificate {name}: {error}");
                LoadError::new("client_certificate_missing", message)
            })
    };
    let peers = declared.peers.as_ref().map(|peers| SpiffeConfig {
        peers: peers.clone(),
        identity: dir.svids().identity("gateway", None),
    });
    Ok(TlsConfig {
        spiffe: peers,
        server_name: declared.server_name.clone(),
        ca: declared.ca.clone(),
        client: declared.client_certificate.as_ref().map(read).transpose()?,
    })
}

/// The tasks that ask endpoints whether they are well.
#[derive(Default)]
pub struct Watches(Mutex<Vec<(Arc<Upstream>, AbortHandle)>>);

impl Watches {
    /// Watches the services of a plan that want it, and no others. Needs a runtime.
    pub fn follow(&self, services: &Services) {
        let mut watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|(watched, task)| {
            let stays = services.values().any(|it| Arc::ptr_eq(it, watched));
            if !stays {
                task.abort();
            }
            stays
        });
        for service in services.values() {
            let is_watched = watches.iter().any(|(it, _)| Arc::ptr_eq(it, service));
            if service.config().health.is_some() && !is_watched {
                let task = tokio::spawn(Arc::clone(service).watch());
                watches.push((Arc::clone(service), task.abort_handle()));
            }
        }
    }
}
