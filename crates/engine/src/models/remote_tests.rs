use super::*;
use crate::load::EngineDir;
use crate::models::compile;

fn model() -> std::sync::Arc<Served> {
    let remote = serde_json::from_value(json!({
        "name": "far", "task": "tensors", "requestBytes": 1024,
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [0, 2]},
            {"name": "is", "datatype": "BOOL", "shape": [1]},
        ],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [0]}],
    }));
    let dir = EngineDir::new("/nowhere", "key");
    let models = compile((vec![], vec![remote.unwrap()]), &dir, None).unwrap();
    std::sync::Arc::clone(&models["far"])
}

#[test]
fn it_is_what_was_declared_and_has_no_version() {
    let model = model();
    assert!(model.process.is_none());
    assert_eq!(model.release(), None);
    assert_eq!(model.version.number, 0);
    assert_eq!(
        metadata(&model),
        json!({
            "name": "far", "versions": [], "platform": "vedette_tiers",
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
                {"name": "is", "datatype": "BOOL", "shape": [1]},
            ],
            "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
        })
    );
}

const X: &str = r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}"#;
const IS: &str = r#"{"name":"is","datatype":"BOOL","shape":[1],"data":[true]}"#;

fn judged(inputs: &str, outputs: &str) -> Result<(), String> {
    let body = format!(r#"{{"inputs":[{inputs}],"outputs":[{outputs}]}}"#);
    let question = Question::read(body.as_bytes(), None).unwrap();
    require_fitting(&model().declared, &question)
}

#[test]
fn what_does_not_fit_is_told_before_anybody_is_asked() {
    assert_eq!(judged(&format!("{X},{IS}"), ""), Ok(()));
    assert_eq!(judged(&format!("{IS},{X}"), r#"{"name":"y"}"#), Ok(()));
    let with = |from: &str, to: &str| format!("{},{IS}", X.replace(from, to));
    for (inputs, outputs, wanted) in [
        (X.to_owned(), "", "the input \"is\" is missing"),
        (format!("{X},{X},{IS}"), "", "is there twice"),
        (with("\"x\"", "\"z\""), "", "no input \"z\""),
        (with("FP32", "FP64"), "", "another datatype"),
        (with("FP32", "fp32"), "", "another datatype"),
        (with("[1,2],\"data", "[1,3],\"data"), "", "another shape"),
        (with("[1,2],\"data", "[2],\"data"), "", "another shape"),
        (with("[1,2],\"data", "[2,2],\"data"), "", "not the elements"),
        (
            with("\"data\":[1,2]", "\"data\":[1,\"2\"]"),
            "",
            "not the elements",
        ),
        (format!("{X},{IS}"), r#"{"name":"z"}"#, "no output \"z\""),
    ] {
        let said = judged(&inputs, outputs).unwrap_err();
        assert!(said.contains(wanted), "{inputs}: {said}");
    }
    let long = with("\"x\"", &format!("\"{}\"", "z".repeat(5000)));
    assert!(judged(&long, "").unwrap_err().len() < 120);
}

#[test]
fn a_picture_is_not_looked_into() {
    let picture = Question::of_medium(b"picture", None).unwrap();
    assert_eq!(require_fitting(&model().declared, &picture), Ok(()));
}
