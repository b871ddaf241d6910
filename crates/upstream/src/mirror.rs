//! Copies of requests that are sent and forgotten.
//!
//! Owns: how many are under way, and how much they hold. Must not: make anybody wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, request};
use http_body_util::BodyExt;

use crate::body::{OutBody, UpstreamBody};
use crate::config::SendOptions;
use crate::fields::Outgoing;
use crate::tries::Tries;
use crate::upstream::Upstream;

/// Most mirrored requests under way, and most bytes of their bodies, of one upstream.
const MIRRORED: usize = 64;
const MIRRORED_BYTES: usize = 16 << 20;
/// What of a mirror's answer is read, so that its connection can be used again.
const MIRROR_ANSWER_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(crate) struct Mirrors {
    number: AtomicUsize,
    bytes: AtomicUsize,
}

impl Upstream {
    /// Sends a copy of a request and forgets it. `false`: not sent, too many are under way.
    pub fn mirror(
        self: &Arc<Self>,
        head: request::Parts,
        body: Bytes,
        options: &SendOptions,
    ) -> bool {
        let Some(place) = Mirrors::enter(&self.mirrors, body.len()) else {
            self.mirrors_dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let request = Request::from_parts(head, OutBody::whole(body));
        let Ok(outgoing) = Outgoing::new(request, &options.host, None) else {
            return false;
        };
        let (upstream, mut options) = (Arc::clone(self), options.clone());
        (options.retry, options.hedge) = (None, None);
        options
            .timeout
            .get_or_insert(upstream.config.response_timeout);
        tokio::spawn(async move {
            let mut tries = Tries::default();
            let sent = upstream.send_out(outgoing, &options, &mut tries).await;
            if let Ok(response) = upstream.counted(sent) {
                discard(response.into_body()).await;
            }
            drop(place);
        });
        true
    }
}

async fn discard(mut body: UpstreamBody) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > MIRROR_ANSWER_BYTES {
            return;
        }
    }
}

impl Mirrors {
    fn enter(mirrors: &Arc<Self>, bytes: usize) -> Option<MirrorPlace> {
        let before = mirrors.number.fetch_add(1, Ordering::Relaxed);
        let held = mirrors.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = MirrorPlace(Arc::clone(mirrors), bytes);
        (before < MIRRORED && held.saturating_add(bytes) <= MIRRORED_BYTES).then_some(place)
    }
}

struct MirrorPlace(Arc<Mirrors>, usize);

impl Drop for MirrorPlace {
    fn drop(&mut self) {
        self.0.number.fetch_sub(1, Ordering::Relaxed);
        self.0.bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}
