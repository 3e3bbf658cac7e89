//! The service from both ends: a packager pushes parts, viewers ask for them.

#![allow(clippy::unwrap_used, reason = "the exception for tests does not reach the helpers of a test crate")]

mod delivery;
mod delta;
mod fixture;
mod inventory;
mod ladder;
mod reload;
mod remote;
mod rules;
mod sequence;
mod sessions;
