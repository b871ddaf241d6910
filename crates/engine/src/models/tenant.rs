//! Who asks, as the process of a model may know it: so that it never runs the requests of two callers in one batch.
//!
//! Owns: a number that is the same for the same caller while this engine runs. Must not: let anybody find out from it who
//! that is, or make one that is another's: it is keyed, and the key is never told.

use std::hash::Hasher;
use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};
use siphasher::sip::SipHasher24;

use crate::caller::{Caller, Proof};
use crate::sys::random_u64;

/// Carries it: sixteen hex digits. Callers cannot set it: `admit` takes fields of ours away.
pub const TENANT: HeaderName = HeaderName::from_static("x-vedette-tenant");

/// What a request is sent with. Callers without a proof are one.
pub fn tenant_of(caller: Option<&Caller>) -> HeaderValue {
    static KEY: LazyLock<[u64; 2]> = LazyLock::new(|| [random_u64(), random_u64()]);
    let [one, other] = *KEY;
    let mut hasher = SipHasher24::new_with_keys(one, other);
    // A principal holds who vouches for it: the issuer of a token, the authority or trust domain of a certificate.
    let (kind, principal) = match caller {
        None => (0, ""),
        Some(caller) => match caller.proof {
            Proof::Token(_) => (1, caller.principal.as_ref()),
            Proof::Certificate(_) => (2, caller.principal.as_ref()),
            Proof::Function(_) => (3, caller.principal.as_ref()),
        },
    };
    hasher.write_u8(kind);
    hasher.write(principal.as_bytes());
    let text = format!("{:016x}", hasher.finish());
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0000000000000000"))
}
