//! A tunnel of a program: opened where its rules let it, with TLS for the host of the rule where they say so, cut
//! when they do not any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use vedette_admit::hello::{self, First};
use vedette_upstream::{Dialled, SendError};

use super::{Client, PATIENCE, Refused};
use crate::egress::{CallRecord, cause_of_failure};
use crate::tunnel::{Ended, Passed, pass};

/// How long both ends may be silent: what a program keeps open, such as a connection to a database, may be idle.
const SILENCE: Duration = Duration::from_secs(3_600);

/// How often it is asked whether a tunnel may stay, besides at each plan.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where to.
pub struct Wanted {
    pub host: String,
    pub port: u16,
}

/// A tunnel to its destination.
pub struct Opened {
    record: CallRecord,
    dialled: Dialled,
    wanted: Wanted,
    is_secure: bool,
    is_listed: bool,
}

/// Why there is none.
pub enum NotOpened {
    /// It is not let.
    Refused(Refused),
    /// It failed on its way.
    Failed(SendError),
}

/// Opens a tunnel.
///
/// # Errors
/// Why there is none; the record says so too.
pub async fn open(client: &Client, host: &str, port: u16) -> Result<Opened, NotOpened> {
    let record = CallRecord::of_tunnel(client.subject.clone(), host, port);
    let mut record = record.told_to(&client.told);
    let egress = client.egress();
    let decided = client.decide_tunnel(&egress, &mut record, host, port);
    let (allowed, is_secure) = decided.map_err(NotOpened::Refused)?;
    if is_secure {
        record.speaks_tls();
    }
    let is_listed = !record.is_reported();
    match egress.dial(allowed).await {
        Ok(dialled) => Ok(Opened {
            record,
            dialled,
            wanted: Wanted {
                host: host.to_owned(),
                port,
            },
            is_secure,
            is_listed,
        }),
        Err(error) => {
            record.fail(cause_of_failure(&error));
            record.tell();
            Err(NotOpened::Failed(error))
        }
    }
}

/// Passes bytes both ways until both ends are done, or the tunnel may not be any more.
pub async fn carry(client: &Client, mut io: impl AsyncRead + AsyncWrite + Unpin, opened: Opened) {
    let Opened {
        mut record,
        mut dialled,
        wanted,
        is_secure,
        is_listed,
    } = opened;
    if is_secure && let Err(cause) = begins_with_tls(&mut io, &mut dialled, &wanted.host).await {
        record.fail(cause);
        record.tell();
        return;
    }
    let passed = Passed::new();
    let mut closing = Closing {
        record,
        passed: Arc::clone(&passed),
    };
    let forbidden = async {
        let mut plans = client.node.plans();
        loop {
            let forbidden = client.forbids_tunnel(&wanted.host, wanted.port);
            if let Some(cause) = forbidden.filter(|_| is_listed) {
                return cause;
            }
            // Another plan, or that control is away by now.
            let _ = timeout(LOOK_AGAIN, plans.changed()).await;
        }
    };
    match pass(io, &mut dialled.stream, SILENCE, &passed, forbidden).await {
        Ended::Done => closing.record.done(),
        Ended::Broken => closing.record.fail("reset"),
        Ended::Silent => closing.record.fail("tunnel_silent"),
        Ended::Told(cause) => closing.record.fail(cause),
    }
}

/// The record of a tunnel, told what passed however it ends.
struct Closing {
    record: CallRecord,
    passed: Arc<Passed>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        let (out, back) = self.passed.bytes();
        self.record.count(out, back);
    }
}

/// The client's first message must be a `ClientHello` for this host; then it is passed on. An address has no name.
async fn begins_with_tls(
    io: &mut (impl AsyncRead + Unpin),
    dialled: &mut Dialled,
    host: &str,
) -> Result<(), &'static str> {
    let mut said = Vec::with_capacity(2048);
    let reading = async {
        loop {
            match hello::read(&said) {
                Ok(First::Hello(hello)) => return Ok(hello),
                Ok(First::Incomplete) if said.len() <= hello::LONGEST + 128 => {}
                Ok(First::Incomplete) | Err(_) => return Err("not_tls"),
            }
            if io.read_buf(&mut said).await.unwrap_or(0) == 0 {
                return Err("abandoned");
            }
        }
    };
    let hello = timeout(PATIENCE, reading).await.unwrap_or(Err("not_tls"))?;
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let is_named = match is_address {
        true => hello.server_name.is_empty(),
        false => hello.server_name.eq_ignore_ascii_case(host.as_bytes()),
    };
    if !is_named {
        return Err("name_not_allowed");
    }
    let sent = dialled.stream.write_all(&said).await;
    sent.map_err(|_| "reset")
}
