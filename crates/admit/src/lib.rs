//! Who may come in: what can be known of a client before anybody looks at what it asks for.
//!
//! Owns lists of addresses (`ranges`), the country of an address (`country`), addresses that offend
//! (`offenders`), what a TLS client looks like (`hello`), who calls itself a crawler and what looks
//! like a program (`crawlers`), the challenge (`challenge`), and when the node sheds load
//! (`pressure`). Useful on its own.
//!
//! Must not: read a clock, a file or a socket, wait, know HTTP beyond bytes, or grow with the
//! number of clients.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod challenge;
pub mod country;
pub mod crawlers;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod hello;
pub mod offenders;
pub mod pressure;
pub mod ranges;
