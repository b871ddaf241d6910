//! Bodies as they come: piece by piece into one place.
//!
//! Owns: a piece of memory in which the elements of the first binary tensor lie as the runtime wants them, so that it can
//! take them from there. Must not: make room for what was only said.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::oip::Refusal;

/// How long a body may stand still.
const STANDSTILL: Duration = Duration::from_secs(30);
/// What tensors are laid at multiples of: a cache line, and the widest vector of a processor.
const ALIGNMENT: usize = 64;
/// Room that is made for a body before it is there.
const ROOM_AT_FIRST: usize = 1 << 20;

/// A body in one piece.
pub struct Whole {
    bytes: Vec<u8>,
    /// Bytes before it, so that what follows the JSON is aligned.
    before: usize,
    json_length: usize,
}

impl Whole {
    /// Nothing yet; `json_length` bytes of it are JSON.
    pub fn new(json_length: Option<usize>) -> Self {
        Self {
            bytes: vec![],
            before: 0,
            json_length: json_length.unwrap_or(0),
        }
    }

    /// Bytes of it that are there.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.before
    }

    /// Adds a piece. What was said to come has its room once more than [`ROOM_AT_FIRST`] of it is there.
    pub fn add(&mut self, piece: &[u8], said: Option<usize>) -> Result<(), Refusal> {
        let needed = self.len() + piece.len();
        if self.before + needed > self.bytes.capacity() {
            let said = said.unwrap_or(needed.saturating_mul(2));
            let room = match needed > ROOM_AT_FIRST {
                true => said,
                false => said.min(ROOM_AT_FIRST),
            };
            self.lay_out(room.max(needed))?;
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn lay_out(&mut self, room: usize) -> Result<(), Refusal> {
        let mut bytes: Vec<u8> = vec![];
        let made = bytes.try_reserve_exact(room.saturating_add(ALIGNMENT));
        made.map_err(|_| Refusal {
            retry_after: Some(1),
            ..Refusal::new(503, "there is no memory for the body")
        })?;
        let binary = bytes.as_ptr().addr().wrapping_add(self.json_length);
        let before = binary.wrapping_neg() % ALIGNMENT;
        bytes.resize(before, 0);
        bytes.extend_from_slice(self.bytes.get(self.before..).unwrap_or_default());
        (self.bytes, self.before) = (bytes, before);
        Ok(())
    }

    /// All of it.
    pub fn bytes(self) -> Bytes {
        Bytes::from(self.bytes).slice(self.before..)
    }
}

/// The next piece of a body; `None`: it has ended.
pub async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    loop {
        let frame = match timeout(STANDSTILL, body.frame()).await {
            Err(_) => return Err(Refusal::new(408, "the body stands still")),
            Ok(None) => return Ok(None),
            Ok(Some(frame)) => frame,
        };
        let frame = frame.map_err(|_| Refusal::bad("the body ends early"))?;
        if let Ok(piece) = frame.into_data() {
            return Ok(Some(piece));
        }
    }
}

/// Takes the rest of a small body that is not wanted: who sends it would otherwise find the connection closed, perhaps
/// before it has read why. A large one is not worth it.
pub async fn read_away(body: &mut Incoming) {
    const MOST: u64 = 1 << 20;
    const LONGEST: Duration = Duration::from_secs(1);
    if body.size_hint().upper().is_some_and(|it| it > MOST) {
        return;
    }
    let reading = async {
        let mut seen = 0;
        while let Ok(Some(piece)) = piece(body).await {
            seen += piece.len() as u64;
            if seen > MOST {
                return;
            }
        }
    };
    let _ = timeout(LONGEST, reading).await;
}
