//! A publish key on its way to the check.

/// A publish key. Has no `Debug` and no `Display`, so that it cannot reach a log, an error or a metric:
///
/// ```compile_fail,E0277
/// let key = tidecast_ingest::Secret::new("canary".to_owned());
/// println!("{key:?}");
/// ```
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The key itself, for comparing it; never for text that leaves the process.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
