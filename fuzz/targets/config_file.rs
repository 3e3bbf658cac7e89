//! The configuration belongs to a binary, which no other crate can name. Its files are compiled in here once more, rather
//! than made a library of their own for this one reader.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the binary's other modules use what the target does not")]

#[path = "../../server/src"]
mod server {
    pub(super) mod config;
    pub(super) mod descriptors;
    pub(super) mod keys;
}

// Where they find each other in the binary.
use server::{config, descriptors, keys};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    config::fuzzing::file(bytes);
});
