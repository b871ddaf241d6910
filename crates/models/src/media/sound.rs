//! Sounds: WAV to a tensor.
//!
//! Owns: what is believed of a sound (RIFF WAVE with whole numbers of 8 to 32 bits, or 32-bit floats), and the mean of
//! its channels. Must not: change its rate; that is for whoever sends it.

use bytes::Bytes;
use half::f16;
use hound::{SampleFormat, WavReader};

use super::spec::Audio;
use super::until::{Until, Watched};
use crate::config::{Datatype, Tensor};
use crate::oip::Refusal;
use crate::runtime::Data;

/// Channels of a sound.
const MOST_CHANNELS: u16 = 64;
/// Bytes of memory for each sample of a sound.
const BYTES_OF_A_SAMPLE: u64 = 32;
/// Room that is made before samples are there.
const ROOM_AT_FIRST: usize = 1 << 20;

/// What turns sounds into a tensor.
pub struct Sounds {
    spec: Audio,
    datatype: Datatype,
    rank: usize,
    most: usize,
}

fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::bad(format_args!("the sound cannot be read: {error}"))
}

impl Sounds {
    /// For a tensor; `memory`: bytes for each sound that is read at once.
    pub fn new(spec: &Audio, tensor: &Tensor, memory: u64) -> Self {
        Self {
            spec: spec.clone(),
            datatype: tensor.datatype,
            rank: tensor.shape.len().max(1),
            most: usize::try_from(memory / BYTES_OF_A_SAMPLE).unwrap_or(usize::MAX),
        }
    }

    /// A sound as a tensor.
    ///
    /// # Errors
    /// 400: it is none, has another rate, is too long, or broken. 504: it is not read by then.
    pub fn read(&self, until: &Until, bytes: &[u8]) -> Result<Data, Refusal> {
        let read = self.samples(until, bytes);
        // A reader that was stopped tells it as any other end.
        until.check()?;
        let mut samples = read?;
        match self.spec.samples {
            Some(length) => samples.resize(length, 0.0),
            None if samples.len() > self.most => {
                let message = format_args!("the sound has more than {} samples", self.most);
                return Err(Refusal::bad(message));
            }
            None if samples.is_empty() => return Err(unreadable("there is nothing in it")),
            None => {}
        }
        Ok(self.tensor(&samples))
    }

    /// As many of its samples as are wanted, and one more where any number is.
    fn samples(&self, until: &Until, bytes: &[u8]) -> Result<Vec<f32>, Refusal> {
        let reader = WavReader::new(Watched::new(bytes, until)).map_err(unreadable)?;
        let spec = reader.spec();
        if spec.sample_rate != self.spec.sample_rate {
            return Err(Refusal::bad(format_args!(
                "the sound has {} samples a second, and the model takes {}; resample it",
                spec.sample_rate, self.spec.sample_rate
            )));
        }
        if spec.channels == 0 || spec.channels > MOST_CHANNELS {
            return Err(unreadable(format_args!(
                "it has {} channels",
                spec.channels
            )));
        }
        let wanted = self.spec.samples.unwrap_or(self.most.saturating_add(1));
        let channels = usize::from(spec.channels);
        match (spec.sample_format, spec.bits_per_sample) {
            (SampleFormat::Float, 32) => {
                let numbers = reader.into_samples::<f32>().map(|it| it.map(f64::from));
                mixed(numbers, channels, wanted)
            }
            (SampleFormat::Int, bits @ 1..=32) => {
                let whole = f64::from(1_u32 << (bits - 1).min(31));
                let numbers = reader.into_samples::<i32>();
                let numbers = numbers.map(|it| it.map(|it| f64::from(it) / whole));
                mixed(numbers, channels, wanted)
            }
            (_, bits) => Err(unreadable(format_args!("it has samples of {bits} bits"))),
        }
    }

    fn tensor(&self, samples: &[f32]) -> Data {
        let elements: Vec<u8> = match self.datatype {
            Datatype::Int16 => samples.iter().flat_map(|it| whole(*it)).collect(),
            Datatype::Fp16 => {
                let numbers = samples.iter().map(|it| f16::from_f32(*it));
                numbers.flat_map(f16::to_le_bytes).collect()
            }
            _ => samples.iter().flat_map(|it| it.to_le_bytes()).collect(),
        };
        let mut shape = vec![1; self.rank];
        if let Some(last) = shape.last_mut() {
            *last = i64::try_from(samples.len()).unwrap_or(i64::MAX);
        }
        Data {
            datatype: self.datatype,
            shape,
            elements: Bytes::from(elements),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "it is clamped")]
fn whole(sample: f32) -> [u8; 2] {
    let scaled = (f64::from(sample) * 32_768.0).round();
    (scaled.clamp(-32_768.0, 32_767.0) as i16).to_le_bytes()
}

/// The mean of the channels, of at most so many moments.
#[allow(
    clippy::cast_possible_truncation,
    reason = "samples are between -1 and 1"
)]
fn mixed(
    mut numbers: impl Iterator<Item = hound::Result<f64>>,
    channels: usize,
    most: usize,
) -> Result<Vec<f32>, Refusal> {
    let share = f64::from(u32::try_from(channels).unwrap_or(u32::MAX));
    let mut samples = Vec::with_capacity(most.min(ROOM_AT_FIRST));
    while samples.len() < most {
        let (mut sum, mut seen) = (0.0, 0);
        for number in numbers.by_ref().take(channels) {
            sum += number.map_err(unreadable)?;
            seen += 1;
        }
        match seen {
            0 => break,
            seen if seen == channels => samples.push((sum / share) as f32),
            _ => return Err(unreadable("it ends within a moment")),
        }
    }
    Ok(samples)
}
