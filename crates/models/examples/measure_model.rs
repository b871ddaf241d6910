//! What a worker adds to a run: the bare call of the runtime beside the same one through the worker's socket.
//!
//! `cargo run --release --locked --workspace --example measure_model -- LIBRARY FILE SOCKET NAME`, with a worker of the
//! same file on SOCKET. All inputs are FP32, sizes that may be any are 1. One connection, one request at a time, binary
//! tensors both ways.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, ValueType};

const WARM: usize = 500;
const ROUNDS: usize = 5000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, file, socket, name] = arguments.as_slice() else {
        panic!("LIBRARY FILE SOCKET NAME");
    };
    let (inputs, mut bare) = bare(library, file);
    let mut through = through(socket, name, &inputs);
    report("bare run", &mut bare);
    report("through the worker", &mut through);
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |part: usize| times[times.len() * part / 1000].as_secs_f64() * 1e6;
    println!("{what:<20} p50 {:8.1} us  p99 {:8.1} us", at(500), at(990));
}

type Inputs = Vec<(String, Vec<usize>)>;

fn bare(library: &str, file: &str) -> (Inputs, Vec<Duration>) {
    let environment = ort::init_from(library)
        .unwrap()
        .with_telemetry(false)
        .build()
        .unwrap();
    let cpu = ort::ep::CPU::default()
        .with_arena_allocator(std::env::var("ARENA").is_ok())
        .build();
    let mut session = Session::builder(&environment)
        .unwrap()
        .with_execution_providers([cpu])
        .unwrap()
        .with_intra_threads(1)
        .unwrap()
        .with_intra_op_spinning(false)
        .unwrap()
        .commit_from_file(file)
        .unwrap();
    let inputs: Inputs = session
        .inputs()
        .iter()
        .map(|it| {
            let ValueType::Tensor { shape, .. } = it.dtype() else {
                panic!("no tensor");
            };
            let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(1));
            (it.name().to_owned(), shape.collect())
        })
        .collect();
    let tensors: Vec<_> = inputs
        .iter()
        .map(|(_, shape)| {
            Tensor::from_array((shape.clone(), vec![0.5_f32; shape.iter().product()])).unwrap()
        })
        .collect();
    let times = (0..WARM + ROUNDS).map(|_| {
        let start = Instant::now();
        let values: Vec<SessionInputValue<'_>> =
            tensors.iter().map(|it| it.view().into()).collect();
        drop(session.run(values.as_slice()).unwrap());
        start.elapsed()
    });
    let times = times.skip(WARM).collect();
    (inputs, times)
}

fn through(socket: &str, name: &str, inputs: &Inputs) -> Vec<Duration> {
    let mut json = String::from(r#"{"parameters":{"binary_data_output":true},"inputs":["#);
    let mut binary = vec![];
    for (place, (name, shape)) in inputs.iter().enumerate() {
        let count: usize = shape.iter().product();
        binary.extend(std::iter::repeat_n(0.5_f32.to_le_bytes(), count).flatten());
        let comma = if place > 0 { "," } else { "" };
        write!(
            json,
            r#"{comma}{{"name":"{name}","datatype":"FP32","shape":{shape:?},"parameters":{{"binary_data_size":{}}}}}"#,
            count * 4
        )
        .unwrap();
    }
    json.push_str("]}");
    let mut request = format!(
        "POST /v2/models/{name}/infer HTTP/1.1\r\nhost: m\r\ninference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n{json}",
        json.len(),
        json.len() + binary.len()
    )
    .into_bytes();
    request.extend_from_slice(&binary);
    let mut stream = UnixStream::connect(socket).unwrap();
    let mut answer = vec![0; 16 << 20];
    let times = (0..WARM + ROUNDS).map(|_| {
        let start = Instant::now();
        stream.write_all(&request).unwrap();
        read(&mut stream, &mut answer);
        start.elapsed()
    });
    times.skip(WARM).collect()
}

/// Reads one answer, which must be 200.
fn read(stream: &mut UnixStream, answer: &mut [u8]) {
    let (mut length, mut whole) = (0, usize::MAX);
    while length < whole {
        length += stream.read(&mut answer[length..]).unwrap();
        if whole == usize::MAX
            && let Some(end) = answer[..length].windows(4).position(|it| it == b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&answer[..end]).unwrap();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            let said = head
                .lines()
                .find_map(|it| it.strip_prefix("content-length: "));
            whole = end + 4 + said.unwrap().parse::<usize>().unwrap();
        }
    }
}
