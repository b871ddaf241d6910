//! What is answered of a model that only tiers have.
//!
//! Owns: that its tiers are asked at once, for what is missing; what the node itself says of it: what it is, and whether
//! anybody could answer. Must not: ask anybody for that: whether a tier can be reached is known from the calls before.

use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use serde_json::{Value, json};
use vedette_wasm::RequestBody;

use super::kept::keep;
use super::{Asked, Outcome, inference_of, marked, medium_of};
use crate::body::Content;
use crate::call::{self, Rpc, messages};
use crate::inference::message_of;
use crate::models::Served;
use crate::models::remote::{metadata, require_fitting};
use crate::node::Node;
use crate::plan::Target;
use crate::record::Record;
use crate::refusal::{Cause, Refusal, Said};
use crate::snapshot::TierOn;
use crate::stages::admit::Admitted;
use crate::stages::predict::{Asking, path_of, time_left};
use crate::tiers::json_length;

/// Answers a request of a model that only tiers have.
pub async fn answer(
    node: &Node,
    record: &mut Record,
    target: &Target,
    asking: &Asking<'_>,
    (admitted, body): (Admitted, RequestBody),
) -> Outcome {
    let model = asking.model;
    let Some(below) = inference_of(target, model, &admitted) else {
        return own_word(target, model, &admitted);
    };
    let tiers = target.tiers.as_deref().ok_or(Cause::TiersUnavailable)?;
    let left = time_left(record, &admitted, asking.terms.timeout)?;
    let ends = left.map(|left| Instant::now() + left);
    let kept = keep(node, record, body).await?;
    let Ok(kept) = kept else {
        return Err(Refusal::with(Cause::Overloaded, "too much is kept back"));
    };
    let asked = Asked {
        target,
        model,
        headers: admitted.parts().headers.clone(),
        below,
        ends,
        kept,
    };
    asked.require_fitting()?;
    let nobody = Err(Cause::TiersUnavailable.into());
    let answered = asked.climb(record, tiers, nobody, TierOn::Missing).await;
    answered.map(|response| marked(record, response))
}

impl Asked<'_> {
    /// What the caller has to mend is told here: to a tier it would be one more request that fails.
    fn require_fitting(&self) -> Result<(), Refusal> {
        if self.headers.contains_key(CONTENT_ENCODING) {
            return Err(mended(
                Cause::ModelRequestInvalid,
                "compressed bodies are not read",
            ));
        }
        let tiers = self.target.tiers.iter().flat_map(|it| &it.tiers);
        let takes_media = tiers.into_iter().any(|it| it.declared.all_inputs);
        if medium_of(&self.headers).is_some() && !takes_media {
            return Err(mended(Cause::ModelMedium, "the model takes tensors"));
        }
        let length = json_length(&self.headers).ok();
        let question = length.and_then(|length| self.question(length));
        let question = question.ok_or_else(|| {
            let what = "the body is no request of the Open Inference Protocol";
            mended(Cause::ModelRequestInvalid, what)
        })?;
        require_fitting(&self.model.declared, &question)
            .map_err(|what| mended(Cause::ModelRequestInvalid, &what))
    }
}

/// Answers a call of gRPC of such a model.
///
/// # Errors
/// It is one for an inference, which tiers are asked for over HTTP alone; or it names a version, of which none is here.
pub fn answer_call(target: &Target, model: &Served, call: &Rpc) -> Outcome {
    if call.method == call::Method::ModelInfer {
        let what = "only tiers have this model: ask for it over HTTP";
        return Err(mended(Cause::CallUnsupported, what));
    }
    if call.version.is_some() {
        return Err(mended(Cause::ModelPathUnknown, NO_VERSION));
    }
    if call.method == call::Method::ModelReady {
        return message_of(messages::whether(is_ready(target)));
    }
    let said = messages::model(metadata(model).to_string().as_bytes());
    message_of(said.ok_or(Cause::UpstreamInvalid)?)
}

const NO_VERSION: &str = "no version of this model is here: only tiers have it";

/// What the node says of such a model.
fn own_word(target: &Target, model: &Served, admitted: &Admitted) -> Outcome {
    let path = path_of(target, model, admitted);
    let below = path.strip_prefix("/v2/models/");
    let below = below.and_then(|it| it.strip_prefix(model.declared.name.as_str()));
    let asked = &admitted.parts().method;
    let wanted = match below {
        Some("" | "/ready") => Method::GET,
        Some("/infer") => Method::POST,
        Some(it) if it.starts_with("/versions/") => {
            return Err(mended(Cause::ModelPathUnknown, NO_VERSION));
        }
        _ => return Err(Cause::ModelPathUnknown.into()),
    };
    if *asked != wanted {
        let mut refusal = mended(Cause::ModelMethod, &format!("{wanted} is the method here"));
        if let Some(said) = &mut refusal.said {
            said.allow = HeaderValue::from_str(wanted.as_str()).ok();
        }
        return Err(refusal);
    }
    match below {
        Some("") => Ok(json_of(&metadata(model))),
        _ if is_ready(target) => Ok(json_of(&json!({"ready": true}))),
        _ => Err(mended(
            Cause::TiersUnavailable,
            "nobody who has the model has answered of late",
        )),
    }
}

/// Whether a tier that is asked for what is missing could be: its breaker lets a call go.
fn is_ready(target: &Target) -> bool {
    let tiers = target.tiers.iter().flat_map(|it| &it.tiers);
    let mut tiers = tiers.filter(|it| it.is_for(TierOn::Missing));
    tiers.any(|it| !it.is_left_alone())
}

fn json_of(value: &Value) -> Response<Content> {
    let mut response = Response::new(Content::Fixed(Some(Bytes::from(value.to_string()))));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// A refusal that says to the caller what there is to mend.
fn mended(cause: Cause, sentence: &str) -> Refusal {
    let mut refusal = Refusal::with(cause, sentence.to_owned());
    refusal.said = Some(Box::new(Said {
        sentence: sentence.to_owned(),
        allow: None,
    }));
    refusal
}
