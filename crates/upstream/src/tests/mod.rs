//! Against real sockets on loopback.

mod circuit;
mod hedge;
mod hostile;
mod http1;
mod http2;
mod many;
mod outside;
mod socket;

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use rustls::RootCertStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::*;

/// Answers from a table, and counts; each answer after the first of a name is the next in its list.
#[derive(Default)]
pub struct Fake {
    names: HashMap<String, Vec<Vec<IpAddr>>>,
    pub asked: AtomicUsize,
}

impl Resolve for Fake {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let answers = self.names.get(host.trim_end_matches('.'));
        let found = answers.map(|it| it[number.min(it.len() - 1)].clone());
        Box::pin(async move { found.ok_or_else(|| "no such name".to_owned()) })
    }
}

pub fn fake(names: &[(&str, &[&[&str]])]) -> Arc<Fake> {
    let parsed = |answers: &[&[&str]]| {
        let one = |answer: &&[&str]| answer.iter().map(|it| it.parse().unwrap()).collect();
        answers.iter().map(one).collect::<Vec<Vec<IpAddr>>>()
    };
    let names = names
        .iter()
        .map(|(name, it)| ((*name).to_owned(), parsed(it)));
    Arc::new(Fake {
        names: names.collect(),
        asked: AtomicUsize::new(0),
    })
}

pub fn machine() -> Machine {
    Machine::with(fake(&[]), RootCertStore::empty())
}

pub fn config(ports: &[u16]) -> UpstreamConfig {
    let endpoints = ports.iter().map(|it| EndpointConfig::new("127.0.0.1", *it));
    let mut config = UpstreamConfig::new("service", endpoints.collect());
    config.connect_timeout = Duration::from_secs(5);
    config.response_timeout = Duration::from_secs(5);
    config
}

pub fn upstream(config: UpstreamConfig) -> Arc<Upstream> {
    Upstream::new(config, &machine()).unwrap()
}

pub fn get(path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://service.example{path}");
    Request::get(uri).body(Empty::new()).unwrap()
}

pub async fn text(response: Response<UpstreamBody>) -> Result<String, BodyError> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

/// Serves each connection with `work`, which is told its number.
pub async fn serve<F, W>(work: F) -> u16
where
    F: Fn(usize, TcpStream) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(work(number, stream));
            number += 1;
        }
    });
    port
}

/// The head of the next request, in lower case; `None` at the end.
pub async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(read).unwrap().to_lowercase())
}

/// Serves each request with these bytes, then waits for the next on the same connection.
pub async fn answers(bytes: &'static [u8]) -> u16 {
    serve(move |_, mut stream| async move {
        while head(&mut stream).await.is_some() {
            if stream.write_all(bytes).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Serves one answer a connection, then closes it.
pub async fn answers_once(bytes: &'static [u8]) -> u16 {
    serve(move |_, mut stream| async move {
        head(&mut stream).await;
        stream.write_all(bytes).await.ok();
        stream.shutdown().await.ok();
        // Unread bytes would make the close a reset.
        while stream.read_u8().await.is_ok() {}
    })
    .await
}

pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
