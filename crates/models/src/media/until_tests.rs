//! Reading stops in time, and gives its place back.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hound::SampleFormat;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use image::ExtendedColorType;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::fuzz::{WORDS, patient};
use super::tests::{PLAIN, encoded_png, jpeg, named, pictures, sounds, wav, words};
use super::*;
use crate::config::Datatype;

/// More than any machine needs.
const LONG: Duration = Duration::from_secs(60);

/// How often `read` looks at the clock; it is over after each of some of those looks.
fn looks<T>(read: impl Fn(&Until) -> Result<T, Refusal>) -> usize {
    let until = patient();
    read(&until).map(|_| ()).unwrap();
    let looks = until.looks.load(Ordering::Relaxed);
    for most in (0..looks).step_by(looks.div_ceil(50)).chain([looks - 1]) {
        let mut until = patient();
        until.most_looks = most;
        let Err(refusal) = read(&until) else {
            panic!("read after {most} of {looks} looks");
        };
        assert_eq!(refusal.status, 504, "{most}: {}", refusal.message);
        let more = until.looks.load(Ordering::Relaxed) - most;
        assert!(
            more < 40,
            "after look {most} of {looks} it went on for {more}"
        );
    }
    looks
}

/// Bytes that no encoder makes shorter.
fn noise(length: usize) -> Vec<u8> {
    let mut drawn = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| drawn.u8(..))
        .take(length)
        .collect()
}

#[test]
fn a_png_is_read_piece_by_piece() {
    let pictures = pictures(PLAIN, Datatype::Uint8);
    let bytes = encoded_png(&noise(300 * 300 * 3), (300, 300), ExtendedColorType::Rgb8);
    assert!(looks(|until| pictures.read(until, &bytes)) > bytes.len() / 4096);
}

#[test]
fn a_jpeg_is_read_piece_by_piece() {
    let pictures = pictures(PLAIN, Datatype::Uint8);
    let bytes = jpeg(1500, 1500, None);
    assert!(looks(|until| pictures.read(until, &bytes)) > bytes.len() / 4096);
}

#[test]
fn what_is_done_with_each_pixel_is_done_in_pieces() {
    let pixels = vec![7; 3000 * 3000];
    let bytes = encoded_png(&pixels, (3000, 3000), ExtendedColorType::L8);
    let pictures = pictures(PLAIN, Datatype::Uint8);
    // 9 million pixels become red, green and blue, a million at a time.
    assert!(looks(|until| pictures.read(until, &bytes)) > bytes.len() / 4096 + 9);
}

#[test]
fn a_sound_is_read_piece_by_piece() {
    let channel = vec![0.25; 100_000];
    let bytes = wav(16, SampleFormat::Int, 16_000, &[&channel]);
    let sounds = sounds(None, Datatype::Fp32);
    assert!(looks(|until| sounds.read(until, &bytes)) > bytes.len() / 4096);
}

#[test]
fn a_text_is_looked_at_in_one_go() {
    let inputs = [named("ids", Datatype::Int64, 0)];
    let texts = words(8, &inputs, WORDS).unwrap();
    assert_eq!(looks(|until| texts.read(until, b"one two")), 2);
}

fn served(run_millis: u64) -> Served {
    let json = format!(
        r#"{{"name":"m","version":3,"format":"onnx","sessions":1,"threads":1,
        "inputs":[{{"name":"x","datatype":"UINT8","shape":[1,3,4,4]}}],
        "outputs":[{{"name":"y","datatype":"FP32","shape":[1]}}],
        "limits":{{"memoryBytes":1000000000,"runMillis":{run_millis},"queue":4,"requestBytes":100000000}}}}"#
    );
    let mut served: Served = serde_json::from_str(&json).unwrap();
    served.media = &["image/png"];
    served
}

fn desk() -> Desk {
    let feed = Feed::Pictures(pictures(PLAIN, Datatype::Uint8));
    Desk::new(Some(feed), None, None, 1, 4)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn time(patience: Option<Duration>) -> Time {
    let came = Instant::now();
    Time {
        came,
        deadline: patience.map(|it| came + it),
    }
}

fn of_png() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("image/png"))])
}

/// A picture that takes longer to read than a millisecond on any machine; nearly the largest that is read.
fn large() -> Bytes {
    let pixels = vec![7; 5500 * 5500];
    encoded_png(&pixels, (5500, 5500), ExtendedColorType::L8).into()
}

#[test]
fn reading_stops_at_the_limit_of_a_run_and_at_the_callers_deadline_and_leaves_its_place() {
    let (desk, body) = (desk(), large());
    runtime().block_on(async {
        for (run, patience, words) in [
            (1, None, "limits.run"),
            (60_000, Some(Duration::from_millis(1)), "by the deadline"),
            (1, Some(LONG), "limits.run"),
        ] {
            let (model, headers) = (served(run), of_png());
            let asked = desk.question(&model, &headers, (body.clone(), None), time(patience));
            let Err(refusal) = asked.await.map(|_| ()) else {
                panic!("it was read in {run} ms");
            };
            assert_eq!(refusal.status, 504);
            assert!(refusal.message.contains(words), "{}", refusal.message);
            let turn = timeout(LONG, desk.turns.acquire()).await;
            drop(turn.unwrap().unwrap());
        }
    });
}

#[test]
fn the_next_reads_when_the_thread_of_a_caller_who_left_is_done() {
    let (desk, body) = (desk(), large());
    runtime().block_on(async {
        let (model, headers) = (served(60_000), of_png());
        let asked = desk.question(&model, &headers, (body, None), time(None));
        // It has begun, and its caller leaves.
        assert!(timeout(Duration::from_millis(1), asked).await.is_err());
        let small = Bytes::from(super::tests::png(4, 4));
        let asked = desk.question(&model, &headers, (small, None), time(None));
        timeout(LONG, asked).await.unwrap().unwrap();
    });
}

#[test]
fn waiting_for_a_reader_is_told_apart_from_reading() {
    let desk = desk();
    runtime().block_on(async {
        let turn = Arc::clone(&desk.turns).acquire_owned().await.unwrap();
        let waits = Duration::from_millis(30);
        let body = Bytes::from(super::tests::png(4, 4));
        let (model, headers) = (served(60_000), of_png());
        let (asked, ()) = tokio::join!(
            desk.question(&model, &headers, (body, None), time(None)),
            async {
                tokio::time::sleep(waits).await;
                drop(turn);
            }
        );
        let (_, question) = asked.unwrap();
        assert!(question.waited >= waits, "{:?}", question.waited);
        assert!(question.took > Duration::ZERO);
    });
}

#[test]
fn the_sooner_of_two_deadlines_counts() {
    let came = Instant::now();
    let of = |deadline: Option<u64>, timeout: Option<u64>| {
        let time = Time {
            came,
            deadline: deadline.map(|it| came + Duration::from_millis(it)),
        };
        let asked = crate::oip::request::Asked {
            id: None,
            inputs: vec![],
            outputs: vec![],
            timeout: timeout.map(Duration::from_millis),
        };
        time.until(&asked)
            .map(|it| it.duration_since(came).as_millis())
    };
    assert_eq!(of(None, None), None);
    assert_eq!(of(Some(5), None), Some(5));
    assert_eq!(of(None, Some(7)), Some(7));
    assert_eq!(of(Some(5), Some(7)), Some(5));
    assert_eq!(of(Some(9), Some(7)), Some(7));
    // Longer than there are clocks for.
    assert_eq!(of(Some(9), Some(u64::MAX)), Some(9));
}
