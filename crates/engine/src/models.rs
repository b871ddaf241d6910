//! Models: from their shape in the snapshot to the process that answers for each, over its socket.
//!
//! Owns: how such a process is spoken to: where, how many at once, for how long. Must not: know tensors, which its
//! process reads; start one, which the keeper does.

pub mod answer;
mod dialler;
pub mod remote;
mod silence;
mod tenant;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use vedette_upstream::{
    EndpointConfig, Host, OutlierConfig, Protocol, SendOptions, Upstream, UpstreamConfig,
};
use vedette_wasm::{BodyError, RequestBody};

use crate::changes::PathChange;
use crate::load::{EngineDir, LoadError};
use crate::services;
use crate::snapshot::{
    RemoteModel, ServedModel, ServedModelFormat, ServedModelInput, TensorDatatype,
};

pub use dialler::Dialler;
pub use silence::Hearing;
pub use tenant::{TENANT, tenant_of};

/// The models of a plan, by name.
pub type Models = HashMap<String, Arc<Served>>;

/// Where a model runs: in a process of this node.
pub const TIER: &str = "edge";

/// However long its queue is, nobody waits longer for a model, but for two of its runs.
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest pause between two parts of an answer, which is whole before it is sent.
const BODY_IDLE: Duration = Duration::from_secs(30);
/// Connections beyond those of requests that run or wait: to ask what it is, and to be refused.
const SPARE_CONNECTIONS: u64 = 16;
const MOST_CONNECTIONS: u64 = 8192;

/// A model of the snapshot, and how it is asked.
pub struct Served {
    /// What it is and may take. Of a model that only tiers have, what is of a file or a process says nothing.
    pub declared: ServedModel,
    /// The version, as policies see it; 0, which no version is, where only tiers have it.
    pub version: Version,
    /// Its process; none: only tiers have it.
    pub process: Option<Process>,
    /// Its path by the Open Inference Protocol, without the slash it begins with.
    path: Box<str>,
}

/// The process of a model, and how it is spoken to.
pub struct Process {
    /// The way to it.
    pub upstream: Arc<Upstream>,
    /// How requests are sent.
    pub options: SendOptions,
    /// Whether it answers anybody.
    pub hearing: Hearing,
}

/// The version of a model; policies read the number, and the memory of decisions the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The number.
    pub number: i64,
    /// The same as text.
    pub text: Box<str>,
}

impl Version {
    /// A version as the snapshot counts it.
    pub fn new(number: u64) -> Self {
        Self {
            number: i64::try_from(number).unwrap_or(i64::MAX),
            text: number.to_string().into(),
        }
    }
}

/// The models of a snapshot: those with a process, and those that only tiers have. One that is as in `previous` stays,
/// with its connections.
pub fn compile(
    (declared, remote): (Vec<ServedModel>, Vec<RemoteModel>),
    dir: &EngineDir,
    previous: Option<&Models>,
) -> Result<Models, LoadError> {
    let remote = remote.into_iter().map(|model| {
        let served = Served::elsewhere(model);
        Ok((served.declared.name.clone(), Arc::new(served)))
    });
    let models = declared.into_iter().map(|model| {
        let known = previous.and_then(|models| models.get(&model.name));
        let served = match known.filter(|known| known.declared == model) {
            Some(same) => Arc::clone(same),
            None => Arc::new(Served::new(model, dir)?),
        };
        Ok((served.declared.name.clone(), served))
    });
    remote.chain(models).collect()
}

impl Served {
    fn new(declared: ServedModel, dir: &EngineDir) -> Result<Self, LoadError> {
        let invalid = |what: String| LoadError::new("upstream_invalid", what);
        let socket = dir.model_socket(&declared.worker)?;
        let endpoint = EndpointConfig::on_socket(&declared.name, &socket);
        let config = UpstreamConfig {
            protocol: Protocol::Http1,
            response_timeout: patience(&declared),
            max_connections: connections(&declared),
            // There is no other to use instead.
            outlier: OutlierConfig {
                failures: 0,
                ..OutlierConfig::default()
            },
            ..UpstreamConfig::new(&declared.name, vec![endpoint])
        };
        let process = Process {
            upstream: Upstream::new(config, services::machine()?).map_err(|it| invalid(it.0))?,
            hearing: Hearing::new(Duration::from_millis(declared.limits.run_millis)),
            options: SendOptions {
                host: Host::Endpoint,
                body_idle: Some(BODY_IDLE),
                ..SendOptions::default()
            },
        };
        Ok(Self {
            process: Some(process),
            version: Version::new(declared.version),
            path: format!("v2/models/{}", declared.name).into(),
            declared,
        })
    }

    /// A model that only tiers have.
    fn elsewhere(model: RemoteModel) -> Self {
        Self {
            process: None,
            version: Version::new(0),
            path: format!("v2/models/{}", model.name).into(),
            declared: remote::shape_of(model),
        }
    }

    /// Its version and the digest of its file; none: only tiers have it.
    pub fn release(&self) -> Option<(u64, &str)> {
        let declared = &self.declared;
        self.process
            .is_some()
            .then_some((declared.version, declared.blob.as_str()))
    }

    /// Whether it takes text, which the firewall knows attacks in; tensors of numbers hold none.
    pub fn takes_text(&self) -> bool {
        let mut inputs = self.declared.inputs.iter();
        inputs.any(|it| it.datatype == TensorDatatype::Bytes)
    }

    /// Where its process has `what` (a path, or nothing), of this version or whichever it is.
    pub fn place(&self, version: Option<&str>, what: &str) -> String {
        match version {
            None => format!("/{}{what}", self.path),
            Some(version) => format!("/{}/versions/{version}{what}", self.path),
        }
    }

    /// Whether its process says that it is ready; of one that only tiers have nobody is asked.
    pub async fn ask_ready(&self) -> bool {
        let Some(process) = &self.process else {
            return true;
        };
        let mut request = Request::new(nothing());
        let Ok(uri) = Uri::try_from(self.place(None, "/ready")) else {
            return false;
        };
        *request.uri_mut() = uri;
        let answered = process.upstream.send(request, &process.options).await;
        answered.is_ok_and(|it| it.status() == StatusCode::OK)
    }

    /// Whether it answers events of a stream.
    pub fn takes_streams(&self) -> bool {
        takes_streams(&self.declared)
    }

    /// Whether a text itself can be the body of a request.
    pub fn reads_text(&self) -> bool {
        matches!(self.declared.input, Some(ServedModelInput::Text(_)))
    }

    /// The path that its process is asked for: `wire` (escaped normal form), of which the route matched `matched`. What
    /// already is a path of this model stays.
    pub fn path(&self, matched: &str, wire: &str) -> String {
        let own = wire.strip_prefix('/');
        let below = own.and_then(|it| it.strip_prefix(&*self.path));
        if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return wire.to_owned();
        }
        PathChange::Prefix(self.path.clone()).apply(matched, wire)
    }
}

/// No body.
pub fn nothing() -> RequestBody {
    let nothing = Empty::<Bytes>::new().map_err(|never| match never {});
    nothing.map_err(|never: BodyError| never).boxed_unsync()
}

/// How long an answer may take: its own run, and those of all who may wait before it.
fn patience(declared: &ServedModel) -> Duration {
    let limits = &declared.limits;
    let run = Duration::from_millis(limits.run_millis);
    let before = limits.queue.div_ceil(declared.sessions.max(1));
    let turns = u32::try_from(before.saturating_add(2)).unwrap_or(u32::MAX);
    let longest = LONGEST.max(run.saturating_mul(2));
    run.saturating_mul(turns)
        .min(longest)
        .saturating_add(silence::MARGIN)
}

fn takes_streams(declared: &ServedModel) -> bool {
    declared.format == ServedModelFormat::Detector || declared.stream.is_some()
}

fn connections(declared: &ServedModel) -> usize {
    let under_way = declared.sessions.saturating_add(declared.limits.queue);
    // Each stream has a connection while it lasts.
    let under_way = match takes_streams(declared) {
        true => under_way.saturating_add(declared.limits.streams),
        false => under_way,
    };
    let most = under_way.saturating_add(SPARE_CONNECTIONS);
    usize::try_from(most.min(MOST_CONNECTIONS)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "models_tests.rs"]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
