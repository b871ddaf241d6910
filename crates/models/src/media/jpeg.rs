//! JPEG, decoded so that it stops in time.
//!
//! Owns: the decoder of `image` itself (`zune-jpeg`, with the same options), read by whoever looks at the clock: the one of
//! `image` takes all bytes at once, and nothing stops it then. Must not: believe that all of it came; `picture` sees to that.

use image::error::{DecodingError, ImageFormatHint};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageResult};
use zune_core::bytestream::{ZByteReaderTrait, ZCursor};
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::until::{Until, Watched};

/// A JPEG whose head was read.
pub struct Jpeg<'a> {
    bytes: &'a [u8],
    until: &'a Until,
    sides: (u32, u32),
    /// What its pixels become: as they are, where that is grey or red, green and blue.
    colors: ColorSpace,
    turn: Orientation,
}

fn failed(error: DecodeErrors) -> ImageError {
    let format = ImageFormatHint::Exact(ImageFormat::Jpeg);
    ImageError::Decoding(DecodingError::new(format, error))
}

fn decoder<T: ZByteReaderTrait>(from: T) -> JpegDecoder<T> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    JpegDecoder::new_with_options(from, options)
}

impl<'a> Jpeg<'a> {
    /// Reads its head.
    ///
    /// # Errors
    /// It has none.
    pub fn new(bytes: &'a [u8], until: &'a Until) -> ImageResult<Self> {
        let mut decoder = decoder(ZCursor::new(bytes));
        decoder.decode_headers().map_err(failed)?;
        let none = || failed(DecodeErrors::FormatStatic("it has no sides or colours"));
        let (width, height) = decoder.dimensions().ok_or_else(none)?;
        let side = |it: usize| u32::try_from(it).map_err(|_| none());
        let colors = match decoder.input_colorspace().ok_or_else(none)? {
            ColorSpace::Luma => ColorSpace::Luma,
            _ => ColorSpace::RGB,
        };
        let turn = decoder
            .exif()
            .and_then(|it| Orientation::from_exif_chunk(it));
        Ok(Self {
            bytes,
            until,
            sides: (side(width)?, side(height)?),
            colors,
            turn: turn.unwrap_or(Orientation::NoTransforms),
        })
    }
}

impl ImageDecoder for Jpeg<'_> {
    fn dimensions(&self) -> (u32, u32) {
        self.sides
    }

    fn color_type(&self) -> ColorType {
        match self.colors {
            ColorSpace::Luma => ColorType::L8,
            _ => ColorType::Rgb8,
        }
    }

    fn orientation(&mut self) -> ImageResult<Orientation> {
        Ok(self.turn)
    }

    fn read_image(self, buffer: &mut [u8]) -> ImageResult<()> {
        let mut decoder = decoder(Watched::new(self.bytes, self.until));
        decoder.set_options(decoder.options().jpeg_set_out_colorspace(self.colors));
        decoder.decode_into(buffer).map_err(failed)
    }

    fn read_image_boxed(self: Box<Self>, buffer: &mut [u8]) -> ImageResult<()> {
        (*self).read_image(buffer)
    }
}
