//! What the record of a call says when a model was asked.

use std::sync::Arc;

use serde::Serialize;
use vedette_wasm::Interface;

use crate::caller::{Caller, Proof};
use crate::models::{Served, TIER};
use crate::policy::Decision;

/// The most bytes of a name that are kept: a guest may ask for any.
const MAX_NAME: usize = 63;

/// Which model a function asked, by what right, and how long it took.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    component: Box<str>,
    /// By what the function asks.
    interface: &'static str,
    /// The digest of the snapshot it was judged under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Arc<str>>,
    /// The function's SPIFFE ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Arc<[String]>>,
    /// The path that the model's process is asked for, decoded.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_micros: Option<u64>,
    /// Whether what the model is asked and answers is as it was, as its process says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<&'static str>,
    /// The policy that was missing.
    #[serde(skip)]
    pub would_allow: Option<String>,
}

impl Prediction {
    /// One by this component, of a model of that name if there is one.
    pub fn of(component: &str, model: &str, interface: Interface) -> Self {
        Self {
            component: component.into(),
            interface: match interface {
                Interface::Http => "wasi:http",
                Interface::Nn => "wasi:nn",
            },
            model: model.chars().take(MAX_NAME).collect(),
            ..Self::default()
        }
    }

    /// Says which model it is.
    pub fn is_of(&mut self, model: &Served) {
        if let Some((version, digest)) = model.release() {
            self.model_version = Some(version);
            self.model_digest = Some(digest.to_owned());
            self.tier = Some(TIER);
        }
    }

    /// Says which policies decided; or which one was missing.
    pub fn decided(&mut self, decision: &Decision, model: &Served, caller: &Caller) {
        self.policies = Some(Arc::clone(&decision.policies));
        if let Proof::Function(function) = &caller.proof
            && !decision.is_allowed
            && decision.policies.is_empty()
        {
            // Names are labels of DNS: nothing in them ends a text of Cedar's.
            self.would_allow = Some(format!(
                "permit (principal == Function::\"{function}\", action == Action::\"predict\", \
                 resource == Model::\"{}\");",
                model.declared.name
            ));
        }
    }

    /// Says how long it waited and ran, in microseconds, as the model's process says.
    pub fn ran(&mut self, queue: Option<u64>, run: Option<u64>) {
        (self.queue_micros, self.run_micros) = (queue, run);
    }

    /// The model and its version, once it is known to be one, and how long it waited and ran for it.
    pub fn counted(&self) -> Option<((&str, u64), [u64; 2])> {
        let times = [self.queue_micros, self.run_micros].map(|it| it.unwrap_or(0));
        Some(((&self.model, self.model_version?), times))
    }
}
