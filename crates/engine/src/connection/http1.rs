//! One HTTP/1.1 connection, which gives back what it does not need while it rests.
//!
//! hyper holds two buffers, the fields of the last head and the room for an answer for as long as a
//! connection lives, and ten thousand idle clients make that hundreds of megabytes. A connection on
//! which nothing has come for a moment is therefore taken out of hyper until its next byte.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::connection::{HeadRoom, record_unreadable};
use crate::handover::{Phase, leaving, stopping};
use crate::node::{Connection, Node};
use crate::pipeline;
use crate::sources::Seat;
use crate::wire::Wire;

/// How long an idle connection may wait for a last request when another engine takes over.
const LAST_REQUEST: std::time::Duration = std::time::Duration::from_secs(5);

/// What a connection does next.
enum Next {
    Rest,
    End(hyper::Result<()>),
}

/// Serves a connection until either side closes it, or it becomes a tunnel.
pub async fn serve<I>(
    node: Arc<Node>,
    connection: Arc<Connection>,
    mut wire: Box<Wire<I>>,
    mut phase: watch::Receiver<Phase>,
    seat: Seat,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut service = service_fn(|request: http::Request<Incoming>| {
        let (node, connection) = (Arc::clone(&node), Arc::clone(&connection));
        // On the heap: hyper keeps the room for it also while there is no request.
        Box::pin(async move {
            Ok::<_, Infallible>(pipeline::serve(&node, &connection, None, request).await)
        })
    });
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    let mut last_request = pin!(last_request(&mut phase));
    let mut is_leaving = false;
    loop {
        let room = HeadRoom::of(&node);
        builder.max_buf_size(room.bytes_of_http1());
        if let Some(fields) = room.fields_of_http1() {
            builder.max_headers(fields);
        }
        let io = TokioIo::new(wire);
        let mut serving = Box::new(builder.serve_connection(io, service));
        let next = poll_fn(|cx| {
            if !is_leaving && last_request.as_mut().poll(cx).is_ready() {
                is_leaving = true;
                Pin::new(&mut *serving).graceful_shutdown();
            }
            match Pin::new(&mut *serving).poll(cx) {
                Poll::Ready(ended) => Poll::Ready(Next::End(ended)),
                Poll::Pending if connection.answering.may_rest() => Poll::Ready(Next::Rest),
                Poll::Pending => Poll::Pending,
            }
        });
        let next = next.await;
        let parts = serving.into_parts();
        (wire, service) = (parts.io.into_inner(), parts.service);
        wire.put_back(parts.read_buf);
        match next {
            Next::Rest => {}
            Next::End(Err(error)) => return record_unreadable(&connection, &error),
            Next::End(Ok(())) => {
                if let Some(tunnel) = connection.answering.take_tunnel() {
                    let _ = tunnel.send((wire, seat));
                }
                return;
            }
        }
        let goes_on = tokio::select! {
            goes_on = wire.rest() => goes_on,
            () = last_request.as_mut(), if !is_leaving => false,
        };
        if !goes_on {
            let _ = wire.shutdown().await;
            return;
        }
    }
}

/// Returns when a connection without a request is to be closed. Until then, one that hands over
/// answers with `connection: close`: closing one on which a client has just begun to send would lose
/// that request.
async fn last_request(phase: &mut watch::Receiver<Phase>) {
    leaving(phase).await;
    let _ = timeout(LAST_REQUEST, stopping(phase)).await;
}
