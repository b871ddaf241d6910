//! Egress: the only way out of a function. Where it may call, and a record of each call.
//!
//! A call goes out when scheme, host and port of the URI that is sent are on the function's list.
//! Redirects are not followed: the guest sees them and calls again, past the same list.
//!
//! Must not: reach an address that the list does not name as an address when it is private (see
//! [`mod@address`]), or let a call go unrecorded.

mod address;
mod client;
mod hosts;
mod record;

pub use hosts::AllowedHosts;

use std::sync::Arc;

use vedette_wasm::{BodyError, Outbound, OutboundAnswer, OutboundCall};

use client::Client;
use hosts::Destination;
use record::{CallRecord, Recorded};

/// The outbound calls of one function.
pub struct Egress {
    function: Arc<str>,
    allowed: AllowedHosts,
    client: Client,
}

impl Egress {
    /// The calls of `function`, which may call `allowed`.
    pub fn new(function: Arc<str>, allowed: AllowedHosts) -> Self {
        Self {
            function,
            allowed,
            client: Client::default(),
        }
    }
}

impl Outbound for Egress {
    fn send(&self, call: OutboundCall) -> OutboundAnswer {
        let mut record = CallRecord::open(Arc::clone(&self.function), &call);
        let destination = match self.permit(&call) {
            Ok(destination) => destination,
            Err(cause) => {
                record.fail(cause);
                return Box::pin(async move {
                    drop(record);
                    Err(BodyError::HttpRequestDenied)
                });
            }
        };
        let client = self.client.clone();
        Box::pin(async move {
            let request = call.request.map(|body| record.count_sent(body));
            let answered = client
                .send(&destination, request, call.connect_timeout)
                .await;
            match answered {
                Ok(response) => {
                    record.answered(response.status());
                    Ok(response.map(|body| Recorded::wrap(body, record)))
                }
                Err(failure) => {
                    record.fail(failure.cause);
                    Err(failure.error)
                }
            }
        })
    }
}

impl Egress {
    /// Where the call goes, or the cause for which it does not.
    fn permit(&self, call: &OutboundCall) -> Result<Destination, &'static str> {
        if call.is_one_too_many {
            return Err("too_many_calls");
        }
        let destination = Destination::of(call.request.uri()).ok_or("destination_invalid")?;
        self.allowed
            .permit(destination)
            .ok_or("destination_not_allowed")
    }
}
