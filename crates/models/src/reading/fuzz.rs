//! Outputs for the fuzz target `media`: whatever came in, taken for what a model gave.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::media::spec::Image;

const READ: [&str; 4] = [
    r#"{"type":"Labels","tensor":"y","names":["a"],"softmax":true,"top":3}"#,
    r#"{"type":"Embedding","tensor":"y","pool":"mean","mask":null,"normalize":true}"#,
    r#"{"type":"Boxes","names":[],"score":0.1,"overlap":0.5,"top":9,"decode":{"type":"Rows","tensor":"y",
        "transposed":false,"coordinates":"cxcywh","relative":false,"objectness":true,"sigmoid":true}}"#,
    r#"{"type":"Boxes","names":[],"score":0.1,"overlap":0.5,"top":9,"decode":{"type":"Grid","sigmoid":true,
        "heads":[{"stride":4,"scores":"y","distances":"y"}]}}"#,
];

/// Reads what `kind` says of it in several shapes.
pub fn read(kind: u8, given: &[Data]) {
    let spec = READ[usize::from(kind / 4 % 4)];
    let model = format!(
        r#"{{"name":"m","version":1,"format":"onnx","sessions":1,"threads":1,"inputs":[],"output":{spec},
        "outputs":[{{"name":"y","datatype":"FP32","shape":[]}}],
        "limits":{{"memoryBytes":1,"runMillis":1,"queue":1,"requestBytes":1}}}}"#
    );
    let model: Served = serde_json::from_str(&model).unwrap();
    let reader = Reader::new(&model, None).unwrap().unwrap();
    let image = r#"{"tensor":"x","width":9,"height":7,"resize":"fit","layout":"NCHW","colors":"RGB","scale":1.0,
        "mean":[0.0],"std":[1.0],"pad":0}"#;
    let image: Image = serde_json::from_str(image).unwrap();
    let context = Context {
        frame: Some(Frame::of(&image, (100, 50))),
        mask: None,
    };
    for data in given {
        let count = data.shape.iter().product::<i64>();
        for shape in [
            vec![count],
            vec![1, count],
            vec![1, 1, count],
            vec![1, count / 7, 7],
        ] {
            let whole = shape.iter().product::<i64>();
            let length = usize::try_from(whole).unwrap_or(0) * data.datatype.size().unwrap_or(4);
            let as_one = Data {
                shape,
                elements: data.elements.slice(..length.min(data.elements.len())),
                ..data.clone()
            };
            let sources = vec![as_one; reader.sources.len()];
            let Ok(read) = reader.read(&sources, &context) else {
                continue;
            };
            let tensors = model
                .output
                .as_ref()
                .map(Output::tensors)
                .unwrap_or_default();
            assert_eq!(read.len(), tensors.len());
            for (data, tensor) in read.iter().zip(tensors) {
                assert_eq!(
                    (data.datatype, data.shape.len()),
                    (tensor.datatype, tensor.shape.len())
                );
            }
        }
    }
}
