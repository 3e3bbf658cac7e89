//! Answers, on the relay's port, those who ask for certificates, and whom the cluster trusts.

use std::net::IpAddr;
use std::time::Instant;

use http::StatusCode;
use media::NodeId;
use net::{Guesses, Throttle};
use relay::server::{Answer, Desk};
use tracing::{error, info, warn};

use crate::authority::{ClusterFiles, LetInError, TokenError};

/// The desk of this node.
pub(crate) struct FrontDesk {
    files: ClusterFiles,
    /// Wrong tokens, by address.
    guesses: Guesses,
    refusals: Throttle,
}

impl FrontDesk {
    pub(crate) fn new(files: ClusterFiles) -> Self {
        Self { files, guesses: Guesses::default(), refusals: Throttle::sparse() }
    }

    fn refuse(&self, who: &dyn std::fmt::Display, why: &LetInError) -> Answer {
        let status = match why {
            LetInError::Malformed(_) => StatusCode::BAD_REQUEST,
            LetInError::Taken(_) | LetInError::Nameless | LetInError::OtherName(_) => StatusCode::CONFLICT,
            LetInError::Token(_) | LetInError::Revoked(_) => StatusCode::FORBIDDEN,
            LetInError::Failed(error) => {
                error!("cannot make a certificate for {who}: {error:#}");
                return Answer { status: StatusCode::INTERNAL_SERVER_ERROR, text: why.to_string() };
            }
        };
        if let Some(more) = self.refusals.pass(Instant::now()) {
            info!(more, "refused a certificate to {who}: {why}");
        }
        Answer { status, text: why.to_string() }
    }
}

impl Desk for FrontDesk {
    fn lets_in(&self) -> bool {
        self.files.has_authority()
    }

    fn join(&self, peer: IpAddr, request: &str) -> Answer {
        let is_wrong = |let_in: &Result<_, LetInError>| {
            matches!(let_in, Err(LetInError::Token(TokenError::Unknown) | LetInError::Malformed(_)))
        };
        match self.guesses.attempt(peer, Instant::now(), || self.files.let_in(request), is_wrong) {
            Ok(Ok((node, granted))) => {
                info!("let {node} into the cluster, from {peer}");
                Answer { status: StatusCode::OK, text: granted }
            }
            Ok(Err(why)) => self.refuse(&peer, &why),
            Err(too_many) => Answer { status: StatusCode::TOO_MANY_REQUESTS, text: too_many.to_string() },
        }
    }

    fn renew(&self, node: &NodeId, request: &str) -> Answer {
        if !self.files.has_authority() {
            let text = "the cluster's authority is not here".to_owned();
            return Answer { status: StatusCode::NOT_FOUND, text };
        }
        match self.files.renew(node, request) {
            Ok(granted) => {
                info!("renewed the certificate of {node}");
                Answer { status: StatusCode::OK, text: granted }
            }
            Err(why) => self.refuse(node, &why),
        }
    }

    fn trust(&self) -> Answer {
        match self.files.trust() {
            Ok(Some(signed)) => Answer { status: StatusCode::OK, text: signed.text },
            Ok(None) => Answer { status: StatusCode::NOT_FOUND, text: String::new() },
            Err(error) => {
                warn!("{error:#}");
                Answer { status: StatusCode::INTERNAL_SERVER_ERROR, text: String::new() }
            }
        }
    }
}
