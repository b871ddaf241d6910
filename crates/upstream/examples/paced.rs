//! An open loop over HTTP/1.1: requests are due at random moments of a fixed mean rate, whatever
//! becomes of those before, and each latency counts from the moment its request was due.
//!
//! `make bench` uses it, because the load generators at hand either wait for answers before they ask
//! again or ask in bursts. It spins on a core of its own, so its clock is good to a microsecond.
//! Must not: check certificates; it measures servers that it was told to.
//!
//! Standard input: one header field a line. Standard output: one JSON object, times in microseconds.

// A measurement may panic.
#![allow(clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::error::Error;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

type Failure = Box<dyn Error>;

const USAGE: &str =
    "usage: paced ADDRESS:PORT https|http PATH REQUESTS_PER_SECOND SECONDS CONNECTIONS < FIELDS";
/// How long answers that are still out are waited for at the end.
const LAST: Duration = Duration::from_secs(5);

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, scheme, path, rate, seconds, connections] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let mut request = format!("GET {path} HTTP/1.1\r\n");
    for field in std::io::stdin().lock().lines() {
        request += &field?;
        request += "\r\n";
    }
    let request = format!("{request}\r\n").into_bytes();
    let connections: usize = connections.parse()?;
    let mut clients = (0..connections)
        .map(|_| Client::open(address, scheme == "https"))
        .collect::<Result<Vec<_>, _>>()?;
    for client in &mut clients {
        client.ask(&request, Instant::now())?;
        while client.due.is_some() {
            client.poll()?;
        }
    }
    let run = run(&mut clients, &request, rate.parse()?, seconds.parse()?)?;
    print!("{}", run.to_json()?);
    Ok(())
}

struct Run {
    latencies: Vec<Duration>,
    seconds: f64,
}

impl Run {
    fn to_json(&self) -> Result<String, Failure> {
        let micros = |index: usize| {
            let found = self.latencies.get(index).ok_or("no request was made")?;
            Ok::<_, Failure>(found.as_secs_f64() * 1e6)
        };
        let count = self.latencies.len();
        Ok(format!(
            "{{\"requests\":{count},\"seconds\":{:.3},\"p50\":{:.1},\"p99\":{:.1}}}\n",
            self.seconds,
            micros(count / 2)?,
            micros(count * 99 / 100)?
        ))
    }
}

fn run(clients: &mut [Client], request: &[u8], rate: f64, seconds: f64) -> Result<Run, Failure> {
    let mut latencies = Vec::new();
    let mut free: VecDeque<usize> = (0..clients.len()).collect();
    let mut busy = Vec::with_capacity(clients.len());
    let started = Instant::now();
    let mut due = started;
    let end = started + Duration::from_secs_f64(seconds);
    while due < end || !busy.is_empty() {
        let now = Instant::now();
        if now > end + LAST {
            return Err("answers are missing".into());
        }
        if due <= now
            && due < end
            && let Some(index) = free.pop_front()
        {
            clients[index].ask(request, due)?;
            busy.push(index);
            due += gap(rate);
        }
        let mut next = 0;
        while let Some(index) = busy.get(next).copied() {
            if let Some(latency) = clients[index].poll()? {
                latencies.push(latency);
                free.push_back(busy.swap_remove(next));
            } else {
                next += 1;
            }
        }
    }
    latencies.sort_unstable();
    Ok(Run {
        latencies,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Time to the next request of many independent callers (exponential).
fn gap(rate: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate)
}

struct Client {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    answer: Vec<u8>,
    due: Option<Instant>,
}

impl Client {
    fn open(address: &str, secure: bool) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let tls = secure.then(|| connection(&stream)).transpose()?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            tls,
            answer: Vec::new(),
            due: None,
        })
    }

    fn ask(&mut self, request: &[u8], due: Instant) -> Result<(), Failure> {
        self.due = Some(due);
        self.answer.clear();
        let Some(tls) = &mut self.tls else {
            return Ok(self.stream.write_all(request)?);
        };
        tls.writer().write_all(request)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// What the answer took, once it is whole.
    fn poll(&mut self) -> Result<Option<Duration>, Failure> {
        match self.read() {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if let Some(tls) = &mut self.tls {
            tls.process_new_packets()?;
            match tls.reader().read_to_end(&mut self.answer) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
        let is_whole = is_whole(&self.answer)?;
        Ok(self.due.take_if(|_| is_whole).map(|due| due.elapsed()))
    }

    fn read(&mut self) -> std::io::Result<usize> {
        if let Some(tls) = &mut self.tls {
            return tls.read_tls(&mut self.stream);
        }
        let mut bytes = [0; 16_384];
        let count = self.stream.read(&mut bytes)?;
        self.answer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

fn is_whole(answer: &[u8]) -> Result<bool, Failure> {
    let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else {
        return Ok(false);
    };
    let (head, body) = answer.split_at(end + 4);
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        return Err(format!("not served: {head}").into());
    }
    let length = head
        .lines()
        .find_map(|it| it.strip_prefix("content-length:"));
    Ok(match length {
        Some(length) => body.len() >= length.trim().parse()?,
        None => body.ends_with(b"0\r\n\r\n"),
    })
}

fn connection(mut stream: &TcpStream) -> Result<ClientConnection, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost")?;
    let mut tls = ClientConnection::new(Arc::new(config), name)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    Ok(tls)
}

/// Takes every certificate, as load generators do.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
