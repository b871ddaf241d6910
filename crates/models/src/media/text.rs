//! Texts: UTF-8 to tokens, by the tokenizer's own file.
//!
//! Owns: how long a text may be, and how tokens are laid out for a model of one length or of any. The file is that of
//! Hugging Face's `tokenizers`; its own truncation and padding are replaced by what the model needs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use tokenizers::{Encoding, Tokenizer, TruncationParams};

use super::spec::Text;
use super::until::Until;
use crate::config::{Datatype, Tensor};
use crate::error::Error;
use crate::oip::Refusal;
use crate::runtime::Data;

/// Bytes of a text that are looked at for each token that counts: what comes after is cut off unseen. Words of natural
/// languages have fewer.
const BYTES_OF_A_TOKEN: usize = 64;
/// Bytes that are looked at in any case.
const LEAST_BYTES: usize = 4096;

/// What turns texts into tensors.
pub struct Texts {
    tokenizer: Tokenizer,
    most_bytes: usize,
    /// Tokens of each tensor, if the model takes one length only.
    length: Option<usize>,
    padding: u32,
    /// In the order of the model.
    inputs: Vec<(Kind, Datatype)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Ids,
    Mask,
    Types,
}

fn invalid(error: impl std::fmt::Display) -> Error {
    Error::new("tokenizer_invalid", format_args!("the tokenizer: {error}"))
}

impl Texts {
    /// Reads the tokenizer's file.
    ///
    /// # Errors
    /// `tokenizer_invalid`.
    pub fn new(spec: &Text, inputs: &[Tensor], file: &[u8]) -> Result<Self, Error> {
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut tokenizer = Tokenizer::from_bytes(file).map_err(invalid)?;
            let padding = tokenizer.get_padding().map_or(0, |it| it.pad_id);
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(invalid)?;
            let own = tokenizer.encode("", true).map_err(invalid)?.len();
            if own >= spec.max_tokens {
                let message =
                    format_args!("it adds {own} tokens, and maxTokens is {}", spec.max_tokens);
                return Err(invalid(message));
            }
            let most = TruncationParams {
                max_length: spec.max_tokens,
                ..TruncationParams::default()
            };
            tokenizer.with_truncation(Some(most)).map_err(invalid)?;
            Ok((tokenizer, padding))
        }));
        let (tokenizer, padding) =
            read.unwrap_or_else(|_| Err(invalid("it cannot be used with this length")))?;
        let names = &spec.tensors;
        let kind = |tensor: &Tensor| {
            let name = Some(&tensor.name);
            let kind = match name {
                _ if name == Some(&names.ids) => Kind::Ids,
                _ if name == names.mask.as_ref() => Kind::Mask,
                _ => Kind::Types,
            };
            (kind, tensor.datatype)
        };
        let lengths = inputs.iter().filter_map(|it| it.shape.get(1));
        let length = lengths.copied().find(|it| *it > 0);
        Ok(Self {
            tokenizer,
            most_bytes: spec
                .max_tokens
                .saturating_mul(BYTES_OF_A_TOKEN)
                .max(LEAST_BYTES),
            length: length.and_then(|it| usize::try_from(it).ok()),
            padding,
            inputs: inputs.iter().map(kind).collect(),
        })
    }

    /// A text as tensors, in the model's order.
    ///
    /// # Errors
    /// 400: it is no UTF-8. 504: it is not read by then; what becomes tokens is short enough to be looked at in one go.
    pub fn read(&self, until: &Until, bytes: &[u8]) -> Result<Vec<Data>, Refusal> {
        until.check()?;
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Refusal::bad(format_args!("the text is not UTF-8: {error}")))?;
        let text = text
            .get(..text.floor_char_boundary(self.most_bytes))
            .unwrap_or(text);
        let encoding = self.tokenizer.encode(text, true);
        until.check()?;
        let encoding = encoding
            .map_err(|error| Refusal::bad(format_args!("the text has no tokens: {error}")))?;
        let inputs = self.inputs.iter();
        Ok(inputs
            .map(|(kind, datatype)| self.tensor(&encoding, *kind, *datatype))
            .collect())
    }

    fn tensor(&self, encoding: &Encoding, kind: Kind, datatype: Datatype) -> Data {
        let (numbers, padding) = match kind {
            Kind::Ids => (encoding.get_ids(), self.padding),
            Kind::Mask => (encoding.get_attention_mask(), 0),
            Kind::Types => (encoding.get_type_ids(), 0),
        };
        let length = self.length.unwrap_or(numbers.len());
        let padded = numbers
            .iter()
            .copied()
            .chain(std::iter::repeat(padding))
            .take(length);
        let elements: Vec<u8> = match datatype {
            Datatype::Int32 => padded.flat_map(u32::to_le_bytes).collect(),
            _ => padded.flat_map(|it| i64::from(it).to_le_bytes()).collect(),
        };
        Data {
            datatype,
            shape: vec![1, i64::try_from(length).unwrap_or(i64::MAX)],
            elements: Bytes::from(elements),
        }
    }
}
