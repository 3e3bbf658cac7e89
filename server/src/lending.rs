//! What other nodes are answered on the relay's port: an encoder, where one is asked for, what an operator wants to know, and else what
//! the relay has.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use media::NodeId;
use origin::Relay;
use relay::server::{Body, Service, full};
use relay::wire::{ENCODE, PATH_PREFIX, STREAMS};
use tracing::debug;
use transcode::Refused;
use transcode::workers::protocol;

use crate::offer::Offer;
use crate::paths::Here;
use crate::transcoding::Transcoding;

pub(crate) struct ForNodes {
    relay: Relay<Offer>,
    /// `None` on a node that does not encode.
    transcoding: Option<Arc<Transcoding>>,
    here: Here,
}

impl ForNodes {
    pub(crate) fn new(relay: Relay<Offer>, transcoding: Option<Arc<Transcoding>>, here: Here) -> Self {
        Self { relay, transcoding, here }
    }

    fn streams(&self) -> Response<Body> {
        let legs = serde_json::to_vec(&self.here.legs()).expect("legs are strings, numbers and lists");
        let mut response = Response::new(full(legs));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// # Errors
    /// Why not, for whoever asked.
    fn lend(
        &self,
        borrower: &NodeId,
        mut request: Request<()>,
    ) -> Result<Response<Body>, (StatusCode, String)> {
        let spoken = protocol();
        if request.method() != Method::POST {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "an encoder is asked for by POST".to_owned()));
        }
        if request.headers().get(UPGRADE).is_none_or(|theirs| theirs.as_bytes() != spoken.as_bytes()) {
            let words = format!("this node speaks {spoken}: bring both to the same release");
            return Err((StatusCode::UPGRADE_REQUIRED, words));
        }
        let query = request.uri().query().unwrap_or_default();
        let cost = query.strip_prefix("cost=").and_then(|cost| cost.parse::<f64>().ok());
        let cost = cost.filter(|cost| cost.is_finite() && *cost >= 0.0);
        let cost = cost.ok_or_else(|| (StatusCode::BAD_REQUEST, "no cost in cores".to_owned()))?;
        let lender = self.transcoding.as_ref().and_then(|transcoding| transcoding.lender());
        let lender = lender
            .ok_or_else(|| (StatusCode::NOT_IMPLEMENTED, "no encoder works on this node".to_owned()))?;
        let room = lender.admit(cost).map_err(|why| {
            let status = match why {
                Refused::Full => StatusCode::SERVICE_UNAVAILABLE,
                Refused::Leaving => StatusCode::GONE,
            };
            (status, why.to_string())
        })?;
        let (lender, borrower) = (lender.clone(), borrower.clone());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            match upgrade.await {
                Ok(connection) => lender.lend(borrower, TokioIo::new(connection), room).await,
                Err(error) => debug!(node.id = %borrower, %error, "gone before it got its encoder"),
            }
        });
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Ok(spoken) = HeaderValue::try_from(spoken) {
            response.headers_mut().insert(UPGRADE, spoken);
        }
        Ok(response)
    }
}

impl Service for ForNodes {
    async fn respond(&self, node: &NodeId, request: Request<()>) -> Response<Body> {
        match request.uri().path().strip_prefix(PATH_PREFIX) {
            Some(ENCODE) => {}
            Some(STREAMS) if request.method() == Method::GET => return self.streams(),
            _ => return self.relay.respond(node, request).await,
        }
        self.lend(node, request).unwrap_or_else(|(status, words)| {
            let mut response = Response::new(full(words));
            *response.status_mut() = status;
            response
        })
    }
}
