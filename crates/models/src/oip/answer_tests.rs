#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{encode, metadata};
use super::request::Wanted;
use super::request_tests::model;
use crate::config::Datatype;
use crate::runtime::Data;

fn data(datatype: Datatype, count: i64, elements: &[u8]) -> Data {
    Data {
        datatype,
        shape: vec![count],
        elements: Bytes::copy_from_slice(elements),
    }
}

fn floats(numbers: &[f32]) -> Data {
    let bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_le_bytes()).collect();
    data(Datatype::Fp32, numbers.len().try_into().unwrap(), &bytes)
}

fn wanted(is_binary: bool) -> [Wanted; 1] {
    [Wanted {
        place: 0,
        is_binary,
    }]
}

fn said(output: Data) -> Value {
    let answer = encode(&model(), None, &wanted(false), vec![output]).unwrap();
    let json: Value = serde_json::from_slice(&answer.parts.concat()).unwrap();
    json["outputs"][0]["data"].clone()
}

#[test]
fn an_answer_names_model_version_and_id() {
    let answer = encode(
        &model(),
        Some("a\"b"),
        &wanted(false),
        vec![floats(&[0.1, -2.0])],
    )
    .unwrap();
    assert_eq!(answer.json_length, None);
    let json: Value = serde_json::from_slice(&answer.parts.concat()).unwrap();
    let output = json!({"name": "y", "datatype": "FP32", "shape": [2], "data": [0.1, -2.0]});
    let whole = json!({"model_name": "m", "model_version": "3", "id": "a\"b", "outputs": [output]});
    assert_eq!(json, whole);
}

#[test]
fn what_is_too_much_for_json_is_asked_for_as_bytes() {
    let large = || data(Datatype::Uint8, 17 << 20, &vec![7; 17 << 20]);
    let refused = encode(&model(), None, &wanted(false), vec![large()]);
    let refused = refused.map(|_| ()).unwrap_err();
    assert_eq!(refused.status, 400);
    assert!(
        refused.message.contains("binary_data"),
        "{}",
        refused.message
    );
    assert!(encode(&model(), None, &wanted(true), vec![large()]).is_ok());
}

#[test]
fn numbers_are_the_shortest_that_say_them_exactly() {
    let text = |output| {
        let answer = encode(&model(), None, &wanted(false), vec![output]).unwrap();
        String::from_utf8(answer.parts.concat()).unwrap()
    };
    assert!(text(floats(&[0.1])).contains("[0.1]"));
    assert!(text(floats(&[f32::MAX])).contains("3.4028235e"));
    let largest = data(Datatype::Int64, 1, &i64::MAX.to_le_bytes());
    assert!(text(largest).contains("[9223372036854775807]"));
}

#[test]
fn every_type_that_json_has_is_written() {
    assert_eq!(said(data(Datatype::Bool, 2, &[0, 1])), json!([false, true]));
    assert_eq!(said(data(Datatype::Uint8, 2, &[0, 255])), json!([0, 255]));
    assert_eq!(said(data(Datatype::Int8, 1, &[255])), json!([-1]));
    assert_eq!(said(data(Datatype::Uint16, 1, &[0, 1])), json!([256]));
    assert_eq!(said(data(Datatype::Int16, 1, &[255, 255])), json!([-1]));
    assert_eq!(
        said(data(Datatype::Uint32, 1, &[0, 0, 1, 0])),
        json!([65536])
    );
    assert_eq!(said(data(Datatype::Int32, 1, &[255; 4])), json!([-1]));
    assert_eq!(
        said(data(Datatype::Uint64, 1, &[255; 8])),
        json!([u64::MAX])
    );
    assert_eq!(
        said(data(Datatype::Fp64, 1, &1.5_f64.to_le_bytes())),
        json!([1.5])
    );
    assert_eq!(
        said(data(Datatype::Bytes, 2, b"\x01\0\0\0a\0\0\0\0")),
        json!(["a", ""])
    );
    assert_eq!(said(data(Datatype::Fp32, 0, &[])), json!([]));
}

#[test]
fn what_json_has_no_form_for_is_refused_with_the_way_out() {
    for output in [
        floats(&[1.0, f32::NAN]),
        floats(&[f32::INFINITY]),
        data(Datatype::Fp64, 1, &f64::NEG_INFINITY.to_le_bytes()),
        data(Datatype::Fp16, 1, &[0, 0]),
        data(Datatype::Bytes, 1, b"\x01\0\0\0\xff"),
    ] {
        let refusal = encode(&model(), None, &wanted(false), vec![output.clone()]).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert!(
            refusal.message.contains("binary_data"),
            "{}",
            refusal.message
        );
        encode(&model(), None, &wanted(true), vec![output]).unwrap();
    }
}

#[test]
fn binary_elements_follow_the_json_as_they_are() {
    for count in [1_usize, 10_000] {
        let output = floats(&vec![f32::NAN; count]);
        let elements = output.elements.clone();
        let answer = encode(&model(), None, &wanted(true), vec![output]).unwrap();
        let body = answer.parts.concat();
        let (json, binary) = body.split_at(answer.json_length.unwrap());
        let json: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(
            json["outputs"][0]["parameters"]["binary_data_size"],
            elements.len()
        );
        assert_eq!(binary, elements);
        let is_lent = answer
            .parts
            .iter()
            .any(|it| it.as_ptr() == elements.as_ptr());
        assert_eq!(is_lent, count > 1, "a large one is not copied");
    }
}

#[test]
fn metadata_says_any_as_minus_one() {
    let said: Value = serde_json::from_slice(&metadata(&model())).unwrap();
    assert_eq!(
        said["inputs"][0],
        json!({"name": "x", "datatype": "FP32", "shape": [-1, 2]})
    );
    assert_eq!(said["versions"], json!(["3"]));
    assert_eq!(said["platform"], "onnxruntime_onnx");
}
