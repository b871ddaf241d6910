#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::Cursor;

use hound::{SampleFormat, WavSpec, WavWriter};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::metadata::Orientation;
use image::{ExtendedColorType, ImageEncoder};

use super::fuzz::{WORDS, patient};
use super::*;
use crate::config::{Datatype, Tensor};

fn picture(more: &str) -> Image {
    let text = format!(
        r#"{{"tensor":"x","width":4,"height":4,"layout":"NCHW","scale":1.0,"mean":[0.0],"std":[1.0],"pad":114,{more}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

use super::spec::Image;

pub(super) fn tensor(datatype: Datatype, shape: &[u64]) -> Tensor {
    Tensor {
        name: "x".into(),
        datatype,
        shape: shape.to_vec(),
    }
}

const MEMORY: u64 = 1 << 30;

pub(super) fn pictures(more: &str, datatype: Datatype) -> Pictures {
    Pictures::new(&picture(more), &tensor(datatype, &[1, 3, 4, 4]), MEMORY)
}

/// Pixels of a picture whose rows and columns can be told apart.
fn pixels(width: u32, height: u32) -> Vec<u8> {
    (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [x * 255 / width, y * 255 / height, 40]))
        .map(|it| u8::try_from(it).unwrap())
        .collect()
}

pub(super) fn png(width: u32, height: u32) -> Vec<u8> {
    encoded_png(
        &pixels(width, height),
        (width, height),
        ExtendedColorType::Rgb8,
    )
}

pub(super) fn encoded_png(
    pixels: &[u8],
    (width, height): (u32, u32),
    kind: ExtendedColorType,
) -> Vec<u8> {
    let mut bytes = vec![];
    let encoder = PngEncoder::new(&mut bytes);
    encoder.write_image(pixels, width, height, kind).unwrap();
    bytes
}

pub(super) fn jpeg(width: u32, height: u32, exif: Option<u8>) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
    if let Some(turn) = exif {
        // TIFF header, one entry: orientation (0x0112), SHORT.
        let mut chunk = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        chunk.extend_from_slice(&[turn, 0, 0, 0, 0, 0, 0, 0]);
        encoder.set_exif_metadata(chunk).unwrap();
    }
    let pixels = pixels(width, height);
    encoder
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    bytes
}

fn floats(data: &Data) -> Vec<f32> {
    data.elements
        .as_chunks()
        .0
        .iter()
        .map(|it| f32::from_le_bytes(*it))
        .collect()
}

pub(super) const PLAIN: &str = r#""resize":"stretch","colors":"RGB""#;

#[test]
fn channels_and_dimensions_are_in_the_order_that_is_asked_for() {
    let bytes = png(4, 4);
    let rgb = pixels(4, 4);
    let (data, _) = pictures(PLAIN, Datatype::Uint8)
        .read(&patient(), &bytes)
        .unwrap();
    assert_eq!(data.shape, [1, 3, 4, 4]);
    let planes: Vec<u8> = (0..3)
        .flat_map(|c| rgb.iter().skip(c).step_by(3).copied())
        .collect();
    assert_eq!(data.elements, planes);
    let last = picture(r#""resize":"stretch","colors":"BGR""#);
    let last = Image {
        layout: spec::Layout::Nhwc,
        ..last
    };
    let last = Pictures::new(&last, &tensor(Datatype::Uint8, &[1, 4, 4, 3]), MEMORY);
    let (data, _) = last.read(&patient(), &bytes).unwrap();
    assert_eq!(data.shape, [1, 4, 4, 3]);
    let turned: Vec<u8> = rgb
        .as_chunks::<3>()
        .0
        .iter()
        .flat_map(|[r, g, b]| [*b, *g, *r])
        .collect();
    assert_eq!(data.elements, turned);
}

#[test]
fn what_is_between_0_and_255_becomes_what_the_model_takes() {
    let bytes = encoded_png(&[0, 128, 255].repeat(16), (4, 4), ExtendedColorType::Rgb8);
    let spec = Image {
        scale: 1.0 / 255.0,
        mean: vec![0.5, 0.25, 0.0],
        std: vec![0.5, 1.0, 2.0],
        ..picture(PLAIN)
    };
    let (data, _) = Pictures::new(&spec, &tensor(Datatype::Fp32, &[]), MEMORY)
        .read(&patient(), &bytes)
        .unwrap();
    let numbers = floats(&data);
    assert_eq!((numbers[0], numbers[32]), (-1.0, 0.5));
    assert!((numbers[16] - (128.0 / 255.0 - 0.25)).abs() < 1e-6);
    let (data, _) = Pictures::new(&spec, &tensor(Datatype::Fp16, &[]), MEMORY)
        .read(&patient(), &bytes)
        .unwrap();
    assert_eq!(data.elements[..2], half::f16::from_f32(-1.0).to_le_bytes());
    let spec = Image {
        mean: vec![128.0],
        ..picture(PLAIN)
    };
    let (data, _) = Pictures::new(&spec, &tensor(Datatype::Int8, &[]), MEMORY)
        .read(&patient(), &bytes)
        .unwrap();
    let signed: Vec<i8> = data
        .elements
        .iter()
        .map(|it| i8::from_le_bytes([*it]))
        .collect();
    assert_eq!((signed[0], signed[16], signed[32]), (-128, 0, 127));
}

#[test]
fn a_picture_is_upright_as_its_exif_says() {
    let upright = |turn: u8| {
        let bytes = jpeg(32, 32, Some(turn));
        let spec = Image {
            width: 2,
            height: 2,
            ..picture(PLAIN)
        };
        let pictures = Pictures::new(&spec, &tensor(Datatype::Uint8, &[]), MEMORY);
        let elements = pictures.read(&patient(), &bytes).unwrap().0.elements;
        // Red grows to the right, green downwards, in the picture as it is stored.
        let (red, green) = (&elements[..4], &elements[4..8]);
        let sign =
            |a: u8, b: u8| (i16::from(b) - i16::from(a)).signum() * i16::from(a.abs_diff(b) > 40);
        (
            (sign(red[0], red[1]), sign(red[0], red[2])),
            (sign(green[0], green[1]), sign(green[0], green[2])),
        )
    };
    // What grows (across, down), of red and of green: by the definition of EXIF's orientation.
    assert_eq!(upright(1), ((1, 0), (0, 1)));
    assert_eq!(upright(2), ((-1, 0), (0, 1)));
    assert_eq!(upright(3), ((-1, 0), (0, -1)));
    assert_eq!(upright(4), ((1, 0), (0, -1)));
    assert_eq!(upright(5), ((0, 1), (1, 0)));
    assert_eq!(upright(6), ((0, 1), (-1, 0)));
    assert_eq!(upright(7), ((0, -1), (-1, 0)));
    assert_eq!(upright(8), ((0, -1), (1, 0)));
}

#[test]
fn the_part_that_is_taken_is_the_same_before_and_after_it_is_turned() {
    for turn in 1..=8 {
        let turn = Orientation::from_exif(turn).unwrap();
        let (width, height) = match frame::lies_on_its_side(turn) {
            true => (40, 100),
            false => (100, 40),
        };
        // The left part of the upright picture, 100 x 40.
        let frame = Frame {
            part: frame::Part {
                left: 0.0,
                top: 0.0,
                width: 30.0,
                height: 40.0,
            },
            ..Frame::none(&Image {
                width: 100,
                height: 40,
                ..picture(PLAIN)
            })
        };
        let part = frame.stored_part(turn);
        let mut stored = image::RgbImage::new(width, height);
        for (x, y, pixel) in stored.enumerate_pixels_mut() {
            let (x, y) = (f64::from(x) + 0.5, f64::from(y) + 0.5);
            let across = x > part.left && x < part.left + part.width;
            let is_inside = across && y > part.top && y < part.top + part.height;
            pixel.0 = [u8::from(is_inside); 3];
        }
        let mut image = image::DynamicImage::from(stored);
        image.apply_orientation(turn);
        for (x, _, pixel) in image.to_rgb8().enumerate_pixels() {
            assert_eq!(pixel.0[0] == 1, x < 30, "{turn:?} at {x}");
        }
    }
}

#[test]
fn each_way_to_resize_takes_its_part_and_the_way_back_finds_it() {
    let of = |more: &str, sides| {
        let spec = picture(more);
        Frame::of(
            &Image {
                width: 200,
                height: 100,
                ..spec
            },
            sides,
        )
    };
    let fit = of(r#""resize":"fit","colors":"RGB""#, (100, 100));
    assert_eq!((fit.size, fit.at), ((100, 100), (50, 0)));
    assert_eq!(fit.back(50.0, 0.0), (0.0, 0.0));
    assert_eq!(fit.back(150.0, 100.0), (100.0, 100.0));
    assert_eq!(
        fit.back(0.0, 50.0),
        (0.0, 50.0),
        "what is in the margin is at the edge"
    );
    let thin = of(r#""resize":"fit","colors":"RGB""#, (60_000, 1));
    assert_eq!(thin.size, (200, 1));
    let fill = of(r#""resize":"fill","colors":"RGB""#, (100, 100));
    assert_eq!(
        (fill.part.top, fill.part.height, fill.part.width),
        (25.0, 50.0, 100.0)
    );
    assert_eq!(fill.back(100.0, 50.0), (50.0, 50.0));
    let crop = of(
        r#""resize":"crop","colors":"RGB","shorterSide":200"#,
        (400, 800),
    );
    assert_eq!((crop.part.left, crop.part.width), (0.0, 400.0));
    assert_eq!((crop.part.top, crop.part.height), (300.0, 200.0));
    let stretch = of(PLAIN, (1000, 50));
    assert_eq!(stretch.back(100.0, 50.0), (500.0, 25.0));
}

#[test]
fn grey_is_around_a_picture_that_has_other_proportions() {
    let bytes = encoded_png(&[7; 2 * 4 * 3], (2, 4), ExtendedColorType::Rgb8);
    let fit = r#""resize":"fit","colors":"GRAY""#;
    let (data, _) = pictures(fit, Datatype::Uint8)
        .read(&patient(), &bytes)
        .unwrap();
    assert_eq!(data.shape, [1, 1, 4, 4]);
    assert_eq!(data.elements, [114, 7, 7, 114].repeat(4));
}

#[test]
fn every_kind_of_png_is_read() {
    for (kind, bytes, wanted) in [
        (ExtendedColorType::L8, vec![9], [9, 9, 9]),
        (ExtendedColorType::La8, vec![9, 1], [9, 9, 9]),
        (ExtendedColorType::Rgba8, vec![1, 2, 3, 0], [1, 2, 3]),
        (ExtendedColorType::L16, vec![9, 8], [8, 8, 8]),
        (ExtendedColorType::Rgb16, vec![0, 1, 0, 2, 0, 3], [1, 2, 3]),
    ] {
        let bytes = encoded_png(&bytes.repeat(16), (4, 4), kind);
        let (data, _) = pictures(PLAIN, Datatype::Uint8)
            .read(&patient(), &bytes)
            .unwrap();
        let planes: Vec<u8> = wanted.iter().flat_map(|it| [*it; 16]).collect();
        assert_eq!(data.elements, planes, "{kind:?}");
    }
}

#[track_caller]
fn refused<T>(read: Result<T, Refusal>, words: &str) {
    let Err(refusal) = read else {
        panic!("it was taken");
    };
    assert_eq!(refusal.status, 400, "{}", refusal.message);
    assert!(refusal.message.contains(words), "{}", refusal.message);
}

#[test]
fn a_picture_that_ends_early_is_refused_wherever_it_ends() {
    let pictures = pictures(PLAIN, Datatype::Fp32);
    let whole = jpeg(64, 48, Some(6));
    pictures.read(&patient(), &whole).unwrap();
    for length in (0..whole.len()).step_by(64).chain([whole.len() - 1]) {
        refused(pictures.read(&patient(), &whole[..length]), "");
    }
    let whole = png(64, 48);
    pictures.read(&patient(), &whole).unwrap();
    // The last twelve bytes are the end chunk, without which all pixels are there.
    for length in (0..whole.len() - 12).step_by(64) {
        refused(pictures.read(&patient(), &whole[..length]), "");
    }
}

#[test]
fn bytes_that_changed_on_the_way_are_refused_or_read_but_never_panic() {
    let pictures = pictures(PLAIN, Datatype::Fp32);
    for whole in [jpeg(32, 24, Some(3)), png(32, 24)] {
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x5a;
            if let Err(refusal) = pictures.read(&patient(), &bytes) {
                assert_eq!(refusal.status, 400);
            }
        }
    }
}

/// A PNG that says these sides, and has nothing of them.
fn claimed(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = png(4, 4);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_picture_that_is_nearly_a_line_is_refused_before_its_rows_are_made() {
    let refuses = |sides: (u32, u32), words: &str| {
        let gray = vec![7; (sides.0 * sides.1) as usize];
        let bytes = encoded_png(&gray, sides, ExtendedColorType::L8);
        refused(
            pictures(PLAIN, Datatype::Uint8).read(&patient(), &bytes),
            words,
        );
    };
    refuses((1, 65_501), "1 x 65501 pixels; a side of at most 65500");
    refuses((65_501, 1), "65501 x 1 pixels; a side of at most 65500");
}

#[test]
fn a_small_file_with_a_hundred_million_pixels_is_refused_before_they_are_made() {
    refused(
        pictures(PLAIN, Datatype::Fp32).read(&patient(), &claimed(10_000, 10_000)),
        "10000 x 10000 pixels",
    );
    let little = Pictures::new(&picture(PLAIN), &tensor(Datatype::Fp32, &[]), 32 * 16);
    little.read(&patient(), &png(4, 4)).unwrap();
    refused(little.read(&patient(), &png(5, 4)), "at most 16 are read");
    let mut bytes = jpeg(16, 16, None);
    let frame = bytes.windows(2).position(|it| it == [0xff, 0xc0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    refused(
        pictures(PLAIN, Datatype::Fp32).read(&patient(), &bytes),
        "65535 x 65535 pixels",
    );
    refused(
        pictures(PLAIN, Datatype::Fp32).read(&patient(), b"GIF89a"),
        "neither JPEG nor PNG",
    );
    refused(
        pictures(PLAIN, Datatype::Fp32).read(&patient(), b""),
        "neither JPEG nor PNG",
    );
}

pub(super) fn sounds(samples: Option<usize>, datatype: Datatype) -> Sounds {
    let spec = spec::Audio {
        tensor: "x".into(),
        sample_rate: 16_000,
        samples,
    };
    Sounds::new(&spec, &tensor(datatype, &[1, 0]), MEMORY)
}

pub(super) fn wav(bits: u16, format: SampleFormat, rate: u32, channels: &[&[f64]]) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    let spec = WavSpec {
        channels: channels.len().try_into().unwrap(),
        sample_rate: rate,
        bits_per_sample: bits,
        sample_format: format,
    };
    let mut writer = WavWriter::new(&mut bytes, spec).unwrap();
    for moment in 0..channels[0].len() {
        for channel in channels {
            #[allow(clippy::cast_possible_truncation)]
            match format {
                SampleFormat::Float => writer.write_sample(channel[moment] as f32).unwrap(),
                SampleFormat::Int => {
                    let whole = f64::from(1_u32 << (bits - 1));
                    writer
                        .write_sample((channel[moment] * whole) as i32)
                        .unwrap();
                }
            }
        }
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

#[test]
fn samples_of_every_kind_become_the_same_numbers() {
    let numbers = [0.5, -0.25, 0.0, -1.0];
    for (bits, format) in [
        (8, SampleFormat::Int),
        (16, SampleFormat::Int),
        (24, SampleFormat::Int),
        (32, SampleFormat::Int),
        (32, SampleFormat::Float),
    ] {
        let bytes = wav(bits, format, 16_000, &[&numbers]);
        let data = sounds(None, Datatype::Fp32)
            .read(&patient(), &bytes)
            .unwrap();
        assert_eq!(data.shape, [1, 4]);
        assert_eq!(floats(&data), [0.5, -0.25, 0.0, -1.0], "{bits} {format:?}");
    }
    let bytes = wav(16, SampleFormat::Int, 16_000, &[&numbers]);
    let data = sounds(None, Datatype::Int16)
        .read(&patient(), &bytes)
        .unwrap();
    let whole: Vec<i16> = data
        .elements
        .as_chunks()
        .0
        .iter()
        .map(|it| i16::from_le_bytes(*it))
        .collect();
    assert_eq!(whole, [16_384, -8_192, 0, -32_768]);
}

#[test]
fn channels_are_mixed_and_the_length_is_the_models() {
    let bytes = wav(16, SampleFormat::Int, 16_000, &[&[0.5, 0.5], &[0.0, -0.5]]);
    assert_eq!(
        floats(
            &sounds(None, Datatype::Fp32)
                .read(&patient(), &bytes)
                .unwrap()
        ),
        [0.25, 0.0]
    );
    assert_eq!(
        floats(
            &sounds(Some(1), Datatype::Fp32)
                .read(&patient(), &bytes)
                .unwrap()
        ),
        [0.25]
    );
    assert_eq!(
        floats(
            &sounds(Some(3), Datatype::Fp32)
                .read(&patient(), &bytes)
                .unwrap()
        ),
        [0.25, 0.0, 0.0]
    );
}

#[test]
fn a_sound_that_is_another_or_lies_about_its_length_is_refused() {
    let bytes = wav(16, SampleFormat::Int, 44_100, &[&[0.0; 8]]);
    refused(
        sounds(None, Datatype::Fp32).read(&patient(), &bytes),
        "44100 samples a second",
    );
    let mut bytes = wav(16, SampleFormat::Int, 16_000, &[&[0.0; 8]]);
    let whole = bytes.len();
    for length in 0..whole {
        refused(
            sounds(None, Datatype::Fp32).read(&patient(), &bytes[..length]),
            "",
        );
    }
    let data = bytes.windows(4).position(|it| it == b"data").unwrap();
    bytes[data + 4..data + 8].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    refused(sounds(None, Datatype::Fp32).read(&patient(), &bytes), "");
    refused(sounds(None, Datatype::Fp32).read(&patient(), b"RIFF"), "");
    let long = wav(8, SampleFormat::Int, 16_000, &[&[0.0; 9]]);
    let spec = spec::Audio {
        tensor: "x".into(),
        sample_rate: 16_000,
        samples: None,
    };
    let little = Sounds::new(&spec, &tensor(Datatype::Fp32, &[0]), 32 * 8);
    refused(little.read(&patient(), &long), "more than 8 samples");
}

pub(super) fn words(most: usize, inputs: &[Tensor], file: &str) -> Result<Texts, Error> {
    let spec = spec::Text {
        max_tokens: most,
        tensors: spec::TextTensors {
            ids: "ids".into(),
            mask: Some("mask".into()),
            types: Some("types".into()),
        },
    };
    Texts::new(&spec, inputs, file.as_bytes())
}

pub(super) fn named(name: &str, datatype: Datatype, length: u64) -> Tensor {
    Tensor {
        name: name.into(),
        ..tensor(datatype, &[1, length])
    }
}

fn whole(data: &Data) -> Vec<i64> {
    match data.datatype {
        Datatype::Int32 => {
            let numbers = data.elements.as_chunks().0.iter();
            numbers.map(|it| i32::from_le_bytes(*it).into()).collect()
        }
        _ => data
            .elements
            .as_chunks()
            .0
            .iter()
            .map(|it| i64::from_le_bytes(*it))
            .collect(),
    }
}

#[test]
fn a_text_becomes_tokens_in_the_models_order_cut_and_padded_to_its_length() {
    let inputs = [
        named("mask", Datatype::Int64, 4),
        named("ids", Datatype::Int32, 4),
        named("types", Datatype::Int64, 4),
    ];
    let texts = words(4, &inputs, WORDS).unwrap();
    let read = texts.read(&patient(), "One TWO".as_bytes()).unwrap();
    assert_eq!(whole(&read[0]), [1, 1, 1, 0]);
    assert_eq!(whole(&read[1]), [1, 2, 3, 0]);
    assert_eq!(whole(&read[2]), [0, 0, 0, 0]);
    let read = texts.read(&patient(), b"one one one one one one").unwrap();
    assert_eq!(
        whole(&read[1]),
        [1, 2, 2, 2],
        "the token that comes first is one of them"
    );
    let free = words(4, &[named("ids", Datatype::Int64, 0)], WORDS).unwrap();
    assert_eq!(free.read(&patient(), b"two").unwrap()[0].shape, [1, 2]);
    assert_eq!(whole(&free.read(&patient(), b"").unwrap()[0]), [1]);
}

#[test]
fn a_megabyte_of_text_nul_bytes_and_no_utf8_are_all_answered() {
    let texts = words(8, &[named("ids", Datatype::Int64, 0)], WORDS).unwrap();
    let long = "one ".repeat(1 << 18);
    assert_eq!(
        texts.read(&patient(), long.as_bytes()).unwrap()[0].shape,
        [1, 8]
    );
    assert_eq!(
        texts
            .read(&patient(), "é".repeat(1 << 19).as_bytes())
            .unwrap()[0]
            .shape,
        [1, 2]
    );
    texts.read(&patient(), &[0; 4096]).unwrap();
    refused(texts.read(&patient(), b"one \xff two"), "not UTF-8");
}

#[test]
fn a_tokenizer_that_is_none_or_leaves_no_room_is_told_when_the_model_loads() {
    let inputs = [named("ids", Datatype::Int64, 0)];
    for (most, file) in [(8, "{}"), (8, "[1"), (1, WORDS)] {
        let Err(error) = words(most, &inputs, file) else {
            panic!("{file} was taken");
        };
        assert_eq!(error.code, "tokenizer_invalid");
    }
}

#[test]
fn what_a_body_is_its_type_of_content_says() {
    let of = |text: &str| medium(Some(&HeaderValue::from_str(text).unwrap()));
    assert_eq!(of("Image/JPEG; q=1").as_deref(), Some("image/jpeg"));
    assert_eq!(of("audio/x-wav").as_deref(), Some("audio/wav"));
    assert_eq!(
        of("text/plain; charset=utf-8").as_deref(),
        Some("text/plain")
    );
    for none in [
        "video/mp4",
        "image/webp",
        "application/pdf",
        "application/jsonl",
        "multipart/form-data",
        "json",
    ] {
        assert_eq!(of(none).as_deref(), Some(none));
    }
    let bytes = HeaderValue::from_bytes(b"image/\xff").unwrap();
    assert!(medium(Some(&bytes)).is_some());
    for tensors in [
        "application/json; charset=utf-8",
        "Application/Octet-Stream",
        "application/vnd.kserve+json",
        "application/x-www-form-urlencoded",
        "",
    ] {
        assert_eq!(of(tensors), None, "{tensors}");
    }
    assert_eq!(medium(None), None);
}
