//! Streams: events one after the other, each answered as it comes, with what the stream has seen before.
//!
//! Owns: detectors ([`detector`], of Half-Space Trees and ADWIN) and what each stream keeps of them ([`table`]); events as
//! lines of a body ([`event`], [`flow`]) or as messages of a WebSocket ([`websocket`]); alarms ([`alarms`]). What remembers
//! may be a model's own sessions as well ([`recurrent`]). An event is
//! read when the answer to the one before is taken: nothing waits here, and who is slow slows down only himself.
//!
//! Must not: know who asks, but for a word that tells callers apart; or keep a stream when its process ends.

mod adwin;
mod alarms;
mod detector;
pub mod event;
mod flow;
mod forest;
pub mod recurrent;
pub mod spec;
mod table;
mod websocket;

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Request};
use tokio::sync::watch;

use crate::config::Served;
use crate::error::Error;
use crate::idle::Asking;
use crate::oip::Refusal;
use crate::place::agree;
use crate::pool::Pool;

use alarms::Alarms;
use detector::Detector;
use recurrent::Recurrent;
use spec::Spec;
use table::{Claimed, MAX_NAME, Table};

pub use flow::{Content, Flow};
pub use websocket::{is_asked_for, switch};

/// Tells callers apart; the engine sets it.
const TENANT: HeaderName = HeaderName::from_static("x-vedette-tenant");
/// The last line of a stream that its process ends.
const REPLACED: &str = "{\"end\":\"the model is being replaced\"}\n";

/// Bytes of results that go out together at most: between two of these others have their turn.
const TOGETHER: usize = 16 * 1024;

/// What events are judged by.
enum Judge {
    Detector(Detector),
    Model(Recurrent),
}

/// What one stream has seen.
enum State {
    Detector(detector::State),
    Model(recurrent::State),
}

/// What becomes of an event.
struct Told {
    n: u64,
    score: f64,
    alarm: bool,
    /// Of a detector: whether what is usual has changed.
    drift: Option<bool>,
}

/// The streams of a model.
pub struct Streams {
    judge: Judge,
    table: Arc<Table<State>>,
    alarms: Alarms,
    /// True once they are to end.
    leaving: watch::Sender<bool>,
}

/// One stream as one connection has it.
pub struct Conversation {
    streams: Arc<Streams>,
    claimed: Claimed<State>,
    event: Vec<f64>,
    leaving: watch::Receiver<bool>,
    /// The model is asked for as long as this is there.
    _asking: Asking,
}

impl Streams {
    /// Those of the detector in `file`.
    ///
    /// # Errors
    /// Those of [`Spec::read`]; `model_mismatch`: it was registered as another one; `model_too_large`.
    pub fn load(model: &Served, file: &[u8]) -> Result<Arc<Self>, Error> {
        let spec = Spec::read(file)?;
        if !agree(&model.inputs, &spec.inputs()) || !agree(&model.outputs, &Spec::outputs()) {
            let message =
                "the file takes or gives other tensors than the model was registered with";
            return Err(Error::new("model_mismatch", message));
        }
        Self::new(model, Judge::Detector(Detector::new(spec)))
    }

    /// Those of a model, if it was registered with how it answers them, whose sessions are in `pool`.
    ///
    /// # Errors
    /// Those of [`Recurrent::new`]; `model_too_large`.
    pub fn of_sessions(model: &Served, pool: &Arc<Pool>) -> Result<Option<Arc<Self>>, Error> {
        let Some(declared) = &model.stream else {
            return Ok(None);
        };
        let recurrent = Recurrent::new(model, declared, Arc::clone(pool))?;
        Self::new(model, Judge::Model(recurrent)).map(Some)
    }

    /// # Errors
    /// `model_too_large`: half of the memory that it may have does not suffice for one.
    fn new(model: &Served, judge: Judge) -> Result<Arc<Self>, Error> {
        let each = judge.stream_bytes();
        let room = usize::try_from(model.limits.memory_bytes / 2 / each).unwrap_or(usize::MAX);
        if room == 0 {
            let message = format_args!(
                "a stream of this model takes {each} bytes, and half of limits.memory is less; fewer trees or less depth of a detector take less"
            );
            return Err(Error::new("model_too_large", message));
        }
        Ok(Arc::new(Self {
            judge,
            table: Table::new(model.limits.streams.min(room)),
            alarms: Alarms::new(&model.name, model.version),
            leaving: watch::channel(false).0,
        }))
    }

    /// The stream that a request is about; `asking`: that somebody asks.
    ///
    /// # Errors
    /// 400: its name is none. 409, 503: see [`Table::claim`].
    pub fn open<B>(
        self: &Arc<Self>,
        request: &Request<B>,
        mut asking: Asking,
    ) -> Result<Conversation, Refusal> {
        let name = name_of(request.uri().query())?;
        let caller = request
            .headers()
            .get(TENANT)
            .and_then(|it| it.to_str().ok());
        let caller = caller.filter(|it| it.len() <= MAX_NAME).unwrap_or_default();
        let key = name.map(|name| (caller.to_owned(), name.to_owned()));
        if *self.leaving.borrow() {
            return Err(Refusal::new(
                503,
                "this version of the model is being replaced",
            ));
        }
        let claimed = self.table.claim(key, || self.judge.begin())?;
        asking.counts = true;
        Ok(Conversation {
            claimed,
            _asking: asking,
            streams: Arc::clone(self),
            event: vec![],
            leaving: self.leaving.subscribe(),
        })
    }

    /// Ends all of them, and waits until they have.
    pub async fn end(&self) {
        self.leaving.send_replace(true);
        self.leaving.closed().await;
    }
}

/// `stream=NAME` of a query.
fn name_of(query: Option<&str>) -> Result<Option<&str>, Refusal> {
    let Some(query) = query.filter(|it| !it.is_empty()) else {
        return Ok(None);
    };
    let is_sound = |name: &&str| {
        let is_short = (1..=MAX_NAME).contains(&name.len());
        is_short
            && name
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"-._~:".contains(&it))
    };
    let name = query.strip_prefix("stream=").filter(is_sound);
    name.map(Some).ok_or_else(|| {
        Refusal::bad("the query is ?stream=NAME, with 1 to 128 letters, digits, -, ., _, ~ or :")
    })
}

impl Conversation {
    /// Answers an event: one line more in `out`.
    async fn answer(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(state) = self.claimed.state() else {
            return;
        };
        let told = match (&self.streams.judge, state) {
            (Judge::Detector(detector), State::Detector(state)) => {
                let read = event::read(line, &detector.spec.features, &mut self.event);
                read.map(|id| (detector.observe(state, &self.event).into(), id))
            }
            (Judge::Model(model), State::Model(state)) => {
                match event::read_elements(line, model.event()) {
                    Err(why) => Err(why),
                    Ok((elements, id)) => run(model, state, &elements).await.map(|it| (it, id)),
                }
            }
            _ => return,
        };
        match told {
            Ok((told, id)) => self.tell(&told, id.and_then(|it| line.get(it)), out),
            Err(why) => self.refuse(&why, out),
        }
    }

    /// Answers an event that came as the bytes of its elements.
    async fn answer_elements(&mut self, elements: &[u8], out: &mut Vec<u8>) {
        let state = self.claimed.state();
        let (Judge::Model(model), Some(State::Model(state))) = (&self.streams.judge, state) else {
            return;
        };
        let told = match model.event().require(elements) {
            Ok(()) => run(model, state, elements).await,
            Err(why) => Err(why),
        };
        match told {
            Ok(told) => self.tell(&told, None, out),
            Err(why) => self.refuse(&why, out),
        }
    }

    /// Whether an event may be the bytes of its elements.
    fn takes_elements(&self) -> bool {
        matches!(self.streams.judge, Judge::Model(_))
    }

    /// Bytes of results up to which another one joins them.
    fn most_together(&self) -> usize {
        match self.streams.judge {
            Judge::Detector(_) => TOGETHER,
            Judge::Model(_) => 1,
        }
    }

    fn tell(&self, told: &Told, id: Option<&[u8]>, out: &mut Vec<u8>) {
        let (n, score, alarm) = (told.n, told.score, told.alarm);
        // Writing to memory does not fail.
        let _ = write!(out, "{{\"n\":{n}");
        if let Some(id) = id {
            out.extend_from_slice(b",\"id\":");
            out.extend_from_slice(id);
        }
        let _ = write!(out, ",\"score\":{score},\"alarm\":{alarm}");
        if let Some(drift) = told.drift {
            let _ = write!(out, ",\"drift\":{drift}");
        }
        out.extend_from_slice(b"}\n");
        if alarm {
            self.streams.alarms.raise(self.claimed.name(), n, score);
        }
    }

    /// Answers what is no event; the stream goes on.
    fn refuse(&mut self, why: &str, out: &mut Vec<u8>) {
        let n = self.claimed.state().map_or(0, State::pass_over);
        let said = serde_json::json!({"n": n, "error": why});
        let _ = writeln!(out, "{said}");
    }

    fn is_leaving(&self) -> bool {
        *self.leaving.borrow()
    }

    /// Returns once the stream is to end.
    async fn left(&mut self) {
        // Who sends that is there as long as `streams` is.
        let _ = self.leaving.wait_for(|it| *it).await;
    }
}

/// An event of a model; what is wrong, as a sentence.
async fn run(
    model: &Recurrent,
    state: &mut recurrent::State,
    elements: &[u8],
) -> Result<Told, String> {
    let (score, alarm) = model
        .observe(state, elements)
        .await
        .map_err(|it| it.message)?;
    state.n += 1;
    Ok(Told {
        n: state.n,
        score,
        alarm,
        drift: None,
    })
}

impl From<detector::Outcome> for Told {
    fn from(outcome: detector::Outcome) -> Self {
        Self {
            n: outcome.n,
            score: outcome.score,
            alarm: outcome.alarm,
            drift: Some(outcome.drift),
        }
    }
}

impl Judge {
    fn stream_bytes(&self) -> u64 {
        match self {
            Self::Detector(detector) => detector.stream_bytes(),
            Self::Model(model) => model.stream_bytes(),
        }
    }

    fn begin(&self) -> State {
        match self {
            Self::Detector(detector) => State::Detector(detector.begin()),
            Self::Model(model) => State::Model(model.begin()),
        }
    }
}

impl State {
    /// The next event is no event: it counts, so that what follows is told apart.
    fn pass_over(&mut self) -> u64 {
        match self {
            Self::Detector(state) => state.pass_over(),
            Self::Model(state) => {
                state.n += 1;
                state.n
            }
        }
    }
}

fn last_words() -> Bytes {
    Bytes::from_static(REPLACED.as_bytes())
}

#[cfg(test)]
#[path = "measure_tests.rs"]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss
)]
mod measure;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_by_the_query_and_nothing_else_is_there() {
        assert_eq!(name_of(None), Ok(None));
        assert_eq!(name_of(Some("")), Ok(None));
        assert_eq!(
            name_of(Some("stream=line-3:a.b_c~")),
            Ok(Some("line-3:a.b_c~"))
        );
        let long = format!("stream={}", "x".repeat(129));
        for query in [
            "stream=",
            "stream=a&b=c",
            "stream=a%20b",
            "other=a",
            "stream=a/b",
            &long,
        ] {
            assert!(name_of(Some(query)).is_err(), "{query}");
        }
    }
}
