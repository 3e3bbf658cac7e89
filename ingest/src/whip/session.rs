//! What a WHIP session knows of its publisher's ICE, and what a PATCH does to it (RFC 9725, §4.3). Pure.

use rtc::signalling::{Condition, Fragment};

use super::offer::Offer;

/// ICE generations are told apart by their number; the id is the session's.
pub(super) struct Session {
    offer: Offer,
    generation: u32,
}

/// What a fragment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Patch {
    /// Candidates, which we do not need.
    Trickle,
    /// New credentials: this is the offer now.
    Restart(Box<Offer>),
}

/// Why a PATCH is not done. The publisher must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatchError {
    /// 428
    #[error("If-Match is missing: name the ETag of the session, or * to restart ICE")]
    Unconditional,
    /// 412
    #[error("If-Match does not name the session's ETag: its ICE was restarted meanwhile")]
    OutOfDate,
}

impl Session {
    pub(super) fn new(offer: Offer) -> Self {
        Self { offer, generation: 1 }
    }

    /// Strong (RFC 9725, §4.3.1).
    pub(super) fn etag(&self) -> String {
        format!("\"ice-{}\"", self.generation)
    }

    /// # Errors
    /// [`PatchError`], in words meant for the publisher.
    pub(super) fn patch(&self, condition: &Condition, fragment: &Fragment) -> Result<Patch, PatchError> {
        if *condition == Condition::Missing {
            return Err(PatchError::Unconditional);
        }
        if !condition.holds(&self.etag()) {
            return Err(PatchError::OutOfDate);
        }
        if fragment.ufrag == self.offer.ufrag() {
            return Ok(Patch::Trickle);
        }
        Ok(Patch::Restart(Box::new(self.offer.restarted(&fragment.ufrag, &fragment.password))))
    }

    /// ICE was restarted with this offer.
    pub(super) fn restarted(&mut self, offer: Offer) {
        self.offer = offer;
        self.generation += 1;
    }

    /// For the fragment that answers a restart.
    pub(super) fn transport_section(&self) -> String {
        self.offer.transport_section()
    }
}

#[cfg(test)]
mod tests {
    use super::super::offer::tests::CHROMIUM;
    use super::*;

    fn fragment(ufrag: &str) -> Fragment {
        Fragment { ufrag: ufrag.to_owned(), password: "p".repeat(24) }
    }

    #[test]
    fn candidates_and_restarts_are_told_apart_and_conditional() {
        let mut session = Session::new(Offer::parse(CHROMIUM.as_bytes(), true).unwrap());
        let (same, new) = (fragment(session.offer.ufrag()), fragment("new0"));
        let tags = |tags: &str| Condition::Tags(tags.to_owned());
        assert_eq!(session.patch(&Condition::Missing, &same), Err(PatchError::Unconditional));
        assert_eq!(session.patch(&tags("\"other\""), &same), Err(PatchError::OutOfDate));
        let etag = session.etag();
        assert_eq!(session.patch(&tags(&format!("\"x\", {etag}")), &same), Ok(Patch::Trickle));
        let Ok(Patch::Restart(offer)) = session.patch(&Condition::Any, &new) else { panic!("no restart") };
        assert_eq!(offer.ufrag(), "new0");
        assert!(offer.reduced().contains(&format!("a=ice-pwd:{}", new.password)));
        session.restarted(*offer);
        assert_eq!(session.patch(&tags(&etag), &same), Err(PatchError::OutOfDate));
        assert_eq!(session.patch(&tags(&session.etag()), &new), Ok(Patch::Trickle));
    }
}
