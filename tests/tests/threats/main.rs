//! What strangers do, as a whole process: each test is named after its threat and fails when its defence is off. README.md
//! beside this says which test, here or beside the code, fails without which defence.
//!
//! Bounded in time and count, and on loopback only; a stranger's addresses are those of 127.0.0.0/8. Each reads what
//! an operator would: metrics, the log, and the process in /proc.

mod addresses;
mod crowds;
mod parsers;
mod scene;
mod secrets;
mod stamps;
