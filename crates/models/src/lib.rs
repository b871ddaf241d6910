//! A model's process: loads one file, in a box, and answers for it over one Unix socket.
//!
//! Owns: what a model file may hold ([`onnx`], [`tflite`]), the runtimes' libraries ([`runtime`]), the Open Inference Protocol
//! (`KServe` V2) as bytes ([`oip`]), who runs next and who is refused ([`pool`]), and the process around them
//! ([`worker`], [`inspect`]). A request's way: `serve` reads it whole, `oip::request` decodes it against what the model
//! takes, `pool` admits it by its predicted run time, a thread with one session of the runtime runs it, `oip::answer`
//! encodes what came of it.
//!
//! Must not: open a socket, write a file, start a program, or know who asks: the engine has decided that. It does not
//! depend on the engine. Batching of what is queued belongs into `pool`, where a thread takes its next job
//! (`Pool::next`): it would take several of one shape, and is not there yet.

mod body;
mod config;
#[cfg(test)] // until something calls it
mod drift;
mod error;
mod estimate;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod inspect;
mod json;
mod oip;
mod onnx;
mod outline;
mod place;
mod pool;
mod runtime;
mod serve;
#[allow(unsafe_code)]
mod sys;
mod tflite;
mod watchdog;
mod worker;

pub use error::Error;
pub use inspect::inspect;
pub use worker::run;

#[cfg(not(target_endian = "little"))]
compile_error!("binary tensors are little-endian, and are given to the runtime as they came");
