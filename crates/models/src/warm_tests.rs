use std::sync::Condvar;

use super::*;
use crate::config::Tensor;
use crate::runtime::{RunError, Stop};

/// Notes what it was run with; one that is slow runs until it is told to stop.
struct Noting {
    runs: Arc<Mutex<Vec<Vec<Data>>>>,
    is_slow: bool,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told(Mutex<bool>, Condvar);

impl Stop for Told {
    fn stop(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn clear(&self) {}
}

impl Session for Noting {
    fn run(&mut self, inputs: &[Data], outputs: &[usize]) -> Result<Vec<Data>, RunError> {
        assert_eq!(outputs, [0]);
        self.runs.lock().unwrap().push(inputs.to_vec());
        if self.is_slow {
            let told = self.told.0.lock().unwrap();
            drop(self.told.1.wait_while(told, |it| !*it).unwrap());
        }
        Err(RunError::Unfit("zeros".into()))
    }

    fn stop(&self) -> Arc<dyn Stop> {
        Arc::clone(&self.told) as Arc<dyn Stop>
    }

    fn ports(&self) -> (Vec<Tensor>, Vec<Tensor>) {
        (vec![], vec![])
    }
}

fn model(shape: &str, datatype: &str) -> Served {
    let tensor = |name: &str, shape: &str, datatype: &str| {
        format!(r#"{{"name": "{name}", "datatype": "{datatype}", "shape": {shape}}}"#)
    };
    let text = format!(
        r#"{{"name": "m", "version": 1, "format": "onnx", "inputs": [{}], "outputs": [{}],
            "sessions": 2, "threads": 1, "limits": {{"memoryBytes": 1000000, "runMillis": 1000,
            "requestBytes": 1000, "queue": 1, "batch": 1, "streams": 1}}}}"#,
        tensor("x", shape, datatype),
        tensor("y", "[1]", "FP32")
    );
    crate::config::parse(&text).unwrap()
}

/// What each of two sessions was run with.
fn ran(model: &Served, is_slow: bool) -> Vec<Vec<Data>> {
    let runs = Arc::new(Mutex::new(vec![]));
    let session = || -> Box<dyn Session> {
        Box::new(Noting {
            runs: Arc::clone(&runs),
            is_slow,
            told: Arc::default(),
        })
    };
    warm_up(model, &mut [session(), session()]).unwrap();
    runs.lock().unwrap().drain(..).collect()
}

#[test]
fn each_session_runs_one_row_of_zeros() {
    for shape in ["[1, 3, 2]", "[0, 3, 2]"] {
        let runs = ran(&model(shape, "FP32"), false);
        assert_eq!(runs.len(), 2);
        for run in runs {
            assert_eq!(run.len(), 1);
            assert_eq!(run.first().unwrap().shape, [1, 3, 2]);
            assert_eq!(run.first().unwrap().elements, [0; 24].as_slice());
        }
    }
}

#[test]
fn a_shape_that_nobody_can_know_is_not_tried() {
    assert!(ran(&model("[1, 0]", "FP32"), false).is_empty());
    assert!(ran(&model("[1]", "BYTES"), false).is_empty());
    assert!(ran(&model("[1, 4294967296, 4294967296]", "FP64"), false).is_empty());
    assert!(ran(&model("[100000000]", "FP32"), false).is_empty());
}

#[test]
fn a_model_that_takes_long_is_stopped_and_the_rest_is_left() {
    assert_eq!(ran(&model("[1]", "FP32"), true).len(), 1);
}
