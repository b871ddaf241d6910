//! HTTP/2 and TLS, against hyper's own server.

use super::*;
use std::convert::Infallible;

use http::HeaderMap;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// A body with the request's bytes, then its trailers and one of ours.
async fn echo(request: http::Request<Incoming>) -> Result<Answer, Infallible> {
    let version = format!("{:?}", request.version());
    let te = request.headers().get("te").cloned();
    let authority = request.uri().authority().map(ToString::to_string);
    if request.uri().path() == "/slow" {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let body = request.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let body = Full::new(body.to_bytes()).map_err(|never| match never {});
    let body = body.with_trailers(async move {
        let mut sent = trailers.unwrap_or_default();
        sent.insert("grpc-status", "0".parse().unwrap());
        Some(Ok(sent))
    });
    let mut response = Response::new(body.boxed_unsync());
    response
        .headers_mut()
        .insert("x-version", version.parse().unwrap());
    if let Some(te) = te {
        response.headers_mut().insert("x-te", te);
    }
    if let Some(authority) = authority {
        response
            .headers_mut()
            .insert("x-authority", authority.parse().unwrap());
    }
    Ok(response)
}

/// Serves echo over HTTP/2, with so many streams at once; how many connections came.
async fn http2(streams: u32) -> (u16, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let port = serve(move |_, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(streams)
                .serve_connection(TokioIo::new(stream), service_fn(echo))
                .await
                .ok();
        }
    })
    .await;
    (port, connections)
}

fn http2_config(port: u16) -> UpstreamConfig {
    let mut config = config(&[port]);
    config.protocol = Protocol::Http2;
    config
}

#[tokio::test]
async fn requests_at_once_share_one_connection() {
    let (port, connections) = http2(200).await;
    let upstream = upstream(http2_config(port));
    let asked = (0..50).map(|_| {
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move {
            let response = upstream
                .send(get("/slow"), &SendOptions::default())
                .await
                .unwrap();
            assert_eq!(response.headers()["x-version"], "HTTP/2.0");
            assert_eq!(response.headers()["x-authority"], "service.example");
            response.into_body().collect().await.unwrap();
        })
    });
    for one in asked.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_service_says_how_many_streams_a_connection_takes() {
    let (port, connections) = http2(4).await;
    let upstream = upstream(http2_config(port));
    let first = upstream
        .send(get("/"), &SendOptions::default())
        .await
        .unwrap();
    first.into_body().collect().await.unwrap();
    let asked = (0..12).map(|_| {
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move {
            let response = upstream
                .send(get("/slow"), &SendOptions::default())
                .await
                .unwrap();
            response.into_body().collect().await.unwrap();
        })
    });
    for one in asked.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    // The second one takes what the first has no room for, and lets it wait until it knows its own room.
    assert!((2..=3).contains(&connections.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn trailers_pass_both_ways_as_grpc_needs() {
    let (port, _) = http2(100).await;
    let upstream = upstream(http2_config(port));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    let body =
        Full::new(Bytes::from_static(b"message")).with_trailers(async { Some(Ok(trailers)) });
    let asked = Request::post("http://service.example/pkg.Service/Call")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(Box::pin(body))
        .unwrap();
    let response = upstream.send(asked, &SendOptions::default()).await.unwrap();
    assert_eq!(response.headers()["x-te"], "trailers");
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().unwrap().clone();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-sum"], "7");
    assert_eq!(body.to_bytes(), "message");
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority {
        issuer: Issuer::new(params, key),
        pem,
    }
}

fn certificate(authority: &Authority, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, &authority.issuer).unwrap(), key)
}

/// Serves over TLS with a certificate for `service.example`; asks for one of `clients` when given.
async fn tls(authority: &Authority, clients: Option<&Authority>, alpn: &[&str]) -> u16 {
    let (certificate, key) = certificate(authority, "service.example");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            use rustls_pki_types::pem::PemObject;
            let pem = clients.pem.as_bytes();
            let mut roots = RootCertStore::empty();
            roots
                .add(rustls_pki_types::CertificateDer::from_pem_slice(pem).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let chain = vec![certificate.der().clone()];
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    serve(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = TokioIo::new(stream);
            if is_http2 {
                let server = http2::Builder::new(TokioExecutor::new());
                server.serve_connection(io, service_fn(echo)).await.ok();
            } else {
                let server = http1::Builder::new();
                server.serve_connection(io, service_fn(echo)).await.ok();
            }
        }
    })
    .await
}

fn tls_config(port: u16, ca: &Authority) -> UpstreamConfig {
    let mut config = config(&[port]);
    config.tls = Some(TlsConfig {
        server_name: Some("service.example".into()),
        ca: Some(ca.pem.clone()),
        client: None,
        spiffe: None,
    });
    config
}

async fn version(config: UpstreamConfig) -> Result<String, SendError> {
    let response = upstream(config)
        .send(get("/"), &SendOptions::default())
        .await?;
    Ok(response.headers()["x-version"].to_str().unwrap().to_owned())
}

#[tokio::test]
async fn tls_agrees_on_the_version() {
    let ca = authority();
    let both = tls(&ca, None, &["h2", "http/1.1"]).await;
    assert_eq!(version(tls_config(both, &ca)).await.unwrap(), "HTTP/2.0");
    let mut only_http1 = tls_config(both, &ca);
    only_http1.protocol = Protocol::Http1;
    assert_eq!(version(only_http1).await.unwrap(), "HTTP/1.1");
    let old = tls(&ca, None, &[]).await;
    assert_eq!(version(tls_config(old, &ca)).await.unwrap(), "HTTP/1.1");
    let mut only_http2 = tls_config(old, &ca);
    only_http2.protocol = Protocol::Http2;
    assert_eq!(version(only_http2).await.unwrap_err().word(), "tls_failed");
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_is_refused() {
    let (ca, other) = (authority(), authority());
    let port = tls(&ca, None, &["h2"]).await;
    let error = version(tls_config(port, &other)).await.unwrap_err();
    assert_eq!((error.word(), error.status()), ("tls_failed", 502));
    let mut misnamed = tls_config(port, &ca);
    misnamed.tls.as_mut().unwrap().server_name = Some("other.example".into());
    assert_eq!(version(misnamed).await.unwrap_err().word(), "tls_failed");
    // The machine of this test trusts nobody.
    let mut machines = tls_config(port, &ca);
    machines.tls.as_mut().unwrap().ca = None;
    assert_eq!(version(machines).await.unwrap_err().word(), "tls_failed");
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let (ca, clients) = (authority(), authority());
    let port = tls(&ca, Some(&clients), &["http/1.1"]).await;
    let (certificate, key) = certificate(&clients, "node");
    let mut config = tls_config(port, &ca);
    assert!(version(config.clone()).await.is_err());
    config.tls.as_mut().unwrap().client =
        Some(ClientCertificate(certificate.pem() + &key.serialize_pem()));
    assert!(!format!("{config:?}").contains("PRIVATE"));
    assert_eq!(version(config).await.unwrap(), "HTTP/1.1");
}

#[test]
fn certificates_that_are_none_are_said() {
    for pem in [
        "",
        "no pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let mut config = config(&[1]);
        config.tls = Some(TlsConfig {
            ca: Some(pem.into()),
            ..TlsConfig::default()
        });
        assert!(Upstream::new(config, &machine()).is_err(), "{pem}");
    }
}
