#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use bytes::Bytes;

use super::answer::encode;
use super::contents::{self, varint};
use super::request::{Called, decode};
use crate::config::{Datatype, Served, Tensor};
use crate::oip::Refusal;
use crate::oip::request_tests::model;
use crate::runtime::Data;

/// A message being written.
#[derive(Default, Clone)]
struct Message(Vec<u8>);

impl Message {
    fn with(mut self, field: u64, value: &[u8]) -> Self {
        contents::bytes(&mut self.0, field, value);
        self
    }

    fn number(mut self, field: u64, number: u64) -> Self {
        varint(&mut self.0, field << 3);
        varint(&mut self.0, number);
        self
    }

    fn numbers(self, field: u64, numbers: &[i64]) -> Self {
        let mut packed = vec![];
        for number in numbers {
            varint(&mut packed, number.cast_unsigned());
        }
        self.with(field, &packed)
    }
}

fn start() -> Message {
    Message::default().with(1, b"m")
}

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> Message {
    Message::default()
        .with(1, name.as_bytes())
        .with(2, datatype.as_bytes())
        .numbers(3, shape)
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_le_bytes()).collect()
}

fn longs(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_le_bytes()).collect()
}

/// Both inputs of the model, raw, behind what `start` says.
fn raw(start: Message) -> Message {
    start
        .with(5, &tensor("n", "INT64", &[3]).0)
        .with(5, &tensor("x", "FP32", &[1, 2]).0)
        .with(7, &longs(&[1, -2, 3]))
        .with(7, &floats(&[0.5, f32::NAN]))
}

/// Both inputs of the model, in typed contents.
fn typed() -> Message {
    let n = Message::default().numbers(3, &[1, -2, 3]);
    let x = Message::default().with(6, &floats(&[0.5, 1.5]));
    start()
        .with(5, &tensor("n", "INT64", &[3]).with(5, &n.0).0)
        .with(5, &tensor("x", "FP32", &[1, 2]).with(5, &x.0).0)
}

fn called(message: Message) -> Result<Called, Refusal> {
    decode(&model(), &Bytes::from(message.0))
}

#[track_caller]
fn refused(message: Message, status: u16, words: &str) {
    let refusal = called(message).unwrap_err();
    assert_eq!(refusal.status, status, "{}", refusal.message);
    assert!(refusal.message.contains(words), "{}", refusal.message);
}

#[test]
fn raw_and_typed_elements_are_the_same_inputs_in_the_models_order() {
    for (message, is_typed) in [(raw(start()), false), (typed(), true)] {
        let called = called(message).unwrap();
        assert_eq!(called.is_typed, is_typed);
        let (x, n) = (&called.asked.inputs[0], &called.asked.inputs[1]);
        assert_eq!(called.asked.inputs.len(), 2);
        assert_eq!((&x.shape[..], &n.shape[..]), (&[1, 2][..], &[3][..]));
        assert_eq!(n.elements, longs(&[1, -2, 3]));
        assert_eq!(x.elements[..4], floats(&[0.5]));
        let places: Vec<_> = called.asked.outputs.iter().map(|it| it.place).collect();
        assert_eq!(places, [0, 1]);
    }
}

#[test]
fn raw_elements_stay_where_they_came() {
    let body = Bytes::from(raw(start()).0);
    let inputs = decode(&model(), &body).unwrap().asked.inputs;
    let within = body.as_ptr_range();
    assert!(
        inputs
            .iter()
            .all(|it| within.contains(&it.elements.as_ptr()))
    );
}

#[test]
fn floats_and_shapes_that_are_not_packed_are_the_same() {
    let mut x = vec![];
    for number in [0.5_f32, 1.5] {
        varint(&mut x, 6 << 3 | 5);
        x.extend_from_slice(&number.to_le_bytes());
    }
    let head = Message::default().with(1, b"x").with(2, b"FP32");
    let head = head.number(3, 1).number(3, 2);
    let n = Message::default().number(3, 1).number(3, 2).number(3, 3);
    let message = start()
        .with(5, &head.with(5, &x).0)
        .with(5, &tensor("n", "INT64", &[3]).with(5, &n.0).0);
    let asked = called(message).unwrap().asked;
    assert_eq!(asked.inputs[0].elements, floats(&[0.5, 1.5]));
    assert_eq!(asked.inputs[1].elements, longs(&[1, 2, 3]));
}

#[test]
fn outputs_are_those_that_are_asked_for_and_the_id_comes_back() {
    let wanted = Message::default()
        .with(1, b"z")
        .with(2, &nothing("classification").0);
    let asked = called(raw(start().with(3, b"7")).with(6, &wanted.0))
        .unwrap()
        .asked;
    let places: Vec<_> = asked.outputs.iter().map(|it| it.place).collect();
    assert_eq!((places, asked.id.as_deref()), (vec![1], Some("7")));
}

/// A parameter whose value is nothing.
fn nothing(name: &str) -> Message {
    let value = Message::default().number(2, 0);
    Message::default()
        .with(1, name.as_bytes())
        .with(2, &value.0)
}

#[test]
fn a_message_for_another_model_or_version_is_not_run() {
    assert!(called(raw(start().with(2, b"3"))).is_ok());
    refused(
        raw(start().with(2, b"4")),
        404,
        "version 3 of the model \"m\"",
    );
    refused(
        raw(Message::default().with(1, b"other")),
        404,
        "not for version",
    );
    refused(raw(Message::default()), 404, "not for version");
    // The last of two counts, wherever it is.
    refused(raw(start()).with(1, b"other"), 404, "not for version");
}

#[test]
fn what_does_not_fit_the_model_is_told() {
    let n = tensor("n", "INT64", &[3]);
    let x = tensor("x", "FP32", &[1, 2]);
    let short = || {
        start()
            .with(5, &n.0)
            .with(5, &x.0)
            .with(7, &longs(&[1, 2, 3]))
    };
    refused(short(), 400, "2 inputs and 1 raw_input_contents");
    refused(
        short().with(7, &[0; 4]),
        400,
        "has 4 bytes, and 2 elements of FP32 are 8",
    );
    refused(raw(start()).with(7, b""), 400, "more raw_input_contents");
    refused(raw(start()).with(5, &x.0), 400, "more inputs");
    refused(
        start().with(5, &n.0).with(7, &longs(&[1, 2, 3])),
        400,
        "input \"x\" is missing",
    );
    let twice = start().with(5, &n.0).with(5, &n.0);
    let numbers = longs(&[1, 2, 3]);
    refused(
        twice.with(7, &numbers).with(7, &numbers),
        400,
        "input \"n\" is there twice",
    );
    let unknown = Message::default().with(1, b"w");
    refused(raw(start()).with(6, &unknown.0), 400, "no output \"w\"");
    let y = Message::default().with(1, b"y");
    refused(
        raw(start()).with(6, &y.0).with(6, &y.0),
        400,
        "output \"y\" is there twice",
    );
    for name in ["sequence_id", "shared_memory_region", "classification"] {
        let value = Message::default().number(2, 5);
        let entry = Message::default()
            .with(1, name.as_bytes())
            .with(2, &value.0);
        refused(raw(start()).with(4, &entry.0), 400, "not supported");
    }
    assert!(called(raw(start()).with(4, &nothing("sequence_id").0)).is_ok());
    let negative = tensor("n", "INT64", &[-1]);
    refused(start().with(5, &negative.0), 400, "cannot be");
    refused(Message(vec![0x0a, 0x05, b'm']), 400, "ends within a field");
    refused(Message(vec![0x0b]), 400, "no protocol buffer");
}

#[test]
fn typed_contents_are_as_many_and_of_the_type_that_is_said() {
    let of = |datatype: &str, contents: Message| {
        let json = format!(
            r#"{{"name":"m","version":3,"format":"onnx","sessions":1,"threads":1,
            "inputs":[{{"name":"x","datatype":"{datatype}","shape":[2]}}],
            "outputs":[{{"name":"y","datatype":"{datatype}","shape":[2]}}],
            "limits":{{"memoryBytes":1,"runMillis":1,"queue":1,"requestBytes":1}}}}"#
        );
        let model: Served = serde_json::from_str(&json).unwrap();
        let message = start().with(5, &tensor("x", datatype, &[2]).with(5, &contents.0).0);
        let called = decode(&model, &Bytes::from(message.0));
        called.map(|it| it.asked.inputs[0].elements.to_vec())
    };
    let numbers = |field, numbers: &[i64]| Message::default().numbers(field, numbers);
    assert_eq!(of("BOOL", numbers(1, &[1, 0])).unwrap(), [1, 0]);
    assert_eq!(of("INT8", numbers(2, &[-1, 127])).unwrap(), [255, 127]);
    assert_eq!(of("INT16", numbers(2, &[-2, 1])).unwrap(), [254, 255, 1, 0]);
    assert_eq!(
        of("UINT16", numbers(4, &[65_535, 1])).unwrap(),
        [255, 255, 1, 0]
    );
    assert_eq!(of("UINT64", numbers(5, &[-1, 0])).unwrap()[..8], [255; 8]);
    let texts = Message::default().with(8, b"a").with(8, b"");
    assert_eq!(of("BYTES", texts).unwrap(), [1, 0, 0, 0, b'a', 0, 0, 0, 0]);
    for (datatype, contents, words) in [
        ("INT8", numbers(2, &[128, 0]), "INT8 does not have"),
        ("UINT8", numbers(4, &[256, 0]), "UINT8 does not have"),
        ("UINT32", numbers(4, &[-1, 0]), "UINT32 does not have"),
        ("INT32", numbers(2, &[1]), "has 1 elements"),
        ("INT32", numbers(2, &[1, 2, 3]), "more elements"),
        ("INT32", numbers(3, &[1, 2]), "another type"),
        (
            "FP32",
            Message::default().with(6, &[0; 7]),
            "no protocol buffer",
        ),
        ("FP16", numbers(2, &[1, 2]), "raw_input_contents"),
        ("BYTES", Message::default().with(8, b"a"), "has 1 elements"),
    ] {
        let refusal = of(datatype, contents).unwrap_err();
        assert!(
            refusal.message.contains(words),
            "{datatype}: {}",
            refusal.message
        );
    }
}

#[test]
fn a_message_of_many_empty_parts_is_refused_before_there_is_room_for_them() {
    let mut message = start();
    message.0.extend([0x2a, 0x00].repeat(1 << 20));
    refused(message, 400, "more inputs than the model has, which are 2");
}

fn output(datatype: Datatype, elements: &[u8], shape: &[i64]) -> Data {
    Data {
        datatype,
        shape: shape.to_vec(),
        elements: Bytes::copy_from_slice(elements),
    }
}

/// The fields of a message, by their numbers.
fn fields(message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    crate::onnx::wire::Fields::of(message)
        .map(|it| it.unwrap())
        .map(|(number, value)| (number, value.bytes().unwrap().to_vec()))
        .collect()
}

#[test]
fn an_answer_is_typed_where_the_request_was_and_raw_where_it_cannot_be() {
    let asked = called(typed()).unwrap().asked;
    let outputs = |datatype| {
        let second = output(
            datatype,
            &[0, 60],
            &[if datatype == Datatype::Fp16 { 1 } else { 2 }],
        );
        vec![output(Datatype::Fp32, &floats(&[2.0]), &[1]), second]
    };
    for (datatype, is_typed, expected) in [
        (Datatype::Uint8, true, [1, 2, 3, 5, 5].as_slice()),
        (Datatype::Uint8, false, &[1, 2, 3, 5, 5, 6, 6]),
        (Datatype::Fp16, true, &[1, 2, 3, 5, 5, 6, 6]),
    ] {
        let id = Some("7");
        let pieces = encode(&model(), id, &asked.outputs, outputs(datatype), is_typed);
        let found = fields(&pieces.concat());
        let numbers: Vec<_> = found.iter().map(|it| it.0).collect();
        assert_eq!(numbers, expected);
        assert_eq!(found[0].1, b"m");
        assert_eq!(found[1].1, b"3");
        let y = fields(&found[3].1);
        assert_eq!(
            (&y[0].1[..], &y[1].1[..], &y[2].1[..]),
            (&b"y"[..], &b"FP32"[..], &[1][..])
        );
        let elements = match y.get(3) {
            Some((5, contents)) => fields(contents)[0].1.clone(),
            _ => found[5].1.clone(),
        };
        assert_eq!(elements, floats(&[2.0]));
    }
}

#[test]
fn what_is_read_of_outputs_can_be_asked_for_by_name_and_is_not_usual() {
    let mut model = model();
    model.read = vec![Tensor {
        name: "label".into(),
        datatype: Datatype::Bytes,
        shape: vec![0],
    }];
    let asked = |message: Message| decode(&model, &message.0.into()).unwrap().asked.outputs;
    assert_eq!(asked(raw(start())).len(), 2);
    let label = Message::default().with(1, b"label");
    let wanted = asked(raw(start()).with(6, &label.0));
    assert_eq!(wanted[0].place, 2);
    let label = output(Datatype::Bytes, b"\x03\0\0\0cat", &[1]);
    let answer = encode(&model, None, &wanted, vec![label], false).concat();
    let (_, given) = fields(&answer)
        .into_iter()
        .find(|(number, _)| *number == 5)
        .unwrap();
    assert_eq!(&given[..7], b"\x0a\x05label");
}

#[test]
fn large_outputs_are_not_copied() {
    let asked = called(raw(start())).unwrap().asked;
    let large = output(Datatype::Uint8, &vec![7; 20_000], &[20_000]);
    let at = large.elements.as_ptr();
    let small = output(Datatype::Uint8, &[1], &[1]);
    let pieces = encode(&model(), None, &asked.outputs, vec![large, small], false);
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces[1].as_ptr(), at);
    let numbers: Vec<_> = fields(&pieces.concat()).iter().map(|it| it.0).collect();
    assert_eq!(numbers, [1, 2, 5, 5, 6, 6]);
}

fn parameter(key: &str, value: &Message) -> Message {
    let entry = Message::default().with(1, key.as_bytes()).with(2, &value.0);
    raw(start().with(4, &entry.0))
}

#[test]
fn a_timeout_is_microseconds_whichever_whole_number_says_it() {
    let timeout = |value: Message| called(parameter("timeout", &value)).unwrap().asked.timeout;
    let number = |field, number| Message::default().number(field, number);
    for field in [2, 5] {
        let micros = Some(Duration::from_micros(1500));
        assert_eq!(timeout(number(field, 1500)), micros);
        assert_eq!(timeout(number(field, 0)), None);
    }
    assert_eq!(timeout(Message::default()), None);
    for bad in [
        number(2, u64::MAX),
        number(1, 1),
        Message::default().with(3, b"1"),
    ] {
        refused(
            parameter("timeout", &bad),
            400,
            "timeout is no whole number",
        );
    }
}

#[test]
fn a_priority_is_refused_by_name_and_unknown_parameters_are_not() {
    let number = |number| Message::default().number(5, number);
    called(parameter("priority", &number(0))).unwrap();
    called(parameter("mine", &number(7))).unwrap();
    refused(
        parameter("priority", &number(1)),
        400,
        "priority is not supported",
    );
}
