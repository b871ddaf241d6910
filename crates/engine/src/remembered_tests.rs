use http::HeaderValue;
use serde_json::json;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn model(version: u64) -> ServedModel {
    serde_json::from_value(json!({
        "name": "m", "version": version, "blob": format!("sha256:{version}"), "size": 1,
        "format": "onnx", "task": "tensors", "inputs": [], "outputs": [], "sessions": 1,
        "threads": 1, "worker": "0000000000000000",
        "limits": {"memoryBytes": 1, "runMillis": 1, "queue": 1, "batch": 1, "streams": 1, "requestBytes": 1},
    }))
    .unwrap()
}

fn declared(entries: u64, bytes: u64, scope: ResultCacheScope) -> ResultCache {
    ResultCache {
        ttl_millis: 60_000,
        entries,
        bytes,
        scope,
    }
}

fn of(entries: u64, bytes: u64) -> Arc<Remembered> {
    let declared = declared(entries, bytes, ResultCacheScope::Caller);
    Remembered::of(Some(&declared), &model(1), None).unwrap()
}

fn whole(size: usize) -> Whole {
    Whole::new(&HeaderMap::new(), vec![7; size].into())
}

fn key(remembered: &Remembered, who: &str, body: &str) -> Key {
    remembered.key(Some(who), "/infer", &HeaderMap::new(), body.as_bytes())
}

#[test]
fn the_same_request_of_the_same_caller_is_answered_until_its_time_is_over() {
    let (remembered, now) = (of(10, 1 << 20), Instant::now());
    let one = key(&remembered, "alice", "a");
    assert_eq!(remembered.find(&one, now), None);
    remembered.keep(one, whole(3), now);
    let later = now + Duration::from_millis(59_999);
    let (found, age) = remembered.find(&one, later).unwrap();
    assert_eq!((found.body.len(), age.as_secs()), (3, 59));
    assert_eq!(remembered.find(&one, now + MINUTE), None);
    // It is gone, not only hidden.
    assert_eq!(remembered.find(&one, later), None);
    assert_eq!(remembered.state().bytes, 0);
}

#[test]
fn another_caller_request_version_or_reading_is_another_answer() {
    let remembered = of(10, 1 << 20);
    let mut headers = HeaderMap::new();
    let plain = remembered.key(Some("a"), "/infer", &headers, b"x");
    let mut others = vec![
        remembered.key(Some("b"), "/infer", &headers, b"x"),
        remembered.key(None, "/infer", &headers, b"x"),
        remembered.key(Some("a"), "/versions/1/infer", &headers, b"x"),
        remembered.key(Some("a"), "/infer", &headers, b"y"),
    ];
    headers.insert(INFERENCE_HEADER, HeaderValue::from_static("1"));
    others.push(remembered.key(Some("a"), "/infer", &headers, b"x"));
    for other in others {
        assert_ne!(plain, other);
    }
}

#[test]
fn a_route_may_remember_for_everybody() {
    let declared = declared(10, 1 << 20, ResultCacheScope::Route);
    let remembered = Remembered::of(Some(&declared), &model(1), None).unwrap();
    assert_eq!(key(&remembered, "alice", "x"), key(&remembered, "bob", "x"));
}

#[test]
fn what_is_unused_longest_makes_room() {
    let (remembered, now) = (of(2, 1 << 20), Instant::now());
    let keys = ["a", "b", "c"].map(|body| key(&remembered, "alice", body));
    remembered.keep(keys[0], whole(1), now);
    remembered.keep(keys[1], whole(1), now);
    assert!(remembered.find(&keys[0], now).is_some());
    remembered.keep(keys[2], whole(1), now);
    let there = keys.map(|key| remembered.find(&key, now).is_some());
    assert_eq!(there, [true, false, true]);
}

#[test]
fn its_memory_is_bounded_and_counted_whatever_comes() {
    let most = 64 << 10;
    let (remembered, now) = (of(1_000_000, most as u64), Instant::now());
    for number in 0..2000 {
        let one = key(&remembered, "alice", &(number % 700).to_string());
        remembered.keep(one, whole(number % 4000), now);
        let state = remembered.state();
        assert!(state.bytes <= most, "{}", state.bytes);
        assert_eq!(state.entries.len(), state.order.len());
        let counted: usize = state.entries.values().map(|it| it.whole.size()).sum();
        assert_eq!(counted, state.bytes);
    }
    let mut headers = HeaderMap::new();
    assert!(!remembered.takes(&headers));
    headers.insert(CONTENT_LENGTH, (most / SHARE).into());
    assert!(remembered.takes(&headers));
    headers.insert(CONTENT_LENGTH, (most / SHARE + 1).into());
    assert!(!remembered.takes(&headers));
}

#[test]
fn another_version_forgets_and_the_same_one_stays() {
    let declared = declared(10, 1 << 20, ResultCacheScope::Caller);
    let first = Remembered::of(Some(&declared), &model(1), None).unwrap();
    let same = Remembered::of(Some(&declared), &model(1), Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    let other = Remembered::of(Some(&declared), &model(2), Some(&first)).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert_ne!(key(&first, "a", "x"), key(&other, "a", "x"));
}
