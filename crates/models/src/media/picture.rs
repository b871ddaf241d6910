//! Pictures: JPEG and PNG to a tensor.
//!
//! Owns: what is believed of a picture before its pixels are made. Its sides are read and bounded first. It is turned
//! upright as its EXIF says. A channel of opacity is left out, as Pillow's `convert("RGB")` does; grey is that of ITU-R
//! BT.601. It is resized bilinearly over all that goes into a pixel (antialiased), as Pillow does and torchvision with
//! `antialias=True`.
//!
//! It stops in time: between two looks at the clock are a few kilobytes of the file, a million pixels of what is done with
//! each, or one of what is done with all at once: the pixels of a progressive JPEG are made of its coefficients, and a
//! picture is resized. With the most pixels that is some tenths of a second.
//!
//! Must not: go on with what ends early, though decoders would: half a picture is not what was sent.

use bytes::Bytes;
use fast_image_resize::images::{Image as Pixels, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::PngDecoder;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GrayImage, ImageDecoder, ImageError, Limits, RgbImage};

use super::elements::Table;
use super::frame::{Frame, lies_on_its_side};
use super::jpeg::Jpeg;
use super::spec::{Colors, Image, Layout};
use super::until::{Until, Watched};
use crate::config::Tensor;
use crate::oip::Refusal;
use crate::runtime::Data;

/// What a decoder may take for what stands beside pixels: profiles, texts.
const BESIDE: u64 = 16 << 20;
/// Pixels of a picture, whatever memory there is.
const MOST_PIXELS: u64 = 64 << 20;
/// Pixels of a side, as of most decoders of JPEG: each row of a picture that is narrow and high is as wide as the tensor on
/// the way, so that it would cost a hundred times its own pixels.
const MOST_OF_A_SIDE: u32 = 65_500;
/// Bytes of memory for each pixel: those of a progressive JPEG while it is decoded are nine, and a model needs some too.
const BYTES_OF_A_PIXEL: u64 = 32;
/// Bytes of pixels between two looks at the clock; whole pixels, of any kind.
const PIECE: usize = 3 << 20;

/// What turns pictures into a tensor.
pub struct Pictures {
    spec: Image,
    shape: Vec<i64>,
    table: Table,
    most_pixels: u64,
}

fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::bad(format_args!("the picture cannot be read: {error}"))
}

impl Pictures {
    /// For a tensor; `memory`: bytes for each picture that is decoded at once.
    pub fn new(spec: &Image, tensor: &Tensor, memory: u64) -> Self {
        let channels = i64::from(channels(spec.colors));
        let (height, width) = (i64::from(spec.height), i64::from(spec.width));
        let shape = match spec.layout {
            Layout::Nchw => vec![1, channels, height, width],
            Layout::Nhwc => vec![1, height, width, channels],
        };
        Self {
            table: Table::new(spec, tensor.datatype),
            shape,
            most_pixels: (memory / BYTES_OF_A_PIXEL).min(MOST_PIXELS),
            spec: spec.clone(),
        }
    }

    /// A picture as a tensor, and where in it the picture is.
    ///
    /// # Errors
    /// 400: it is none, too large, or broken. 504: it is not read by then.
    pub fn read(&self, until: &Until, bytes: &[u8]) -> Result<(Data, Frame), Refusal> {
        let limits = || {
            let mut limits = Limits::no_limits();
            limits.max_alloc = Some(BESIDE);
            limits
        };
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            require_end(bytes)?;
            let decoder = Jpeg::new(bytes, until);
            return self.decoded(until, decoder.map_err(unreadable)?);
        }
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            let decoder = PngDecoder::with_limits(Watched::new(bytes, until), limits());
            until.check()?;
            return self.decoded(until, decoder.map_err(unreadable)?);
        }
        Err(Refusal::bad(
            "the picture is neither JPEG nor PNG by its first bytes",
        ))
    }

    fn decoded(
        &self,
        until: &Until,
        mut decoder: impl ImageDecoder,
    ) -> Result<(Data, Frame), Refusal> {
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels > self.most_pixels {
            return Err(Refusal::bad(format_args!(
                "the picture has {width} x {height} pixels; at most {} are read (by limits.memoryBytes and sessions)",
                self.most_pixels
            )));
        }
        if width.max(height) > MOST_OF_A_SIDE {
            return Err(Refusal::bad(format_args!(
                "the picture has {width} x {height} pixels; a side of at most {MOST_OF_A_SIDE} is read"
            )));
        }
        let turn = decoder.orientation().map_err(unreadable)?;
        let colors = decoder.color_type();
        let buffer = pixels_of(decoder, until);
        // A decoder that was stopped tells it as it tells any other end, or not at all.
        until.check()?;
        let buffer = buffer.map_err(|error| match error {
            Some(error) => unreadable(error),
            None => no_memory(),
        })?;
        let gray = self.spec.colors == Colors::Gray;
        let buffer = plain(until, buffer, colors, gray)?;
        let sides = match lies_on_its_side(turn) {
            true => (height, width),
            false => (width, height),
        };
        let frame = Frame::of(&self.spec, sides);
        let small = resized(&buffer, (width, height), &frame, turn, gray)?;
        drop(buffer);
        until.check()?;
        Ok((self.tensor(&small, &frame), frame))
    }

    /// Puts the part that was taken into the tensor, with grey around it.
    fn tensor(&self, part: &[u8], frame: &Frame) -> Data {
        let channels = usize::from(channels(self.spec.colors));
        let (width, height) = (self.spec.width as usize, self.spec.height as usize);
        let mut canvas = vec![];
        let mut pixels = part;
        if frame.size != frame.tensor {
            canvas.resize(width * height * channels, self.spec.pad);
            let rows = part.chunks_exact(frame.size.0 as usize * channels);
            let free = canvas.chunks_exact_mut(width * channels);
            let before = frame.at.0 as usize * channels;
            for (row, line) in rows.zip(free.skip(frame.at.1 as usize)) {
                if let Some(place) = line.get_mut(before..before + row.len()) {
                    place.copy_from_slice(row);
                }
            }
            pixels = &canvas;
        }
        Data {
            datatype: self.table.datatype,
            shape: self.shape.clone(),
            elements: Bytes::from(self.table.elements(pixels, channels, self.spec.layout)),
        }
    }
}

fn channels(colors: Colors) -> u8 {
    match colors {
        Colors::Gray => 1,
        Colors::Rgb | Colors::Bgr => 3,
    }
}

fn no_memory() -> Refusal {
    Refusal {
        retry_after: Some(1),
        ..Refusal::new(503, "there is no memory for the picture")
    }
}

/// Its pixels as they are stored; `None`: there is no memory.
fn pixels_of(decoder: impl ImageDecoder, until: &Until) -> Result<Vec<u8>, Option<ImageError>> {
    let size = usize::try_from(decoder.total_bytes()).map_err(|_| None)?;
    let mut buffer = vec![];
    buffer.try_reserve_exact(size).map_err(|_| None)?;
    while buffer.len() < size && !until.is_over() {
        buffer.resize(size.min(buffer.len() + PIECE), 0);
    }
    if buffer.len() == size {
        decoder.read_image(&mut buffer)?;
    }
    Ok(buffer)
}

/// A JPEG must come to its end marker (ITU-T T.81, B.1.1.3): what the decoder makes of the rest is its guess.
fn require_end(bytes: &[u8]) -> Result<(), Refusal> {
    const START_OF_SCAN: u8 = 0xda;
    let cut = || unreadable("it ends early");
    let mut at = 2;
    loop {
        match bytes.get(at..at + 4).ok_or_else(cut)? {
            [0xff, 0xff, ..] => at += 1, // fill bytes
            [0xff, START_OF_SCAN, ..] => break,
            [0xff, _, high, low] => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => return Err(unreadable("it has no markers where they should be")),
        }
    }
    let scans = bytes.get(at..).unwrap_or_default();
    match scans.windows(2).any(|it| it == [0xff, 0xd9]) {
        true => Ok(()),
        false => Err(cut()),
    }
}

/// Red, green and blue, or how bright it is, one byte each.
fn plain(
    until: &Until,
    buffer: Vec<u8>,
    colors: ColorType,
    gray: bool,
) -> Result<Vec<u8>, Refusal> {
    let narrow = match colors {
        // The high byte of each: elements are in this machine's order, which is little-endian.
        ColorType::L16 | ColorType::La16 | ColorType::Rgb16 | ColorType::Rgba16 => {
            each::<2, 1>(until, &buffer, |[_, high]| [high])?
        }
        _ => buffer,
    };
    match (colors, gray) {
        (ColorType::L8 | ColorType::L16, true) | (ColorType::Rgb8 | ColorType::Rgb16, false) => {
            Ok(narrow)
        }
        (ColorType::L8 | ColorType::L16, false) => each::<1, 3>(until, &narrow, |[l]| [l; 3]),
        (ColorType::La8 | ColorType::La16, true) => each::<2, 1>(until, &narrow, |[l, _]| [l]),
        (ColorType::La8 | ColorType::La16, false) => each::<2, 3>(until, &narrow, |[l, _]| [l; 3]),
        (ColorType::Rgb8 | ColorType::Rgb16, true) => {
            each::<3, 1>(until, &narrow, |it| [bright(it)])
        }
        (ColorType::Rgba8 | ColorType::Rgba16, true) => {
            each::<4, 1>(until, &narrow, |[r, g, b, _]| [bright([r, g, b])])
        }
        (ColorType::Rgba8 | ColorType::Rgba16, false) => {
            each::<4, 3>(until, &narrow, |[r, g, b, _]| [r, g, b])
        }
        _ => Err(unreadable("its colours are of a kind that is not read")),
    }
}

fn each<const N: usize, const M: usize>(
    until: &Until,
    from: &[u8],
    to: impl Fn([u8; N]) -> [u8; M],
) -> Result<Vec<u8>, Refusal> {
    let mut made = Vec::with_capacity(from.len() / N * M);
    for piece in from.chunks(PIECE / 3 * N) {
        until.check()?;
        made.extend(piece.as_chunks().0.iter().flat_map(|it| to(*it)));
    }
    Ok(made)
}

/// As Pillow's `convert("L")`: ITU-R BT.601, in 16 bits.
fn bright([r, g, b]: [u8; 3]) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000;
    u8::try_from(sum >> 16).unwrap_or(u8::MAX)
}

/// The part of a picture that is taken, upright, at its size in the tensor.
fn resized(
    buffer: &[u8],
    (width, height): (u32, u32),
    frame: &Frame,
    turn: Orientation,
    gray: bool,
) -> Result<Vec<u8>, Refusal> {
    let kind = match gray {
        true => PixelType::U8,
        false => PixelType::U8x3,
    };
    let (wide, high) = match lies_on_its_side(turn) {
        true => (frame.size.1, frame.size.0),
        false => frame.size,
    };
    let source = ImageRef::new(width, height, buffer, kind).map_err(unreadable)?;
    let mut small = Pixels::new(wide, high, kind);
    let part = frame.stored_part(turn);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(part.left, part.top, part.width, part.height);
    let done = Resizer::new().resize(&source, &mut small, &options);
    done.map_err(|error| Refusal::new(500, format_args!("the picture was not resized: {error}")))?;
    let small = small.into_vec();
    if turn == Orientation::NoTransforms {
        return Ok(small);
    }
    let lost = || Refusal::new(500, "the picture was not turned");
    let mut image = match gray {
        true => DynamicImage::from(GrayImage::from_raw(wide, high, small).ok_or_else(lost)?),
        false => DynamicImage::from(RgbImage::from_raw(wide, high, small).ok_or_else(lost)?),
    };
    image.apply_orientation(turn);
    Ok(image.into_bytes())
}
