//! An open loop over HTTP/1.1: requests are due at random moments of a fixed mean rate, whatever
//! becomes of those before, and each latency counts from the moment its request was due.
//!
//! `make bench` uses it, because the load generators at hand either wait for answers before they ask
//! again or ask in bursts. It spins on a core of its own, so its clock is good to a microsecond.
//! Must not: check certificates; it measures servers that it was told to.
//!
//! `--from=ADDRESS+COUNT` spreads the connections over so many addresses of this machine; `--any` takes every
//! answer and opens again what the server closes, as a flood does, and with `--burst=COUNT` asks so many times at once on one
//! connection; `--rest` sleeps a little while nothing happens, for a core that is shared.
//!
//! Standard input: one header field a line. Standard output: one JSON object, times in microseconds.

// A measurement may panic.
#![allow(clippy::indexing_slicing)]

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

type Failure = Box<dyn Error>;

const USAGE: &str = "usage: paced ADDRESS:PORT https|http PATH REQUESTS_PER_SECOND SECONDS CONNECTIONS \
                     [--from=ADDRESS+COUNT] [--any [--burst=COUNT]] [--rest] < FIELDS";
/// How long `--rest` sleeps at a time.
const REST: Duration = Duration::from_micros(50);
/// How long answers that are still out are waited for at the end.
const LAST: Duration = Duration::from_secs(5);

fn main() -> Result<(), Failure> {
    let (flags, arguments): (Vec<String>, Vec<String>) = std::env::args()
        .skip(1)
        .partition(|word| word.starts_with("--"));
    let manner = Manner::of(&flags)?;
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
        .map(|index| {
            let mut client = Client::new(address, scheme == "https", manner.source(index));
            // A flood goes on trying.
            client
                .open()
                .or_else(|error| if manner.any { Ok(()) } else { Err(error) })?;
            Ok(client)
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    if !manner.any {
        for client in &mut clients {
            client.ask(&request, 1, Instant::now())?;
            while !client.poll(false, |_, _| {})? {}
        }
    }
    let run = run(
        &mut clients,
        &request,
        rate.parse()?,
        seconds.parse()?,
        &manner,
    )?;
    print!("{}", run.to_json()?);
    Ok(())
}

/// What the flags say.
struct Manner {
    first: Option<Ipv4Addr>,
    addresses: u32,
    any: bool,
    burst: u16,
    rest: bool,
}

impl Manner {
    fn of(flags: &[String]) -> Result<Self, Failure> {
        let mut manner = Self {
            first: None,
            addresses: 1,
            any: false,
            burst: 1,
            rest: false,
        };
        for flag in flags {
            let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
            match name {
                "--any" => manner.any = true,
                "--rest" => manner.rest = true,
                "--burst" => manner.burst = value.parse::<u16>()?.max(1),
                "--from" => {
                    let (first, count) = value.split_once('+').ok_or(USAGE)?;
                    manner.first = Some(first.parse()?);
                    manner.addresses = count.parse::<u32>()?.max(1);
                }
                _ => return Err(USAGE.into()),
            }
        }
        // Answers of a burst come one behind the other: a latency of one of them says nothing.
        let is_sound = manner.burst == 1 || manner.any;
        is_sound.then_some(manner).ok_or_else(|| USAGE.into())
    }

    /// The address that connection comes from.
    fn source(&self, index: usize) -> Option<Ipv4Addr> {
        let offset = u32::try_from(index).unwrap_or_default() % self.addresses;
        self.first
            .map(|first| Ipv4Addr::from(u32::from(first).wrapping_add(offset)))
    }
}

struct Run {
    latencies: Vec<Duration>,
    seconds: f64,
    statuses: BTreeMap<u16, u64>,
    closed: u64,
}

impl Run {
    fn to_json(&self) -> Result<String, Failure> {
        let count = self.latencies.len();
        let micros = |index: usize| match self.latencies.get(index) {
            Some(found) => Ok(found.as_secs_f64() * 1e6),
            // A flood of which nothing is answered.
            None if self.closed > 0 => Ok(0.0),
            None => Err::<_, Failure>("no request was made".into()),
        };
        let statuses = self
            .statuses
            .iter()
            .map(|(status, count)| format!("\"{status}\":{count}"));
        let statuses = statuses.collect::<Vec<_>>().join(",");
        Ok(format!(
            "{{\"requests\":{count},\"seconds\":{:.3},\"p50\":{:.1},\"p99\":{:.1},\
             \"statuses\":{{{statuses}}},\"closed\":{}}}\n",
            self.seconds,
            micros(count / 2)?,
            micros(count * 99 / 100)?,
            self.closed
        ))
    }
}

fn run(
    clients: &mut [Client],
    request: &[u8],
    rate: f64,
    seconds: f64,
    manner: &Manner,
) -> Result<Run, Failure> {
    let (mut latencies, mut statuses, mut closed) = (Vec::new(), BTreeMap::new(), 0);
    let burst = usize::from(manner.burst);
    let (request, rate) = (request.repeat(burst), rate / f64::from(manner.burst));
    let mut free: VecDeque<usize> = (0..clients.len()).collect();
    let mut busy = Vec::with_capacity(clients.len());
    let started = Instant::now();
    let mut due = started;
    let end = started + Duration::from_secs_f64(seconds);
    while due < end || !busy.is_empty() {
        let now = Instant::now();
        // A flood that the server does not keep up with never catches up with what was due.
        if manner.any && now > end {
            break;
        }
        if now > end + LAST {
            return Err("answers are missing".into());
        }
        let mut is_idle = true;
        if due <= now
            && due < end
            && let Some(index) = free.pop_front()
        {
            match clients[index].ask(&request, burst, due) {
                Err(error) if !manner.any => return Err(error),
                _ => busy.push(index),
            }
            due += gap(rate);
            is_idle = false;
        }
        let mut next = 0;
        while let Some(index) = busy.get(next).copied() {
            let came = clients[index].poll(manner.any, |status, latency| {
                latencies.push(latency);
                *statuses.entry(status).or_default() += 1;
            });
            match came {
                Ok(false) => {
                    next += 1;
                    continue;
                }
                Ok(true) => free.push_back(busy.swap_remove(next)),
                Err(error) if !manner.any => return Err(error),
                Err(_) => {
                    closed += 1;
                    if clients[index].open().is_ok() {
                        free.push_back(busy.swap_remove(next));
                    } else {
                        next += 1;
                    }
                }
            }
            is_idle = false;
        }
        if manner.rest && is_idle {
            std::thread::sleep(REST);
        }
    }
    latencies.sort_unstable();
    Ok(Run {
        latencies,
        seconds: started.elapsed().as_secs_f64(),
        statuses,
        closed,
    })
}

/// Time to the next request of many independent callers (exponential).
fn gap(rate: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate)
}

struct Client {
    address: String,
    secure: bool,
    source: Option<Ipv4Addr>,
    line: Option<Line>,
    /// What came and was not looked at yet.
    answers: Vec<u8>,
    /// Answers that are still out, and when they were due.
    out: usize,
    due: Instant,
}

/// An open connection.
struct Line {
    stream: TcpStream,
    tls: Option<ClientConnection>,
}

impl Client {
    fn new(address: &str, secure: bool, source: Option<Ipv4Addr>) -> Self {
        Self {
            address: address.to_owned(),
            secure,
            source,
            line: None,
            answers: Vec::new(),
            out: 0,
            due: Instant::now(),
        }
    }

    /// Connects, anew if it was connected.
    fn open(&mut self) -> Result<(), Failure> {
        self.line = None;
        let stream = match self.source {
            None => TcpStream::connect(&self.address)?,
            Some(source) => connect_from(source, self.address.parse()?)?,
        };
        stream.set_nodelay(true)?;
        let tls = self.secure.then(|| connection(&stream)).transpose()?;
        stream.set_nonblocking(true)?;
        self.line = Some(Line { stream, tls });
        Ok(())
    }

    fn ask(&mut self, request: &[u8], count: usize, due: Instant) -> Result<(), Failure> {
        (self.out, self.due) = (count, due);
        self.answers.clear();
        let line = self.line.as_mut().ok_or("there is no connection")?;
        let Some(tls) = &mut line.tls else {
            return Ok(line.stream.write_all(request)?);
        };
        tls.writer().write_all(request)?;
        while tls.wants_write() {
            tls.write_tls(&mut line.stream)?;
        }
        Ok(())
    }

    /// Takes the status of each answer that came whole, and how long it took; whether that was the last.
    fn poll(
        &mut self,
        any: bool,
        mut answered: impl FnMut(u16, Duration),
    ) -> Result<bool, Failure> {
        match self.read() {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        if let Some(tls) = self.line.as_mut().and_then(|line| line.tls.as_mut()) {
            tls.process_new_packets()?;
            match tls.reader().read_to_end(&mut self.answers) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
        let mut taken = 0;
        while let Some((status, length)) = whole(&self.answers[taken..])? {
            if status != 200 && !any {
                return Err(format!("not served: {status}").into());
            }
            answered(status, self.due.elapsed());
            taken += length;
            self.out = self.out.saturating_sub(1);
        }
        self.answers.drain(..taken);
        Ok(self.out == 0)
    }

    fn read(&mut self) -> std::io::Result<usize> {
        let line = self.line.as_mut().ok_or(ErrorKind::NotConnected)?;
        if let Some(tls) = &mut line.tls {
            return tls.read_tls(&mut line.stream);
        }
        let mut bytes = [0; 16_384];
        let count = line.stream.read(&mut bytes)?;
        self.answers.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// Connects from an address of this machine, which the standard library cannot.
fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Result<TcpStream, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        socket.connect(address).await?.into_std()
    })?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// The status of the first answer and its length, once it is whole.
fn whole(answers: &[u8]) -> Result<Option<(u16, usize)>, Failure> {
    let Some(end) = answers.windows(4).position(|it| it == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, body) = answers.split_at(end + 4);
    let head = std::str::from_utf8(head)?.to_ascii_lowercase();
    let status = head.strip_prefix("http/1.1 ").and_then(|it| it.get(..3));
    let status = status
        .ok_or_else(|| format!("no answer: {head}"))?
        .parse()?;
    let length = head
        .lines()
        .find_map(|it| it.strip_prefix("content-length:"));
    let length = match length {
        Some(length) => length.trim().parse()?,
        // Chunks, and nothing behind them: bursts are asked of what says its length.
        None if body.ends_with(b"0\r\n\r\n") => body.len(),
        None => return Ok(None),
    };
    Ok((body.len() >= length).then_some((status, head.len() + length)))
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
