#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::cast_precision_loss
)]

use std::sync::{Arc, mpsc};

use super::*;
use crate::pool::{Pool, Waiting};
use crate::queue::{Criticality, Ran};
use crate::runtime::{RunError, Session, Stop};

const TYPES: [Datatype; 13] = [
    Datatype::Bool,
    Datatype::Uint8,
    Datatype::Uint16,
    Datatype::Uint32,
    Datatype::Uint64,
    Datatype::Int8,
    Datatype::Int16,
    Datatype::Int32,
    Datatype::Int64,
    Datatype::Fp16,
    Datatype::Fp32,
    Datatype::Fp64,
    Datatype::Bytes,
];

fn data(random: &mut fastrand::Rng, datatype: Datatype, rows: usize, rest: &[i64]) -> Data {
    let mut shape = vec![i64::try_from(rows).unwrap()];
    shape.extend(rest);
    let count = elements::count(&shape).unwrap();
    let text = |random: &mut fastrand::Rng| {
        let length = random.usize(0..5);
        let bytes = (0..length).map(|_| random.u8(..)).collect::<Vec<_>>();
        let before = u32::try_from(length).unwrap().to_le_bytes();
        [before.to_vec(), bytes].concat()
    };
    let elements: Vec<u8> = if let Some(size) = datatype.size() {
        (0..count * size).map(|_| random.u8(..)).collect()
    } else {
        (0..count).flat_map(|_| text(random)).collect()
    };
    Data {
        datatype,
        shape,
        elements: elements.into(),
    }
}

fn ask(inputs: Vec<Data>, outputs: Vec<usize>, tenant: &'static [u8]) -> Ask {
    Ask {
        inputs,
        outputs,
        deadline: None,
        tenant: (!tenant.is_empty()).then(|| Bytes::from_static(tenant)),
        criticality: Criticality::Standard,
    }
}

#[test]
fn what_is_joined_is_split_again_exactly_whatever_its_type_and_shape() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3_000 {
        let count = random.usize(1..5);
        let kinds: Vec<(Datatype, Vec<i64>)> = (0..random.usize(1..4))
            .map(|_| {
                let datatype = TYPES[random.usize(..TYPES.len())];
                let rest = (0..random.usize(0..3)).map(|_| random.i64(0..4));
                (datatype, rest.collect())
            })
            .collect();
        let asks: Vec<Ask> = (0..count)
            .map(|_| {
                let rows = random.usize(1..5);
                let inputs = kinds
                    .iter()
                    .map(|(datatype, rest)| data(&mut random, *datatype, rows, rest));
                ask(inputs.collect(), vec![0], b"a")
            })
            .collect();
        let is_trial = random.bool();
        let joined = join(&asks.iter().collect::<Vec<_>>(), is_trial).unwrap();
        assert_eq!(joined.rows.len(), count + usize::from(is_trial));
        for input in &joined.inputs {
            let total: usize = joined.rows.iter().sum();
            assert_eq!(rows(std::slice::from_ref(input)), Some(total));
        }
        let parts = split(joined.inputs, &joined.rows).unwrap();
        for (ask, part) in asks.iter().zip(&parts) {
            assert_eq!(&ask.inputs, part);
        }
    }
}

#[test]
fn an_output_that_has_other_rows_than_went_in_is_not_split() {
    let mut random = fastrand::Rng::with_seed(7);
    for rows in [1, 4, 6] {
        let output = data(&mut random, Datatype::Fp32, rows, &[2]);
        assert!(split(vec![output], &[2, 3]).is_none());
    }
    let scalar = Data {
        shape: vec![],
        ..data(&mut random, Datatype::Fp32, 1, &[])
    };
    assert!(split(vec![scalar], &[1]).is_none());
}

#[test]
fn equal_is_bit_for_bit_but_for_the_last_places_of_real_numbers() {
    let of = |numbers: [f32; 2]| {
        let elements = numbers.iter().flat_map(|it| it.to_le_bytes());
        vec![Data {
            datatype: Datatype::Fp32,
            shape: vec![2],
            elements: elements.collect::<Vec<_>>().into(),
        }]
    };
    assert!(is_same(&of([1.0, 1e-9]), &of([1.000_01, 2e-9])));
    assert!(!is_same(&of([1.0, 0.0]), &of([1.001, 0.0])));
    assert!(is_same(
        &of([f32::NAN, f32::INFINITY]),
        &of([f32::NAN, f32::INFINITY])
    ));
    assert!(!is_same(&of([1.0, f32::INFINITY]), &of([1.0, 2.0])));
    assert_eq!(half(0x3c00), 1.0);
    assert_eq!(half(0xc000), -2.0);
    assert_eq!(half(0x0001), 2_f64.powi(-24));
}

/// What the model of a test does with rows of FP32 [n, 2] and BYTES [n].
#[derive(Clone, Copy, PartialEq)]
enum Model {
    /// Gives them back, the second first.
    Rows,
    /// Takes the mean of all rows from each.
    Mean,
    /// Fails when there is a row that begins with 13.
    Superstitious,
    /// Is told to stop when there are several rows.
    Slow,
}

struct Simulated {
    model: Model,
    /// A run begins when it has one of these; at once when nobody is left to send one.
    gate: mpsc::Receiver<()>,
}

struct NoStop;

impl Stop for NoStop {
    fn stop(&self) {}
    fn clear(&self) {}
}

impl Session for Simulated {
    fn run(&mut self, inputs: &[Data], outputs: &[usize]) -> Result<Vec<Data>, RunError> {
        let _ = self.gate.recv();
        compute(self.model, inputs, outputs)
    }

    fn stop(&self) -> Arc<dyn Stop> {
        Arc::new(NoStop)
    }

    fn ports(&self) -> (Vec<crate::config::Tensor>, Vec<crate::config::Tensor>) {
        (vec![], vec![])
    }
}

fn compute(model: Model, inputs: &[Data], outputs: &[usize]) -> Result<Vec<Data>, RunError> {
    let mut inputs = inputs.to_vec();
    let numbers = super::numbers(&inputs[0]);
    match model {
        Model::Superstitious if numbers.iter().step_by(2).any(|it| *it == 13.0) => {
            return Err(RunError::Failed("no".into()));
        }
        Model::Slow if numbers.len() > 2 => return Err(RunError::Stopped),
        Model::Mean => {
            let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
            #[allow(clippy::cast_possible_truncation)]
            let elements = numbers
                .iter()
                .flat_map(|it| ((it - mean) as f32).to_le_bytes());
            inputs[0].elements = elements.collect::<Vec<_>>().into();
        }
        _ => {}
    }
    Ok(outputs.iter().map(|it| inputs[*it].clone()).collect())
}

/// A pool of one session, the first run of which waits until the gate is opened (dropped).
fn pool(model: Model, batch: usize) -> (Arc<Pool>, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel();
    let terms = Terms {
        queue: 1_000,
        run_time: Duration::from_secs(3600),
        batch,
        leaves_open: true,
        here: Duration::ZERO,
        is_one_core: false,
    };
    let session = Box::new(Simulated { model, gate });
    (Pool::start(vec![session], terms).unwrap(), open)
}

fn one(number: f32, text: &str) -> Vec<Data> {
    let text = [
        u32::try_from(text.len()).unwrap().to_le_bytes().as_slice(),
        text.as_bytes(),
    ]
    .concat();
    vec![
        Data {
            datatype: Datatype::Fp32,
            shape: vec![1, 2],
            elements: [number, number + 0.5]
                .iter()
                .flat_map(|it| it.to_le_bytes())
                .collect::<Vec<_>>()
                .into(),
        },
        Data {
            datatype: Datatype::Bytes,
            shape: vec![1],
            elements: text.into(),
        },
    ]
}

/// Has the pool find that running together pays, up to eight rows: less than any run could take.
fn teach(pool: &Pool, is_proved: bool) {
    let rest = key(&one(0.0, ""), Some(0));
    let mut state = pool.lock();
    for (rows, nanos) in [(1, 1_000_000), (2, 2), (4, 1), (8, 0)] {
        for _ in 0..4 {
            state.paces.learn(rest, rows, Duration::from_nanos(nanos));
        }
    }
    for _ in 0..2 * usize::from(is_proved) {
        state.paces.judge(rest, crate::pace::Verdict::Proved);
    }
}

fn over(mut waiting: Waiting<'_>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(waiting.outcome()).unwrap()
}

fn ran(waiting: Waiting<'_>) -> Ran {
    over(waiting).unwrap_or_else(|it| panic!("{}", it.message))
}

/// Has something run, so that what comes then waits.
fn occupy(pool: &Pool) -> Waiting<'_> {
    let waiting = pool.submit(ask(one(0.0, "first"), vec![0], b"")).unwrap();
    while pool.lock().running.iter().all(Option::is_none) {
        std::thread::yield_now();
    }
    waiting
}

#[test]
fn what_waits_for_one_tenant_runs_together_and_each_gets_its_own_rows() {
    let (pool, open) = pool(Model::Rows, 8);
    teach(&pool, true);
    let first = occupy(&pool);
    let texts = ["a", "", "ccc", "dd"];
    let waiting: Vec<_> = texts
        .iter()
        .map(|it| pool.submit(ask(one(1.0, it), vec![1, 0], b"a")).unwrap())
        .collect();
    drop(open);
    ran(first);
    for (text, waiting) in texts.iter().zip(waiting) {
        let ran = ran(waiting);
        let [numbers, texts] = one(1.0, text).try_into().unwrap();
        assert_eq!(ran.outputs, [texts, numbers]);
        assert_eq!(ran.together, 4);
    }
}

#[test]
fn others_tenants_outputs_and_shapes_are_not_in_it_nor_more_than_may_be() {
    let (pool, open) = pool(Model::Rows, 3);
    teach(&pool, true);
    let first = occupy(&pool);
    let wide = |mut inputs: Vec<Data>| {
        inputs[0].shape = vec![1, 1, 2];
        inputs
    };
    let asks = [
        (ask(one(1.0, "a"), vec![0], b"a"), 3),
        (ask(one(2.0, "a"), vec![0], b"b"), 2),
        (ask(one(3.0, "a"), vec![0], b""), 1),
        (ask(one(4.0, "a"), vec![1], b"a"), 1),
        (ask(wide(one(5.0, "a")), vec![0], b"a"), 1),
        (ask(one(6.0, "a"), vec![0], b"a"), 3),
        (ask(one(7.0, "a"), vec![0], b"b"), 2),
        (ask(one(8.0, "a"), vec![0], b""), 1),
        (ask(one(9.0, "a"), vec![0], b"a"), 3),
        (ask(one(10.0, "a"), vec![0], b"a"), 1),
    ];
    let waiting: Vec<_> = asks
        .into_iter()
        .map(|(ask, together)| {
            let expected = compute(Model::Rows, &ask.inputs, &ask.outputs).unwrap();
            (pool.submit(ask).unwrap(), expected, together)
        })
        .collect();
    drop(open);
    ran(first);
    for (place, (waiting, expected, together)) in waiting.into_iter().enumerate() {
        let ran = ran(waiting);
        assert_eq!(ran.outputs, expected);
        assert_eq!(ran.together, together, "the one at {place}");
    }
}

#[test]
fn one_bad_row_spoils_nobody_elses_answer() {
    let (pool, open) = pool(Model::Superstitious, 8);
    teach(&pool, true);
    let first = occupy(&pool);
    let numbers = [11.0, 12.0, 13.0, 14.0];
    let waiting: Vec<_> = numbers
        .iter()
        .map(|it| pool.submit(ask(one(*it, "x"), vec![0], b"a")).unwrap())
        .collect();
    drop(open);
    ran(first);
    for (number, waiting) in numbers.into_iter().zip(waiting) {
        match over(waiting) {
            Ok(ran) => assert_eq!(ran.outputs, one(number, "x")[..1]),
            Err(refusal) => assert_eq!((refusal.status, number), (400, 13.0)),
        }
    }
}

#[test]
fn a_run_of_several_that_is_stopped_is_run_again_one_by_one() {
    let (pool, open) = pool(Model::Slow, 8);
    teach(&pool, true);
    let first = occupy(&pool);
    let waiting: Vec<_> = (1_u8..5)
        .map(|it| {
            pool.submit(ask(one(it.into(), "x"), vec![0], b"a"))
                .unwrap()
        })
        .collect();
    drop(open);
    ran(first);
    for (number, waiting) in (1_u8..5).zip(waiting) {
        let ran = ran(waiting);
        assert_eq!(ran.outputs, one(number.into(), "x")[..1]);
        assert_eq!(ran.together, 1);
    }
}

#[test]
fn a_model_that_looks_across_rows_answers_each_as_if_alone_and_is_found_out() {
    for same in [false, true] {
        let (pool, open) = pool(Model::Mean, 8);
        teach(&pool, false);
        let first = occupy(&pool);
        let number = |it: u8| if same { 5.0 } else { f32::from(it) };
        let waiting: Vec<_> = (0..6)
            .map(|it| {
                let inputs = one(number(it), "x");
                let expected = compute(Model::Mean, &inputs, &[0]).unwrap();
                (pool.submit(ask(inputs, vec![0], b"a")).unwrap(), expected)
            })
            .collect();
        drop(open);
        ran(first);
        for (waiting, expected) in waiting {
            let ran = ran(waiting);
            assert_eq!(ran.outputs, expected);
            assert_eq!(ran.together, 1);
        }
        // What it was is noted when all have been answered.
        let rest = key(&one(0.0, ""), Some(0));
        let until = Instant::now() + Duration::from_secs(120);
        while pool.lock().paces.most_rows(rest, 1) > 1 {
            assert!(Instant::now() < until, "it was not found out");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_model_of_rows_is_found_out_too_and_then_runs_them_together() {
    let (pool, open) = pool(Model::Rows, 2);
    teach(&pool, false);
    let first = occupy(&pool);
    let waiting: Vec<_> = (0_u8..6)
        .map(|it| {
            pool.submit(ask(one(it.into(), "x"), vec![0], b"a"))
                .unwrap()
        })
        .collect();
    drop(open);
    ran(first);
    let together: Vec<_> = waiting.into_iter().map(|it| ran(it).together).collect();
    assert_eq!(together, [1, 1, 1, 1, 2, 2]);
}

#[test]
fn nobody_is_made_to_miss_a_deadline_by_those_that_run_with_it_or_pass_it_by() {
    let minutes = |it: u64| Duration::from_secs(60 * it);
    // Each takes a minute alone; two together take two, three three.
    let deadlines = |soon: [Option<u64>; 4], others: [&'static [u8]; 4]| {
        let (pool, open) = pool(Model::Rows, 8);
        teach(&pool, true);
        for rows in 1..=4 {
            let shapes = key(&one(0.0, ""), Some(rows));
            pool.lock()
                .estimates
                .learn(shapes, minutes(rows.unsigned_abs()));
        }
        let first = occupy(&pool);
        // What waits now is a run of nothing, as far as anybody knows.
        pool.lock()
            .running
            .iter_mut()
            .flatten()
            .for_each(|it| it.predicted = Duration::ZERO);
        let waiting: Vec<_> = soon
            .into_iter()
            .zip(others)
            .map(|(soon, tenant)| {
                let mut ask = ask(one(1.0, "x"), vec![0], tenant);
                ask.deadline = soon.map(|it| Instant::now() + Duration::from_secs(it));
                pool.submit(ask).unwrap()
            })
            .collect();
        drop(open);
        ran(first);
        let together = waiting.into_iter().map(|it| ran(it).together);
        together.collect::<Vec<_>>()
    };
    let (a, b) = (b"a".as_slice(), b"b".as_slice());
    assert_eq!(deadlines([None; 4], [a; 4]), [4; 4]);
    // The first has time for two (and not for three).
    assert_eq!(deadlines([Some(160), None, None, None], [a; 4]), [2; 4]);
    // The third, of somebody else, has time for two before it.
    assert_eq!(
        deadlines([None, None, Some(220), None], [a, a, b, a]),
        [2, 2, 1, 1]
    );
}

#[test]
fn whatever_comes_in_whatever_order_each_answer_is_that_of_its_request_alone() {
    let mut random = fastrand::Rng::with_seed(11);
    let (pool, open) = pool(Model::Rows, 8);
    teach(&pool, false);
    let first = occupy(&pool);
    let mut waiting = vec![];
    for _ in 0..400 {
        let rows = random.usize(1..4);
        let inputs = vec![
            data(&mut random, Datatype::Fp32, rows, &[2]),
            data(&mut random, Datatype::Bytes, rows, &[]),
        ];
        let outputs = [vec![0], vec![1], vec![0, 1], vec![1, 0]][random.usize(..4)].clone();
        let tenant = [b"a".as_slice(), b"b", b""][random.usize(..3)];
        let expected = compute(Model::Rows, &inputs, &outputs).unwrap();
        waiting.push((pool.submit(ask(inputs, outputs, tenant)).unwrap(), expected));
    }
    drop(open);
    ran(first);
    let mut most = 0;
    for (waiting, expected) in waiting {
        let ran = ran(waiting);
        assert_eq!(ran.outputs, expected);
        most = most.max(ran.together);
    }
    assert!(most > 1, "nothing ran together");
}
