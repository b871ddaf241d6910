//! The request path. It reads downwards, and this is all of it.
//!
//! Each stage takes the proof that the stage before it left (`Admitted`, `Routed`,
//! `Authenticated`, `Limited`, `Permitted`, `Inspected`), and only that stage can make one: a stage left out does not
//! compile. The record is open before the first stage and closes after the last byte.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;

use http::header::EXPECT;
use http::request::Parts;
use http::{Request, Response, Version};
use hyper::body::Incoming;

use crate::body::{Content, ResponseBody, Unread};
use crate::call;
use crate::challenge;
use crate::lease::Lease;
use crate::node::{Connection, Held, Node};
use crate::record::Record;
use crate::refusal::{Cause, Refusal, Stage};
use crate::stages::{admit, authenticate, authorize, execute, inspect, limit, respond, route};
use crate::streams::Handing;

/// Answers one request; `handing` is told what of the answer the client has.
pub async fn serve(
    node: &Arc<Node>,
    connection: &Arc<Connection>,
    handing: Option<Arc<Handing>>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    connection.answering.begin();
    let (parts, body) = request.into_parts();
    let mut record = Box::new(Record::open(connection, &parts));
    let body = Unread::new(body, parts.version, connection);
    let version = parts.version;
    let is_expecting = parts.headers.contains_key(EXPECT);
    let mut held = Held {
        handing,
        ..Held::default()
    };
    let mut response = match follow(node, &mut record, &mut held, parts, body).await {
        Ok(response) => respond::answer(record, held, response),
        Err(refusal) => respond::refuse(record, held, refusal),
    };
    if version < Version::HTTP_2 {
        let goes_on = Unread::settle(connection, is_expecting).await;
        if !goes_on || node.is_leaving() {
            respond::close_after(&mut response);
        }
    }
    response
}

async fn follow(
    node: &Arc<Node>,
    record: &mut Record,
    held: &mut Held,
    parts: Parts,
    mut body: Unread,
) -> Result<Response<Content>, Refusal> {
    // In this order: what leaves the one is in the other by then.
    let ahead = node.ahead.known();
    let believed = node.dir.svids().number();
    let plan = node.plan().ok_or(Cause::NoSnapshot)?;
    record.snapshot = Some(Arc::clone(&plan.digest));

    let admitted = admit::admit(node, &plan, record, held, parts)?;
    let admitted = match challenge::take_answer(&plan, record, admitted) {
        ControlFlow::Continue(admitted) => admitted,
        ControlFlow::Break(answered) => return answered,
    };
    record.passed(Stage::Admit);

    let routed = route::route(&plan, record, admitted)?;
    record.passed(Stage::Route);

    let svids = node.dir.svids();
    let authenticated = authenticate::authenticate(&plan, svids, &ahead, record, routed)?;
    let authenticated = call::lead(node, &plan, record, authenticated, &mut body).await?;
    record.passed(Stage::Authenticate);

    let limited = limit::limit(node, &plan, record, held, authenticated)?;
    record.passed(Stage::Limit);

    let permitted = authorize::authorize(node, &plan, record, limited)?;
    record.passed(Stage::Authorize);
    held.lease = Lease::granted(&plan, &ahead, believed, record, &permitted);

    let target = Arc::clone(permitted.target());
    // Each is pinned where it is made: to move what a guest's call takes costs a microsecond.
    let (inspected, inspection) = held
        .lease
        .within(pin!(inspect::inspect(
            node, &plan, &target, record, permitted, body
        )))
        .await?;
    record.passed(Stage::Inspect);

    let executed = held
        .lease
        .within(pin!(execute::execute(node, &plan, record, inspected)))
        .await;
    let response = match executed {
        Ok(response) => response,
        Err(refusal) => {
            inspection.end(record);
            return Err(refusal);
        }
    };
    record.passed(Stage::Execute);

    inspect::answer(record, inspection, response).await
}
