use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

/// TLS 1.3 with `TLS_AES_128_GCM_SHA256`, no name, `h2`.
fn hello() -> Vec<u8> {
    let extensions = b"\x00\x2b\x00\x03\x02\x03\x04\x00\x10\x00\x05\x00\x03\x02h2";
    let start = b"\x03\x0301234567890123456789012345678901\x00\x00\x02\x13\x01\x01\x00";
    let sized = |content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&length, content].concat()
    };
    let body = [&start[..], &sized(extensions)].concat();
    let message = [&b"\x01\x00"[..], &sized(&body)].concat();
    [&b"\x16\x03\x01"[..], &sized(&message)].concat()
}

async fn read_in_parts(bytes: &[u8], part: usize) -> (FirstWords<tokio::io::DuplexStream>, usize) {
    let (mut client, server) = duplex(part);
    let mut words = FirstWords::new(server);
    let ((), read) = tokio::join!(
        async {
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
        },
        async {
            let mut all = Vec::new();
            words.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, bytes, "what passes is not changed");
            all.len()
        }
    );
    (words, read)
}

#[tokio::test]
async fn a_hello_is_known_however_it_is_cut_and_told_once() {
    for part in [1, 7, 4096] {
        let (mut words, _) = read_in_parts(&hello(), part).await;
        let ja4 = words.ja4().unwrap();
        assert_eq!(ja4.as_str().get(..10), Some("t13i0102h2"), "{ja4}");
        assert!(words.ja4().is_none());
    }
}

#[tokio::test]
async fn what_is_no_hello_has_no_fingerprint_and_is_not_kept_beyond_a_limit() {
    let flood = vec![0x16; 1 << 20];
    let (mut words, read) = read_in_parts(&flood, 4096).await;
    assert_eq!(read, flood.len());
    assert_eq!(words.said.as_ref().map(Vec::len), Some(MOST));
    assert!(words.ja4().is_none());
}
