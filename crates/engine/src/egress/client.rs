//! Connects and sends: one connection for each call.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use vedette_wasm::{BodyError, OutboundBody};

use crate::egress::address::is_public;
use crate::egress::hosts::Destination;

/// The longest that looking up a name and connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// The most bytes that the head of an answer may have.
const MAX_HEAD: usize = 128 * 1024;

/// Why a call failed: the word for the record and the error for the guest.
pub struct Failure {
    /// For the record.
    pub cause: &'static str,
    /// For the guest.
    pub error: BodyError,
}

/// Makes calls.
#[derive(Clone, Default)]
pub struct Client {
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Client {
    /// Sends `request` to `to` and returns the head of the answer with its body still to come.
    pub async fn send(
        &self,
        to: &Destination,
        request: Request<OutboundBody>,
        connect_timeout: Option<Duration>,
    ) -> Result<Response<OutboundBody>, Failure> {
        let request = rewrite(to, request)?;
        let limit = connect_timeout.map_or(CONNECT, |it| it.min(CONNECT));
        let connected = tokio::time::timeout(limit, connect(to)).await;
        let stream = connected
            .unwrap_or_else(|_| Err(failed("connect_timeout", BodyError::ConnectionTimeout)))?;
        if !to.is_tls {
            return exchange(stream, request).await;
        }
        let opened = tokio::time::timeout(limit, self.open_tls(to, stream)).await;
        let stream = opened
            .unwrap_or_else(|_| Err(failed("connect_timeout", BodyError::ConnectionTimeout)))?;
        exchange(stream, request).await
    }

    async fn open_tls(
        &self,
        to: &Destination,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Failure> {
        let name = match to.address {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(to.host.clone())
                .map_err(|_| failed("tls_failed", BodyError::TlsProtocolError))?,
        };
        let config = self.tls.get_or_init(|| Arc::new(tls_config()));
        TlsConnector::from(Arc::clone(config))
            .connect(name, stream)
            .await
            .map_err(|error| failed("tls_failed", tls_error(&error)))
    }
}

fn failed(cause: &'static str, error: BodyError) -> Failure {
    Failure { cause, error }
}

fn tls_config() -> ClientConfig {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn tls_error(error: &std::io::Error) -> BodyError {
    let is_certificate = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        .is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)));
    if is_certificate {
        BodyError::TlsCertificateError
    } else {
        BodyError::TlsProtocolError
    }
}

/// The request as it goes over the wire: origin form, and the host that was permitted.
fn rewrite(
    to: &Destination,
    request: Request<OutboundBody>,
) -> Result<Request<OutboundBody>, Failure> {
    let invalid = || failed("request_invalid", BodyError::HttpRequestUriInvalid);
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(failed(
            "method_not_allowed",
            BodyError::HttpRequestMethodInvalid,
        ));
    }
    let target = parts.uri.path_and_query().map_or("/", |it| it.as_str());
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    parts.uri = target.parse::<Uri>().map_err(|_| invalid())?;
    parts.version = Version::HTTP_11;
    let host = HeaderValue::try_from(host_of(to)).map_err(|_| invalid())?;
    parts.headers.insert(HOST, host);
    Ok(Request::from_parts(parts, body))
}

fn host_of(to: &Destination) -> String {
    let host = match to.address {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        Some(address) => address.to_string(),
        None => to.host.clone(),
    };
    match (to.is_tls, to.port) {
        (true, 443) | (false, 80) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

async fn connect(to: &Destination) -> Result<TcpStream, Failure> {
    let mut last = failed("connect_failed", BodyError::ConnectionRefused);
    for address in addresses(to).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Without it a small request waits for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = failed("connect_failed", BodyError::Connect(error)),
        }
    }
    Err(last)
}

/// The addresses to try. A private one only when the list names it.
async fn addresses(to: &Destination) -> Result<Vec<SocketAddr>, Failure> {
    if let Some(address) = to.address {
        return Ok(vec![SocketAddr::new(address, to.port)]);
    }
    let found = tokio::net::lookup_host((to.host.as_str(), to.port))
        .await
        .map_err(|_| {
            let error = BodyError::DnsError {
                rcode: None,
                info_code: None,
            };
            failed("name_not_found", error)
        })?;
    let public: Vec<_> = found.filter(|it| is_public(it.ip())).collect();
    if public.is_empty() {
        let error = BodyError::DestinationIpProhibited;
        return Err(failed("address_not_allowed", error));
    }
    Ok(public)
}

/// A connection's task, which ends with whoever holds this.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange<S>(
    stream: S,
    request: Request<OutboundBody>,
) -> Result<Response<OutboundBody>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| failed("exchange_failed", error.into());
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let connection = Connection(tokio::spawn(async {
        // Its error is also that of the exchange.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(failed("upgrade_refused", BodyError::HttpUpgradeFailed));
    }
    Ok(response.map(|body| {
        body.map_frame(move |frame| {
            let _lives_as_long = (&connection, &sender);
            frame
        })
        .map_err(BodyError::from)
        .boxed_unsync()
    }))
}
