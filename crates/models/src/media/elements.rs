//! From bytes of pixels to elements of a tensor.
//!
//! Owns: a table with what each of the 256 values of a channel becomes, made once for each model, so that scaling,
//! rounding and the element's type cost nothing for each pixel.

use half::f16;

use super::spec::{Colors, Image, Layout};
use crate::config::Datatype;

/// What each value of each channel becomes.
pub struct Table {
    /// Type of the elements.
    pub datatype: Datatype,
    /// Which channel of red, green and blue comes first, second, third, and its 256 elements.
    channels: Vec<(usize, Elements)>,
}

enum Elements {
    One(Vec<[u8; 1]>),
    Two(Vec<[u8; 2]>),
    Four(Vec<[u8; 4]>),
}

impl Table {
    /// The table of a model's input.
    pub fn new(spec: &Image, datatype: Datatype) -> Self {
        let order: &[usize] = match spec.colors {
            Colors::Gray => &[0],
            Colors::Rgb => &[0, 1, 2],
            Colors::Bgr => &[2, 1, 0],
        };
        let of = |values: &[f64], place: usize, usual: f64| {
            let value = values.get(place).or_else(|| values.first());
            value.copied().unwrap_or(usual)
        };
        let channel = |(place, from): (usize, &usize)| {
            let (mean, std) = (of(&spec.mean, place, 0.0), of(&spec.std, place, 1.0));
            let values = (0..=255_u8).map(|it| (f64::from(it) * spec.scale - mean) / std);
            (*from, Elements::of(values, datatype))
        };
        Self {
            datatype,
            channels: order.iter().enumerate().map(channel).collect(),
        }
    }

    /// The elements of pixels with so many channels.
    pub fn elements(&self, pixels: &[u8], channels: usize, layout: Layout) -> Vec<u8> {
        let size = self.datatype.size().unwrap_or(4);
        let mut elements = Vec::with_capacity(pixels.len() * size);
        match layout {
            Layout::Nchw => {
                for (from, table) in &self.channels {
                    let values = pixels.iter().skip(*from).step_by(channels);
                    table.write(values, &mut elements);
                }
            }
            Layout::Nhwc => {
                for pixel in pixels.chunks_exact(channels) {
                    for (from, table) in &self.channels {
                        table.write(pixel.iter().skip(*from).take(1), &mut elements);
                    }
                }
            }
        }
        elements
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what a type cannot say becomes its nearest value"
)]
impl Elements {
    fn of(values: impl Iterator<Item = f64>, datatype: Datatype) -> Self {
        match datatype {
            Datatype::Uint8 => Self::One(values.map(|it| [it.round() as u8]).collect()),
            Datatype::Int8 => {
                Self::One(values.map(|it| (it.round() as i8).to_le_bytes()).collect())
            }
            Datatype::Fp16 => Self::Two(values.map(|it| f16::from_f64(it).to_le_bytes()).collect()),
            _ => Self::Four(values.map(|it| (it as f32).to_le_bytes()).collect()),
        }
    }

    fn write<'a>(&self, values: impl Iterator<Item = &'a u8>, to: &mut Vec<u8>) {
        match self {
            Self::One(table) => to.extend(values.flat_map(|it| look(table, *it))),
            Self::Two(table) => to.extend(values.flat_map(|it| look(table, *it))),
            Self::Four(table) => to.extend(values.flat_map(|it| look(table, *it))),
        }
    }
}

fn look<const N: usize>(table: &[[u8; N]], value: u8) -> [u8; N] {
    table.get(usize::from(value)).copied().unwrap_or([0; N])
}
