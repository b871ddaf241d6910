use super::messages::{model, server, whether};
use super::*;

const NAMED: &[u8] = b"\x0a\x06digits\x12\x013\x2a\x05tenso";

fn found(model: &str, version: &str) -> Found {
    Found::Named(Named {
        model: model.into(),
        version: version.into(),
    })
}

#[test]
fn the_model_is_known_from_the_first_fields_however_little_has_come() {
    for come in 0..11 {
        assert_eq!(named(&NAMED[..come], false), Found::More, "{come}");
    }
    // At 11 bytes both are there, but another version could follow.
    assert_eq!(named(&NAMED[..11], false), Found::More);
    for come in 12..NAMED.len() {
        assert_eq!(named(&NAMED[..come], false), found("digits", "3"), "{come}");
    }
    assert_eq!(named(&NAMED[..11], true), found("digits", "3"));
    assert_eq!(named(&NAMED[..8], true), found("digits", ""));
    assert_eq!(named(b"\x0a\x01a\x0a\x01b", true), found("b", ""));
}

#[test]
fn a_message_without_a_name_at_its_beginning_is_none() {
    for (message, is_whole) in [
        (&b""[..], true),
        (b"\x12\x013", true),
        (b"\x2a\x00\x0a\x01a", true),
        (b"\x08\x01", false),
        (b"\x0a\x05ab", true),
        (b"\x0a\x01\xff", true),
        (b"\x0a\x81\x02", false),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", false),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", false),
    ] {
        assert_eq!(named(message, is_whole), Found::Nothing, "{message:?}");
    }
}

#[test]
fn a_version_is_a_number_since_it_becomes_a_part_of_a_path() {
    assert!(require_version("12").is_ok());
    for version in ["1/../../x", "-1", "1.0", "latest", "99999999999999999999"] {
        assert_eq!(
            require_version(version).unwrap_err().cause,
            Cause::ModelNotFound
        );
    }
}

#[test]
fn no_more_is_read_than_the_first_fields_take() {
    let call = |message: &[u8], length: u32, method| {
        let mut seen = vec![0];
        seen.extend_from_slice(&length.to_be_bytes());
        seen.extend_from_slice(message);
        look(&seen, method).map_err(|it| it.cause)
    };
    assert_eq!(look(&[0, 0, 0], Method::ModelInfer).unwrap(), None);
    assert_eq!(call(b"", 9, Method::ServerLive), Ok(Some((9, None))));
    let (length, named) = call(NAMED, 900, Method::ModelInfer).unwrap().unwrap();
    assert_eq!((length, named.unwrap().model.as_ref()), (900, "digits"));
    // What follows the message is none of it.
    assert_eq!(
        call(NAMED, 4, Method::ModelInfer),
        Err(Cause::CallMalformed)
    );
    let many = b"\x0a\x01a".repeat(MOST_READ);
    let most = &many[..MOST_READ];
    assert_eq!(
        call(most, 1 << 20, Method::ModelInfer),
        Err(Cause::CallMalformed)
    );
    assert_eq!(
        call(&most[..MOST_READ - 1], 1 << 20, Method::ModelInfer),
        Ok(None)
    );
}

#[test]
fn messages_are_as_the_protocol_writes_them() {
    assert_eq!(whether(true)[..], [8, 1]);
    assert!(whether(false).is_empty());
    assert_eq!(
        server("n", "1", &["a", "b"])[..],
        *b"\x0a\x01n\x12\x011\x1a\x01a\x1a\x01b"
    );
    let json = br#"{"name":"m","versions":["3"],"platform":"p","more":1,
        "inputs":[{"name":"x","datatype":"FP32","shape":[-1,300]}],"outputs":[]}"#;
    let shape = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xac\x02";
    let tensor = [&b"\x0a\x01x\x12\x04FP32\x1a\x0c"[..], shape].concat();
    let head = b"\x0a\x01m\x12\x013\x1a\x01p\x22\x17";
    assert_eq!(model(json).unwrap()[..], [&head[..], &tensor[..]].concat());
    assert_eq!(model(b"{}"), None);
}
