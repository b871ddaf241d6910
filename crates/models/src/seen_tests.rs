#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Instant;

use serde_json::{Value, json};

use super::*;

fn model(inputs: &Value, outputs: &Value) -> Served {
    let limits = json!({"memoryBytes": 1, "runMillis": 1, "queue": 1, "requestBytes": 1});
    let model = json!({
        "name": "m", "version": 1, "format": "onnx", "inputs": inputs, "outputs": outputs,
        "sessions": 1, "threads": 1, "limits": limits,
    });
    serde_json::from_value(model).unwrap()
}

fn usual() -> Served {
    model(
        &json!([{"name": "x", "datatype": "FP32", "shape": [0, 4]}]),
        &json!([
            {"name": "label", "datatype": "INT64", "shape": [0]},
            {"name": "scores", "datatype": "FP32", "shape": [0, 3]},
        ]),
    )
}

fn fp32(values: &[f32], width: usize) -> Data {
    Data {
        datatype: Datatype::Fp32,
        shape: [values.len() / width, width]
            .map(|it| i64::try_from(it).unwrap())
            .to_vec(),
        elements: values
            .iter()
            .flat_map(|it| it.to_le_bytes())
            .collect::<Vec<_>>()
            .into(),
    }
}

/// A number between 0 and 1 that looks like chance.
fn drawn(number: u32) -> f32 {
    let mixed = number.wrapping_mul(0x9e37_79b9) ^ (number.wrapping_mul(0x85eb_ca6b) >> 13);
    f32::from(u16::try_from(mixed.wrapping_mul(0xc2b2_ae35) >> 16).unwrap()) / 65_536.0
}

/// As many predictions, whose inputs lie `off` from the usual; scores do not change.
fn ask(seen: &Seen, count: u32, off: f32) {
    for number in 0..count {
        let x: Vec<f32> = (0..4).map(|it| drawn(number * 4 + it) + off).collect();
        let glimpse = seen.glimpse(&[fp32(&x, 4)]);
        let best = drawn(number.wrapping_mul(7) + 1);
        seen.ran(glimpse, &[1], &[fp32(&[0.0, best, -1.0], 3)]);
    }
}

fn column(seen: &Seen, name: &str) -> Value {
    let report = serde_json::to_value(seen.report()).unwrap();
    let columns = report["columns"].as_array().unwrap();
    columns
        .iter()
        .find(|it| it["name"] == name)
        .unwrap()
        .clone()
}

#[test]
fn what_is_asked_otherwise_than_it_was_is_told_and_so_that_it_is_as_before() {
    let seen = Seen::of(&usual());
    ask(&seen, LEARNS - 1, 0.0);
    assert_eq!(seen.state(), Some(State::Learning));
    ask(&seen, 1, 0.0);
    assert_eq!(seen.state(), Some(State::Steady));
    assert_eq!(
        column(&seen, "x")["psi"],
        Value::Null,
        "no window has come yet"
    );
    ask(&seen, 4 * WINDOW, 0.0);
    assert_eq!(seen.state(), Some(State::Steady), "{:?}", seen.report());
    assert!(column(&seen, "x")["psi"].as_f64().unwrap() < 0.1);
    ask(&seen, 2 * WINDOW, 0.5);
    assert_eq!(seen.state(), Some(State::Drifted));
    assert!(column(&seen, "x")["psi"].as_f64().unwrap() > 1.0);
    assert!((column(&seen, "x")["ks"].as_f64().unwrap() - 0.5).abs() < 0.05);
    assert_eq!(column(&seen, "scores")["state"], "steady");
    ask(&seen, 2 * WINDOW, 0.0);
    assert_eq!(seen.state(), Some(State::Steady));
}

#[test]
fn values_of_a_prediction_that_are_all_one_are_no_shift_by_chance() {
    let seen = Seen::of(&usual());
    for number in 0..LEARNS + 20 * WINDOW {
        let glimpse = seen.glimpse(&[fp32(&[drawn(number); 256], 4)]);
        seen.ran(glimpse, &[], &[]);
        assert_ne!(seen.state(), Some(State::Drifted), "{number}");
    }
    assert_eq!(
        seen.state(),
        Some(State::Steady),
        "the score was not asked for"
    );
}

#[test]
fn the_next_process_goes_on_where_the_one_before_has_ended() {
    let seen = Seen::of(&usual());
    ask(&seen, LEARNS + 2 * WINDOW, 0.0);
    ask(&seen, WINDOW + 100, 0.5);
    let kept = serde_json::to_string(&seen.report()).unwrap();
    assert!(kept.len() * (COLUMNS / 2) < MOST_KEPT, "{}", kept.len());
    let next = Seen::of(&usual());
    ask(&next, 3, 7.0); // before it was told
    next.go_on(serde_json::from_str(&kept).unwrap());
    assert_eq!(next.state(), Some(State::Drifted));
    assert_eq!(serde_json::to_string(&next.report()).unwrap(), kept);
    ask(&next, WINDOW, 0.5);
    let own = serde_json::to_string(&next.report()).unwrap();
    next.go_on(serde_json::from_str(&kept).unwrap());
    assert_eq!(
        serde_json::to_string(&next.report()).unwrap(),
        own,
        "it knows better"
    );
}

#[test]
fn what_is_of_another_model_or_makes_no_sense_is_not_gone_on_with() {
    let seen = Seen::of(&usual());
    let sound = json!({"edges": [1.0], "counts": [1, 1], "now": [0, 0], "before": [0, 0]});
    let unsound = json!({"edges": [1.0], "counts": [1], "now": [0, 0], "before": [0, 0]});
    for (name, side, kept) in [
        ("y", "input", &sound),
        ("x", "score", &sound),
        ("x", "input", &unsound),
        ("x", "input", &Value::Null),
    ] {
        let column = json!({"name": name, "side": side, "runs": 1, "kept": kept});
        seen.go_on(serde_json::from_value(json!({"columns": [column]})).unwrap());
        assert_eq!(seen.state(), Some(State::Learning), "{name} {side} {kept}");
        assert_eq!(column_states(&seen), ["learning", "learning"]);
    }
}

fn column_states(seen: &Seen) -> Vec<&'static str> {
    seen.report()
        .columns
        .iter()
        .map(|it| it.state.as_str())
        .collect()
}

#[test]
fn of_a_large_tensor_a_few_elements_are_looked_at_and_all_in_time() {
    let seen = Seen::of(&usual());
    let values: Vec<f32> = (0..1000_u16).map(f32::from).collect();
    let data = fp32(&values, 4);
    let mut met = std::collections::BTreeSet::new();
    for _ in 0..values.len().div_ceil(VALUES) {
        let glimpse = seen.glimpse(std::slice::from_ref(&data));
        assert!(
            (VALUES - 1..=VALUES).contains(&glimpse.values.len()),
            "{glimpse:?}"
        );
        met.extend(glimpse.values.iter().map(|it| it.to_bits()));
    }
    assert_eq!(met.len(), 1000);
}

#[test]
fn scores_are_the_highest_of_rows_and_every_type_of_number_is_one() {
    let mut values = vec![];
    look_at_score(&fp32(&[1.0, 3.0, 2.0, f32::NAN, 5.0, 4.0], 3), &mut values);
    assert_eq!(values, [3.0, 5.0]);
    let mut scores = vec![-1.0; 1000];
    for place in [0, 7, 8, 500, 998, 999] {
        scores[place] = 1.0 + f32::from(u16::try_from(place).unwrap());
        look_at_score(&fp32(&scores, 1000), &mut values);
        assert_eq!(values.last(), Some(&scores[place]));
    }
    let cases: [(Datatype, &[u8], f32); 11] = [
        (Datatype::Fp32, &2.5_f32.to_le_bytes(), 2.5),
        (Datatype::Fp64, &f64::INFINITY.to_le_bytes(), f32::MAX),
        (Datatype::Fp16, &0xc000_u16.to_le_bytes(), -2.0),
        (Datatype::Uint8, &[200], 200.0),
        (Datatype::Int8, &(-3_i8).to_le_bytes(), -3.0),
        (Datatype::Uint16, &60_000_u16.to_le_bytes(), 60_000.0),
        (Datatype::Int16, &(-300_i16).to_le_bytes(), -300.0),
        (Datatype::Uint32, &70_000_u32.to_le_bytes(), 70_000.0),
        (Datatype::Int32, &(-70_000_i32).to_le_bytes(), -70_000.0),
        (Datatype::Uint64, &7_u64.to_le_bytes(), 7.0),
        (Datatype::Int64, &(-7_i64).to_le_bytes(), -7.0),
    ];
    for (datatype, bytes, wanted) in cases {
        assert_eq!(element(datatype, bytes, 0), Some(wanted), "{datatype:?}");
        assert_eq!(element(datatype, bytes, 1), None, "{datatype:?}");
    }
}

#[test]
fn texts_are_not_watched_and_columns_are_few() {
    let texts = json!([{"name": "t", "datatype": "BYTES", "shape": [0]}]);
    let seen = Seen::of(&model(&texts, &texts));
    assert_eq!(seen.state(), None);
    let text = Data {
        datatype: Datatype::Bytes,
        shape: vec![1],
        elements: vec![1, 0, 0, 0, 65].into(),
    };
    seen.ran(seen.glimpse(std::slice::from_ref(&text)), &[0], &[text]);
    assert!(seen.report().columns.is_empty());
    let many = (0..100).map(|it| json!({"name": it.to_string(), "datatype": "FP32", "shape": [1]}));
    let many = Value::Array(many.collect());
    assert_eq!(Seen::of(&model(&many, &many)).places.len(), COLUMNS);
}

#[test]
#[ignore = "a measurement: cargo test --release … seen -- --ignored --nocapture"]
fn how_long_a_prediction_is_looked_at() {
    let cases = [
        (
            "4 numbers in, 3 scores out",
            fp32(&[0.5; 4], 4),
            fp32(&[0.1; 3], 3),
        ),
        (
            "a picture in, 1,000 scores out",
            fp32(&vec![0.5; 150_528], 224),
            fp32(&[0.1; 1000], 1000),
        ),
    ];
    for (what, input, output) in cases {
        for state in ["learning", "steady"] {
            let seen = Seen::of(&usual());
            if state == "steady" {
                ask(&seen, LEARNS + WINDOW, 0.0);
            }
            let runs: u32 = if state == "steady" {
                200_000
            } else {
                LEARNS - 1
            };
            let began = Instant::now();
            for _ in 0..runs {
                let glimpse = seen.glimpse(std::hint::black_box(std::slice::from_ref(&input)));
                seen.ran(
                    glimpse,
                    &[1],
                    std::hint::black_box(std::slice::from_ref(&output)),
                );
            }
            println!("{what}, {state}: {:?}", began.elapsed() / runs);
        }
    }
}
