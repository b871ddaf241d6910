use super::*;
use crate::snapshot::{Tensor as Declared, Tier, TierOn};

fn tier(inputs: &[&str]) -> Tier {
    Tier {
        name: "regional".to_owned(),
        url: "https://models.example".to_owned(),
        model: "there".to_owned(),
        on: vec![TierOn::Failure],
        inputs: inputs.iter().map(|it| (*it).to_owned()).collect(),
        all_inputs: inputs.is_empty(),
        timeout_millis: 1000,
    }
}

fn model() -> ServedModel {
    let tensor = |name: &str, datatype, shape: &[u64]| Declared {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
    };
    serde_json::from_value::<ServedModel>(json!({
        "name": "here", "version": 1, "blob": "sha256:00", "size": 1, "format": "onnx",
        "task": "tensors", "inputs": [], "outputs": [], "sessions": 1, "threads": 1,
        "limits": {"memoryBytes": 1, "runMillis": 1, "queue": 1, "batch": 1, "streams": 1, "requestBytes": 1},
        "worker": "0000000000000000",
    }))
    .map(|mut model| {
        model.inputs = vec![
            tensor("x", TensorDatatype::FP32, &[0, 2]),
            tensor("secret", TensorDatatype::Bytes, &[1]),
        ];
        model.outputs = vec![
            tensor("y", TensorDatatype::FP32, &[0, 2]),
            tensor("best", TensorDatatype::INT64, &[0]),
        ];
        model
    })
    .unwrap()
}

const ASKED: &str = r#"{"id":"mine","parameters":{"binary_data_output":false,"note":"to nobody"},"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[0.10000000000000001,2],"parameters":{"from":"me"}},{"name":"secret","datatype":"BYTES","shape":[1],"data":["hidden"]}],"outputs":[{"name":"y"}],"extra":"hidden"}"#;

fn sent(tier: &Tier, body: &[u8], length: Option<usize>) -> Result<Message, &'static str> {
    request(tier, &model(), &Question::read(body, length).unwrap())
}

#[test]
fn only_named_inputs_leave_and_nothing_else_of_the_request() {
    let message = sent(&tier(&["x"]), ASKED.as_bytes(), None).unwrap();
    let text = std::str::from_utf8(&message.body).unwrap();
    assert_eq!(
        text,
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[0.10000000000000001,2]}],"outputs":[{"name":"y"}]}"#
    );
    assert_eq!(message.json_length, None);
}

#[test]
fn all_inputs_leave_where_that_is_said() {
    let message = sent(&tier(&[]), ASKED.as_bytes(), None).unwrap();
    let text = std::str::from_utf8(&message.body).unwrap();
    assert!(text.contains(r#""data":["hidden"]"#));
    for word in ["mine", "nobody", "from", "extra"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn of_binary_tensors_only_the_bytes_of_named_ones_leave() {
    let json = r#"{"inputs":[{"name":"secret","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}},{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}"#;
    let body = [json.as_bytes(), &[1, 0, 0, 0, 7], &[9; 8]].concat();
    let message = sent(&tier(&["x"]), &body, Some(json.len())).unwrap();
    let (head, rest) = message.body.split_at(message.json_length.unwrap());
    assert_eq!(rest, [9; 8]);
    let head: serde_json::Value = serde_json::from_slice(head).unwrap();
    assert_eq!(head["parameters"]["binary_data_output"], true);
    assert_eq!(head["inputs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_request_without_what_was_to_leave_or_with_more_than_is_known_stays() {
    let one =
        |name: &str| format!(r#"{{"name":"{name}","datatype":"FP32","shape":[1,2],"data":[1,2]}}"#);
    for inputs in [
        one("secret"),
        format!("{},{}", one("x"), one("z")),
        format!("{},{}", one("x"), one("x")),
        String::new(),
    ] {
        let body = format!(r#"{{"inputs":[{inputs}]}}"#);
        let stays = sent(&tier(&["x"]), body.as_bytes(), None);
        assert_eq!(stays, Err(INPUTS_DIFFER), "{inputs}");
    }
    let body = format!(r#"{{"inputs":[{}]}}"#, one("x"));
    assert!(sent(&tier(&["x"]), body.as_bytes(), None).is_ok());
    let both = tier(&["secret", "x"]);
    assert_eq!(sent(&both, body.as_bytes(), None), Err(INPUTS_DIFFER));
}

const Y: &str = r#"{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.5,1]}"#;
const BEST: &str = r#"{"name":"best","datatype":"INT64","shape":[1],"data":[1]}"#;

fn believed(question: &str, outputs: &str) -> Result<Message, &'static str> {
    believed_of("there", question, outputs)
}

fn believed_of(name: &str, question: &str, outputs: &str) -> Result<Message, &'static str> {
    let question = Question::read(question.as_bytes(), None).unwrap();
    let said = format!(
        r#"{{"model_name":"{name}","model_version":"4","id":"theirs","outputs":[{outputs}],"more":1}}"#
    );
    let said = Answer::read(said.as_bytes(), None).ok_or(INVALID)?;
    answer(&tier(&[]), &model(), &question, &said)
}

#[test]
fn an_answer_is_written_anew_under_the_name_it_has_here() {
    let message = believed(r#"{"id":"mine","inputs":[]}"#, &format!("{Y},{BEST}")).unwrap();
    let text = std::str::from_utf8(&message.body).unwrap();
    let wanted = format!(
        r#"{{"model_name":"here","model_version":"4","id":"mine","outputs":[{Y},{BEST}]}}"#
    );
    assert_eq!(text, wanted);
}

#[test]
fn an_answer_that_lies_is_not_believed() {
    let all = r#"{"inputs":[]}"#;
    let other = |from: &str, to: &str| format!("{},{BEST}", Y.replace(from, to));
    for outputs in [
        Y.to_owned(),
        format!("{Y},{BEST},{BEST}"),
        format!("{Y},{BEST},{}", Y.replace("\"y\"", "\"z\"")),
        other("\"y\"", "\"Y\""),
        other("FP32", "FP64"),
        other("FP32", "fp32"),
        other("[1,2]", "[1,3]"),
        other("[1,2]", "[2]"),
        other("[1,2]", "[2,1]"),
        other("[1,2]", "[2,2]"),
        other("[1,2]", "[18446744073709551615,2]"),
        other("[0.5,1]", "[0.5]"),
        other("[0.5,1]", "[0.5,\"1\"]"),
        other("[0.5,1]", "[0.5,1e39]"),
        other("[0.5,1]", "[0.5,NaN]"),
        other("[0.5,1]", "[0.5,null]"),
    ] {
        assert_eq!(believed(all, &outputs), Err(INVALID), "{outputs}");
    }
    assert!(believed(all, &format!("{Y},{BEST}")).is_ok());
    let both = format!("{Y},{BEST}");
    assert_eq!(believed_of("other", all, &both), Err(INVALID));
}

#[test]
fn an_answer_has_what_was_asked_for_and_no_more() {
    let one = r#"{"inputs":[],"outputs":[{"name":"best"}]}"#;
    assert!(believed(one, BEST).is_ok());
    assert_eq!(believed(one, &format!("{Y},{BEST}")), Err(INVALID));
    assert_eq!(believed(one, Y), Err(INVALID));
}

#[test]
fn bytes_that_were_not_asked_for_are_not_believed_and_neither_is_infinity() {
    let json = r#"{"model_name":"there","outputs":[{"name":"best","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}]}"#;
    let body = [json.as_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    let said = Answer::read(&body, Some(json.len())).unwrap();
    let asked = |is_binary: bool| {
        format!(
            r#"{{"inputs":[],"outputs":[{{"name":"best","parameters":{{"binary_data":{is_binary}}}}}]}}"#
        )
    };
    let (yes, no) = (asked(true), asked(false));
    let read = |text: &str| {
        let question = Question::read(text.as_bytes(), None).unwrap();
        answer(&tier(&[]), &model(), &question, &said)
    };
    assert_eq!(read(&no), Err(INVALID));
    assert_eq!(
        read(&yes).unwrap().body.last_chunk(),
        Some(&[1, 0, 0, 0, 0, 0, 0, 0])
    );

    let json = json
        .replace("best", "y")
        .replace("INT64", "FP32")
        .replace("[1]", "[1,2]");
    let infinite = [1f32.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat();
    let body = [json.as_bytes(), &infinite].concat();
    let said = Answer::read(&body, Some(json.len())).unwrap();
    let yes = yes.replace("best", "y");
    let question = Question::read(yes.as_bytes(), None).unwrap();
    assert_eq!(answer(&tier(&[]), &model(), &question, &said), Err(INVALID));
}

#[test]
fn how_sure_an_answer_is_is_its_greatest_element() {
    let said = format!(r#"{{"model_name":"m","outputs":[{Y},{BEST}]}}"#);
    let said = Answer::read(said.as_bytes(), None).unwrap();
    assert_eq!(greatest(&said, "y"), Some(1.0));
    assert_eq!(greatest(&said, "z"), None);
    let empty =
        r#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[0,2],"data":[]}]}"#;
    let said = Answer::read(empty.as_bytes(), None).unwrap();
    assert_eq!(greatest(&said, "y"), Some(f64::NEG_INFINITY));
}

#[test]
fn a_picture_leaves_as_it_came_and_only_where_all_inputs_do() {
    let picture = [0xff, 0xd8, 0xff, 0x00];
    let question = Question::of_medium(&picture, None).unwrap();
    let message = request(&tier(&[]), &model(), &question).unwrap();
    assert_eq!(
        (&message.body[..], message.json_length),
        (&picture[..], None)
    );
    assert_eq!(
        request(&tier(&["x"]), &model(), &question),
        Err(INPUTS_DIFFER)
    );

    let head = r#"{"id":"mine","outputs":[{"name":"y"}],"note":"hidden"}"#;
    let body = [head.as_bytes(), &picture].concat();
    let question = Question::of_medium(&body, Some(head.len())).unwrap();
    let message = request(&tier(&[]), &model(), &question).unwrap();
    let (json, rest) = message.body.split_at(message.json_length.unwrap());
    assert_eq!(json, br#"{"outputs":[{"name":"y"}]}"#);
    assert_eq!(rest, picture);
}

#[test]
fn what_is_read_of_outputs_is_believed_as_it_is_declared() {
    let mut model = model();
    model.output = serde_json::from_value(json!({
        "type": "Labels", "tensor": "y", "names": [], "softmax": true, "top": 5,
    }))
    .unwrap();
    let label = r#"{"name":"label","datatype":"BYTES","shape":[1,2],"data":["a","b"]}"#;
    let score = r#"{"name":"score","datatype":"FP32","shape":[1,2],"data":[0.9,0.1]}"#;
    let read = |question: &Question<'_>, outputs: &str| {
        let said = format!(r#"{{"model_name":"there","outputs":[{outputs}]}}"#);
        let said = Answer::read(said.as_bytes(), None).unwrap();
        answer(&tier(&[]), &model, question, &said).is_ok()
    };
    let picture = Question::of_medium(b"picture", None).unwrap();
    assert!(read(&picture, &format!("{label},{score}")));
    assert!(!read(&picture, &format!("{Y},{BEST}")));
    let asked = Question::read(br#"{"inputs":[],"outputs":[{"name":"score"}]}"#, None).unwrap();
    assert!(read(&asked, score));
    let wrong = score.replace("[1,2]", "[2]");
    assert!(!read(&asked, &wrong));
}

fn rows_believed(question: &str, rows: u64, change: impl Fn(&mut ServedModel)) -> bool {
    let mut model = model();
    change(&mut model);
    let question = Question::read(question.as_bytes(), None).unwrap();
    let elements = |each: u64| vec!["1"; usize::try_from(each).unwrap()].join(",");
    let said = format!(
        r#"{{"model_name":"there","outputs":[{{"name":"y","datatype":"FP32","shape":[{rows},2],"data":[{}]}},{{"name":"best","datatype":"INT64","shape":[{rows}],"data":[{}]}}]}}"#,
        elements(2 * rows),
        elements(rows),
    );
    let said = Answer::read(said.as_bytes(), None).unwrap();
    answer(&tier(&[]), &model, &question, &said).is_ok()
}

#[test]
fn an_answer_has_as_many_rows_as_were_asked() {
    const TWO: &str =
        r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]}]}"#;
    let as_it_is = |_: &mut ServedModel| {};
    assert!(rows_believed(TWO, 2, as_it_is));
    for rows in [0, 1, 3] {
        assert!(!rows_believed(TWO, rows, as_it_is), "{rows}");
    }
    // Where the first dimension does not count what is asked together, nothing follows from it.
    for rows in [1, 2, 3] {
        assert!(rows_believed(TWO, rows, |it| it.inputs[0].shape = vec![2, 2]));
        assert!(rows_believed(TWO, rows, |it| it.inputs[0].shape = vec![2, 0]));
    }
    let both = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[1,2,3,4]},{"name":"secret","datatype":"BYTES","shape":[3],"data":["a","b","c"]}]}"#;
    let free = |it: &mut ServedModel| it.inputs[1].shape = vec![0];
    for rows in [1, 2, 3] {
        assert!(rows_believed(both, rows, free), "they do not share it");
    }
}
