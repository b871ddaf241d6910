use super::*;
use TensorDatatype as T;

fn json(datatype: T, text: &str) -> Option<Found> {
    read(datatype, Data::Json(text))
}

fn count(datatype: T, text: &str) -> Option<u64> {
    json(datatype, text).map(|it| it.count)
}

#[test]
fn elements_are_flat_or_nested() {
    assert_eq!(count(T::FP32, "[1, 2.5, -3]"), Some(3));
    assert_eq!(count(T::FP32, "[[1, 2], [3, 4]]"), Some(4));
    assert_eq!(count(T::Bytes, r#"["a", "b"]"#), Some(2));
    assert_eq!(count(T::Bool, "[true, false]"), Some(2));
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    assert_eq!(count(T::FP32, &deep), None);
}

#[test]
fn what_is_no_element_of_its_datatype_is_none() {
    for (datatype, text) in [
        (T::UINT8, "[256]"),
        (T::UINT8, "[-1]"),
        (T::INT8, "[-129]"),
        (T::INT64, "[9223372036854775808]"),
        (T::INT32, "[1.0]"),
        (T::FP32, "[1e39]"),
        (T::FP64, "[1e400]"),
        (T::FP32, "[NaN]"),
        (T::FP32, r#"["1"]"#),
        (T::FP32, "[null]"),
        (T::FP32, "[true]"),
        (T::Bool, "[1]"),
        (T::Bytes, "[1]"),
        (T::FP16, "[1]"),
        (T::FP32, r#"[{"a": 1}]"#),
        (T::FP32, "[1] [2]"),
    ] {
        assert_eq!(json(datatype, text), None, "{datatype:?} {text}");
    }
}

#[test]
fn the_greatest_counts_and_what_is_no_number_does_not() {
    let bytes: Vec<u8> = [0.25f32, f32::NAN, 0.75, -1.0]
        .iter()
        .flat_map(|it| it.to_le_bytes())
        .collect();
    let found = read(T::FP32, Data::Binary(&bytes)).unwrap();
    assert_eq!((found.count, found.greatest), (4, Some(0.75)));
    assert!(!found.is_finite);
    let found = json(T::INT64, "[-5, -2]").unwrap();
    assert_eq!((found.greatest, found.is_finite), (Some(-2.0), true));
    assert_eq!(json(T::FP32, "[]").unwrap().greatest, None);
    let none = f32::NAN.to_le_bytes();
    assert_eq!(read(T::FP32, Data::Binary(&none)).unwrap().greatest, None);
    assert_eq!(
        read(T::FP32, Data::Binary(bytes.get(..15).unwrap_or_default())),
        None
    );
    assert_eq!(read(T::Bool, Data::Binary(&[0, 1, 2])), None);
}

#[test]
fn halves_are_read_as_they_are() {
    for (bits, number) in [
        (0x0000u16, 0.0),
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x7bff, 65_504.0),
        (0x0001, 2f64.powi(-24)),
        (0x3555, 0.333_251_953_125),
    ] {
        let found = read(T::FP16, Data::Binary(&bits.to_le_bytes())).unwrap();
        assert_eq!(found.greatest, Some(number), "{bits:04x}");
    }
    for bits in [0x7c00u16, 0xfc00, 0x7e00] {
        assert!(
            !read(T::FP16, Data::Binary(&bits.to_le_bytes()))
                .unwrap()
                .is_finite
        );
    }
}

#[test]
fn texts_are_counted_by_their_lengths() {
    let two = [&2u32.to_le_bytes()[..], b"ab", &0u32.to_le_bytes()].concat();
    assert_eq!(read(T::Bytes, Data::Binary(&two)).unwrap().count, 2);
    let lie = [&9u32.to_le_bytes()[..], b"ab"].concat();
    assert_eq!(read(T::Bytes, Data::Binary(&lie)), None);
}
