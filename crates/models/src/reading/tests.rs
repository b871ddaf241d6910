#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::media::spec::Image;

fn served(output: &str) -> Served {
    let json = format!(
        r#"{{"name":"m","version":3,"format":"onnx","sessions":1,"threads":1,"output":{output},
        "inputs":[{{"name":"mask","datatype":"INT64","shape":[0,0]}}],
        "outputs":[{{"name":"y","datatype":"FP32","shape":[0]}},{{"name":"z","datatype":"FP32","shape":[0]}}],
        "limits":{{"memoryBytes":1,"runMillis":1,"queue":1,"requestBytes":1}}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

fn reader(output: &str, names: Option<&str>) -> Result<Reader, Error> {
    let read = Reader::new(&served(output), names.map(str::as_bytes))?;
    Ok(read.unwrap())
}

fn data(shape: &[usize], numbers: &[f32]) -> Data {
    super::floats(shape, numbers.iter().copied())
}

fn said(data: &Data) -> Vec<String> {
    let texts = crate::runtime::texts(&data.elements);
    texts
        .map(|it| String::from_utf8(it.to_vec()).unwrap())
        .collect()
}

const NOTHING: Context = Context {
    frame: None,
    mask: None,
};

fn labels(more: &str) -> String {
    format!(r#"{{"type":"Labels","tensor":"y",{more}}}"#)
}

#[test]
fn the_highest_scores_come_first_with_their_names() {
    let spec = labels(r#""names":["a","b"],"softmax":false,"top":2"#);
    let reader = reader(&spec, None).unwrap();
    let scores = data(&[2, 3], &[0.1, 0.2, 0.9, 5.0, 5.0, 1.0]);
    let read = reader.read(&[scores], &NOTHING).unwrap();
    assert_eq!(read[0].shape, [2, 2]);
    assert_eq!(
        said(&read[0]),
        ["2", "b", "a", "b"],
        "without a name it is its number"
    );
    assert_eq!(numbers(&read[1]).unwrap(), [0.9, 0.2, 5.0, 5.0]);
    let flat = reader
        .read(&[data(&[3], &[1.0, 2.0, 3.0])], &NOTHING)
        .unwrap();
    assert_eq!(flat[1].shape, [1, 2]);
    let deep = reader
        .read(&[data(&[1, 2, 1, 1], &[1.0, 2.0])], &NOTHING)
        .unwrap();
    assert_eq!(said(&deep[0]), ["b", "a"]);
}

#[test]
fn scores_sum_to_one_where_that_is_asked_for_and_nan_is_last() {
    let spec = labels(r#""names":[],"softmax":true,"top":9"#);
    let read = reader(&spec, None).unwrap();
    let scores = numbers(
        &read
            .read(&[data(&[1, 2], &[1000.0, 1000.0])], &NOTHING)
            .unwrap()[1],
    );
    assert_eq!(scores.unwrap(), [0.5, 0.5]);
    let spec = labels(r#""names":[],"softmax":false,"top":3"#);
    let plain = reader(&spec, None).unwrap();
    let read = plain
        .read(&[data(&[1, 3], &[f32::NAN, -1.0, 2.0])], &NOTHING)
        .unwrap();
    assert_eq!(said(&read[0]), ["2", "1", "0"]);
    assert!(numbers(&read[1]).unwrap()[2].is_nan());
    let none = plain.read(&[data(&[0, 0], &[])], &NOTHING).unwrap();
    assert_eq!(none[1].shape, [0, 0]);
}

#[test]
fn halves_and_doubles_are_read_as_well_and_nothing_else() {
    let half = Data {
        datatype: Datatype::Fp16,
        shape: vec![1],
        elements: Bytes::copy_from_slice(&f16::from_f32(1.5).to_le_bytes()),
    };
    assert_eq!(numbers(&half).unwrap(), [1.5]);
    let double = Data {
        datatype: Datatype::Fp64,
        elements: Bytes::copy_from_slice(&2.5_f64.to_le_bytes()),
        ..half.clone()
    };
    assert_eq!(numbers(&double).unwrap(), [2.5]);
    let other = Data {
        datatype: Datatype::Int64,
        ..half
    };
    assert_eq!(numbers(&other).unwrap_err().status, 500);
}

#[test]
fn names_come_as_lines_as_a_list_or_by_number() {
    let spec = labels(r#""names":[],"softmax":false,"top":3"#);
    for file in [
        "a\r\nb\n",
        r#"["a","b"]"#,
        r#"{"1":"b","0":"a"}"#,
        "\u{feff}a\nb",
    ] {
        let read = reader(&spec, Some(file)).unwrap();
        let read = read
            .read(&[data(&[3], &[3.0, 2.0, 1.0])], &NOTHING)
            .unwrap();
        assert_eq!(said(&read[0]), ["a", "b", "2"], "{file}");
    }
    let long = "n".repeat(2000);
    for file in [
        "[1]",
        r#"{"x":"a"}"#,
        r#"{"99999999999":"a"}"#,
        r#"{"18446744073709551615":"a"}"#,
        &long,
    ] {
        let Err(error) = reader(&spec, Some(file)) else {
            panic!("{file} was taken");
        };
        assert_eq!(error.code, "names_invalid");
    }
}

fn embedding(pool: &str, normalize: bool) -> Reader {
    let spec = format!(
        r#"{{"type":"Embedding","tensor":"z","pool":"{pool}","mask":"mask","normalize":{normalize}}}"#
    );
    reader(&spec, None).unwrap()
}

fn mask(numbers: &[i64]) -> Context {
    Context {
        frame: None,
        mask: Some(Data {
            datatype: Datatype::Int64,
            shape: vec![1, i64::try_from(numbers.len()).unwrap()],
            elements: Bytes::from(
                numbers
                    .iter()
                    .flat_map(|it| it.to_le_bytes())
                    .collect::<Vec<_>>(),
            ),
        }),
    }
}

#[test]
fn a_mean_is_of_the_tokens_that_count() {
    let tokens = || [data(&[1, 3, 2], &[1.0, 2.0, 3.0, 6.0, 100.0, 100.0])];
    let read = |reader: Reader, context: &Context| {
        let read = reader.read(&tokens(), context).unwrap();
        assert_eq!(read[0].shape, [1, 2]);
        numbers(&read[0]).unwrap()
    };
    assert_eq!(
        read(embedding("mean", false), &mask(&[1, 1, 0])),
        [2.0, 4.0]
    );
    assert_eq!(
        read(embedding("mean", false), &NOTHING),
        [104.0 / 3.0, 36.0]
    );
    assert_eq!(read(embedding("cls", false), &mask(&[0, 1, 1])), [1.0, 2.0]);
    assert_eq!(
        read(embedding("mean", true), &mask(&[0, 1, 0])),
        [1.0 / 5.0_f32.sqrt(), 2.0 / 5.0_f32.sqrt()]
    );
    let flat = embedding("none", true).read(&[data(&[2, 2], &[3.0, 4.0, 0.0, 0.0])], &NOTHING);
    assert_eq!(numbers(&flat.unwrap()[0]).unwrap(), [0.6, 0.8, 0.0, 0.0]);
}

#[test]
fn a_model_that_gives_another_shape_than_it_says_is_an_error_of_its_own() {
    let two = embedding("mean", true).read(&[data(&[1, 2], &[1.0, 2.0])], &NOTHING);
    assert_eq!(two.unwrap_err().status, 500);
    let short = embedding("mean", true).read(&[data(&[1, 2, 1], &[1.0, 2.0])], &mask(&[1]));
    assert_eq!(short.unwrap_err().status, 500);
    let none = embedding("mean", true).read(&[data(&[1, 0, 2], &[])], &NOTHING);
    assert_eq!(none.unwrap_err().status, 500);
}

/// A picture of 200 x 100 in the middle of a tensor of 100 x 100.
fn letterboxed() -> Context {
    let json = r#"{"tensor":"x","width":100,"height":100,"resize":"fit","layout":"NCHW","colors":"RGB","scale":1.0,
        "mean":[0.0],"std":[1.0],"pad":0}"#;
    let spec: Image = serde_json::from_str(json).unwrap();
    Context {
        frame: Some(Frame::of(&spec, (200, 100))),
        mask: None,
    }
}

fn rows(more: &str) -> Reader {
    let spec = format!(
        r#"{{"type":"Boxes","names":["cat","dog"],"score":0.5,"overlap":0.5,"top":3,
        "decode":{{"type":"Rows","tensor":"y",{more}}}}}"#
    );
    reader(&spec, None).unwrap()
}

const YOLO8: &str = r#""transposed":true,"coordinates":"cxcywh","relative":false,"objectness":false,"sigmoid":false"#;
const YOLO5: &str = r#""transposed":false,"coordinates":"cxcywh","relative":true,"objectness":true,"sigmoid":false"#;
const CORNERS: &str =
    r#""transposed":false,"coordinates":"xyxy","relative":false,"objectness":false,"sigmoid":true"#;

#[test]
fn rows_become_boxes_in_the_pixels_of_the_picture() {
    // Three columns: the same thing twice, and another one; x, y, w, h, cat, dog.
    let transposed = data(
        &[1, 6, 3],
        &[
            50.0, 51.0, 10.0, 50.0, 50.0, 30.0, 20.0, 20.0, 10.0, 20.0, 20.0, 10.0, 0.9, 0.8, 0.1,
            0.0, 0.0, 0.7,
        ],
    );
    let read = rows(YOLO8).read(&[transposed], &letterboxed()).unwrap();
    assert_eq!(read[0].shape, [2, 4]);
    // The picture is half as large in the tensor, with 25 rows of grey above.
    assert_eq!(
        numbers(&read[0]).unwrap(),
        [80.0, 30.0, 120.0, 70.0, 10.0, 0.0, 30.0, 20.0]
    );
    assert_eq!(said(&read[1]), ["cat", "dog"]);
    assert_eq!(numbers(&read[2]).unwrap(), [0.9, 0.7]);
    let sure = data(
        &[1, 2, 7],
        &[
            0.5, 0.5, 0.2, 0.2, 0.9, 0.9, 0.1, 0.5, 0.5, 0.2, 0.2, 0.5, 0.9, 0.1,
        ],
    );
    let read = rows(YOLO5).read(&[sure], &letterboxed()).unwrap();
    assert_eq!(numbers(&read[0]).unwrap(), [80.0, 30.0, 120.0, 70.0]);
    assert_eq!(numbers(&read[2]).unwrap(), [0.9 * 0.9]);
    let raw = data(
        &[2, 5],
        &[0.0, 25.0, 50.0, 75.0, 2.0, 0.0, 25.0, 50.0, 75.0, -2.0],
    );
    let read = rows(CORNERS).read(&[raw], &letterboxed()).unwrap();
    assert_eq!(numbers(&read[0]).unwrap(), [0.0, 0.0, 100.0, 100.0]);
    assert!((numbers(&read[2]).unwrap()[0] - 0.880_797).abs() < 1e-5);
}

#[test]
fn boxes_of_other_classes_may_overlap_and_no_more_come_than_are_asked_for() {
    let of = |class: usize, x: f32| {
        let mut row = [x, 50.0, 10.0, 10.0, 0.0, 0.0];
        row[4 + class] = 0.9;
        row
    };
    let plain = YOLO8.replace("true", "false");
    let all = [of(0, 50.0), of(1, 50.0), of(0, 20.0), of(0, 80.0)].concat();
    let read = rows(&plain)
        .read(&[data(&[1, 4, 6], &all)], &letterboxed())
        .unwrap();
    assert_eq!(said(&read[1]), ["cat", "dog", "cat"]);
}

#[test]
fn nonsense_in_the_outputs_is_no_box_and_no_panic() {
    let plain = YOLO8.replace("true", "false");
    let nan = [
        f32::NAN,
        1.0,
        1.0,
        1.0,
        0.9,
        0.1,
        1.0,
        1.0,
        f32::INFINITY,
        1.0,
        0.9,
        f32::NAN,
    ];
    let read = rows(&plain)
        .read(&[data(&[1, 2, 6], &nan)], &letterboxed())
        .unwrap();
    assert_eq!(read[0].shape, [0, 4]);
    for shape in [&[1, 3, 4][..], &[12], &[0, 0, 0], &[1, 1, 1, 12]] {
        let read = rows(&plain).read(&[data(shape, &nan)], &letterboxed());
        assert_eq!(read.unwrap_err().status, 500, "{shape:?}");
    }
    let two = rows(&plain).read(&[data(&[2, 1, 6], &nan)], &letterboxed());
    assert_eq!(two.unwrap_err().status, 400);
    let many: Vec<f32> = (0_u16..60_000).map(|it| f32::from(it % 997)).collect();
    let read = rows(&plain)
        .read(&[data(&[1, 10_000, 6], &many)], &letterboxed())
        .unwrap();
    assert_eq!(read[2].shape, [3]);
}

fn grid() -> Reader {
    let spec = r#"{"type":"Boxes","names":["cat","dog"],"score":0.5,"overlap":0.5,"top":3,
        "decode":{"type":"Grid","sigmoid":false,"heads":[{"stride":64,"scores":"y","distances":"z"}]}}"#;
    reader(spec, None).unwrap()
}

#[test]
fn cells_become_boxes_by_what_is_expected_of_their_distances() {
    // 100 x 100 in strides of 64: two by two cells, the last ones beyond the edge.
    let mut scores = vec![0.0; 8];
    scores[1] = 0.9; // the first cell: a dog
    let mut distances = vec![0.0; 4 * 4 * 2];
    // Two steps: left half a stride, top none, right one, bottom half.
    distances[..8].copy_from_slice(&[1.0, 1.0, 99.0, 0.0, 0.0, 99.0, 5.0, 5.0]);
    let given = [data(&[1, 4, 2], &scores), data(&[1, 4, 8], &distances)];
    let read = grid().read(&given, &letterboxed()).unwrap();
    assert_eq!(said(&read[1]), ["dog"]);
    // In the tensor (0, 32, 96, 64); the picture is half as large there, with 25 rows of grey above.
    assert_eq!(numbers(&read[0]).unwrap(), [0.0, 14.0, 192.0, 78.0]);
    let other = [data(&[1, 3, 2], &scores[..6]), data(&[1, 4, 8], &distances)];
    assert_eq!(grid().read(&other, &letterboxed()).unwrap_err().status, 500);
    let odd = [
        data(&[1, 4, 2], &scores),
        data(&[1, 4, 7], &distances[..28]),
    ];
    assert_eq!(grid().read(&odd, &letterboxed()).unwrap_err().status, 500);
}
