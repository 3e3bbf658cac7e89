//! Randomness that is drawn once more, for a connection that takes the place of another.
//!
//! `rtc` draws a connection's ICE credentials when it is built, and new ones at each ICE restart. If it is told the first ones outright
//! it has those at every restart too, which no client takes for one (RFC 8839, §4.4.1.1.1). So the second connection is not told them,
//! but draws what the first has drawn while it was built, and from then on what nobody has drawn before.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use webrtc_core::crypto::{CryptoError, RTCCrypto, RTCCryptoProvider, RTCRandom, default_provider};

pub(super) struct Recall {
    provider: Arc<dyn RTCCryptoProvider>,
    state: Mutex<State>,
}

enum State {
    Recording(Vec<u8>),
    Repeating(VecDeque<u8>),
    /// New randomness, of which nothing is kept.
    Over,
}

impl Recall {
    /// Keeps what is drawn, until [`Recall::end`].
    pub(super) fn recording() -> Result<Self, CryptoError> {
        Ok(Self { provider: default_provider()?, state: Mutex::new(State::Recording(Vec::new())) })
    }

    /// Draws the same, until [`Recall::end`].
    pub(super) fn repeating(drawn: Vec<u8>) -> Result<Self, CryptoError> {
        Ok(Self { provider: default_provider()?, state: Mutex::new(State::Repeating(drawn.into())) })
    }

    /// What was recorded.
    pub(super) fn end(&self) -> Vec<u8> {
        match std::mem::replace(&mut *self.lock(), State::Over) {
            State::Recording(drawn) => drawn,
            State::Repeating(_) | State::Over => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody who holds it can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RTCCryptoProvider for Recall {
    fn name(&self) -> &'static str {
        self.provider.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        self.provider.crypto()
    }

    fn random(&self) -> &dyn RTCRandom {
        self
    }
}

impl RTCRandom for Recall {
    fn fill(&self, output: &mut [u8]) -> Result<(), CryptoError> {
        let mut state = self.lock();
        if let State::Repeating(drawn) = &mut *state
            && drawn.len() >= output.len()
        {
            for byte in output {
                *byte = drawn.pop_front().unwrap_or_default();
            }
            return Ok(());
        }
        self.provider.random().fill(output)?;
        if let State::Recording(drawn) = &mut *state {
            drawn.extend_from_slice(output);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(recall: &Recall, bytes: usize) -> Vec<u8> {
        let mut drawn = vec![0; bytes];
        recall.fill(&mut drawn).unwrap();
        drawn
    }

    #[test]
    fn what_was_drawn_is_drawn_once_more_and_then_no_more() {
        let first = Recall::recording().unwrap();
        let drawn = [draw(&first, 8), draw(&first, 16)].concat();
        let kept = first.end();
        assert_eq!(kept, drawn);
        assert!(draw(&first, 16) != drawn[8..] && first.end().is_empty());
        let second = Recall::repeating(kept.clone()).unwrap();
        assert_eq!([draw(&second, 8), draw(&second, 16)].concat(), drawn);
        assert_ne!(draw(&second, 16), drawn[8..]);
        let ended = Recall::repeating(kept).unwrap();
        ended.end();
        assert_ne!(draw(&ended, 8), drawn[..8]);
    }
}
