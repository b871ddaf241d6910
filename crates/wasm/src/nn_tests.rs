//! The interface without a guest: tensors, errors, calls, and what they cost.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::HeaderValue;
use http_body_util::Full;
use serde_json::{Value, json};

use super::errors::HostError as _;
use super::graph::{Host as _, HostGraph as _};
use super::tensor::{HostTensor as _, TensorType};
use super::*;
use crate::guest::{Context, FunctionSpec, Limits};
use crate::log::{LogSink, Stream};
use crate::outbound::{Outbound, OutboundAnswer, OutboundCall};

const MEMORY: u64 = 4096;

type Answer = fn() -> Result<http::Response<Bytes>, HttpError>;

/// Answers every call with the same, and keeps what it was asked.
struct Node {
    answer: Answer,
    asked: Mutex<Vec<(http::request::Parts, Bytes, bool)>>,
}

impl Outbound for Arc<Node> {
    fn send(&self, call: OutboundCall) -> OutboundAnswer {
        let node = Arc::clone(self);
        assert_eq!(call.interface, Interface::Nn);
        Box::pin(async move {
            let (parts, body) = call.request.into_parts();
            let body = body.collect().await?.to_bytes();
            let mut asked = node.asked.lock().unwrap();
            asked.push((parts, body, call.is_one_too_many));
            let response = (node.answer)()?;
            Ok(response.map(|it| Full::new(it).map_err(|never| match never {}).boxed_unsync()))
        })
    }

    fn may_ask(&self, _: &HeaderValue, model: &str) -> Result<(), HttpError> {
        match model {
            "digits" => Ok(()),
            "secret" => Err(HttpError::HttpRequestDenied),
            _ => Err(HttpError::DestinationNotFound),
        }
    }
}

struct Silent;

impl LogSink for Silent {
    fn line(&self, _: &HeaderValue, _: Stream, _: &[u8]) {}
}

fn guest(answer: Answer) -> (Guest, Arc<Node>) {
    let node = Arc::new(Node {
        answer,
        asked: Mutex::default(),
    });
    let limits = Limits {
        cpu: Duration::from_secs(1),
        wall: Duration::from_secs(1),
        memory_bytes: MEMORY,
        response_bytes: 2048,
        request_bytes: 2048,
    };
    let context = Context {
        log: Arc::new(Silent),
        outbound: Arc::new(Arc::clone(&node)),
        request_id: HeaderValue::from_static("r1"),
        until: Instant::now(),
    };
    let spec = Arc::new(FunctionSpec::new([], [], limits));
    (Guest::new(spec, context, false), node)
}

fn said(json: &Value, elements: &[u8]) -> http::Response<Bytes> {
    let json = json.to_string();
    http::Response::builder()
        .header(JSON_LENGTH, json.len())
        .body([json.as_bytes(), elements].concat().into())
        .unwrap()
}

fn one_output(
    datatype: &str,
    shape: &Value,
    size: usize,
    elements: &[u8],
) -> http::Response<Bytes> {
    let output = json!({
        "name": "y", "datatype": datatype, "shape": shape,
        "parameters": {"binary_data_size": size},
    });
    said(
        &json!({"model_name": "digits", "outputs": [output]}),
        elements,
    )
}

// As all that a node may answer.
#[allow(clippy::unnecessary_wraps)]
fn good() -> Result<http::Response<Bytes>, HttpError> {
    Ok(one_output(
        "FP32",
        &json!([1, 2]),
        8,
        &[1, 2, 3, 4, 5, 6, 7, 8],
    ))
}

fn told(failed: Failed) -> (ErrorCode, String) {
    match failed {
        Failed::Told(error) => (error.code, error.text),
        Failed::Trap(trap) => panic!("{trap}"),
    }
}

fn put(nn: &mut Nn<'_>, shape: &[u32], kind: TensorType, bytes: usize) -> Resource<Tensor> {
    tensor::HostTensor::new(nn, shape.to_vec(), kind, vec![7; bytes]).unwrap()
}

/// What `digits` answers to one tensor.
async fn computed(
    nn: &mut Nn<'_>,
    given: Resource<Tensor>,
) -> Result<Vec<(String, Resource<Tensor>)>, Failed> {
    nn.run("digits", vec![("x".into(), given)]).await
}

#[tokio::test]
async fn tensors_go_to_the_model_and_come_back() {
    let (mut guest, node) = guest(good);
    let mut nn = guest.nn();
    let given = put(&mut nn, &[2, 4], TensorType::U8, 8);
    let outputs = computed(&mut nn, given).await.unwrap();
    let (name, output) = outputs.into_iter().next().unwrap();
    let same = Resource::new_borrow(output.rep());
    assert_eq!(name, "y");
    assert_eq!(nn.dimensions(same).unwrap(), [1, 2]);
    let same = Resource::new_borrow(output.rep());
    assert_eq!(nn.ty(same).unwrap(), TensorType::Fp32);
    assert_eq!(
        tensor::HostTensor::data(&mut nn, output).unwrap(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    let (parts, body, one_too_many) = node.asked.lock().unwrap().pop().unwrap();
    assert_eq!(parts.method, http::Method::POST);
    assert_eq!(parts.uri, "http://digits.model/v2/models/digits/infer");
    assert!(!one_too_many);
    let length: usize = parts.headers[JSON_LENGTH]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let (json, elements) = body.split_at(length);
    let json: Value = serde_json::from_slice(json).unwrap();
    let expected = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [{
            "name": "x", "datatype": "UINT8", "shape": [2, 4],
            "parameters": {"binary_data_size": 8},
        }],
    });
    assert_eq!((json, elements), (expected, &[7; 8][..]));
}

#[tokio::test]
async fn what_is_held_for_a_guest_counts_as_its_memory_until_it_is_dropped() {
    let (mut guest, _) = guest(good);
    let mut nn = guest.nn();
    let before = nn.memory.left();
    assert_eq!(before, MEMORY);
    let given = put(&mut nn, &[2, 4], TensorType::U8, 8);
    assert_eq!(nn.memory.left(), before - 8 - 8, "elements and shape");
    let outputs = computed(&mut nn, given).await.unwrap();
    assert_eq!(
        nn.memory.left(),
        before - 8 - 8,
        "the input is gone, the output is there"
    );
    for (_, output) in outputs {
        tensor::HostTensor::drop(&mut nn, output).unwrap();
    }
    assert_eq!(nn.memory.left(), before);
    assert!(!nn.memory.denied);
}

#[tokio::test]
async fn a_guest_that_has_more_held_than_it_may_ends() {
    let (mut guest, _) = guest(good);
    let mut nn = guest.nn();
    put(&mut nn, &[4000], TensorType::U8, 4000);
    let more = tensor::HostTensor::new(&mut nn, vec![], TensorType::U8, vec![0; 100]);
    assert!(more.is_err());
    assert!(nn.memory.denied, "that is why it ends");
}

#[tokio::test]
async fn outputs_for_which_there_is_no_room_are_too_large() {
    let (mut guest, _) = guest(good);
    let mut nn = guest.nn();
    // What is left when the input has gone is less than the answer.
    put(&mut nn, &[4000], TensorType::U8, 4000);
    let given = put(&mut nn, &[1], TensorType::U8, 1);
    let (code, _) = told(computed(&mut nn, given).await.unwrap_err());
    assert_eq!(code, ErrorCode::TooLarge);
    assert!(!nn.memory.denied);
}

#[tokio::test]
async fn sizes_of_bodies_are_the_function_s() {
    let large = || Ok(one_output("UINT8", &json!([2000]), 2000, &[0; 2000]));
    let (mut guest, _) = guest(large);
    let mut nn = guest.nn();
    let given = put(&mut nn, &[1], TensorType::U8, 1);
    let (code, text) = told(computed(&mut nn, given).await.unwrap_err());
    assert_eq!(
        (code, text.contains("outputs")),
        (ErrorCode::TooLarge, true)
    );
    let given = put(&mut nn, &[2000], TensorType::U8, 2000);
    let (code, text) = told(computed(&mut nn, given).await.unwrap_err());
    assert_eq!((code, text.contains("inputs")), (ErrorCode::TooLarge, true));
}

#[tokio::test]
async fn calls_are_counted_like_others() {
    let (mut guest, node) = guest(good);
    let mut nn = guest.nn();
    for _ in 0..65 {
        let given = put(&mut nn, &[1], TensorType::U8, 1);
        for (_, output) in computed(&mut nn, given).await.unwrap() {
            tensor::HostTensor::drop(&mut nn, output).unwrap();
        }
    }
    let asked = node.asked.lock().unwrap();
    let too_many: Vec<_> = asked.iter().map(|it| it.2).collect();
    assert_eq!(too_many.iter().filter(|it| **it).count(), 1);
    assert!(too_many[64]);
}

#[tokio::test]
async fn inputs_that_are_no_tensors_are_not_sent() {
    let (mut guest, node) = guest(good);
    let mut nn = guest.nn();
    for (shape, kind, bytes, expected) in [
        (&[2][..], TensorType::Fp32, 7, ErrorCode::InvalidArgument),
        (&[2, 0], TensorType::Fp32, 8, ErrorCode::InvalidArgument),
        (
            &[u32::MAX; 5],
            TensorType::Fp64,
            8,
            ErrorCode::InvalidArgument,
        ),
        (&[1; 33], TensorType::U8, 1, ErrorCode::InvalidArgument),
        (&[1], TensorType::Bf16, 2, ErrorCode::UnsupportedOperation),
    ] {
        let given = put(&mut nn, shape, kind, bytes);
        let (code, _) = told(computed(&mut nn, given).await.unwrap_err());
        assert_eq!(code, expected, "{shape:?} {kind:?}");
    }
    let many = (0..257).map(|_| ("x".into(), put(&mut nn, &[1], TensorType::U8, 1)));
    let many = many.collect();
    let (code, _) = told(nn.run("digits", many).await.unwrap_err());
    assert_eq!(code, ErrorCode::InvalidArgument);
    let long = vec![("x".repeat(1025), put(&mut nn, &[1], TensorType::U8, 1))];
    let (code, _) = told(nn.run("digits", long).await.unwrap_err());
    assert_eq!(code, ErrorCode::InvalidArgument);
    assert!(node.asked.lock().unwrap().is_empty());
    assert_eq!(nn.memory.left(), MEMORY, "what was not sent is not held");
}

#[tokio::test]
async fn every_type_of_both_goes_and_comes_and_others_are_named() {
    let all: [Answer; 6] = [
        || Ok(one_output("FP16", &json!([1]), 2, &[0; 2])),
        || Ok(one_output("FP32", &json!([1]), 4, &[0; 4])),
        || Ok(one_output("FP64", &json!([1]), 8, &[0; 8])),
        || Ok(one_output("UINT8", &json!([1]), 1, &[0])),
        || Ok(one_output("INT32", &json!([1]), 4, &[0; 4])),
        || Ok(one_output("INT64", &json!([1]), 8, &[0; 8])),
    ];
    let kinds = [
        TensorType::Fp16,
        TensorType::Fp32,
        TensorType::Fp64,
        TensorType::U8,
        TensorType::I32,
        TensorType::I64,
    ];
    for (answer, kind) in all.into_iter().zip(kinds) {
        let (mut guest, _) = guest(answer);
        let mut nn = guest.nn();
        let given = put(&mut nn, &[], TensorType::U8, 1);
        let (_, output) = computed(&mut nn, given).await.unwrap().pop().unwrap();
        assert_eq!(nn.ty(output).unwrap(), kind);
    }
    for datatype in ["BYTES", "BOOL", "INT8", "UINT64", "BF16", ""] {
        let body = one_output(datatype, &json!([1]), 1, &[0]).into_body();
        let length = body.len() - 1;
        let error = wire::outputs(&body, Some(length)).unwrap_err();
        assert_eq!(error.code, ErrorCode::UnsupportedOperation);
        assert!(
            error.text.contains(&format!("{datatype:?}")),
            "{}",
            error.text
        );
    }
}

#[test]
fn an_answer_that_is_none_is_an_error_and_nothing_is_read_beyond_it() {
    let is_broken = |answer: http::Response<Bytes>, length: Option<usize>| {
        let stated = answer.headers()[JSON_LENGTH]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let read = wire::outputs(answer.body(), length.or(Some(stated)));
        read.is_err_and(|error| error.code == ErrorCode::RuntimeError)
    };
    let y = |shape: Value, size: usize, elements: &[u8]| one_output("FP32", &shape, size, elements);
    assert!(!is_broken(y(json!([1]), 4, &[0; 4]), None));
    assert!(is_broken(y(json!([1]), 4, &[0; 3]), None), "fewer bytes");
    assert!(is_broken(y(json!([1]), 4, &[0; 5]), None), "more bytes");
    assert!(is_broken(y(json!([2]), 4, &[0; 4]), None), "another shape");
    assert!(is_broken(y(json!([1]), usize::MAX, &[0; 4]), None));
    assert!(is_broken(
        y(json!([u32::MAX, u32::MAX, u32::MAX]), 4, &[0; 4]),
        None
    ));
    assert!(is_broken(y(json!([-1]), 4, &[0; 4]), None));
    assert!(
        is_broken(y(json!([1]), 4, &[0; 4]), Some(10_000)),
        "JSON beyond the body"
    );
    assert!(
        is_broken(y(json!([1]), 4, &[0; 4]), Some(3)),
        "JSON cut short"
    );
    assert!(is_broken(said(&json!({}), &[]), None));
    assert!(is_broken(said(&json!([]), &[]), None));
    let without = json!({"outputs": [{"name": "y", "datatype": "FP32", "shape": [0]}]});
    assert!(is_broken(said(&without, &[]), None), "not binary");
    let padded = format!("{}{}", json!({"outputs": []}), " ".repeat(1 << 20));
    let length = padded.len();
    let long = http::Response::builder().header(JSON_LENGTH, length);
    assert!(is_broken(long.body(padded.into()).unwrap(), None));
}

#[tokio::test]
async fn each_way_to_fail_has_its_code() {
    #[allow(clippy::unnecessary_wraps)]
    fn status(status: u16, text: &'static str) -> Result<http::Response<Bytes>, HttpError> {
        let body = Bytes::from_static(text.as_bytes());
        Ok(http::Response::builder().status(status).body(body).unwrap())
    }
    let ways: [(Answer, ErrorCode, &str); 11] = [
        (
            || status(400, r#"{"error": "input x"}"#),
            ErrorCode::InvalidArgument,
            "input x",
        ),
        (
            || status(404, "{}"),
            ErrorCode::NotFound,
            "the model answered 404 Not Found",
        ),
        (|| status(413, ""), ErrorCode::TooLarge, "413"),
        (
            || status(503, r#"{"error": "loading"}"#),
            ErrorCode::RuntimeError,
            "loading",
        ),
        (|| status(504, ""), ErrorCode::Timeout, "504"),
        (|| status(302, ""), ErrorCode::RuntimeError, "302"),
        (
            || Err(HttpError::HttpRequestDenied),
            ErrorCode::Security,
            "log",
        ),
        (
            || Err(HttpError::DestinationNotFound),
            ErrorCode::NotFound,
            "no model",
        ),
        (
            || Err(HttpError::HttpResponseTimeout),
            ErrorCode::Timeout,
            "in time",
        ),
        (
            || Err(HttpError::ConnectionRefused),
            ErrorCode::RuntimeError,
            "not available",
        ),
        (
            || Err(HttpError::ConnectionTerminated),
            ErrorCode::RuntimeError,
            "not available",
        ),
    ];
    for (answer, code, word) in ways {
        let (mut guest, _) = guest(answer);
        let mut nn = guest.nn();
        let given = put(&mut nn, &[1], TensorType::U8, 1);
        let (told, text) = told(computed(&mut nn, given).await.unwrap_err());
        assert_eq!(told, code, "{text}");
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_graph_is_a_name_that_may_be_asked_and_never_bytes() {
    let (mut guest, _) = guest(good);
    let mut nn = guest.nn();
    let bytes = nn.load(
        vec![vec![0; 10]],
        graph::GraphEncoding::Onnx,
        graph::ExecutionTarget::Cpu,
    );
    let error = bytes.unwrap().unwrap_err();
    let same = Resource::new_borrow(error.rep());
    assert_eq!(nn.code(same).unwrap(), ErrorCode::UnsupportedOperation);
    let same = Resource::new_borrow(error.rep());
    let text = errors::HostError::data(&mut nn, same).unwrap();
    assert!(text.contains("load-by-name"), "{text}");
    errors::HostError::drop(&mut nn, error).unwrap();
    assert!(nn.table.is_empty());
    assert_eq!(
        told(nn.find("secret".into()).unwrap_err()).0,
        ErrorCode::Security
    );
    assert_eq!(
        told(nn.find("other".into()).unwrap_err()).0,
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn contexts_are_as_many_as_handles_and_no_more() {
    let (mut guest, _) = guest(good);
    let mut nn = guest.nn();
    let graph = nn.load_by_name("digits".into()).unwrap().unwrap();
    let made = (0..10_000).map(|_| nn.init_execution_context(Resource::new_borrow(graph.rep())));
    let made: Vec<_> = made.take_while(Result::is_ok).collect();
    assert_eq!(made.len(), crate::guest::MAX_HANDLES - 1);
    assert!(nn.init_execution_context(graph).is_err());
}

#[test]
fn whatever_an_answer_says_a_tensor_has_the_bytes_of_its_shape() {
    let outputs = [("y", 3), ("z", 11)].map(|(name, count)| {
        json!({
            "name": name, "datatype": "INT32", "shape": [1, count],
            "parameters": {"binary_data_size": 4 * count},
        })
    });
    let json = json!({ "outputs": outputs }).to_string();
    let whole = [json.as_bytes(), &[7; 56]].concat();
    let mut dice = fastrand::Rng::with_seed(7);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let mut body = whole.clone();
        for _ in 0..dice.usize(0..4) {
            let at = dice.usize(..json.len());
            // Digits for digits, mostly: what stays JSON says more.
            body[at] = match body[at].is_ascii_digit() && dice.u8(..) > 20 {
                true => dice.u8(b'0'..=b'9'),
                false => dice.u8(..),
            };
        }
        body.truncate(body.len() - dice.usize(0..3) / 2);
        match wire::outputs(&body.into(), Some(json.len())) {
            Err(_) => bad += 1,
            Ok(read) => {
                good += 1;
                for (_, tensor) in read {
                    let count: u64 = tensor.shape.iter().map(|it| u64::from(*it)).product();
                    let size = match tensor.kind {
                        TensorType::U8 => 1,
                        TensorType::Fp16 | TensorType::Bf16 => 2,
                        TensorType::Fp32 | TensorType::I32 => 4,
                        TensorType::Fp64 | TensorType::I64 => 8,
                    };
                    assert_eq!(tensor.data.len() as u64, size * count);
                }
            }
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} good, {bad} bad");
}
