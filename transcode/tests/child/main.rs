//! Children of the real `tidecast-encoder`, and of programs that are worse.

#[path = "../../encoder/tests/encoder/clip.rs"]
#[expect(dead_code, reason = "the tests of the encoder use more of it")]
mod clip;
mod hostile;
mod lent;
mod life;
mod process;
mod support;
