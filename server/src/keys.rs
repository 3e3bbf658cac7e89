//! The publish key: who holds it may go live.
//!
//! Made on first start and kept in `data_dir/publish_key`; a configured `auth.publish_key` wins over the kept
//! one. Which one is in force while a node runs says `keeper.rs`. Invariant: the text of a key leaves this module only through
//! [`PublishKey::expose`], which only `tidecast keys` calls, and whoever compares it or hashes it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use subtle::ConstantTimeEq;

/// Digits of a generated key: lower case without `i l o u`, which are misread when a key is typed over.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 26 digits of 5 bits: the first length that holds 128 bits.
const GENERATED_CHARS: usize = 26;
const _: () = assert!(GENERATED_CHARS * DIGITS.len().ilog2() as usize >= 128);
/// Shortest configured key. 16 random letters and digits hold 95 bits; shorter ones are guessed online.
const KEY_CHARS_MIN: usize = 16;
/// Longest configured key: more adds no safety, and encoders cut long stream keys off.
const KEY_CHARS_MAX: usize = 128;

/// A secret that allows publishing. Has no `Debug` and no `Display`, so that it cannot reach a log, an error or
/// a metric.
#[derive(Clone)]
pub(crate) struct PublishKey(String);

impl PublishKey {
    /// # Errors
    /// Says in words what is wrong, without repeating the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // RFC 3986 §2.3: the characters that stand for themselves in a URL query, where RTMP encoders put the key.
        let unreserved = |char: char| char.is_ascii_alphanumeric() || "-._~".contains(char);
        if !text.chars().all(unreserved) {
            return Err("has a character that a URL query would change".to_owned());
        }
        if !(KEY_CHARS_MIN..=KEY_CHARS_MAX).contains(&text.len()) {
            return Err(format!("has {} characters", text.len()));
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn generate() -> anyhow::Result<Self> {
        let mut random = [0_u8; GENERATED_CHARS];
        getrandom::fill(&mut random).context("the system gives no random bytes for a publish key")?;
        // 256 is a multiple of 32, so every digit is equally likely.
        Ok(Self(random.iter().map(|byte| char::from(DIGITS[usize::from(byte % 32)])).collect()))
    }

    /// Whether `given` is the key. How long this takes tells nothing about the key but its length, which is no
    /// secret for a generated one.
    pub(crate) fn verify(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// The key itself, for the operator who asks for it, and to be compared or hashed; never for a log.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// Where the key is kept when none is configured.
pub(crate) struct KeyFile {
    data_dir: PathBuf,
    path: PathBuf,
}

/// A key, and whether it was made just now.
pub(crate) struct Loaded {
    pub(crate) key: PublishKey,
    pub(crate) is_new: bool,
}

impl KeyFile {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), path: data_dir.join("publish_key") }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The kept key, or `None` if none was made yet.
    ///
    /// # Errors
    /// If the file cannot be read, if others may read it, or if it holds no key.
    pub(crate) fn read(&self) -> anyhow::Result<Option<PublishKey>> {
        let path = self.path.display();
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read the publish key in {path}"));
            }
        };
        let mode =
            file.metadata().with_context(|| format!("cannot examine {path}"))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            bail!(
                "other users may read or change the publish key in {path} (mode {mode:04o}): make a new one with \
                 `tidecast keys new`, or, if nobody can have seen it, keep it with `chmod 600 {path}`"
            );
        }
        let mut text = String::new();
        // One byte more than the longest key and its line end, so that a longer file is refused, not cut.
        file.take(KEY_CHARS_MAX as u64 + 2)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read the publish key in {path}"))?;
        match PublishKey::parse(text.trim_end_matches('\n')) {
            Ok(key) => Ok(Some(key)),
            Err(what) => {
                bail!("{path} holds no publish key (it {what}): make a new one with `tidecast keys new`")
            }
        }
    }

    /// The kept key; on the first start, makes it.
    pub(crate) fn read_or_make(&self) -> anyhow::Result<Loaded> {
        // Held until the key is on disk: of two processes starting at once, the second reads what the first made.
        let _lock = self.lock()?;
        if let Some(key) = self.read()? {
            return Ok(Loaded { key, is_new: false });
        }
        let key = PublishKey::generate()?;
        self.write(&key)?;
        Ok(Loaded { key, is_new: true })
    }

    /// Makes a new key in place of whatever was kept.
    pub(crate) fn replace(&self) -> anyhow::Result<PublishKey> {
        let _lock = self.lock()?;
        let key = PublishKey::generate()?;
        self.write(&key)?;
        Ok(key)
    }

    /// Makes the data directory where it is missing, private to this user, and locks it against other
    /// `tidecast` processes for as long as the result lives.
    fn lock(&self) -> anyhow::Result<File> {
        let dir = self.data_dir.display();
        DirBuilder::new().recursive(true).mode(0o700).create(&self.data_dir).with_context(|| {
            format!("cannot make {dir}: set data_dir (TIDECAST__DATA_DIR) to a directory this user may write")
        })?;
        let handle = File::open(&self.data_dir).with_context(|| format!("cannot open data_dir {dir}"))?;
        handle.lock().with_context(|| format!("cannot lock data_dir {dir}"))?;
        Ok(handle)
    }

    /// All or nothing: after a crash or a power failure at any point the file holds the old key or the new one.
    fn write(&self, key: &PublishKey) -> anyhow::Result<()> {
        let write = || -> io::Result<()> {
            let unfinished = self.path.with_extension("new");
            // Left by a crash, perhaps with other permissions: `mode` below only counts for a file that is made.
            match fs::remove_file(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            writeln!(file, "{}", key.0)?;
            file.sync_all()?;
            fs::rename(&unfinished, &self.path)?;
            File::open(&self.data_dir)?.sync_all()
        };
        write().with_context(|| format!("cannot keep the publish key in {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn first_start_makes_a_private_key_and_the_next_start_finds_it() {
        let home = tempfile::tempdir().unwrap();
        let data_dir = home.path().join("share/tidecast");
        let file = KeyFile::new(&data_dir);
        assert!(file.read().unwrap().is_none());

        let first = file.read_or_make().unwrap();
        assert!(first.is_new);
        assert_eq!(mode(&data_dir), 0o700);
        assert_eq!(mode(file.path()), 0o600);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1, "nothing unfinished stays");

        let second = KeyFile::new(&data_dir).read_or_make().unwrap();
        assert!(!second.is_new);
        assert!(second.key.verify(first.key.expose()));
    }

    #[test]
    fn a_new_key_takes_the_place_of_the_old_one() {
        let home = tempfile::tempdir().unwrap();
        let file = KeyFile::new(home.path());
        let old = file.read_or_make().unwrap().key;
        let new = file.replace().unwrap();
        assert!(!new.verify(old.expose()));
        assert!(file.read().unwrap().unwrap().verify(new.expose()));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_until_it_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let file = KeyFile::new(home.path());
        let key = file.read_or_make().unwrap().key;
        fs::set_permissions(file.path(), PermissionsExt::from_mode(0o640)).unwrap();

        let error = format!("{:#}", file.read_or_make().err().unwrap());
        assert!(error.contains("mode 0640") && error.contains("chmod 600"), "{error}");
        assert!(!error.contains(key.expose()));

        file.replace().unwrap();
        assert_eq!(mode(file.path()), 0o600);
        file.read_or_make().unwrap();
    }

    #[test]
    fn a_crash_while_writing_leaves_nothing_that_harms() {
        let home = tempfile::tempdir().unwrap();
        let unfinished = home.path().join("publish_key.new");
        fs::write(&unfinished, "half a k").unwrap();
        let file = KeyFile::new(home.path());
        file.read_or_make().unwrap();
        assert_eq!(mode(file.path()), 0o600);
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_damaged_file_is_an_error_not_a_new_key() {
        let home = tempfile::tempdir().unwrap();
        let file = KeyFile::new(home.path());
        let long = "k".repeat(KEY_CHARS_MAX + 1);
        for damaged in ["", "\n", "short", "two\nlines-of-sixteen-characters", long.as_str()] {
            file.replace().unwrap();
            fs::write(file.path(), damaged).unwrap();
            let error = format!("{:#}", file.read_or_make().err().unwrap());
            assert!(error.contains("holds no publish key"), "{damaged:?}: {error}");
        }
    }

    #[test]
    fn generated_keys_differ_and_pass_for_configured_ones() {
        let keys: HashSet<String> =
            (0..1000).map(|_| PublishKey::generate().unwrap().expose().to_owned()).collect();
        assert_eq!(keys.len(), 1000);
        for key in &keys {
            assert_eq!(key.len(), GENERATED_CHARS);
            assert!(PublishKey::parse(key).is_ok());
        }
    }

    /// Threat 21: a key in a log. Does not compile once a key has a `Debug` or a `Display`: then two traits fit here.
    #[test]
    fn a_key_cannot_be_printed() {
        trait Fits<Why> {
            fn fits() {}
        }
        struct Prints;
        struct Shows;
        impl<T> Fits<()> for T {}
        impl<T: std::fmt::Debug> Fits<Prints> for T {}
        impl<T: std::fmt::Display> Fits<Shows> for T {}
        <PublishKey as Fits<_>>::fits();
    }

    /// Threat 26: how long a wrong key takes tells how much of it is right. Whoever compares no further than needed is as
    /// fast with a long key as with a short one.
    #[test]
    fn a_key_is_compared_to_its_end_wherever_it_is_wrong() {
        let fastest = |chars: usize, wrong_at: usize| {
            let right = "k".repeat(chars);
            let key = PublishKey::parse(&right).unwrap();
            let wrong = [&right[..wrong_at], "w", &right[wrong_at + 1..]].concat();
            let batch = || {
                let start = Instant::now();
                for _ in 0..100 {
                    assert!(!black_box(&key).verify(black_box(&wrong)));
                }
                start.elapsed()
            };
            // Whatever else this machine does makes some of them slower, and none faster.
            (0..300).map(|_| batch()).min().unwrap()
        };
        let short = fastest(KEY_CHARS_MIN, 0);
        let (early, late) = (fastest(KEY_CHARS_MAX, 0), fastest(KEY_CHARS_MAX, KEY_CHARS_MAX - 1));
        assert!(early > 2 * short, "{early:?} for a long key, {short:?} for a short one");
        assert!(
            early < 2 * late && late < 2 * early,
            "{early:?} at its first character, {late:?} at its last"
        );
    }

    #[test]
    fn only_the_key_itself_is_accepted() {
        let key = PublishKey::parse("0123456789abcdef").unwrap();
        assert!(key.verify("0123456789abcdef"));
        for wrong in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcdef\0"] {
            assert!(!key.verify(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn keys_that_are_short_or_change_in_a_url_are_refused_without_repeating_them() {
        let long = "k".repeat(KEY_CHARS_MAX + 1);
        for wrong in
            ["", "fifteen-letters", "sixteen&letters&", "sixteen letters ", "sechzehn-zeichén", &long]
        {
            let what = PublishKey::parse(wrong).err().unwrap();
            assert!(wrong.is_empty() || !what.contains(wrong), "{what}");
        }
        assert!(PublishKey::parse("sixteen-._~chars").is_ok());
    }
}
