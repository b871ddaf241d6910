//! Bodies for the fuzz target `media`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::config::{Datatype, Tensor};

/// A tokenizer of three words.
pub const WORDS: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
    "normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Whitespace"},
    "post_processor":{"type":"TemplateProcessing",
        "single":[{"SpecialToken":{"id":"[C]","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
        "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
        "special_tokens":{"[C]":{"id":"[C]","ids":[1],"tokens":["[C]"]}}},
    "decoder":null,
    "model":{"type":"WordLevel","vocab":{"?":0,"[C]":1,"one":2,"two":3},"unk_token":"?"}}"#;

const PICTURE: &str = r#"{"tensor":"x","width":9,"height":7,"layout":"NCHW","scale":0.1,"mean":[1.0],"std":[2.0],
    "pad":114,"shorterSide":11,"#;
/// Memory for a picture: 65,536 pixels.
const MEMORY: u64 = 2 << 20;

/// Longer than anything takes.
pub(super) fn patient() -> Until {
    Until::new(std::time::Instant::now() + std::time::Duration::from_secs(3600))
}

/// Reads a body as what `kind` says.
///
/// # Errors
/// What a caller is told.
pub fn read(kind: u8, body: &[u8]) -> Result<Vec<Data>, Refusal> {
    let tensor = |shape: &[u64]| Tensor {
        name: "x".into(),
        datatype: match kind / 16 {
            0 | 1 => Datatype::Fp32,
            _ => Datatype::Fp16,
        },
        shape: shape.to_vec(),
    };
    match kind % 4 {
        0 | 1 => {
            let way = ["stretch", "fit", "fill", "crop"][usize::from(kind / 4 % 4)];
            let colors = ["RGB", "GRAY"][usize::from(kind % 4)];
            let spec = format!(r#"{PICTURE}"resize":"{way}","colors":"{colors}"}}"#);
            let spec = serde_json::from_str(&spec).unwrap();
            let (data, frame) =
                Pictures::new(&spec, &tensor(&[1, 3, 7, 9]), MEMORY).read(&patient(), body)?;
            let (x, y) = frame.back(4.0, 3.0);
            assert!(x <= f64::from(frame.picture.0) && y <= f64::from(frame.picture.1));
            Ok(vec![data])
        }
        2 => {
            let spec = spec::Audio {
                tensor: "x".into(),
                sample_rate: 16_000,
                samples: (kind >= 128).then_some(100),
            };
            Ok(vec![
                Sounds::new(&spec, &tensor(&[1, 0]), MEMORY).read(&patient(), body)?,
            ])
        }
        _ => {
            let spec = spec::Text {
                max_tokens: 16,
                tensors: spec::TextTensors {
                    ids: "x".into(),
                    mask: None,
                    types: None,
                },
            };
            let tensor = Tensor {
                datatype: Datatype::Int64,
                ..tensor(&[1, 0])
            };
            let texts = Texts::new(&spec, &[tensor], WORDS.as_bytes()).unwrap();
            texts.read(&patient(), body)
        }
    }
}
