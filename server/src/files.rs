//! Small files that are written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Read by its own user only.
pub(crate) const PRIVATE: u32 = 0o600;
pub(crate) const PUBLIC: u32 = 0o644;

/// Makes `dir` where it is missing, private to this user.
///
/// # Errors
/// From the system.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// After a crash or a power failure at any point the file holds the old text or the new one.
///
/// # Errors
/// From the system.
pub(crate) fn write_whole(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    // Beside the whole name: a certificate and its key differ in the extension alone.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    // Left by a crash, perhaps with other permissions: `mode` below only counts for a file that is made.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// # Errors
/// From the system, and if the file has more than `bytes_max`.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has more than {bytes_max} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_written_whole_and_what_a_crash_left_behind_does_no_harm() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.pem");
        fs::write(home.path().join("a.pem.new"), "half of").unwrap();
        write_whole(&path, PRIVATE, "all of it").unwrap();
        assert_eq!(read_bounded(&path, 9).unwrap(), b"all of it");
        assert!(read_bounded(&path, 8).is_err());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing unfinished stays");
    }
}
