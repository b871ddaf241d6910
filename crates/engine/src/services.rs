//! Services behind the node: from their shape in the snapshot to the client that speaks to them.

mod report;
mod thresholds;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use vedette_upstream::{
    AddressRule, ClientCertificate, DialSocket, EndpointConfig, HealthConfig, Machine, Protocol,
    SpiffeConfig, TlsConfig, Upstream, UpstreamConfig,
};

use crate::certificate::spiffe_id;
use crate::load::{EngineDir, LoadError};
use crate::mesh::{is_mesh, service_of};
use crate::snapshot::{self, RouteBackend, Snapshot, UpstreamProtocol};

pub use report::{ServiceRow, report, without_ready_endpoint};
pub use thresholds::breaker;

/// The most of a plan.
const MOST: usize = 16_384;

/// The services of a plan, by name.
pub type Services = HashMap<String, Arc<Upstream>>;

/// What of the machine services need; read once, by the engine before it confines itself.
///
/// # Errors
/// When the machine's name servers cannot be used.
pub fn machine() -> Result<&'static Machine, LoadError> {
    machine_with(None)
}

/// The same, read now with who connects to Unix sockets.
///
/// # Errors
/// As [`machine`].
pub fn machine_with(dialler: Option<Arc<dyn DialSocket>>) -> Result<&'static Machine, LoadError> {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    if let Some(machine) = MACHINE.get() {
        return Ok(machine);
    }
    let read = Machine::read().map_err(|error| LoadError::new("resolver_invalid", error.0))?;
    let read = match dialler {
        Some(dialler) => read.dialling(dialler),
        None => read,
    };
    Ok(MACHINE.get_or_init(|| read))
}

/// The clients for the services of a snapshot. One whose settings are those of `previous` stays, with its connections and
/// what it has learnt of its endpoints. A service of the mesh has one more for each sidecar, which shows its own SVID:
/// a connection says who is calling.
pub fn compile(
    snapshot: &Snapshot,
    dir: &EngineDir,
    previous: Option<&Services>,
) -> Result<Services, LoadError> {
    let compile = |name: String, mut config: UpstreamConfig| {
        config.name.clone_from(&name);
        let known = previous.and_then(|services| services.get(&name));
        if let Some(same) = known.filter(|known| *known.config() == config) {
            return Ok((name, Arc::clone(same)));
        }
        let made = Upstream::new(config, machine()?)
            .map_err(|error| LoadError::new("upstream_invalid", error.0))?;
        Ok((name, made))
    };
    let in_mesh = in_mesh(&snapshot.routes);
    let mut services = Services::new();
    for declared in &snapshot.upstreams {
        let config = config(declared, dir, &snapshot.identity)?;
        let is_in_mesh = in_mesh.contains(declared.name.as_str());
        for sidecar in snapshot.sidecars.iter().flatten().filter(|_| is_in_mesh) {
            let Some(spiffe) = config.tls.as_ref().and_then(|it| it.spiffe.as_ref()) else {
                continue;
            };
            let mut config = config.clone();
            config.tls = Some(TlsConfig {
                spiffe: Some(SpiffeConfig {
                    peers: spiffe.peers.clone(),
                    identity: dir.svids().identity(&sidecar.name, None),
                }),
                ..TlsConfig::default()
            });
            services.extend([compile(service_of(&declared.name, &sidecar.name), config)?]);
            if services.len() > MOST {
                let message = format!("more than {MOST} services times sidecars");
                return Err(LoadError::new("upstream_invalid", message));
            }
        }
        services.extend([compile(declared.name.clone(), config)?]);
    }
    Ok(services)
}

/// Names of services that hosts of the mesh lead to.
fn in_mesh(routes: &[snapshot::Route]) -> HashSet<&str> {
    let routes = routes
        .iter()
        .filter(|route| route.hosts.iter().any(|host| is_mesh(host)));
    let names = routes.flat_map(|route| {
        let refs = match &route.backend {
            RouteBackend::Services(it) => it.services.as_slice(),
            _ => &[],
        };
        let mirror = route.mirror.as_ref().map(|it| it.upstream.as_str());
        refs.iter().map(|it| it.name.as_str()).chain(mirror)
    });
    names.collect()
}

fn config(
    declared: &snapshot::Upstream,
    dir: &EngineDir,
    identity: &snapshot::Identity,
) -> Result<UpstreamConfig, LoadError> {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let endpoints = declared.endpoints.iter().map(|it| EndpointConfig {
        host: it.host.clone(),
        port: u16::try_from(it.port).unwrap_or_default(),
        weight: number(it.weight),
        socket: None,
    });
    Ok(UpstreamConfig {
        name: declared.name.clone(),
        endpoints: endpoints.collect(),
        protocol: match declared.protocol {
            UpstreamProtocol::Auto => Protocol::Auto,
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
        },
        tls: declared
            .tls
            .as_ref()
            .map(|it| tls(it, dir, identity))
            .transpose()?,
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

fn tls(
    declared: &snapshot::UpstreamTls,
    dir: &EngineDir,
    identity: &snapshot::Identity,
) -> Result<TlsConfig, LoadError> {
    let read = |name: &String| {
        fs::read_to_string(dir.client_certificate(name))
            .map(ClientCertificate)
            .map_err(|error| {
                let message = format!("the client certificate {name}: {error}");
                LoadError::new("client_certificate_missing", message)
            })
    };
    let peers = declared.peers.as_ref().map(|peers| SpiffeConfig {
        // One that is revoked is believed no more: connections to it are not used again.
        peers: peers
            .iter()
            .filter(|it| {
                let ids = identity.revoked_spiffe_ids.as_deref();
                let domains = identity.revoked_trust_domains.as_deref();
                !is_revoked(ids.unwrap_or_default(), domains.unwrap_or_default(), it)
            })
            .cloned()
            .collect(),
        identity: dir.svids().identity("gateway", None),
    });
    Ok(TlsConfig {
        spiffe: peers,
        server_name: declared.server_name.clone(),
        ca: declared.ca.clone(),
        client: declared.client_certificate.as_ref().map(read).transpose()?,
    })
}

/// Whether a SPIFFE ID counts no more: it is one of `ids`, or of one of the trust domains.
pub fn is_revoked(ids: &[String], domains: &[String], id: &str) -> bool {
    ids.iter().any(|it| it == id) || spiffe_id(id).is_ok_and(|of| domains.iter().any(|it| it == of))
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
