//! A connection that changed its protocol: bytes pass both ways until both ends are done, one breaks,
//! both are silent for too long, or the caller may not go on.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vedette_upstream::Tunnel;

use crate::clock::monotonic_nanos;
use crate::node::Held;
use crate::record::{Outcome, Record};
use crate::refusal::Cause;

/// What the caller's side of a tunnel is made of.
pub enum Client {
    /// A stream of an HTTP/2 connection.
    Stream(OnUpgrade),
    /// The whole connection.
    Connection,
}

/// The two ends of a tunnel that is about to be.
pub struct Ends {
    /// The caller's side.
    pub client: Client,
    /// The service's side.
    pub service: Tunnel,
    /// How long both may be silent.
    pub silence: Duration,
}

/// Passes bytes both ways from when the answer has been sent. The record closes with the tunnel.
pub fn open(ends: Ends, record: Box<Record>, held: Held) {
    match ends.client {
        Client::Stream(stream) => {
            tokio::spawn(async move {
                if let Ok(client) = stream.await {
                    splice(
                        TokioIo::new(client),
                        ends.service,
                        ends.silence,
                        record,
                        held,
                    )
                    .await;
                }
            });
        }
        Client::Connection => {
            // Now: the connection asks as soon as its answer is out.
            let connection = record.connection.answering.becomes_tunnel();
            tokio::spawn(async move {
                if let Ok((client, _seat)) = connection.await {
                    splice(client, ends.service, ends.silence, record, held).await;
                }
            });
        }
    }
}

async fn splice(
    client: impl AsyncRead + AsyncWrite + Unpin,
    mut service: Tunnel,
    silence: Duration,
    record: Box<Record>,
    mut held: Held,
) {
    let passed = Passed::new();
    let mut closing = Closing {
        record,
        passed: Arc::clone(&passed),
    };
    let ended = poll_fn(|cx| held.lease.poll_ended(cx));
    let ended = pass(client, &mut service, silence, &passed, ended).await;
    let cause = match ended {
        Ended::Done => None,
        // A client that goes without a goodbye has left, as far as anybody can tell.
        Ended::Broken => Some(None),
        Ended::Silent => Some(Some(Cause::TunnelSilent)),
        Ended::Told(cause) => Some(Some(cause)),
    };
    closing.record.outcome = match cause {
        None => Outcome::Served,
        Some(_) => Outcome::Aborted,
    };
    if let Some(Some(cause)) = cause {
        closing.record.refusal = Some(cause.into());
    }
    drop(held);
}

/// How a tunnel ends.
pub enum Ended<T> {
    /// Both ends are done.
    Done,
    /// One of them broke.
    Broken,
    /// Nothing moved for too long.
    Silent,
    /// Somebody said so.
    Told(T),
}

/// Passes bytes between the two ends of a tunnel, and counts them.
pub async fn pass<T>(
    client: impl AsyncRead + AsyncWrite + Unpin,
    service: &mut (impl AsyncRead + AsyncWrite + Unpin),
    silence: Duration,
    passed: &Arc<Passed>,
    told: impl Future<Output = T>,
) -> Ended<T> {
    let mut client = Counted {
        io: client,
        passed: Arc::clone(passed),
    };
    tokio::select! {
        done = tokio::io::copy_bidirectional(&mut client, service) => match done {
            Ok(_) => Ended::Done,
            Err(_) => Ended::Broken,
        },
        () = silent_for(&passed.last, silence) => Ended::Silent,
        told = told => Ended::Told(told),
    }
}

/// What a tunnel carried so far.
#[derive(Default)]
pub struct Passed {
    read: AtomicU64,
    written: AtomicU64,
    /// When something last did.
    last: AtomicU64,
}

impl Passed {
    /// Nothing yet, as of now.
    pub fn new() -> Arc<Self> {
        let passed = Arc::<Self>::default();
        passed.pass();
        passed
    }

    /// Bytes that came from the client, and that went to it.
    pub fn bytes(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.read), load(&self.written))
    }

    fn pass(&self) {
        self.last.store(monotonic_nanos(), Ordering::Relaxed);
    }
}

/// The record of a tunnel, told what passed however the tunnel ends; also when its engine does.
struct Closing {
    record: Box<Record>,
    passed: Arc<Passed>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let (read, written) = self.passed.bytes();
        if let Some(meter) = &self.record.bytes_in {
            meter.count(read);
        }
        self.record.bytes_out = written;
    }
}

/// Returns once nothing has moved for that long.
async fn silent_for(moved: &AtomicU64, silence: Duration) {
    let mut left = silence;
    while !left.is_zero() {
        tokio::time::sleep(left).await;
        let since = monotonic_nanos().saturating_sub(moved.load(Ordering::Relaxed));
        left = silence.saturating_sub(Duration::from_nanos(since));
    }
}

/// A stream that counts what passes, also when it breaks, and says when something did.
struct Counted<T> {
    io: T,
    passed: Arc<Passed>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        if count > 0 {
            let passed = &self.passed;
            passed.read.fetch_add(count as u64, Ordering::Relaxed);
            passed.pass();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            let passed = &self.passed;
            passed.written.fetch_add(*count as u64, Ordering::Relaxed);
            passed.pass();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
