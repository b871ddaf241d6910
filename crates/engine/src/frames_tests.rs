use std::time::{Duration, Instant};

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = size[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn begun() -> Watch {
    let mut watch = Watch::new();
    watch.comes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    watch
}

#[test]
fn heads_are_found_wherever_the_bytes_are_cut() {
    let bytes = [
        frame(HEADERS, END_HEADERS, 0x8000_0001, b"abc"),
        frame(DATA, 0, 1, &[0; 300]),
        frame(4, 0, 0, b""),
        frame(8, 0, 7, b"1234"),
    ]
    .concat();
    for size in [1, 2, 8, 9, 10, 100, bytes.len()] {
        let (mut heads, mut found) = (Heads::default(), Vec::new());
        for piece in bytes.chunks(size) {
            heads.read(piece, |head| {
                found.push((head.kind, head.size, head.stream));
            });
        }
        assert_eq!(
            found,
            [(1, 3, 1), (0, 300, 1), (4, 0, 0), (8, 4, 7)],
            "in pieces of {size}"
        );
        assert!(heads.is_between_frames());
    }
}

#[test]
fn what_has_begun_is_waited_for_but_a_body_is_not() {
    let mut watch = Watch::new();
    assert!(watch.waits_for_the_rest(), "for the preface");
    watch.comes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(!watch.waits_for_the_rest());

    let ping = frame(6, 0, 0, b"12345678");
    watch.comes(&ping[..3]);
    assert!(watch.waits_for_the_rest(), "for a head of a frame");
    watch.comes(&ping[3..16]);
    assert!(watch.waits_for_the_rest(), "for a frame");
    watch.comes(&ping[16..]);
    assert!(!watch.waits_for_the_rest());

    watch.comes(&frame(HEADERS, END_STREAM, 1, b"abc"));
    watch.comes(&frame(CONTINUATION, 0, 1, b"abc"));
    assert!(watch.waits_for_the_rest(), "for the rest of the fields");
    watch.comes(&frame(CONTINUATION, END_HEADERS, 1, b"abc"));
    assert!(!watch.waits_for_the_rest());

    watch.comes(&frame(DATA, 0, 1, b"abc")[..10]);
    assert!(!watch.waits_for_the_rest(), "a body has a pace of its own");
}

#[test]
fn frames_that_carry_nothing_are_paid_for() {
    let free = [
        frame(HEADERS, END_HEADERS, 1, b"abc"),
        frame(DATA, 0, 1, b"x"),
        frame(DATA, END_STREAM, 1, b""),
    ];
    let paid = [
        frame(DATA, 0, 1, b""),
        frame(CONTINUATION, 0, 1, b""),
        frame(2, 0, 1, b"12345"),
        frame(RST_STREAM, 0, 1, b"1234"),
        frame(4, 0, 0, b""),
        frame(6, 0, 0, b"12345678"),
        frame(8, 0, 0, b"1234"),
        frame(0x55, 0, 0, b""),
    ];
    for (frames, is_paid) in [(&free[..], false), (&paid[..], true)] {
        for bytes in frames {
            let mut watch = begun();
            watch.comes(&bytes.repeat(CREDIT as usize + 100));
            assert_eq!(watch.is_flooded, is_paid, "{:?}", &bytes[..9]);
        }
    }
}

#[test]
fn a_large_frame_of_settings_costs_as_much_as_many() {
    let mut watch = begun();
    watch.comes(&frame(4, 0, 0, &[0; 16_380]).repeat(5));
    assert!(watch.is_flooded);
}

#[test]
fn answers_pay_for_windows_and_streams_we_refuse_cost() {
    let mut watch = begun();
    for _ in 0..CREDIT {
        watch.goes(&frame(DATA, 0, 1, b"answer"));
        watch.comes(&frame(8, 0, 0, b"1234").repeat(EARNED as usize));
    }
    assert!(!watch.is_flooded);
    watch.goes(&frame(RST_STREAM, 0, 1, b"1234").repeat(CREDIT as usize + 100));
    assert!(watch.is_flooded);
}

#[test]
fn time_fills_the_credit_up_and_no_further() {
    let mut credit = Credit::new();
    assert!(credit.spend(CREDIT));
    assert!(!credit.spend(1));
    credit.filled = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    assert!(credit.spend(50));
    assert!(!credit.spend(1));
    credit.filled = Instant::now().checked_sub(Duration::from_hours(1)).unwrap();
    assert!(credit.spend(CREDIT));
    assert!(!credit.spend(1));
}

#[tokio::test]
async fn a_goodbye_names_the_last_stream_and_never_cuts_a_frame_in_two() {
    let mut watch = begun();
    watch.comes(&frame(HEADERS, END_HEADERS, 5, b"abc"));
    watch.comes(&frame(HEADERS, END_HEADERS, 3, b"abc"));
    let said = Goodbye::new(&watch, ENHANCE_YOUR_CALM).bytes;
    assert_eq!(said, frame(7, 0, 0, &[0, 0, 0, 5, 0, 0, 0, 11]));
    watch.goes(&frame(DATA, 0, 1, b"half")[..11]);
    assert!(Goodbye::new(&watch, ENHANCE_YOUR_CALM).bytes.is_empty());
}
