//! How bytes that are no tensors become the inputs of a model: the parts of `vedette.config.served_media` that a worker uses.

use serde::Deserialize;

/// What a model takes beside tensors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type")]
pub enum Input {
    /// Pictures.
    Image(Image),
    /// Sounds.
    Audio(Audio),
    /// Texts.
    Text(Text),
}

/// How a picture becomes a tensor.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The input.
    pub tensor: String,
    /// Columns of the tensor.
    pub width: u32,
    /// Rows of the tensor.
    pub height: u32,
    /// How it gets those sides.
    pub resize: Resize,
    /// For [`Resize::Crop`], in pixels.
    pub shorter_side: Option<u32>,
    /// Order of the dimensions.
    pub layout: Layout,
    /// Order of the channels.
    pub colors: Colors,
    /// What 0 to 255 is multiplied by.
    pub scale: f64,
    /// Then taken away, by channel; one: of all.
    pub mean: Vec<f64>,
    /// Then divided by, by channel; one: of all.
    pub std: Vec<f64>,
    /// The grey around a picture.
    pub pad: u8,
}

/// How a picture gets the sides of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// All of it, whatever becomes of its proportions.
    Stretch,
    /// All of it, in the middle.
    Fit,
    /// Its middle.
    Fill,
    /// The middle of it at another size.
    Crop,
}

/// Order of the dimensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Layout {
    /// One channel after the other.
    Nchw,
    /// One pixel after the other.
    Nhwc,
}

/// Order of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Colors {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
    /// How bright it is.
    Gray,
}

/// How a sound becomes a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Audio {
    /// The input.
    pub tensor: String,
    /// Samples a second.
    pub sample_rate: u32,
    /// Samples of the tensor; `None`: as many as there are.
    pub samples: Option<usize>,
}

/// How a text becomes tensors.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Text {
    /// Further tokens are cut off.
    pub max_tokens: usize,
    /// The inputs.
    pub tensors: TextTensors,
}

/// The inputs that a text becomes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TextTensors {
    /// Tokens.
    pub ids: String,
    /// 1 for a token, 0 for padding.
    pub mask: Option<String>,
    /// Which of two texts a token is of.
    pub types: Option<String>,
}
