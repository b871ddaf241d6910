#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::Value;

use super::*;

fn model(samples: &Value) -> Served {
    let limits = json!({"memoryBytes": 1, "runMillis": 1, "queue": 1, "requestBytes": 1});
    let model = json!({
        "name": "m", "version": 1, "format": "onnx",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [0, 3]},
            {"name": "id", "datatype": "INT64", "shape": [0]},
            {"name": "t", "datatype": "BYTES", "shape": [0, 2]},
        ],
        "outputs": [], "sessions": 1, "threads": 1, "limits": limits, "samples": samples,
    });
    serde_json::from_value(model).unwrap()
}

fn sampler(samples: &Value) -> Arc<Sampler> {
    Sampler::of(&model(samples)).unwrap()
}

fn all_of(inputs: &[&str]) -> Value {
    json!({"perMillion": 1_000_000, "inputs": inputs, "keepMillis": 1, "bytes": 1})
}

fn text(said: &[&[u8]]) -> Bytes {
    let length = |it: &[u8]| u32::try_from(it.len()).unwrap().to_le_bytes();
    said.iter()
        .flat_map(|it| [&length(it)[..], it].concat())
        .collect()
}

/// Two rows of three numbers, an id, and two rows of two texts.
fn asked() -> Vec<Data> {
    let numbers = (1_u8..=6).flat_map(|it| f32::from(it).to_le_bytes());
    vec![
        Data {
            datatype: Datatype::Fp32,
            shape: vec![2, 3],
            elements: numbers.collect(),
        },
        Data {
            datatype: Datatype::Int64,
            shape: vec![1],
            elements: Bytes::copy_from_slice(&4711_i64.to_le_bytes()),
        },
        Data {
            datatype: Datatype::Bytes,
            shape: vec![2, 2],
            elements: text(&[
                b"Ana",
                b"ana@mail.example",
                b"\xff\xfe",
                b"call 030 1234567",
            ]),
        },
    ]
}

async fn kept(sampler: &Arc<Sampler>, inputs: &[Data]) -> Option<(Value, Vec<Bytes>)> {
    sampler.keep(sampler.caught(inputs, None)?, 0);
    settled(sampler).await;
    let sample = sampler.fetch().0?;
    Some((
        serde_json::from_slice(&sample.json).unwrap(),
        sample.elements,
    ))
}

async fn settled(sampler: &Sampler) {
    while sampler.lock().is_redacting {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn nothing_is_drawn_where_nobody_asked_for_it() {
    assert!(Sampler::of(&model(&Value::Null)).is_none());
}

#[tokio::test]
async fn a_sample_has_the_inputs_that_are_named_and_no_other() {
    let (json, elements) = kept(&sampler(&all_of(&["x"])), &asked()).await.unwrap();
    let wanted = json!({"inputs": [{
        "name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24},
    }]});
    assert_eq!(json, wanted);
    assert_eq!(elements, [asked()[0].elements.clone()]);
}

#[tokio::test]
async fn places_that_are_redacted_are_zero_in_each_row() {
    let mut samples = all_of(&["x"]);
    samples["redact"] = json!([{"input": "x", "places": [0, 2, 7]}]);
    let (_, elements) = kept(&sampler(&samples), &asked()).await.unwrap();
    let wanted = [0.0_f32, 2.0, 0.0, 0.0, 5.0, 0.0];
    let wanted: Vec<u8> = wanted.iter().flat_map(|it| it.to_le_bytes()).collect();
    assert_eq!(elements, [Bytes::from(wanted)]);
}

#[tokio::test]
async fn texts_are_redacted_and_what_is_none_is_not_kept() {
    let (json, elements) = kept(&sampler(&all_of(&["t"])), &asked()).await.unwrap();
    let wanted = text(&[b"Ana", b"[email]", b"[bytes]", b"call [phone]"]);
    assert_eq!(
        json["inputs"][0]["parameters"]["binary_data_size"],
        wanted.len()
    );
    assert_eq!(elements, [wanted]);
    let mut samples = all_of(&["t"]);
    samples["redact"] = json!([{"input": "t", "places": [0]}]);
    let (_, elements) = kept(&sampler(&samples), &asked()).await.unwrap();
    assert_eq!(elements, [text(&[b"", b"[email]", b"", b"call [phone]"])]);
}

#[test]
fn as_many_are_drawn_as_the_share_says_and_others_in_another_process() {
    let draws = || {
        let mut samples = all_of(&["x"]);
        samples["perMillion"] = json!(100_000);
        let sampler = sampler(&samples);
        (0..10_000).map(|_| sampler.draw()).collect::<Vec<_>>()
    };
    let (one, other) = (draws(), draws());
    // Nine standard deviations: by chance once in 10^18 runs.
    let count = one.iter().filter(|it| **it).count();
    assert!((730..1270).contains(&count), "{count} of 10,000");
    assert_ne!(one, other);
    let all = sampler(&all_of(&["x"]));
    assert!((0..1000).all(|_| all.draw()));
}

#[tokio::test]
async fn what_there_is_no_room_for_is_left_out_and_counted() {
    let sampler = sampler(&all_of(&["x"]));
    for _ in 0..MOST_SAMPLES + 3 {
        sampler.keep(sampler.caught(&asked(), None).unwrap(), 0);
        settled(&sampler).await;
    }
    assert_eq!(sampler.fetch().1, 3);
    assert_eq!(sampler.fetch().1, 0, "they are told once");
    let held = MOST_WAITING;
    sampler.keep(sampler.caught(&asked(), None).unwrap(), held);
    assert_eq!(sampler.fetch().1, 1, "its body would be held");
    let mut fetched = 3;
    while sampler.fetch().0.is_some() {
        fetched += 1;
    }
    assert_eq!(fetched, MOST_SAMPLES);
    assert_eq!(sampler.lock().bytes, 0);
}

#[tokio::test]
async fn requests_that_come_at_once_wait_for_one_another() {
    let sampler = sampler(&all_of(&["x"]));
    for _ in 0..100 {
        sampler.keep(sampler.caught(&asked(), None).unwrap(), 1);
    }
    settled(&sampler).await;
    let fetched = std::iter::from_fn(|| sampler.fetch().0);
    assert_eq!(fetched.count(), 100);
    assert_eq!(sampler.lock().bytes, 0);
}

#[tokio::test]
async fn what_is_too_large_is_left_out() {
    let sampler = sampler(&all_of(&["x", "t"]));
    let mut large = asked();
    large[0].elements = vec![0; MOST_SAMPLE + 1].into();
    let mut long = asked();
    long[2].elements = vec![0; MOST_TEXT + 1].into();
    for inputs in [large, long] {
        sampler.keep(sampler.caught(&inputs, None).unwrap(), 0);
        settled(&sampler).await;
        assert_eq!(sampler.fetch(), (None, 1));
    }
}

#[tokio::test]
async fn of_a_model_that_reads_texts_no_tokens_of_others_are_kept() {
    let mut model = model(&all_of(&["id"]));
    let input = json!({"type": "Text", "maxTokens": 8, "tensors": {"ids": "id"}});
    model.input = serde_json::from_value(input).unwrap();
    let sampler = Sampler::of(&model).unwrap();
    assert!(sampler.caught(&asked(), None).is_none());
}
