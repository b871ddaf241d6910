//! That no bytes but those of an image are taken, and none end the process.

use super::*;
use crate::{Limit, LimitSet, Memory, Now, Per, Period, Quota, RequestKeys};

const NOW: Now = Now {
    nanos: 0,
    unix_seconds: 1_700_000_000,
};

fn limits() -> Vec<Limit> {
    vec![Limit {
        name: "month".into(),
        per: Per {
            source: true,
            ..Per::default()
        },
        routes: vec![],
        rate: None,
        concurrency: None,
        quota: Some(Quota {
            requests: 5,
            period: Period::Month,
        }),
    }]
}

fn image() -> Vec<u8> {
    let set = LimitSet::compile(limits(), Memory::default(), None).unwrap();
    for host in 0..50u8 {
        let keys = RequestKeys {
            principal: None,
            route: "r",
            source: [192, 0, 2, host].into(),
        };
        set.check(&keys, NOW).unwrap();
    }
    set.export(NOW)
}

/// `SplitMix64`: a sequence that is the same in every run.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    usize::try_from((mixed ^ mixed >> 27) >> 33).unwrap()
}

#[test]
fn a_changed_byte_or_a_missing_end_is_noticed() {
    let image = image();
    assert!(Image::parse(&image).is_ok());
    for at in 0..image.len() {
        let mut changed = image.clone();
        changed[at] ^= 0x40;
        assert_eq!(Image::parse(&changed).unwrap_err(), ImageError::Damaged);
        assert_eq!(Image::parse(&image[..at]).unwrap_err(), ImageError::Damaged);
    }
}

#[test]
fn garbage_with_a_right_checksum_is_read_or_refused_but_never_more() {
    let image = image();
    let body = &image[..image.len() - CHECKSUM];
    let (mut state, mut taken, mut refused) = (7, 0, 0);
    for _ in 0..20_000 {
        let mut bytes = body.to_vec();
        for _ in 0..=random(&mut state) % 4 {
            let at = random(&mut state) % bytes.len();
            bytes[at] = u8::try_from(random(&mut state) % 256).unwrap();
        }
        if random(&mut state).is_multiple_of(3) {
            bytes.truncate(random(&mut state) % body.len());
        }
        match Image::parse(&seal(bytes)) {
            Ok(image) => {
                taken += 1;
                LimitSet::restore(limits(), Memory::default(), &image, NOW).unwrap();
            }
            Err(_) => refused += 1,
        }
    }
    assert!(
        taken > 100 && refused > 100,
        "{taken} taken, {refused} refused"
    );
}

#[test]
fn another_version_an_unsorted_table_and_a_tail_are_refused() {
    let image = image();
    let body = &image[..image.len() - CHECKSUM];
    let mut newer = body.to_vec();
    newer[8] = 2;
    assert_eq!(Image::parse(&seal(newer)).unwrap_err(), ImageError::Unknown);
    let longer = [body, b"x"].concat();
    assert_eq!(
        Image::parse(&seal(longer)).unwrap_err(),
        ImageError::Malformed
    );
    let mut writer = Writer::new(&Seed([0; 16]), 2);
    for _ in 0..2 {
        let keyed = Keyed { per: 1, routes: 0 };
        writer.table("same", keyed, Window::at(Period::Day, 0));
        writer.end_table();
    }
    assert_eq!(
        Image::parse(&writer.finish()).unwrap_err(),
        ImageError::Malformed
    );
}
