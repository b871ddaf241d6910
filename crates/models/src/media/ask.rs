//! From a request to inputs, and from a run to what was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::until::Until;
use super::{Fed, Feed, Frame, medium};
use crate::config::Served;
use crate::grpc;
use crate::oip::Refusal;
use crate::oip::answer::{Answer, encode};
use crate::oip::request::{Asked, Wanted, decode, decode_beside};
use crate::reading::{Context, Reader};
use crate::runtime::Data;

/// Bytes of elements that are read without going to another thread: some tens of microseconds.
const READ_HERE: usize = 64 << 10;

/// Where what comes is made ready for a model, and what it gives is read.
pub struct Desk {
    feed: Option<Arc<Feed>>,
    reader: Option<Arc<Reader>>,
    /// Where boxes are in a tensor that came as such.
    frame: Option<Frame>,
    pub(super) turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
}

/// A request that is ready to run.
pub struct Question {
    /// Given back in the answer.
    pub id: Option<String>,
    /// Outputs of the file that the run is to give.
    pub runs: Vec<usize>,
    /// In the order of the request.
    pub wanted: Vec<Wanted>,
    /// How long it waited to be read.
    pub waited: Duration,
    /// How long reading it took.
    pub took: Duration,
    /// When nobody waits for an answer any more.
    pub deadline: Option<Instant>,
    /// Bytes of inputs that were made of its body.
    pub made: usize,
    form: Form,
    context: Context,
}

/// When a request came, and until when its caller waits, where anybody has said that.
#[derive(Clone, Copy)]
pub struct Time {
    /// When it came.
    pub came: Instant,
    /// When nobody waits for its answer any more.
    pub deadline: Option<Instant>,
}

impl Time {
    /// The sooner of that and what the request says itself.
    pub(super) fn until(self, asked: &Asked) -> Option<Instant> {
        let own = asked.timeout.and_then(|it| self.came.checked_add(it));
        self.deadline.into_iter().chain(own).min()
    }
}

/// What was read, and what that took.
struct Taken {
    fed: Fed,
    waited: Duration,
    took: Duration,
}

/// How a request came, and is answered.
#[derive(Clone, Copy)]
enum Form {
    Json,
    /// As a message of gRPC, with elements in typed fields or raw.
    Message {
        is_typed: bool,
    },
}

/// An answer, in the form of its request.
pub enum Reply {
    /// JSON, and binary tensors behind it.
    Json(Answer),
    /// A message of gRPC, in pieces.
    Message(Vec<Bytes>),
}

impl Desk {
    /// For a model with these; `sessions` bodies are read at once, and `queue` may wait for it.
    pub fn new(
        feed: Option<Feed>,
        reader: Option<Reader>,
        frame: Option<Frame>,
        sessions: usize,
        queue: usize,
    ) -> Self {
        Self {
            feed: feed.map(Arc::new),
            reader: reader.map(Arc::new),
            frame,
            turns: Arc::new(Semaphore::new(sessions)),
            waiting: AtomicUsize::new(0),
            queue,
        }
    }

    /// Makes a body the inputs of a model.
    ///
    /// # Errors
    /// 400, 415: the body is not what the model takes. 503: too many wait for their turn. 504: the deadline has passed, or
    /// reading takes longer than a run may.
    pub async fn question(
        &self,
        model: &Served,
        headers: &HeaderMap,
        (body, json_length): (Bytes, Option<usize>),
        time: Time,
    ) -> Result<(Vec<Data>, Question), Refusal> {
        let Some(medium) = medium(headers.get(CONTENT_TYPE)) else {
            let asked = decode(model, &body, json_length)?;
            let deadline = time.until(&asked);
            return Ok(self.ready(model, (asked, Form::Json), self.frame, deadline));
        };
        let taken = model.media;
        let feed = match &self.feed {
            Some(feed) if taken.contains(&medium.as_str()) => Arc::clone(feed),
            _ => {
                let taken = match taken {
                    [] => "tensors only".into(),
                    taken => format!("{}, or tensors", taken.join(", ")),
                };
                let message =
                    format_args!("{medium} is not what the model takes, which is {taken}");
                return Err(Refusal::new(415, message));
            }
        };
        let length = json_length.unwrap_or(0);
        let (mut asked, bytes) = decode_beside(model, &body, length)?;
        drop(body);
        let deadline = time.until(&asked);
        let longest = model.limits.run_time();
        let taken = self.fed(feed, bytes, longest, deadline).await?;
        asked.inputs = taken.fed.inputs;
        let made = asked.inputs.iter().map(|it| it.elements.len()).sum();
        let (inputs, question) = self.ready(model, (asked, Form::Json), taken.fed.frame, deadline);
        let question = Question {
            waited: taken.waited,
            took: taken.took,
            made,
            ..question
        };
        Ok((inputs, question))
    }

    /// Makes a message of gRPC the inputs of a model; it holds tensors only.
    ///
    /// # Errors
    /// 400, 404: the message is not for the model.
    pub fn call(
        &self,
        model: &Served,
        message: &Bytes,
        time: Time,
    ) -> Result<(Vec<Data>, Question), Refusal> {
        let called = grpc::request::decode(model, message)?;
        let form = Form::Message {
            is_typed: called.is_typed,
        };
        let deadline = time.until(&called.asked);
        Ok(self.ready(model, (called.asked, form), self.frame, deadline))
    }

    /// The text that a body is, and what makes inputs of it; `None`: it is none.
    pub fn text(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
        json_length: Option<usize>,
    ) -> Option<(Bytes, Arc<Feed>)> {
        let feed = self.feed.as_ref()?;
        let is_text =
            matches!(**feed, Feed::Texts(_)) && medium(headers.get(CONTENT_TYPE)).is_some();
        let length = json_length.unwrap_or(0);
        (is_text && length <= body.len()).then(|| (body.slice(length..), Arc::clone(feed)))
    }

    /// Reads bytes on a thread for it, when it is their turn; no longer than `longest`. Their turn is over when the thread
    /// is done, which it soon is once nobody waits.
    async fn fed(
        &self,
        feed: Arc<Feed>,
        bytes: Bytes,
        longest: Duration,
        deadline: Option<Instant>,
    ) -> Result<Taken, Refusal> {
        let came = Instant::now();
        let waits = Waits::new(&self.waiting);
        if waits.before > self.queue && self.turns.available_permits() == 0 {
            return Err(Refusal {
                retry_after: Some(1),
                ..Refusal::new(503, "as many requests wait to be read as may")
            });
        }
        let late = || Refusal::new(504, "it was not read by the deadline");
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = match deadline {
            None => turn.await,
            Some(deadline) => timeout_at(deadline.into(), turn)
                .await
                .map_err(|_| late())?,
        };
        let turn = turn.map_err(|error| Refusal::new(500, error))?;
        drop(waits);
        let began = Instant::now();
        let limit = began + longest;
        let until = Until::new(deadline.map_or(limit, |it| it.min(limit)));
        let (at, _waiting) = (until.at, until.while_waiting());
        // A decoder that panics has met what nobody thought of: that is the body's doing, and costs no other request.
        let reading = spawn_blocking(move || {
            let read = feed.read(&until, &bytes);
            drop(turn);
            read
        });
        let read = match timeout_at(at.into(), reading).await {
            Ok(read) => read.unwrap_or_else(|_| Err(Refusal::bad("the body cannot be read"))),
            Err(_) => Err(late()),
        };
        let is_limit = deadline.is_none_or(|it| limit < it);
        let fed = read.map_err(|refusal| match refusal.status {
            504 if is_limit => too_long(longest),
            504 => late(),
            _ => refusal,
        })?;
        Ok(Taken {
            fed,
            waited: began.saturating_duration_since(came),
            took: began.elapsed(),
        })
    }

    fn ready(
        &self,
        model: &Served,
        (asked, form): (Asked, Form),
        frame: Option<Frame>,
        deadline: Option<Instant>,
    ) -> (Vec<Data>, Question) {
        let own = model.outputs.len();
        let mut runs: Vec<usize> = asked.outputs.iter().map(|it| it.place).collect();
        let is_read = runs.iter().any(|place| *place >= own);
        let reader = self.reader.as_ref().filter(|_| is_read);
        runs.retain(|place| *place < own);
        for source in reader.iter().flat_map(|it| &it.sources) {
            if !runs.contains(source) {
                runs.push(*source);
            }
        }
        let mask = reader.and_then(|it| asked.inputs.get(it.mask?).cloned());
        let question = Question {
            id: asked.id,
            runs,
            wanted: asked.outputs,
            waited: Duration::ZERO,
            took: Duration::ZERO,
            deadline,
            made: 0,
            form,
            context: Context { frame, mask },
        };
        (asked.inputs, question)
    }

    /// The answer, of what the run gave; and how long reading that took.
    ///
    /// # Errors
    /// 400, 500: it cannot be read, or said as it was asked for.
    pub async fn answer(
        &self,
        model: &Served,
        question: Question,
        gave: Vec<Data>,
    ) -> Result<(Reply, Duration), Refusal> {
        let own = model.outputs.len();
        let of = |place: &usize| {
            let at = question.runs.iter().position(|it| it == place)?;
            gave.get(at).cloned()
        };
        let lost = || Refusal::new(500, "the run gave another number of outputs");
        let (mut read, mut took) = (vec![], Duration::ZERO);
        let reader = self.reader.as_ref();
        if let Some(reader) = reader.filter(|_| question.wanted.iter().any(|it| it.place >= own)) {
            let began = Instant::now();
            let sources: Option<Vec<Data>> = reader.sources.iter().map(of).collect();
            let sources = sources.ok_or_else(lost)?;
            let size: usize = sources.iter().map(|it| it.elements.len()).sum();
            read = if size <= READ_HERE {
                reader.read(&sources, &question.context)?
            } else {
                let (reader, context) = (Arc::clone(reader), question.context);
                let done = spawn_blocking(move || reader.read(&sources, &context)).await;
                done.map_err(|_| Refusal::new(500, "the outputs cannot be read"))??
            };
            took = began.elapsed();
        }
        let wanted = question
            .wanted
            .iter()
            .map(|it| match it.place.checked_sub(own) {
                None => of(&it.place),
                Some(place) => read.get(place).cloned(),
            });
        let outputs = wanted.collect::<Option<_>>().ok_or_else(lost)?;
        let (id, wanted) = (question.id.as_deref(), &question.wanted);
        let reply = match question.form {
            Form::Json => Reply::Json(encode(model, id, wanted, outputs)?),
            Form::Message { is_typed } => {
                Reply::Message(grpc::answer::encode(model, id, wanted, outputs, is_typed))
            }
        };
        Ok((reply, took))
    }
}

fn too_long(longest: Duration) -> Refusal {
    let millis = longest.as_millis();
    Refusal::new(
        504,
        format_args!("reading it took longer than {millis} ms (limits.run)"),
    )
}

/// One who waits for a turn.
struct Waits<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waits<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Ordering::Relaxed);
        Self { count, before }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
