#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use bytes::Bytes;

use super::Refusal;
use super::request::{Asked, decode};
use crate::config::Served;

/// Takes FP32 [any, 2] as `x` and INT64 [3] as `n`, gives FP32 as `y` and `z`.
pub fn model() -> Served {
    let json = r#"{"name":"m","version":3,"format":"onnx","sessions":1,"threads":1,
        "inputs":[{"name":"x","datatype":"FP32","shape":[0,2]},{"name":"n","datatype":"INT64","shape":[3]}],
        "outputs":[{"name":"y","datatype":"FP32","shape":[0]},{"name":"z","datatype":"FP32","shape":[0]}],
        "limits":{"memoryBytes":1,"runMillis":1,"queue":1,"requestBytes":1}}"#;
    serde_json::from_str(json).unwrap()
}

fn one(datatype: &str, shape: &str) -> Served {
    let json = format!(
        r#"{{"name":"m","version":3,"format":"onnx","sessions":1,"threads":1,
        "inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape}}}],
        "outputs":[{{"name":"y","datatype":"{datatype}","shape":{shape}}}],
        "limits":{{"memoryBytes":1,"runMillis":1,"queue":1,"requestBytes":1}}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

fn json(model: &Served, body: &str) -> Result<Asked, Refusal> {
    decode(model, &Bytes::copy_from_slice(body.as_bytes()), None)
}

fn binary(model: &Served, body: &str, bytes: &[u8]) -> Result<Asked, Refusal> {
    let whole = [body.as_bytes(), bytes].concat();
    decode(model, &whole.into(), Some(body.len()))
}

/// Decodes one input `x`.
fn x(datatype: &str, shape: &str, data: &str) -> Result<Asked, Refusal> {
    let body = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#
    );
    json(&one(datatype, "[0]"), &body)
}

fn bytes(asked: Result<Asked, Refusal>) -> Vec<u8> {
    asked.unwrap().inputs[0].elements.to_vec()
}

#[track_caller]
fn refused(asked: Result<Asked, Refusal>, words: &str) {
    let refusal = asked.unwrap_err();
    assert_eq!(refusal.status, 400, "{}", refusal.message);
    assert!(refusal.message.contains(words), "{}", refusal.message);
}

const N: &str = r#"{"name":"n","datatype":"INT64","shape":[3],"data":[1,2,3]}"#;

fn both(x: &str) -> String {
    format!(r#"{{"inputs":[{x},{N}]}}"#)
}

#[test]
fn inputs_are_in_the_models_order_whatever_that_of_the_request() {
    let given = r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}"#;
    let asked = json(&model(), &format!(r#"{{"inputs":[{N},{given}],"id":"7"}}"#)).unwrap();
    assert_eq!(asked.inputs[0].shape, [1, 2]);
    assert_eq!(asked.inputs[1].shape, [3]);
    assert_eq!(asked.id.as_deref(), Some("7"));
    assert_eq!(asked.outputs.len(), 2);
}

#[test]
fn elements_may_come_before_what_says_how_they_are_read() {
    let early = r#"{"data":[[1.5,2],[3,4]],"shape":[2,2],"datatype":"FP32","name":"x"}"#;
    let asked = json(&model(), &both(early)).unwrap();
    let wanted: Vec<u8> = [1.5_f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|it| it.to_le_bytes())
        .collect();
    assert_eq!(asked.inputs[0].elements, wanted);
}

#[test]
fn whole_numbers_are_exact_and_never_through_a_float() {
    for number in [i64::MIN, i64::MAX, (1 << 53) + 1, -(1 << 53) - 1] {
        assert_eq!(
            bytes(x("INT64", "[1]", &format!("[{number}]"))),
            number.to_le_bytes()
        );
    }
    let largest = u64::MAX;
    assert_eq!(
        bytes(x("UINT64", "[1]", &format!("[{largest}]"))),
        largest.to_le_bytes()
    );
}

#[test]
fn a_number_that_its_type_does_not_have_is_refused() {
    for (datatype, data) in [
        ("UINT8", "[256]"),
        ("UINT8", "[-1]"),
        ("INT8", "[128]"),
        ("INT16", "[-32769]"),
        ("UINT16", "[65536]"),
        ("INT32", "[2147483648]"),
        ("UINT32", "[-1]"),
        ("INT64", "[9223372036854775808]"),
        ("UINT64", "[18446744073709551616]"),
        ("INT64", "[1.0]"),
        ("FP32", "[1e39]"),
        ("FP64", "[1e309]"),
    ] {
        refused(x(datatype, "[1]", data), datatype);
    }
    refused(x("FP32", "[1]", "[NaN]"), "a number is expected");
    refused(x("FP32", "[1]", "[null]"), "a number is expected");
    refused(x("FP32", "[1]", "[\"1\"]"), "a number is expected");
    refused(x("FP32", "[1]", "[01]"), "a comma");
    refused(x("FP32", "[1]", "[.5]"), "a number");
    refused(x("BOOL", "[1]", "[1]"), "true or false");
    refused(x("FP16", "[1]", "[1]"), "binary data");
}

#[test]
fn a_float_is_rounded_once() {
    // Halfway between two FP32 when it is rounded to FP64 first, and just above in truth.
    let text = "1.00000005960464477540";
    let once: f32 = text.parse().unwrap();
    #[allow(clippy::cast_possible_truncation)]
    let twice = text.parse::<f64>().unwrap() as f32;
    assert_ne!(once.to_bits(), twice.to_bits());
    assert_eq!(
        bytes(x("FP32", "[1]", &format!("[{text}]"))),
        once.to_le_bytes()
    );
}

#[test]
fn texts_are_kept_whole() {
    let elements = bytes(x("BYTES", "[3]", r#"["a","","\u00e4\u0000"]"#));
    assert_eq!(elements, b"\x01\0\0\0a\0\0\0\0\x03\0\0\0\xc3\xa4\0");
    refused(x("BYTES", "[1]", r#"["\ud800"]"#), "UTF-8");
}

#[test]
fn a_name_that_the_model_does_not_have_is_told() {
    let wrong = r#"{"name":"w","datatype":"FP32","shape":[1,2],"data":[1,2]}"#;
    refused(
        json(&model(), &both(wrong)),
        "no input \"w\"; it takes \"x\", \"n\"",
    );
    refused(
        json(&model(), &format!(r#"{{"inputs":[{N}]}}"#)),
        "\"x\" is missing",
    );
    refused(
        json(&model(), &format!(r#"{{"inputs":[{N},{N}]}}"#)),
        "twice",
    );
    refused(json(&model(), r#"{"inputs":[{}]}"#), "no name");
    refused(json(&model(), "{}"), "missing");
}

#[test]
fn what_an_input_says_twice_is_refused_whichever_would_count() {
    let said = r#""name":"x","datatype":"FP32","shape":[2],"parameters":{},"data":[1,2]"#;
    let with = |again: &str| {
        let body = format!(r#"{{"inputs":[{{{said},{again}}}]}}"#);
        json(&one("FP32", "[0]"), &body)
    };
    with(r#""more":1,"more":2"#).unwrap();
    for again in [
        r#""name":"x""#,
        r#""datatype":"FP32""#,
        r#""shape":[1]"#,
        r#""parameters":{}"#,
        r#""data":[1,2]"#,
    ] {
        refused(with(again), "of an input is there twice");
    }
}

#[test]
fn another_datatype_rank_or_dimension_is_refused() {
    let with = |datatype: &str, shape: &str| {
        let given =
            format!(r#"{{"name":"x","datatype":"{datatype}","shape":{shape},"data":[1,2]}}"#);
        json(&model(), &both(&given))
    };
    refused(with("FP64", "[1,2]"), "is FP64, and the model takes FP32");
    refused(with("float", "[1,2]"), "is float");
    refused(with("FP32", "[2]"), "[2], and the model takes [-1, 2]");
    refused(with("FP32", "[1,2,1]"), "[1, 2, 1]");
    refused(with("FP32", "[1,3]"), "[1, 3]");
    refused(with("FP32", "[-1,2]"), "cannot be");
    refused(with("FP32", "[1.5,2]"), "cannot be");
    refused(with("FP32", "[1e3,2]"), "cannot be");
    refused(with("FP32", "[99999999999999999999,2]"), "cannot be");
    refused(
        with("FP32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"),
        "more than 16",
    );
    let shapeless = r#"{"name":"x","datatype":"FP32","data":[1,2]}"#;
    refused(json(&model(), &both(shapeless)), "the shape []");
}

#[test]
fn as_many_elements_as_the_shape_says_flat_or_nested_and_no_other_way() {
    let model = one("FP32", "[0,0]");
    let with = |shape: &str, data: &str| {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":{shape},"data":{data}}}]}}"#
        );
        json(&model, &body)
    };
    assert_eq!(
        bytes(with("[2,2]", "[1,2,3,4]")),
        bytes(with("[2,2]", "[[1,2],[3,4]]"))
    );
    assert!(bytes(with("[0,2]", "[]")).is_empty());
    assert!(bytes(with("[2,0]", "[[],[]]")).is_empty());
    refused(with("[2,2]", "[1,2,3]"), "more elements");
    refused(with("[2,2]", "[1,2,3,4,5]"), "fewer elements");
    refused(with("[2,2]", "[[1,2],[3]]"), "more elements");
    refused(with("[2,2]", "[[1,2],[3,4],[5,6]]"), "fewer elements");
    refused(with("[2,2]", "[[1,2,3],[4]]"), "fewer elements");
    refused(with("[2,2]", "[1,[2,3],4]"), "a number");
    refused(with("[2,2]", "[[[1,2]],[3,4]]"), "a number");
    refused(with("[2,2]", "7"), "a list");
}

#[test]
fn a_scalar_has_one_element() {
    let body = r#"{"inputs":[{"name":"x","datatype":"FP64","shape":[],"data":[2.5]}]}"#;
    assert_eq!(bytes(json(&one("FP64", "[]"), body)), 2.5_f64.to_le_bytes());
}

#[test]
fn sizes_that_cannot_be_are_refused_and_cost_no_memory() {
    let model = one("FP32", "[0,0]");
    let with = |shape: &str| {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":{shape},"data":[1]}}]}}"#
        );
        json(&model, &body)
    };
    refused(
        with("[9223372036854775807,9223372036854775807]"),
        "more elements than there can be",
    );
    refused(
        with("[4294967296,4294967296]"),
        "more elements than there can be",
    );
    refused(
        with("[1000000000,1000000000]"),
        "as many elements as are given",
    );
    let body = |size: &str, length: &str| {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":{size},"parameters":{{"binary_data_size":{length}}}}}]}}"#
        );
        binary(&model, &body, &[0; 8])
    };
    assert_eq!(bytes(body("[2,1]", "8")), [0; 8]);
    refused(body("[1000000000,1000000000]", "8"), "has 8 bytes");
    refused(body("[4611686018427387904,1]", "8"), "has 8 bytes");
    refused(body("[3,1]", "8"), "are 12");
    refused(body("[2,1]", "18446744073709551615"), "8 are left");
    refused(body("[2,1]", "9"), "8 are left");
    refused(body("[1,1]", "4"), "belong to no input");
    refused(body("[2,1]", "-8"), "no number of bytes");
    refused(body("[2,1]", "99999999999999999999"), "no number of bytes");
}

#[test]
fn binary_tensors_lie_in_the_order_in_which_they_are_named() {
    let body = r#"{"inputs":[
        {"name":"n","datatype":"INT64","shape":[3],"parameters":{"binary_data_size":24}},
        {"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}"#;
    let mut bytes = vec![1_u8; 24];
    bytes.extend_from_slice(&[2; 8]);
    let asked = binary(&model(), body, &bytes).unwrap();
    assert_eq!(asked.inputs[0].elements, [2; 8].as_slice());
    assert_eq!(asked.inputs[1].elements, [1; 24].as_slice());
}

#[test]
fn binary_data_needs_the_header_that_says_where_it_begins() {
    let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}"#;
    refused(
        json(&one("FP32", "[1]"), body),
        "inference-header-content-length",
    );
    let short = Bytes::from_static(b"{}");
    refused(decode(&model(), &short, Some(3)), "the body has 2 bytes");
    let twice = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":{"binary_data_size":4}}]}"#;
    refused(binary(&one("FP32", "[1]"), twice, &[0; 4]), "both");
    let none = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#;
    refused(json(&one("FP32", "[1]"), none), "no data");
}

#[test]
fn binary_texts_and_booleans_are_checked() {
    let with = |datatype: &str, bytes: &[u8]| {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[2],"parameters":{{"binary_data_size":{}}}}}]}}"#,
            bytes.len()
        );
        binary(&one(datatype, "[0]"), &body, bytes)
    };
    with("BYTES", b"\x01\0\0\0\xff\0\0\0\0").unwrap();
    refused(with("BYTES", b"\x01\0\0\0a"), "not 2 texts");
    refused(with("BYTES", b"\x01\0\0\0a\0\0\0\0\0"), "not 2 texts");
    refused(with("BYTES", b"\x01\0\0\0a\xff\xff\xff\xff"), "not 2 texts");
    with("BOOL", &[0, 1]).unwrap();
    refused(with("BOOL", &[0, 2]), "neither 0 nor 1");
}

#[test]
fn outputs_are_chosen_by_name_and_form() {
    let x = r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}"#;
    let with = |more: &str| json(&model(), &format!(r#"{{"inputs":[{x},{N}],{more}}}"#));
    let asked =
        with(r#""outputs":[{"name":"z","parameters":{"binary_data":true}},{"name":"y"}]"#).unwrap();
    let outputs: Vec<_> = asked
        .outputs
        .iter()
        .map(|it| (it.place, it.is_binary))
        .collect();
    assert_eq!(outputs, [(1, true), (0, false)]);
    let all = with(r#""parameters":{"binary_data_output":true}"#).unwrap();
    assert!(all.outputs.iter().all(|it| it.is_binary));
    assert_eq!(with(r#""outputs":[]"#).unwrap().outputs.len(), 2);
    refused(
        with(r#""outputs":[{"name":"w"}]"#),
        "no output \"w\"; it has \"y\", \"z\"",
    );
    refused(with(r#""outputs":[{"name":"y"},{"name":"y"}]"#), "twice");
    refused(with(r#""outputs":[{}]"#), "no name");
    refused(
        with(r#""outputs":[{"name":"y","parameters":{"classification":2}}]"#),
        "classification",
    );
    refused(with(r#""parameters":{"sequence_id":1}"#), "sequence_id");
    refused(with(r#""inputs":[]"#), "twice");
    let shared =
        r#"{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"shared_memory_region":"r"}}"#;
    refused(json(&model(), &both(shared)), "shared memory");
}

#[test]
fn what_is_no_json_is_told_with_its_place() {
    refused(json(&model(), ""), "byte 0");
    refused(json(&model(), "[]"), "an object");
    refused(json(&model(), "{\"a\":1,}"), "an item");
    refused(json(&model(), "{\"a\":1} x"), "byte 8");
    refused(json(&model(), "{\"a\":tru}"), "a value");
    refused(json(&model(), "{\"a\":\"b"), "the end of a text");
    refused(json(&model(), "{\"a\":\"\u{1}\"}"), "control");
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    refused(json(&model(), &deep), "fewer lists");
    let long = format!(r#"{{"id":"{}"}}"#, "i".repeat(2000));
    refused(json(&model(), &long), "id is longer");
}

#[test]
fn a_timeout_is_microseconds_that_the_caller_waits_and_zero_is_none() {
    let asked = |more: &str| {
        let given = r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2],"parameters":{"timeout":"t"}}"#;
        let body = format!(r#"{{"parameters":{{{more}}},"inputs":[{given},{N}]}}"#);
        json(&model(), &body)
    };
    let timeout = |more: &str| asked(more).unwrap().timeout;
    assert_eq!(timeout(r#""mine":{"any":[1]}"#), None);
    assert_eq!(timeout(r#""timeout":0"#), None);
    assert_eq!(
        timeout(r#""timeout":1500,"priority":0"#),
        Some(Duration::from_micros(1500))
    );
    for bad in ["-1", "1.5", "1e3", "18446744073709551616"] {
        refused(
            asked(&format!(r#""timeout":{bad}"#)),
            "timeout is no whole number",
        );
    }
    refused(asked(r#""timeout":"1500""#), "a number is expected");
}

#[test]
fn a_priority_is_refused_by_name_since_the_route_says_it() {
    let asked = |more: &str| {
        let given = r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}"#;
        json(
            &model(),
            &format!(r#"{{"inputs":[{given},{N}],"parameters":{{{more}}}}}"#),
        )
    };
    asked(r#""priority":0"#).unwrap();
    for priority in ["1", "2", "18446744073709551615"] {
        refused(
            asked(&format!(r#""priority":{priority}"#)),
            "priority is not supported",
        );
    }
    refused(asked(r#""priority":-1"#), "priority is no whole number");
}
