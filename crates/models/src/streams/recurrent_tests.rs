use std::sync::Mutex;
use std::sync::mpsc;

use serde_json::json;

use super::*;
use crate::pool::Terms;
use crate::queue::Criticality;
use crate::runtime::{RunError, Session, Stop};

/// Adds the sum of its event to what it remembers, which is its score; each run when it is let. An event that begins with
/// 100 fails, one with 200 gives back a memory of another shape, one with 300 gives one that is no number.
struct Adder(mpsc::Receiver<()>, Arc<Mutex<Vec<Vec<f32>>>>);

struct Never;

impl Stop for Never {
    fn stop(&self) {}
    fn clear(&self) {}
}

fn floats(data: &Data) -> Vec<f32> {
    let all = data.elements.as_chunks().0.iter();
    all.map(|it| f32::from_le_bytes(*it)).collect()
}

fn one(number: f32, shape: &[i64]) -> Data {
    Data {
        datatype: Datatype::Fp32,
        shape: shape.into(),
        elements: Bytes::copy_from_slice(&number.to_le_bytes()),
    }
}

impl Session for Adder {
    fn run(&mut self, inputs: &[Data], outputs: &[usize]) -> Result<Vec<Data>, RunError> {
        self.0.recv().unwrap();
        let [rate, event, memory] = inputs else {
            return Err(RunError::Failed("three inputs".into()));
        };
        assert_eq!(rate.elements, 16_000_i64.to_le_bytes().as_slice());
        assert_eq!(outputs, [1, 0]);
        let event = floats(event);
        self.1.lock().unwrap().push(event.clone());
        let sum = floats(memory)[0] + event.iter().sum::<f32>();
        let (memory, shape) = match event[1] {
            100.0 => return Err(RunError::Failed("no".into())),
            200.0 => (sum, [1, 1].as_slice()),
            300.0 => (f32::NAN, [1].as_slice()),
            _ => (sum, [1].as_slice()),
        };
        Ok(vec![one(sum, &[1]), one(memory, shape)])
    }

    fn stop(&self) -> Arc<dyn Stop> {
        Arc::new(Never)
    }

    fn ports(&self) -> (Vec<Tensor>, Vec<Tensor>) {
        (vec![], vec![])
    }
}

fn model() -> Served {
    let tensor = |name: &str, datatype: &str, shape: &[u64]| json!({"name": name, "datatype": datatype, "shape": shape});
    serde_json::from_value(json!({
        "name": "m", "version": 1, "format": "onnx", "sessions": 1, "threads": 1,
        "inputs": [tensor("rate", "INT64", &[]), tensor("x", "FP32", &[0, 0]), tensor("memory", "FP32", &[1])],
        "outputs": [tensor("next", "FP32", &[1]), tensor("y", "FP32", &[1])],
        "limits": {"memoryBytes": 1 << 30, "runMillis": 60_000, "queue": 4, "requestBytes": 1024},
        "stream": {
            "tensor": "x", "shape": [1, 3], "context": 1, "score": "y", "threshold": 6.0,
            "state": [{"input": "memory", "output": "next", "shape": [1]}],
            "constants": [{"input": "rate", "value": 16000.0}],
        },
    }))
    .unwrap()
}

struct Bench {
    model: Recurrent,
    pool: Arc<Pool>,
    run: mpsc::Sender<()>,
    seen: Arc<Mutex<Vec<Vec<f32>>>>,
}

fn bench() -> Bench {
    let served = model();
    let (run, runs) = mpsc::channel();
    let seen = Arc::default();
    let session = Box::new(Adder(runs, Arc::clone(&seen)));
    let pool = Pool::start(vec![session], Terms::of(&served)).unwrap();
    let declared = served.stream.clone().unwrap();
    Bench {
        model: Recurrent::new(&served, &declared, Arc::clone(&pool)).unwrap(),
        pool,
        run,
        seen,
    }
}

fn bytes(event: [f32; 2]) -> Vec<u8> {
    event.iter().flat_map(|it| it.to_le_bytes()).collect()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

#[test]
fn each_run_takes_what_the_one_before_gave_and_the_end_of_its_event() {
    let bench = bench();
    let (mut one, mut other) = (bench.model.begin(), bench.model.begin());
    let ask = |state: &mut State, event| {
        bench.run.send(()).unwrap();
        wait(bench.model.observe(state, &bytes(event))).unwrap()
    };
    assert_eq!(ask(&mut one, [1.0, 2.0]), (3.0, false));
    assert_eq!(ask(&mut other, [10.0, 20.0]), (30.0, true));
    assert_eq!(ask(&mut one, [0.5, 0.5]), (6.0, true));
    assert_eq!(
        *bench.seen.lock().unwrap(),
        [[0.0, 1.0, 2.0], [0.0, 10.0, 20.0], [2.0, 0.5, 0.5]]
    );
}

#[test]
fn a_run_that_gives_nothing_sound_changes_nothing() {
    let bench = bench();
    let mut state = bench.model.begin();
    let mut ask = |event| {
        bench.run.send(()).unwrap();
        wait(bench.model.observe(&mut state, &bytes(event)))
    };
    assert_eq!(ask([1.0, 2.0]).unwrap().0, 3.0);
    for (event, words) in [
        (100.0, "no"),
        (200.0, "has the shape [1, 1]"),
        (300.0, "no number"),
    ] {
        let said = ask([event, 0.0]).unwrap_err().message;
        assert!(said.contains(words), "{event}: {said}");
    }
    assert_eq!(ask([0.0, 0.0]).unwrap().0, 5.0);
}

#[test]
fn streams_take_turns_and_leave_room_for_requests() {
    let bench = bench();
    let mut states: Vec<_> = (0..10).map(|_| bench.model.begin()).collect();
    let event = bytes([1.0, 0.0]);
    wait(async {
        let runs = states.iter_mut().map(|it| bench.model.observe(it, &event));
        let runs = futures_util::future::join_all(runs);
        let (all, room) = tokio::join!(runs, async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            // One runs or waits for the thread to take it, and one waits behind it.
            let waiting = bench.pool.lock().waiting.len();
            let room = bench.pool.require_room(Criticality::Standard).is_ok();
            for _ in 0..10 {
                bench.run.send(()).unwrap();
            }
            (waiting, room)
        });
        assert!(all.iter().all(|it| it.as_ref().is_ok_and(|it| it.0 == 1.0)));
        assert!(room.0 <= 2 && room.1, "{room:?}");
    });
}

#[test]
fn an_event_has_as_many_finite_numbers_as_is_said() {
    let bench = bench();
    let event = bench.model.event();
    assert_eq!(event.require(&bytes([1.0, -0.0])), Ok(()));
    for (bytes, words) in [
        (vec![], "2 elements of FP32, 8 bytes"),
        (vec![0; 7], "2 elements of FP32, 8 bytes"),
        (vec![0; 12], "2 elements of FP32, 8 bytes"),
        (bytes([f32::NAN, 0.0]), "finite"),
        (bytes([0.0, f32::INFINITY]), "finite"),
    ] {
        let said = event.require(&bytes).unwrap_err();
        assert!(said.contains(words), "{bytes:?}: {said}");
    }
}

#[test]
fn a_constant_is_each_element_of_its_type() {
    for (datatype, value, wanted) in [
        ("UINT8", 200.0, vec![200, 200]),
        ("INT16", -2.0, vec![254, 255, 254, 255]),
        ("FP32", 0.5, [0, 0, 0, 63].repeat(2)),
        ("INT64", 8000.0, [64, 31, 0, 0, 0, 0, 0, 0].repeat(2)),
    ] {
        let datatype = Datatype::named(datatype).unwrap();
        let tensor = Tensor {
            name: "c".into(),
            datatype,
            shape: vec![0, 2],
        };
        let data = constant(&tensor, value).unwrap();
        assert_eq!((data.shape, &*data.elements), (vec![1, 2], &*wanted));
    }
}

#[test]
fn what_does_not_fit_the_model_is_refused_when_it_is_loaded() {
    let pool = Pool::start(vec![], Terms::of(&model())).unwrap();
    let refused = |change: &dyn Fn(&mut Declared)| {
        let served = model();
        let mut declared = served.stream.clone().unwrap();
        change(&mut declared);
        let made = Recurrent::new(&served, &declared, Arc::clone(&pool));
        made.err().unwrap().code
    };
    assert_eq!(refused(&|it| it.constants.clear()), "config_invalid");
    assert_eq!(refused(&|it| it.score = "z".into()), "config_invalid");
    assert_eq!(refused(&|it| it.context = 3), "config_invalid");
    assert_eq!(refused(&|it| it.shape = vec![1, 1 << 40]), "config_invalid");
}
