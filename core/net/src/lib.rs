//! What every listener on the open internet shares, whatever it speaks.
//!
//!   socket.rs binds or adopts ─▶ accept.rs takes whoever has a place (places.rs) ─▶ tls.rs, where it is encrypted ─▶ the
//!   role's driver, over a stream that cuts off who is too slow (paced.rs on pace.rs; streams.rs where one connection
//!   carries many requests), in a task whose panic ends it alone (contain.rs)
//!
//! Beside them: `guesses.rs`, the back-off of those who guess publish keys, and `throttle.rs`, a bound on lines in the log.
//! Pure, with time as an argument: `address.rs`, `pace.rs`, `throttle.rs`, `tls/certificate.rs`, and what `guesses.rs` locks.

mod accept;
mod address;
mod contain;
mod guesses;
mod pace;
mod paced;
mod places;
mod socket;
mod streams;
mod throttle;
pub mod tls;

pub use accept::{Accepted, Acceptor};
pub use address::accountable;
pub use contain::{Panicked, contain};
pub use guesses::{Guesses, TooManyGuesses};
pub use pace::TooSlow;
pub use paced::{Paced, Requests};
pub use places::{Full, Limits, Place, Places};
pub use socket::{Options, adopt, bind};
pub use streams::{Ended, OpenStream, Owed, Streams};
pub use throttle::Throttle;
