//! A model's process: loads one file, in a box, and answers for it over one Unix socket.
//!
//! Owns: what a model file may hold ([`onnx`], [`tflite`]), the runtimes' libraries ([`runtime`]), the Open Inference Protocol
//! (`KServe` V2) as bytes ([`oip`], [`grpc`]), who runs next and who is refused ([`pool`]), and the process around them
//! ([`worker`], [`inspect`]). A request's way: `serve` reads it whole, `oip::request` decodes it against what the model
//! takes, `pool` admits it by its predicted run time, `batch` says what runs with it, `turn` has a session of the runtime
//! run it, `oip::answer` encodes what came of it. What comes is no tensors (a picture, a sound, a text): [`media`] makes it
//! some; what goes may be read first, as labels, boxes or a vector ([`reading`]). A little of both is compared with how it was
//! ([`seen`], [`drift`]), and some of it is redacted and handed on where the manifest asks for that ([`samples`]). Events of a stream ([`streams`]) go another way: a detector needs no session, and a model that
//! remembers has its runs in `pool` as requests have.
//!
//! Must not: open a socket, write a file, start a program, or know who asks: the engine has decided that. It does not
//! depend on the engine.

mod batch;
mod body;
mod config;
mod drift;
mod error;
mod estimate;
mod failure;
mod fields;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod grpc;
mod idle;
mod inspect;
mod json;
mod media;
mod oip;
mod onnx;
mod outline;
mod pace;
mod place;
mod pool;
mod queue;
mod reading;
mod replies;
mod runtime;
mod samples;
mod seen;
mod serve;
mod streams;
#[allow(unsafe_code)]
mod sys;
mod tflite;
mod turn;
mod warm;
mod watchdog;
mod worker;

pub use error::Error;
pub use inspect::inspect;
pub use worker::run;

#[cfg(not(target_endian = "little"))]
compile_error!("binary tensors are little-endian, and are given to the runtime as they came");
