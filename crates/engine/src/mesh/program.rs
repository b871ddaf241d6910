//! Calls into the mesh of a program that `vedette run` has started: its sidecar is the one of its name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::Request;
use http::Response;
use http::header::PROXY_AUTHORIZATION;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::{Side, Sidecar};
use crate::body::ResponseBody;
use crate::connection::of_program;
use crate::node::Node;
use crate::pipeline;

/// Answers one call of the program of that name to a host of the mesh. Protocols are not changed here.
pub async fn call(
    node: &Arc<Node>,
    workload: &str,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let sidecar = Sidecar::new(workload, Side::Outbound);
    // In the box there is nobody but the program.
    let place = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let connection = of_program(node, &sidecar, place);
    request.headers_mut().remove(PROXY_AUTHORIZATION);
    request.extensions_mut().remove::<OnUpgrade>();
    pipeline::serve(node, &connection, None, request).await
}
