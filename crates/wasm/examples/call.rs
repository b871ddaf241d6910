//! What a call of a function costs without gateway and network: CPU time on one thread.
//!
//! `cargo run --release --locked --workspace --example call -- COMPONENT [CALLS [ROUNDS]]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use vedette_wasm::{
    BodyError, Call, FunctionSpec, Limits, LogSink, Outbound, OutboundAnswer, OutboundCall,
    Runtime, RuntimeOptions, Stream, precompile,
};

struct Nothing;

impl LogSink for Nothing {
    fn line(&self, _: &http::HeaderValue, _: Stream, _: &[u8]) {}
}

impl Outbound for Nothing {
    fn send(&self, _: OutboundCall) -> OutboundAnswer {
        Box::pin(async { Err(BodyError::HttpRequestDenied) })
    }

    fn may_ask(&self, _: &http::HeaderValue, _: &str) -> Result<(), BodyError> {
        Err(BodyError::HttpRequestDenied)
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let component = std::fs::read(arguments.next().unwrap_or_default())?;
    let calls: u32 = arguments.next().map_or(Ok(20_000), |it| it.parse())?;
    let rounds: usize = arguments.next().map_or(Ok(9), |it| it.parse())?;
    let compiled = precompile(&component).map_err(|error| anyhow::anyhow!("{error}"))?;
    let path = std::env::temp_dir().join(format!("measure-{}.cwasm", std::process::id()));
    std::fs::write(&path, compiled)?;
    let runtime = Runtime::new(&RuntimeOptions { max_instances: 100 })?;
    let limits = Limits {
        cpu: Duration::from_secs(1),
        wall: Duration::from_secs(5),
        memory_bytes: 64 << 20,
        response_bytes: 1 << 20,
        request_bytes: 1 << 20,
    };
    let function = runtime.load(&path, Arc::new(FunctionSpec::new([], [], limits)));
    let function = function.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    std::fs::remove_file(&path)?;
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let started = Instant::now();
        tokio.block_on(async {
            for _ in 0..calls {
                let nothing = Empty::new().map_err(|never| match never {});
                let call = Call {
                    request: http::Request::get("http://localhost/hello")
                        .header("user-agent", "measure")
                        .body(nothing.boxed_unsync())?,
                    log: Arc::new(Nothing),
                    outbound: Arc::new(Nothing),
                    request_id: http::HeaderValue::from_static("measure"),
                    permit: Box::new(()),
                };
                let answer = tokio::task::unconstrained(function.call(call)).await;
                let answer = answer.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
                answer
                    .into_body()
                    .collect()
                    .await
                    .map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
            }
            anyhow::Ok(())
        })?;
        costs.push(started.elapsed() / calls);
    }
    costs.sort_unstable();
    let median = costs.get(rounds / 2).copied().unwrap_or_default();
    println!(
        "{:.2} µs a call [{:.2} to {:.2}]",
        micros(median),
        micros(costs.first().copied().unwrap_or_default()),
        micros(costs.last().copied().unwrap_or_default())
    );
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
