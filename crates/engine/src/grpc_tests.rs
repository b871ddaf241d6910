use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use vedette_wasm::BodyError;

use super::*;
use crate::body::BodyMeter;

fn parts(version: Version, media_type: &str) -> Parts {
    let request = Request::post("/a.B/C")
        .version(version)
        .header("content-type", media_type);
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_call_is_one_by_its_type_and_over_http_2_only() {
    for (media_type, is_one) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc; charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/grpc-web+proto", false),
        ("application/grpcx", false),
        ("application/json", false),
    ] {
        assert_eq!(
            is_call(&parts(Version::HTTP_2, media_type)),
            is_one,
            "{media_type}"
        );
    }
    assert!(!is_call(&parts(Version::HTTP_11, "application/grpc")));
}

#[test]
fn every_cause_has_a_status_of_grpc_that_is_an_error() {
    for cause in Cause::ALL {
        let code = Code::of(*cause, cause.status());
        assert_ne!(code, Code::OK);
        assert_ne!(code, Code::UNKNOWN, "{cause:?}");
    }
    for (cause, code) in [
        (Cause::NotFound, Code::UNIMPLEMENTED),
        (Cause::ModelNotFound, Code::NOT_FOUND),
        (Cause::ModelPathUnknown, Code::NOT_FOUND),
        (Cause::ModelRequestInvalid, Code::INVALID_ARGUMENT),
        (Cause::ModelTimeout, Code::DEADLINE_EXCEEDED),
        (Cause::ModelBusy, Code::UNAVAILABLE),
        (Cause::RateLimited, Code::UNAVAILABLE),
        (Cause::PolicyDenied, Code::PERMISSION_DENIED),
        (Cause::TokenExpired, Code::UNAUTHENTICATED),
        (Cause::CallUnsupported, Code::UNIMPLEMENTED),
        (Cause::CallCompressed, Code::UNIMPLEMENTED),
        (Cause::CallMalformed, Code::INVALID_ARGUMENT),
        (Cause::CallSurplus, Code::INTERNAL),
        (Cause::RequestTooLarge, Code::RESOURCE_EXHAUSTED),
    ] {
        assert_eq!(Code::of(cause, cause.status()), code, "{cause:?}");
    }
}

#[test]
fn a_sentence_is_told_in_printable_ascii() {
    assert_eq!(escaped("50 % of \"é\"\r\n"), "50 %25 of \"%C3%A9\"%0D%0A");
    let mut headers = HeaderMap::new();
    set_status(&mut headers, Code::NOT_FOUND, "no \u{7f}");
    assert_eq!(headers["grpc-status"], "5");
    assert_eq!(headers["grpc-message"], "no %7F");
    assert_eq!(headers["content-type"], "application/grpc");
}

#[test]
fn a_deadline_is_eight_digits_and_a_unit() {
    let of = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("grpc-timeout", HeaderValue::from_str(value).unwrap());
        }
        timeout(&headers).map_err(|it| it.cause)
    };
    assert_eq!(of(&[]), Ok(None));
    assert_eq!(of(&["2H"]), Ok(Some(Duration::from_secs(7200))));
    assert_eq!(
        of(&["99999999H"]),
        Ok(Some(Duration::from_secs(359_999_996_400)))
    );
    assert_eq!(of(&["3M"]), Ok(Some(Duration::from_secs(180))));
    assert_eq!(of(&["1500m"]), Ok(Some(Duration::from_millis(1500))));
    assert_eq!(of(&["7u"]), Ok(Some(Duration::from_micros(7))));
    assert_eq!(of(&["7n"]), Ok(Some(Duration::from_nanos(7))));
    for bad in [
        &["123456789S"][..],
        &["S"],
        &["1"],
        &["+1S"],
        &["1s"],
        &[""],
        &["1S", "1S"],
    ] {
        assert_eq!(of(bad), Err(Cause::DeadlineMalformed), "{bad:?}");
    }
}

#[test]
fn a_prefix_says_how_long_and_compressed_messages_are_not_read() {
    let cause = |prefix| length_of(prefix).map_err(|it| it.cause);
    assert_eq!(cause([0, 0, 1, 0, 2]), Ok(65_538));
    assert_eq!(cause([1, 0, 0, 0, 0]), Err(Cause::CallCompressed));
    assert_eq!(cause([2, 0, 0, 0, 0]), Err(Cause::CallMalformed));
}

#[test]
fn only_a_named_encoding_is_one() {
    let mut headers = HeaderMap::new();
    assert!(!says_encoding(&headers));
    headers.insert("grpc-encoding", IDENTITY);
    assert!(!says_encoding(&headers));
    headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
    assert!(says_encoding(&headers));
}

struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(|it| Ok(Frame::data(it))))
    }
}

/// What goes on of a message of four bytes that comes in these pieces, whether to its end, and whether there was more.
fn passed(pieces: &[&'static [u8]]) -> (Vec<u8>, bool, bool) {
    let body = Pieces(pieces.iter().map(|it| Bytes::from_static(it)).collect());
    let meter = Arc::new(BodyMeter::default());
    let mut message = Message::new(body, 4, Arc::clone(&meter));
    let (mut passed, mut is_whole) = (vec![], true);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        match Pin::new(&mut message).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => passed.extend_from_slice(frame.data_ref().unwrap()),
            Poll::Ready(Some(Err(_))) => {
                is_whole = false;
                break;
            }
            Poll::Ready(None) => break,
            Poll::Pending => panic!("all of it is there"),
        }
    }
    (
        passed,
        is_whole,
        meter.cut_off() == Some(Cause::CallSurplus),
    )
}

#[test]
fn the_end_of_a_message_goes_on_only_when_no_other_follows() {
    let whole = (b"abcd".to_vec(), true, false);
    for pieces in [
        &[&b"\0\0\0\0\x04abcd"[..]][..],
        &[b"\0\0", b"\0\0\x04ab", b"", b"cd"],
        &[b"\0\0\0\0\x04", b"abcd", b""],
    ] {
        assert_eq!(passed(pieces), whole, "{pieces:?}");
    }
    for pieces in [
        &[&b"\0\0\0\0\x04abcd\0"[..]][..],
        &[b"\0\0\0\0\x04abcd", b"\0\0\0\0\x04efgh"],
        &[b"\0\0\0\0\x04abcd", b"", b"\0"],
    ] {
        assert_eq!(passed(pieces), (vec![], false, true), "{pieces:?}");
    }
    let early = passed(&[b"\0\0\0\0\x04abc"]);
    assert_eq!(early, (b"abc".to_vec(), false, false));
}
