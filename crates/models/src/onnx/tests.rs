#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn counted(field: u64, value: u64) -> Vec<u8> {
    [number(field << 3), number(value)].concat()
}

fn message(field: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    let inside = parts.concat();
    let length = number(inside.len() as u64);
    [number(field << 3 | 2), length, inside].concat()
}

fn text(field: u64, text: &str) -> Vec<u8> {
    message(field, &[text.as_bytes().to_vec()])
}

fn shape(dimensions: &[u64]) -> Vec<u8> {
    let dimensions: Vec<_> = dimensions
        .iter()
        .map(|it| message(1, &[counted(1, *it)]))
        .collect();
    message(2, &dimensions)
}

/// `x` (11) or `y` (12), FP32 with these dimensions.
fn port(field: u64, name: &str, dimensions: &[u64]) -> Vec<u8> {
    let kind = message(1, &[counted(1, 1), shape(dimensions)]);
    message(field, &[text(1, name), message(2, &[kind])])
}

fn node(operator: &str, domain: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let more = more.concat();
    message(1, &[text(4, operator), text(7, domain), more])
}

fn graph(parts: &[Vec<u8>]) -> Vec<u8> {
    let ports = [port(11, "x", &[2, 3]), port(12, "y", &[2])];
    message(7, &[parts.concat(), ports.concat()])
}

fn external(field: u64, key: &str) -> Vec<u8> {
    let entry = message(13, &[text(1, key), text(2, "../weights")]);
    message(field, &[text(8, "w"), entry])
}

#[track_caller]
fn refused(file: &[u8], code: &str, words: &str) {
    let error = check(file).unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words), "{error}");
}

#[test]
fn a_plain_model_says_what_it_takes_and_gives() {
    let outline = check(&graph(&[node("Add", "", &[])])).unwrap();
    assert_eq!(outline.inputs.len(), 1);
    assert_eq!(outline.inputs[0].name, "x");
    assert_eq!(outline.inputs[0].datatype, Datatype::Fp32);
    assert_eq!(outline.inputs[0].shape, [2, 3]);
    assert_eq!(outline.outputs[0].shape, [2]);
}

#[test]
fn a_dimension_with_a_name_or_below_zero_is_any() {
    let named = message(1, &[text(2, "batch")]);
    let kind = message(
        1,
        &[
            counted(1, 7),
            message(2, &[named, message(1, &[counted(1, u64::MAX)])]),
        ],
    );
    let input = message(11, &[text(1, "x"), message(2, &[kind])]);
    let file = message(7, &[input, port(12, "y", &[1])]);
    let outline = check(&file).unwrap();
    assert_eq!(outline.inputs[0].shape, [0, 0]);
    assert_eq!(outline.inputs[0].datatype, Datatype::Int64);
}

#[test]
fn an_input_with_a_value_in_the_file_need_not_be_given() {
    let weight = message(5, &[text(8, "w")]);
    let outline = check(&graph(&[weight, port(11, "w", &[1])])).unwrap();
    let names: Vec<_> = outline.inputs.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["x"]);
}

#[test]
fn a_tensor_with_its_values_elsewhere_is_refused_wherever_it_is() {
    let code = "model_reaches_out";
    refused(&graph(&[external(5, "location")]), code, "../weights");
    refused(&graph(&[external(5, "offset")]), code, "another file");
    let said_so = message(5, &[text(8, "w"), counted(14, 1)]);
    refused(&graph(&[said_so]), code, "another file");
    let in_attribute = message(5, &[external(5, "location")]);
    refused(
        &graph(&[node("Constant", "", &[in_attribute])]),
        code,
        "\"w\"",
    );
    let in_list = message(5, &[external(10, "location")]);
    refused(&graph(&[node("Any", "", &[in_list])]), code, "\"w\"");
    let sparse = message(15, &[external(1, "location")]);
    refused(&graph(&[sparse]), code, "\"w\"");
    let sparse = message(5, &[message(22, &[external(2, "location")])]);
    refused(&graph(&[node("Constant", "", &[sparse])]), code, "\"w\"");
    let branch = message(5, &[message(6, &[external(5, "location")])]);
    refused(&graph(&[node("If", "", &[branch])]), code, "\"w\"");
    let function = message(
        25,
        &[text(1, "f"), node_in_function(&external(5, "location"))],
    );
    refused(&[graph(&[]), function].concat(), code, "\"w\"");
}

fn node_in_function(tensor: &[u8]) -> Vec<u8> {
    let attribute = message(5, &[tensor.to_vec()]);
    message(7, &[text(4, "Constant"), attribute])
}

#[test]
fn an_operator_of_another_domain_is_refused_unless_the_file_defines_it() {
    let used = graph(&[node("Secret", "com.example", &[])]);
    refused(&used, "model_reaches_out", "com.example");
    let function = message(25, &[text(1, "Secret"), text(10, "com.example")]);
    check(&[used.clone(), function].concat()).unwrap();
    let another = message(25, &[text(1, "Other"), text(10, "com.example")]);
    refused(&[used, another].concat(), "model_reaches_out", "Secret");
    check(&graph(&[node("QuickGelu", "com.microsoft", &[])])).unwrap();
}

#[test]
fn an_operator_that_reads_files_is_refused_even_when_the_file_defines_it() {
    let used = graph(&[node("EPContext", "com.microsoft", &[])]);
    let function = message(25, &[text(1, "EPContext"), text(10, "com.microsoft")]);
    refused(&[used, function].concat(), "model_reaches_out", "EPContext");
}

#[test]
fn what_ends_early_is_refused_at_every_byte() {
    let file = graph(&[node("Add", "", &[])]);
    for end in 0..file.len() {
        let error = check(&file[..end]).unwrap_err();
        assert_eq!(error.code, "model_invalid", "{end}: {error}");
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let code = "model_invalid";
    refused(b"", code, "no graph");
    refused(b"GIF89a", code, "no ONNX model");
    refused(b"\0\0\0\0ORTM and more", code, ".ort");
    refused(&message(7, &[]), code, "no input");
    refused(&[graph(&[]), graph(&[])].concat(), code, "two graphs");
    refused(&[0x3b], code, "no ONNX model"); // a group
    refused(&[0xff; 11], code, "no ONNX model"); // a number of eleven bytes
    let unending = [number(7 << 3 | 2), number(u64::MAX)].concat();
    refused(&unending, code, "ends early");
}

#[test]
fn an_input_that_the_protocol_has_no_words_for_is_refused() {
    let code = "model_invalid";
    let with = |kind: Vec<u8>| {
        let input = message(11, &[text(1, "x"), message(2, &[kind])]);
        message(7, &[input, port(12, "y", &[1])])
    };
    refused(&with(message(4, &[])), code, "no plain tensor");
    refused(&with(message(9, &[])), code, "no plain tensor");
    refused(
        &with(message(1, &[counted(1, 1)])),
        code,
        "how many dimensions",
    );
    refused(
        &with(message(1, &[counted(1, 16), shape(&[1])])),
        code,
        "of a type",
    );
    refused(
        &with(message(1, &[counted(1, 1), shape(&[1; 17])])),
        code,
        "dimensions",
    );
    let nameless = message(11, &[text(1, ""), message(2, &[])]);
    refused(
        &message(7, &[nameless, port(12, "y", &[1])]),
        code,
        "no name",
    );
}

#[test]
fn an_operator_with_a_graph_of_its_own_may_run_it_any_number_of_times() {
    let plain = node("Add", "", &[message(5, &[text(1, "axis")])]);
    assert!(
        check(&graph(std::slice::from_ref(&plain)))
            .unwrap()
            .is_straight
    );
    let body = message(5, &[message(6, std::slice::from_ref(&plain))]);
    let repeats = node("Loop", "", &[body]);
    let straight = |parts: &[Vec<u8>]| check(&graph(parts)).unwrap().is_straight;
    assert!(!straight(&[plain.clone(), repeats.clone()]));
    let branch = message(5, &[message(6, &[repeats])]);
    assert!(!straight(&[node("If", "", &[branch]), plain]));
}

#[test]
fn graphs_lie_only_so_deep_in_each_other() {
    let nest = |depth: usize| {
        let inner = (0..depth).fold(vec![], |inner: Vec<u8>, _| {
            node("If", "", &[message(5, &[message(6, &[inner])])])
        });
        graph(&[inner])
    };
    check(&nest(MAX_DEPTH)).unwrap();
    refused(&nest(MAX_DEPTH + 1), "model_invalid", "too deep");
    refused(&nest(2000), "model_invalid", "too deep");
}
