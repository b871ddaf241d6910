//! A body of events, answered by a body of results, line by line.
//!
//! Owns: when lines are read. The answer's body is asked for its next part when the one before is taken; only then more of
//! the request is read. Lines that came together a detector answers together, one that came alone goes out alone. What a
//! model says of an event goes out when it says it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::event::{Lines, MAX_LINE, Next};
use super::{Conversation, last_words};

type Step = Pin<Box<dyn Future<Output = Option<(Bytes, Talk)>> + Send>>;

/// The answer's body.
pub struct Flow(Option<Step>);

struct Talk {
    conversation: Conversation,
    body: Incoming,
    lines: Lines,
    is_over: bool,
}

impl Flow {
    /// Answers the events in `body`.
    pub fn new(conversation: Conversation, body: Incoming) -> Self {
        let talk = Talk {
            conversation,
            body,
            lines: Lines::default(),
            is_over: false,
        };
        Self(Some(Box::pin(next(talk))))
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(step) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let done = ready!(step.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(done.map(|(bytes, talk)| {
            self.0 = Some(Box::pin(next(talk)));
            Ok(Frame::data(bytes))
        }))
    }
}

/// The body of an answer that is there, or of a stream's.
pub enum Content<W> {
    /// All of it is there.
    Whole(W),
    /// What a stream's events come to.
    Flow(Flow),
}

impl<W: Body<Data = Bytes, Error = Infallible> + Unpin> Body for Content<W> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx),
            Self::Flow(flow) => Pin::new(flow).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Flow(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Flow(_) => SizeHint::default(),
        }
    }
}

/// The next part of the answer.
async fn next(mut talk: Talk) -> Option<(Bytes, Talk)> {
    let mut out = vec![];
    while !talk.is_over && out.len() < talk.conversation.most_together() {
        if talk.conversation.is_leaving() {
            out.extend_from_slice(&last_words());
            talk.is_over = true;
            break;
        }
        match talk.lines.take() {
            Next::Line(line) => talk.conversation.answer(&line, &mut out).await,
            Next::TooLong => {
                let why = format!("a line is longer than {MAX_LINE} bytes");
                talk.conversation.refuse(&why, &mut out);
            }
            Next::End => talk.is_over = true,
            Next::More if out.is_empty() => talk.read_on().await,
            Next::More => break,
        }
    }
    (!out.is_empty()).then(|| (out.into(), talk))
}

impl Talk {
    async fn read_on(&mut self) {
        let frame = tokio::select! {
            biased;
            () = self.conversation.left() => return,
            frame = self.body.frame() => frame,
        };
        match frame {
            None => self.lines.end(),
            // Whoever sends it has gone, and with him who would read the answer.
            Some(Err(_)) => self.is_over = true,
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    self.lines.add(piece);
                }
            }
        }
    }
}
